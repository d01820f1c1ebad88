"""Photos -> aligned faces: ``python -m export.prepare PHOTOS OUT``.

PHOTOS is any folder of pictures; a ``faces.csv`` in it (columns file, source, person, split, licence, origin) adds
sources and a split by person, otherwise every file is its own person and one in twelve is held out. A face is stored
on a canvas 1.5 times the network's crop, so that training can shift, turn and scale it and codecs see its surroundings.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from export.journal import Journal
from export.runs import run_command, write_atomic
from idm_rt.errors import ConfigError
from idm_rt.geometry import CROP_SIZE, align_matrix, crop_face, scale_of
from idm_rt.landmarks import five_points
from idm_rt.model_store import find_landmarker
from idm_rt.tracking import FaceTracker, TrackerOptions, open_tracker
from idm_rt.types import FaceTrack, FloatArray, RgbImage

log = logging.getLogger(__name__)

CANVAS_SIZE = CROP_SIZE * 3 // 2  # 384: the crop and a margin of a quarter crop on each side
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """Which faces are good enough to learn from."""

    min_photo_px: float = 200.0  # side of the aligned crop inside the photo
    max_yaw_deg: float = 50.0
    min_sharpness: float = 6.5  # see ``sharpness``


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """One line of ``faces.jsonl``."""

    file: str  # PNG below the data set's folder
    photo: str  # the photo it was cut from
    source: str
    person: str
    split: str  # train or val, by person
    licence: str
    photo_px: float  # side of the aligned crop inside the photo
    yaw_deg: float
    sharpness: float
    origin: str = ""  # where the photo comes from, for attribution
    restored_by: tuple[str, ...] = ()  # SHA-256 of the checkpoints that restored it (export.enhance_dataset)


def sharpness(face: RgbImage) -> float:
    """Standard deviation of the Laplacian of a slightly smoothed grey face; about 5 is blurred, 20 is crisp."""
    grey = cv2.GaussianBlur(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[48:208, 48:208].std() * 2.0)


def canvas_matrix(points_xy: FloatArray) -> FloatArray:
    """Photo-to-canvas matrix: the crop's alignment, shifted by the margin."""
    matrix = align_matrix(points_xy)
    matrix[:, 2] += (CANVAS_SIZE - CROP_SIZE) / 2
    return matrix


def margin_of(canvas: RgbImage) -> int:
    """Pixels between the canvas's border and the crop."""
    return (canvas.shape[0] - CROP_SIZE) // 2


def photo_table(folder: Path) -> list[dict[str, str]]:
    """Rows of faces.csv, or one row per picture file.

    Raises:
        ConfigError: no such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give a folder of photos")
    table = folder / "faces.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ConfigError(f"{folder} holds no photos ({', '.join(sorted(SUFFIXES))}); give a folder of photos")
    return [_row_without_table(path) for path in files]


def _row_without_table(path: Path) -> dict[str, str]:
    digest = hashlib.sha256(path.as_posix().encode()).digest()
    split = "val" if digest[0] % 12 == 0 else "train"
    source = path.parts[0] if len(path.parts) > 1 else "photos"
    return {"file": path.as_posix(), "source": source, "person": path.stem, "split": split, "licence": "unstated"}


def read_rgb(path: Path) -> np.ndarray | None:
    """A picture as RGB, EXIF orientation applied, or None if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def reason_to_skip(face: FaceTrack, photo_px: float, crispness: float, options: PrepareOptions) -> str | None:
    """Why a face is not good enough, or None."""
    if photo_px < options.min_photo_px:
        return f"small: crop of {photo_px:.0f} px, at least {options.min_photo_px:.0f} wanted"
    if abs(face.yaw_deg) > options.max_yaw_deg:
        return f"turned: yaw {face.yaw_deg:.0f} degrees"
    if crispness < options.min_sharpness:
        return f"blurred: sharpness {crispness:.1f}, at least {options.min_sharpness:.1f} wanted"
    return None


def prepare_photo(
    photos: Path, row: dict[str, str], out: Path, tracker: FaceTracker, options: PrepareOptions
) -> FaceRecord | str:
    """Cut one face, or say why not."""
    image = read_rgb(photos / row["file"])
    if image is None:
        return "unreadable"
    faces = tracker.update(image, 0).tracks
    if not faces:
        return "no face found"
    face = faces[0]  # the largest
    matrix = canvas_matrix(five_points(face.landmarks_xy))
    canvas = crop_face(image, matrix, CANVAS_SIZE)
    margin = margin_of(canvas)
    crispness = sharpness(canvas[margin:-margin, margin:-margin])
    photo_px = CROP_SIZE / scale_of(matrix)
    skip = reason_to_skip(face, photo_px, crispness, options)
    if skip:
        return skip
    name = row["file"].replace("/", "__").rsplit(".", 1)[0] + ".png"
    encoded = cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))[1]
    write_atomic(out / "faces" / name, encoded.tobytes())
    return FaceRecord(
        file=f"faces/{name}",
        photo=row["file"],
        source=row["source"],
        person=row["person"],
        split=row["split"],
        licence=row["licence"],
        photo_px=round(photo_px, 1),
        yaw_deg=round(face.yaw_deg, 1),
        sharpness=round(crispness, 1),
        origin=row.get("origin", ""),
    )


