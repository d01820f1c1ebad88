"""Measure stability on talking heads: ``python -m export.evaluate_video CLIPS... --out OUT [--weights WEIGHTS]``.

Each clip is scaled to a call's size, given a camera's noise and sent through a real encoder at a call's bitrate, then
restored twice: face by face without the blender, and by the whole pipeline. A second pass does the same to a still
picture of the clip. All figures are given for the truth and the degraded input too, since a blurred video is stable.
Writes OUT/video.json, OUT/video.md and OUT/video.html. WEIGHTS with dlib's two files adds identity.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from export.codecs import CODECS, at_bitrate, round_trip
from export.degradation_sheets import labelled, png
from export.metrics import DlibIdentity
from export.runs import run_command, write_atomic, write_json
from export.tables import Picture, Table, html_page
from export.temporal_metrics import (
    backward_flows,
    face_mask,
    flicker,
    identity_figures,
    landmark_jitter,
    masked_psnr,
    seen_masks,
    warping_error,
)
from idm_rt.blending import TemporalBlender
from idm_rt.errors import ConfigError
from idm_rt.geometry import align_matrix, crop_face
from idm_rt.landmarks import five_points
from idm_rt.media.video_reader import VideoReader
from idm_rt.model_store import find_landmarker
from idm_rt.pipeline import Pipeline
from idm_rt.restorer import Restorer, open_restorer
from idm_rt.tracking import TrackerOptions, open_tracker
from idm_rt.types import FloatArray, Frame, RgbImage

log = logging.getLogger(__name__)

Video = list[RgbImage]
PER_FRAME, PIPELINE = "per frame", "pipeline"


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How clips are degraded and restored."""

    model: str | None = None
    engine: str = "auto"
    steps: int = 1
    height: int = 360  # px: a call's frame
    frames: int = 60  # per clip
    still_frames: int = 30
    codec: str = "vp8"  # of export.codecs.CODECS
    kbps: float = 250.0
    noise: float = 3.0  # the camera's, sigma in 8-bit steps
    identity_every: int = 5  # frames between two measurements of identity


def read_clip(path: Path, height: int, count: int) -> tuple[Video, Fraction]:
    """The first frames, scaled to an even size of this height, and the frame rate.

    Raises:
        MediaError: unreadable, or no video.
    """
    with VideoReader(path) as reader:
        frames = [scaled(frame.image, height) for frame in islice(reader, count)]
        return frames, Fraction(reader.info.average_rate or 30)


def scaled(image: RgbImage, height: int) -> np.ndarray:
    """Scaled down to ``height`` (never up), both sides even."""
    height = min(height, image.shape[0]) // 2 * 2
    width = round(image.shape[1] * height / image.shape[0] / 2) * 2
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def through_call(frames: Video, rate: Fraction, options: VideoOptions) -> Video:
    """What the other side of a call sees of the frames; equal frames get other noise each."""
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, options.noise, f.shape) + 0.5, 0, 255).astype(np.uint8) for f in frames]
    return round_trip(noisy, CODECS[options.codec], at_bitrate(options.codec, options.kbps), rate)


def restored(frames: Video, rate: Fraction, restorer: Restorer, steps: int, blender: TemporalBlender | None) -> Video:
    """The frames through tracker, restorer, this blender and compositing."""
    with closing(open_tracker(find_landmarker(), TrackerOptions(max_faces=1))) as tracker:
        pipeline = Pipeline(tracker, restorer, blender)
        return [
            pipeline.process(Frame(frame), float(1000 * index / rate), steps).frame.image
            for index, frame in enumerate(frames)
        ]


def find_landmarks(frames: Video) -> list[FloatArray | None]:
    """(478, 2) landmarks of the largest face in each frame, found anew and not smoothed; None without a face."""
    with closing(open_tracker(find_landmarker(), TrackerOptions(max_faces=1, video=False))) as tracker:
        found = [tracker.update(frame, 0).tracks for frame in frames]
    return [tracks[0].landmarks_xy if tracks else None for tracks in found]


def make_videos(truth: Video, rate: Fraction, restorer: Restorer, options: VideoOptions) -> dict[str, Video]:
    """Truth, degraded input and both ways to restore it."""
    degraded = through_call(truth, rate, options)
    return {
        "truth": truth,
        "input": degraded,
        PER_FRAME: restored(degraded, rate, restorer, options.steps, None),
        PIPELINE: restored(degraded, rate, restorer, options.steps, TemporalBlender()),
    }


