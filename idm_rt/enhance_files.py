"""Enhance a photo, a folder of photos or a video file: what ``idm-rt enhance`` does, without a word on a terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idm_rt.before_after import BeforeAfter
from idm_rt.enhancer import Enhancer
from idm_rt.errors import MediaError
from idm_rt.media.compare import side_by_side, side_by_side_size
from idm_rt.media.files import check_output
from idm_rt.media.photo import Photo, photo_format, read_photo, write_photo
from idm_rt.media.sources import FolderInput, PhotoInput, VideoInput, check_job, open_input
from idm_rt.media.video_reader import DecodedFrame, VideoReader
from idm_rt.media.video_writer import VideoWriter
from idm_rt.timing import Clock, StageTimer
from idm_rt.types import RgbImage

logger = logging.getLogger(__name__)

Source = PhotoInput | FolderInput | VideoInput
# (items, how many if known, what they are) -> the same items; a progress bar looks on
Progress = Callable[[Iterable[Any], int | None, str], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class FileJob:
    """What to enhance, and where to. Made by ``plan``."""

    source: Source
    output: Path
    compare: bool = False  # write input and result side by side
    overwrite: bool = False
    before_after: Path | None = None  # also write this still picture
    report: Path | None = None  # its place is checked with the others; ``idm_rt.report`` writes it

    @property
    def kind(self) -> str:
        """One of "photo", "folder" and "video"."""
        return {PhotoInput: "photo", FolderInput: "folder", VideoInput: "video"}[type(self.source)]

    @property
    def temporal(self) -> bool:
        """Whether its pictures follow each other in time."""
        return isinstance(self.source, VideoInput)


@dataclass(slots=True)
class FileResult:
    """What became of a job."""

    pictures: int = 0  # frames or photos written
    changed: int = 0  # of these, pictures in which a face was restored
    copied: bool = False  # the output video is the input, bit for bit
    damage: str | None = None  # what was lost of a cut or damaged video
    failed: dict[str, str] = field(default_factory=dict)  # photos of a folder that gave an error, and the error
    input_info: dict[str, Any] = field(default_factory=dict)
    before_after: Path | None = None  # the picture that was written
    elapsed_s: float = 0.0  # reading, enhancing and writing; without loading the models


def plan(
    source: str | Path,
    output: str | Path,
    *,
    compare: bool = False,
    overwrite: bool = False,
    before_after: str | Path | None = None,
    report: str | Path | None = None,
) -> FileJob:
    """Look at the input and refuse every output that could not be written, before a model is loaded.

    Raises:
        MediaError: see ``open_input``, ``check_job`` and ``check_output``; two outputs of the same name.
    """
    opened = open_input(source)
    if isinstance(opened, VideoInput):
        with VideoReader(opened.path):  # decodes the first frame: a file that is no video is refused now
            pass
    extra = [Path(path) for path in (before_after, report) if path is not None]
    _refuse_twins([Path(output), *extra])
    for path in extra:
        check_output(path, source=opened.path, overwrite=overwrite)
    if before_after is not None:
        photo_format(Path(before_after))
    target = check_job(opened, output, overwrite=overwrite)
    return FileJob(
        source=opened,
        output=target,
        compare=compare,
        overwrite=overwrite,
        before_after=Path(before_after) if before_after else None,
        report=Path(report) if report else None,
    )


def _refuse_twins(paths: list[Path]) -> None:
    names = [path.absolute() for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise MediaError(f"two outputs have the same name {name}; give each its own")


def run(
    job: FileJob, enhancer: Enhancer, progress: Progress | None = None, clock: Clock = time.perf_counter
) -> FileResult:
    """Do a job. The output appears under its name only when it is complete, whatever happens.

    Args:
        enhancer: its ``config.temporal`` should be ``job.temporal``.

    Raises:
        MediaError: unreadable input, output refused or not writable, disk full.
    """
    work = _Work(enhancer, job, progress or _no_progress, BeforeAfter() if job.before_after else None)
    start = clock()
    if isinstance(job.source, VideoInput):
        work.video(job.source.path)
    elif isinstance(job.source, PhotoInput):
        work.photo(job.source.path, job.output)
    else:
        work.folder(job.source)
    work.result.elapsed_s = clock() - start
    if work.before_after is not None and job.before_after is not None and work.before_after.pairs:
        work.before_after.write(job.before_after)
        work.result.before_after = job.before_after
    return work.result


def _no_progress(items: Iterable[Any], total: int | None, unit: str) -> Iterator[Any]:
    yield from items


class _Work:
    """One job on its way."""

    def __init__(self, enhancer: Enhancer, job: FileJob, progress: Progress, before_after: BeforeAfter | None) -> None:
        self.result = FileResult()
        self.before_after = before_after
        self._enhancer, self._job, self._progress = enhancer, job, progress
        self._timer: StageTimer = enhancer.timer

    def video(self, path: Path) -> None:
        job, result = self._job, self.result
        with ExitStack() as files:
            with self._timer.stage("open"):
                reader = files.enter_context(VideoReader(path))
                width, height = reader.info.upright_size
                size = side_by_side_size(width, height) if job.compare else None
                writer = files.enter_context(VideoWriter(job.output, like=reader, overwrite=job.overwrite, size=size))
            result.input_info = describe_video(reader)
            for frame in self._progress(self._decoded(reader), reader.info.frame_count, "frames"):
                shown = self._enhance(frame.image, frame.time_s * 1000.0)
                with self._timer.stage("encode"):
                    writer.write(shown, frame)
        result.pictures, result.copied, result.damage = writer.frames_written, writer.copied, reader.damage

    def _decoded(self, reader: VideoReader) -> Iterator[DecodedFrame]:
        """The frames, with the time that decoding takes."""
        frames, clock = iter(reader), self._timer.clock
        while True:
            start = clock()
            frame = next(frames, None)
            if frame is None:
                return
            self._timer.add("decode", (clock() - start) * 1000.0)
            yield frame

    def photo(self, path: Path, output: Path) -> None:
        with self._timer.stage("decode"):
            photo = read_photo(path)
        if not self.result.input_info:
            self.result.input_info = describe_photo(photo)
        shown = self._enhance(photo.image, 0.0)
        with self._timer.stage("encode"):
            write_photo(output, shown, like=photo, overwrite=self._job.overwrite)
        self.result.pictures += 1

    def folder(self, source: FolderInput) -> None:
        """Each photo for itself: one that is damaged does not stop the others."""
        for path in self._progress(source.photos, len(source.photos), "photos"):
            try:
                self.photo(path, self._job.output / path.name)
            except MediaError as error:
                logger.warning("%s", error)
                self.result.failed[path.name] = str(error)
        self.result.input_info = {"photos": len(source.photos)}

    def _enhance(self, image: RgbImage, timestamp_ms: float) -> RgbImage:
        """The picture to write: the result, or input and result side by side."""
        after = self._enhancer.process(image, timestamp_ms)
        self.result.changed += after is not image
        if self.before_after is not None:
            self.before_after.add(image, after, [track.box_xyxy for track in self._enhancer.last.tracks])
        return side_by_side(image, after) if self._job.compare else after


def describe_video(reader: VideoReader) -> dict[str, Any]:
    """What a video is, in plain values."""
    info = reader.info
    width, height = info.upright_size
    return {
        "width": width,
        "height": height,
        "container": info.container,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "rotation_deg": info.rotation_deg,
        "frames_stated": info.frame_count,
        "fps": float(info.average_rate) if info.average_rate else None,
        "duration_s": info.duration_s,
        "has_audio": info.has_audio,
    }


def describe_photo(photo: Photo) -> dict[str, Any]:
    """What a photo is, in plain values."""
    height, width = photo.image.shape[:2]
    return {
        "width": width,
        "height": height,
        "format": photo.format,
        "bit_depth": photo.bit_depth,
        "grayscale": photo.grayscale,
        "has_alpha": photo.alpha is not None,
    }