def prepare(photos: Path, out: Path, options: PrepareOptions) -> list[FaceRecord]:
    """Cut every usable face below ``photos`` into ``out``, or go on with it; skipped.jsonl lists what is left out."""
    rows = photo_table(photos)
    (out / "faces").mkdir(parents=True, exist_ok=True)
    with Journal(out / "journal.jsonl", asdict(options)) as journal:
        left = [row for row in rows if row["file"] not in journal.done]
        if left:
            with open_tracker(find_landmarker(), TrackerOptions(max_faces=3, video=False)) as tracker:
                for row in tqdm(left, desc="prepare", unit="photo", disable=None):
                    result = prepare_photo(photos, row, out, tracker, options)
                    journal.add(row["file"], asdict(result) if isinstance(result, FaceRecord) else result)
        results = [(row["file"], journal.done[row["file"]]) for row in rows]
    records = [record_of(result) for _, result in results if isinstance(result, dict)]
    skipped = [{"photo": file, "reason": result} for file, result in results if isinstance(result, str)]
    if not records:
        raise ConfigError(f"no usable face among {len(rows)} photos of {photos}; first reason: {skipped[0]['reason']}")
    write_lines(out / "faces.jsonl", (asdict(r) for r in records))
    write_lines(out / "skipped.jsonl", iter(skipped))
    write_atomic(out / "DATASET_CARD.md", dataset_card(records, skipped, options).encode())
    return records


def plan(photos: Path, options: PrepareOptions) -> dict[str, Any]:
    """What ``prepare`` would read, and its filters."""
    rows = photo_table(photos)
    return {"photos": len(rows), "splits": Counter(row["split"] for row in rows), **asdict(options)}


def write_lines(path: Path, rows: Iterator[dict]) -> None:
    """JSON lines, atomically."""
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def dataset_card(records: list[FaceRecord], skipped: list[dict[str, str]], options: PrepareOptions) -> str:
    """What the data set holds, as Markdown."""
    counts = Counter((r.source, r.licence, r.split) for r in records)
    table = "\n".join(f"| {s} | {lic} | {split} | {n} |" for (s, lic, split), n in sorted(counts.items()))
    reasons = Counter(row["reason"].split(":")[0] for row in skipped)
    left_out = "\n".join(f"- {reason}: {n}" for reason, n in reasons.most_common()) or "- none"
    people = len({r.person for r in records})
    return (
        f"# Aligned faces\n\n{len(records)} faces of {people} people, {CANVAS_SIZE} px canvas around a {CROP_SIZE} px "
        f"crop; filters {asdict(options)}.\n\n| source | licence | split | faces |\n|---|---|---|---|\n{table}\n\n"
        f"Left out ({len(skipped)}; see skipped.jsonl):\n\n{left_out}\n"
    )


def read_records(folder: Path) -> list[FaceRecord]:
    """The data set's table.

    Raises:
        ConfigError: the folder is not a prepared data set.
    """
    table = folder / "faces.jsonl"
    if not table.is_file():
        raise ConfigError(f"{folder} holds no faces.jsonl; make it with: python -m export.prepare PHOTOS {folder}")
    return [record_of(json.loads(line)) for line in table.read_text().splitlines()]


def record_of(row: dict[str, Any]) -> FaceRecord:
    """A line of faces.jsonl."""
    return FaceRecord(**{**row, "restored_by": tuple(row.get("restored_by", ()))})


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.prepare", description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    defaults = PrepareOptions()
    parser.add_argument("--min-photo-px", type=float, default=defaults.min_photo_px)
    parser.add_argument("--max-yaw-deg", type=float, default=defaults.max_yaw_deg)
    parser.add_argument("--min-sharpness", type=float, default=defaults.min_sharpness)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and stop")
    args = parser.parse_args(argv)
    options = PrepareOptions(args.min_photo_px, args.max_yaw_deg, args.min_sharpness)
    if args.dry_run:
        return run_command(lambda: print(json.dumps(plan(args.photos, options), indent=2)))
    return run_command(lambda: prepare(args.photos, args.out, options))


if __name__ == "__main__":
    raise SystemExit(main())