def evaluate_clip(
    path: Path, restorer: Restorer, identity: DlibIdentity | None, options: VideoOptions
) -> tuple[dict[str, Any], np.ndarray]:
    """(figures of each video, strip of the face in each).

    Raises:
        ConfigError: no face in the clip's first frame, or fewer than three frames.
    """
    truth, rate = read_clip(path, options.height, options.frames)
    landmarks = find_landmarks(truth)
    if len(truth) < 3 or landmarks[0] is None:
        raise ConfigError(f"{path}: found {len(truth)} frames, and a face in the first is needed; give a talking head")
    places = filled(landmarks)
    moving = make_videos(truth, rate, restorer, options)
    still = make_videos([truth[0]] * options.still_frames, rate, restorer, options)
    faces = [face_mask(place, frame.shape[:2]) for place, frame in zip(places, truth, strict=True)]
    flows = backward_flows(truth)
    masks = seen_masks(truth, flows, faces)
    points = {name: landmarks if name == "truth" else find_landmarks(video) for name, video in moving.items()}
    eyes = float(np.linalg.norm(np.diff(five_points(places[0])[:2], axis=0)))
    identities = identity_of(moving, places, identity, options.identity_every) if identity else {}
    figures = {
        name: {
            "warping_error": warping_error(video, flows, masks),
            # the first half a second settles encoder and blender
            "still_flicker": flicker(still[name][options.still_frames // 2 :], faces[0]),
            "landmark_jitter": landmark_jitter(points[name], eyes),
            "psnr_db": masked_psnr(video, truth, faces),
            **identities.get(name, {}),
        }
        for name, video in moving.items()
    }
    return {"frames": len(truth), "fps": float(rate), "videos": figures}, strip(moving, places)


def filled(landmarks: Sequence[FloatArray | None]) -> list[FloatArray]:
    """Frames without a face take the last one's place; the first has one."""
    places: list[FloatArray] = []
    for found in landmarks:
        places.append(places[-1] if found is None else found)
    return places


def identity_of(
    videos: dict[str, Video], places: list[FloatArray], identity: DlibIdentity, every: int
) -> dict[str, dict[str, float]]:
    """Distance to the truth and deviation over time of dlib's embedding, of every so-manieth frame."""
    picked = range(0, len(places), every)
    matrices = {index: align_matrix(five_points(places[index])) for index in picked}
    embeddings = {
        name: np.stack([identity.embed(crop_face(video[index], matrices[index])) for index in picked])
        for name, video in videos.items()
    }
    out = {}
    for name, values in embeddings.items():
        distance, spread = identity_figures(values, embeddings["truth"])
        out[name] = {"identity": distance, "identity_std": spread}
    return out


def strip(videos: dict[str, Video], places: list[FloatArray], moments: int = 3) -> np.ndarray:
    """One row per moment: the aligned face in each video."""
    rows = []
    for index in np.linspace(0, len(places) - 1, moments).astype(int):
        matrix = align_matrix(five_points(places[index]))
        rows.append(np.hstack([labelled(crop_face(v[index], matrix), f"{n} {index}") for n, v in videos.items()]))
    return np.vstack(rows)


def mean_figures(clips: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each figure's mean over clips; one that a clip lacks is left out there."""
    out: dict[str, dict[str, float]] = {}
    for name in clips[0]["videos"]:
        rows = [clip["videos"][name] for clip in clips]
        keys = [key for key in rows[0] if any(row[key] is not None for row in rows)]
        out[name] = {key: float(np.mean([row[key] for row in rows if row[key] is not None])) for key in keys}
    return out


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("warping_error", "warping error over truth's", "{:+.3f}".format),
    ("still_flicker", "flicker of a still", "{:.3f}".format),
    ("landmark_jitter", "landmark jitter, % of eyes", "{:.2f}".format),
    ("identity_std", "identity std", "{:.3f}".format),
    ("identity", "identity to truth", "{:.3f}".format),
    ("psnr_db", "face PSNR, dB", "{:.2f}".format),
)


def video_table(caption: str, videos: dict[str, dict[str, float]]) -> Table:
    """One row per video; the warping error is given less the truth's own."""
    shown = [column for column in COLUMNS if videos["input"].get(column[0]) is not None]
    base = {"warping_error": videos["truth"]["warping_error"]}
    rows = []
    for name, figures in videos.items():
        cells = [("" if figures.get(k) is None else text(figures[k] - base.get(k, 0.0))) for k, _, text in shown]
        rows.append([name, *cells])
    return Table(caption, ["", *(label for _, label, _ in shown)], rows)


def video_tables(report: dict[str, Any]) -> list[Table]:
    """The means, then each clip."""
    how = f"{report['codec']} at {report['kbps']:.0f} kb/s, {report['height']} lines, {report['steps']} step(s)"
    tables = [video_table(f"Mean of {len(report['clips'])} clips, {how}:", report["mean"])]
    return tables + [video_table(f"{n}, {c['frames']} frames:", c["videos"]) for n, c in report["clips"].items()]


def evaluate_videos(clips: list[Path], out: Path, weights: Path | None, options: VideoOptions) -> dict[str, Any]:
    """Measure every clip; see the module's text."""
    if len({path.stem for path in clips}) < len(clips):
        raise ConfigError("two clips have the same name; rename one")
    identity = DlibIdentity(weights) if weights else None
    results, strips = {}, []
    with open_restorer(options.model, options.engine) as restorer:
        for path in tqdm(clips, desc="clips", disable=None):
            results[path.stem], faces = evaluate_clip(path, restorer, identity, options)
            strips.append(Picture(f"{path.stem}: truth, input, per frame, pipeline", png(faces)))
        report = {
            **asdict(options),
            "model": restorer.manifest.name,
            "version": restorer.manifest.version,
            "engine": f"{restorer.engine} {restorer.precision}",
            "clips": results,
            "mean": mean_figures(list(results.values())),
        }
    tables = video_tables(report)
    text = f"Model `{report['model']}` {report['version']}, engine {report['engine']}."
    markdown = "\n\n".join([text, *(table.to_markdown() for table in tables)]) + "\n"
    write_json(out / "video.json", report)
    write_atomic(out / "video.md", markdown.encode())
    write_atomic(out / "video.html", html_page("Evaluation on video", [text, *tables, "Faces", *strips]))
    log.info("%s", markdown)
    return report


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    default = VideoOptions()
    parser = argparse.ArgumentParser(prog="python -m export.evaluate_video", description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+", help="videos of talking heads")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder with dlib's two files, for identity")
    parser.add_argument("--model", help="name or folder (default: the shipped model)")
    parser.add_argument("--codec", choices=sorted(CODECS), default=default.codec)
    for name in ("engine", "steps", "height", "frames", "still_frames", "kbps", "noise", "identity_every"):
        value = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args(argv)
    options = VideoOptions(**{name: getattr(args, name) for name in asdict(default)})
    return run_command(lambda: evaluate_videos(args.clips, args.out, args.weights, options))


if __name__ == "__main__":
    raise SystemExit(main())
