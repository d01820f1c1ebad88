"""Measure stability on talking heads: ``python -m export.evaluate_video CLIPS --out OUT [--weights WEIGHTS]``.

Each clip is scaled to a call's size, given a camera's noise and sent through a real encoder at a call's bitrate, then
restored twice: face by face without the blender, and by the whole pipeline. A second pass does the same to a still
picture of the clip. All figures are given for the truth and the degraded input too, since a blurred video is stable.
CLIPS are files or folders. Writes OUT/video.json, OUT/video.md and OUT/video.html; killed, the same command goes on
with the clip it was at. WEIGHTS (as for ``export.evaluate``) adds identity and vgg-hed: they tell whether steadiness
was bought with blur.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from export.baselines import model_version
from export.codecs import CODECS
from export.degradation_sheets import png
from export.evaluate_clip import VideoOptions, evaluate_clip, open_networks
from export.journal import Journal
from export.measures import weights_version
from export.runs import run_command, write_atomic, write_json
from export.tables import Picture, html_page
from export.video_tables import mean_figures, video_tables
from idm_rt.blending import BlendOptions
from idm_rt.errors import ConfigError
from idm_rt.model_files import sha256_of
from idm_rt.restorer import open_restorer

log = logging.getLogger(__name__)

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")


def clip_files(paths: Sequence[Path]) -> list[Path]:
    """The videos given, and those in the folders given.

    Raises:
        ConfigError: nothing there, a folder without videos, or two of the same name.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise ConfigError(f"{path} is no video and no folder of videos ({', '.join(SUFFIXES)}); give one")
        files += found
    if len({path.stem for path in files}) < len(files):
        raise ConfigError("two clips have the same name; rename one")
    return files


def evaluate_videos(
    clips: Sequence[Path], out: Path, weights: Path | None, options: VideoOptions, dry_run: bool = False
) -> None:
    """Measure every clip that OUT does not hold yet, or say what would be measured; see the module's text."""
    files = clip_files(clips)
    with open_restorer(options.model, options.engine, options.threads) as restorer:
        settings = {
            **{key: value for key, value in asdict(options).items() if key not in ("engine", "threads")},
            "model": model_version(restorer),
            "blending": asdict(BlendOptions()),
            "weights": weights_version(weights) if weights else None,
        }
        if dry_run:
            print(json.dumps({"clips": [str(path) for path in files], "settings": settings}, indent=2))
            return
        networks = open_networks(weights)
        with Journal(out / "journal.jsonl", settings) as journal:
            keys = {path: f"{path.stem} {sha256_of(path)}" for path in files}
            for path in tqdm(files, desc="clips", disable=None):
                if keys[path] not in journal.done or not strip_file(out, path).is_file():
                    figures, faces = evaluate_clip(path, restorer, networks, options)
                    write_atomic(strip_file(out, path), png(faces))
                    journal.add(keys[path], figures)
            results = {path.stem: journal.done[keys[path]] for path in files}
        report = {
            **asdict(options),
            "model": restorer.manifest.name,
            "version": restorer.manifest.version,
            "engine": f"{restorer.engine} {restorer.precision}",
            "blending": settings["blending"],
            "clips": results,
            "mean": mean_figures(list(results.values())),
        }
    write_reports(
        out,
        report,
        [Picture(f"{p.stem}: truth, input, per frame, pipeline", strip_file(out, p).read_bytes()) for p in files],
    )


def strip_file(out: Path, clip: Path) -> Path:
    """Where a clip's strip of faces is kept."""
    return out / f"strip-{clip.stem}.png"


def write_reports(out: Path, report: dict[str, Any], strips: Sequence[Picture]) -> None:
    """video.json, .md and .html."""
    tables = video_tables(report)
    text = f"Model `{report['model']}` {report['version']}, engine {report['engine']}."
    markdown = "\n\n".join([text, *(table.to_markdown() for table in tables)]) + "\n"
    write_json(out / "video.json", report)
    write_atomic(out / "video.md", markdown.encode())
    write_atomic(out / "video.html", html_page("Evaluation on video", [text, *tables, "Faces", *strips]))
    log.info("%s", markdown)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    default = VideoOptions()
    parser = argparse.ArgumentParser(prog="python -m export.evaluate_video", description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+", help="videos of talking heads, or folders of them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder with dlib's two files and VGG16-HED: identity and vgg-hed")
    parser.add_argument("--model", help="name or folder (default: the shipped model)")
    parser.add_argument("--threads", type=int, help="of engine and torch (default: all cores)")
    parser.add_argument("--codec", choices=sorted(CODECS), default=default.codec)
    for name in ("engine", "steps", "height", "frames", "still_frames", "kbps", "noise", "look_every"):
        value = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured and stop")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    options = VideoOptions(**{name: getattr(args, name) for name in asdict(default)})
    return run_command(lambda: evaluate_videos(args.clips, args.out, args.weights, options, args.dry_run))


if __name__ == "__main__":
    raise SystemExit(main())
