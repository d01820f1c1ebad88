"""``idm-rt enhance`` on real video files of unusual kinds: none of them is an error, and the face is restored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from cli_tools import Cli

FACE = (slice(60, 180), slice(170, 280))  # rows, columns of the face in the portrait


def write(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    aspect: Fraction | None = None,
) -> Path:
    """H.264 at 25 frames per second; ``rotation``: counter-clockwise degrees that the player is told to turn by."""
    with av.open(str(path), "w") as output:
        stream: Any = None
        for index, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream("libx264", rate=25, options={"crf": "16", "preset": "ultrafast", "bf": "0"})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixel_format
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def shown(path: Path) -> list[np.ndarray]:
    """Every frame (H, W, 3) as a player shows it."""
    with av.open(str(path)) as container:
        return [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in container.decode(video=0)]


def enhance(
    cli: Cli, source: Path, models: Sequence[object], *more: object, warning: str = ""
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Run the command, which may say nothing but ``warning``; returns the frames shown and the report."""
    target, report = source.with_name("out.mp4"), source.with_name("report.json")
    result = cli("enhance", source, target, "--report", report, *more, *models)
    assert result.code == 0 and (warning in result.err if warning else result.err == ""), result.err
    return shown(target), json.loads(report.read_text())


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W) mean absolute change in levels."""
    return np.abs(after.astype(int) - before).mean(axis=2)


@pytest.fixture
def still(portrait: np.ndarray) -> list[np.ndarray]:
    return [portrait[:320, :400]] * 8


def test_ten_bit(tmp_path: Path, still: list[np.ndarray], cli: Cli, models: Sequence[object]) -> None:
    source = write(tmp_path / "in.mp4", still, pixel_format="yuv420p10le")
    frames, report = enhance(cli, source, models, warning="10 bits per channel; it is processed and written with 8")
    assert report["frames"] == report["frames_with_faces"] == 8
    difference = change(shown(source)[-1], frames[-1])
    assert difference[FACE].mean() > 2 * difference[:, 320:].mean()


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_telephone_held_upright(
    rotation: int, tmp_path: Path, still: list[np.ndarray], cli: Cli, models: Sequence[object]
) -> None:
    """The file stores the picture on its side; the face must be found, and be upright in the result as before."""
    source = write(tmp_path / "in.mp4", [np.rot90(p, -rotation // 90) for p in still], rotation=rotation)
    frames, report = enhance(cli, source, models)
    assert report["frames_with_faces"] == 8
    before = shown(source)[-1]
    assert np.abs(before.astype(int) - still[0]).mean() < 6  # the source is what it claims to be
    assert frames[-1].shape == before.shape
    difference = change(before, frames[-1])
    assert difference[FACE].mean() > 2 * difference[:, 320:].mean()


def test_pixels_that_are_not_square(
    tmp_path: Path, still: list[np.ndarray], cli: Cli, models: Sequence[object]
) -> None:
    squeezed = [cv2.resize(p, (300, 320), interpolation=cv2.INTER_AREA) for p in still]
    source = write(tmp_path / "in.mp4", squeezed, aspect=Fraction(4, 3))
    frames, report = enhance(cli, source, models)
    assert report["frames_with_faces"] == 8 and frames[0].shape == (320, 300, 3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    difference = change(shown(source)[-1], frames[-1])
    assert difference[60:180, 128:210].mean() > 2 * difference[:, 240:].mean()


def test_twenty_faces(tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]) -> None:
    one = cv2.resize(portrait[:320, 80:400], (160, 160), interpolation=cv2.INTER_AREA)
    crowd = np.tile(one, (4, 5, 1))
    frames, report = enhance(cli, write(tmp_path / "in.mp4", [crowd] * 24), models, "--max-faces", "32")
    before = shown(tmp_path / "in.mp4")[-1]
    changed = change(before, frames[-1]).reshape(4, 160, 5, 160).transpose(0, 2, 1, 3)
    restored = sum(bool(tile[30:90, 40:105].mean() > 1.5) for row in changed for tile in row)
    assert restored == 20
    assert report["bypassed"] == 0


def test_a_face_that_comes_and_goes(tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]) -> None:
    nobody = np.full((320, 400, 3), 96, np.uint8)
    there = portrait[:320, :400]
    source = write(tmp_path / "in.mp4", [nobody] * 6 + [there] * 12 + [nobody] * 20 + [there] * 12)
    frames, report = enhance(cli, source, models)
    assert len(frames) == report["frames"] == 50
    difference = [change(a, b)[FACE].mean() for a, b in zip(shown(source), frames, strict=True)]
    empty = [*difference[:6], *difference[18:38]]
    assert max(empty) < 1.5  # nothing of a face on the wall, neither before nor after it was there
    assert min(difference[15:18]) > 2 * max(empty) and min(difference[47:50]) > 2 * max(empty)
    assert 20 <= report["frames_with_faces"] <= 28
