"""Look at the degradations: ``python -m export.degradation_sheets FACES OUT`` writes one PNG per level.

Each column is a face: the truth above, what became of it below, and its PSNR. The same faces, faults and codecs every
time, those of ``export.evaluate``.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from export.dataset import FaceSet, evaluation_pairs, load_faces, spread_faces
from export.degradations import LEVELS, FacePair
from export.metrics import psnr
from export.runs import run_command, write_atomic
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)


def labelled(picture: RgbImage, text: str) -> np.ndarray:
    """A copy with white text on black in the lower left corner."""
    out = picture.copy()
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    top = out.shape[0] - height - 8
    out[top:, : width + 8] = 0
    cv2.putText(out, text, (4, out.shape[0] - 5), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def png(picture: np.ndarray) -> bytes:
    """An RGB picture as PNG."""
    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()


def contact_sheet(pairs: list[FacePair], columns: int) -> np.ndarray:
    """The pairs in rows of ``columns``, truth above degraded; (H, W, 3) uint8."""
    tiles = [
        np.vstack([pair.clean, labelled(pair.degraded, f"{psnr(pair.degraded, pair.clean):.1f} dB")]) for pair in pairs
    ]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)])


def write_sheets(faces: FaceSet, out: Path, levels: list[str], columns: int) -> dict[str, float]:
    """OUT/<level>.png for every level; mean PSNR of the degraded faces, dB, by level."""
    means = {}
    for level in levels:
        progress = tqdm(evaluation_pairs(faces, level), total=len(faces.records), desc=level, disable=None)
        pairs = [pair for _, pair in progress]
        write_atomic(out / f"{level}.png", png(contact_sheet(pairs, columns)))
        means[level] = float(np.mean([psnr(pair.degraded, pair.clean) for pair in pairs]))
        log.info("%s: %d faces, mean %.1f dB", out / f"{level}.png", len(pairs), means[level])
    return means


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.degradation_sheets", description=__doc__)
    parser.add_argument("faces", type=Path, help="folder made by export.prepare")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=12, help="faces, spread over all sources")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--levels", nargs="+", choices=sorted(LEVELS), default=sorted(LEVELS))
    parser.add_argument("--dry-run", action="store_true", help="say which faces would be degraded and stop")
    args = parser.parse_args(argv)

    def action() -> None:
        faces = spread_faces(load_faces(args.faces, args.split), args.count)
        if args.dry_run:
            print(json.dumps({"levels": args.levels, "faces": [record.file for record in faces.records]}, indent=2))
            return
        write_sheets(faces, args.out, args.levels, args.columns)

    return run_command(action)


if __name__ == "__main__":
    raise SystemExit(main())
