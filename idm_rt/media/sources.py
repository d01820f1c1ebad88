"""Decide by content what an input is, and pair it with its output, before any work is done."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from idm_rt.errors import MediaError
from idm_rt.media.files import check_input, check_output
from idm_rt.media.photo import PHOTO_FORMATS, PHOTO_SUFFIXES, photo_format
from idm_rt.media.video_target import VIDEO_SUFFIXES, video_target

_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"}


@dataclass(frozen=True, slots=True)
class PhotoInput:
    """One photo; read it with ``read_photo``."""

    path: Path


@dataclass(frozen=True, slots=True)
class FolderInput:
    """A folder with the photos in it, sorted by name; folders inside it are not entered."""

    path: Path
    photos: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class VideoInput:
    """One video; read it with ``VideoReader``."""

    path: Path


def open_input(path: str | Path) -> PhotoInput | FolderInput | VideoInput:
    """Tell a photo, a folder of photos and a video apart by what they hold, whatever their names say.

    What is no photo is taken as a video: whether it really is one, ``VideoReader`` finds out on entering.

    Raises:
        MediaError: missing, empty or unreadable input, a folder without photos.
    """
    path = Path(path)
    if path.is_dir():
        return FolderInput(path, _photos_in(path))
    check_input(path)
    _refuse_heif(path)
    return PhotoInput(path) if is_photo(path) else VideoInput(path)


def _refuse_heif(path: Path) -> None:
    """A phone's HEIC photo is an MP4-like file (ISO/IEC 23008-12); its brand tells it from a video."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise MediaError(
            f"{path} is a {head[8:12].decode().upper()} photo, which is not supported; convert it to .jpg or .png first"
        )


def check_job(source: PhotoInput | FolderInput | VideoInput, output: str | Path, *, overwrite: bool) -> Path:
    """Refuse an output that does not fit the input, before a model is loaded; returns the output as a path.

    A folder's output is a folder, made if it is missing; photos are written into it under their own names.

    Raises:
        MediaError: suffix of another kind, existing output, output equal to the input, folder missing or not writable.
    """
    output = Path(output)
    if isinstance(source, FolderInput):
        _check_folder(source, output, overwrite)
        return output
    photo = isinstance(source, PhotoInput)
    kind, other = (PHOTO_SUFFIXES, VIDEO_SUFFIXES) if photo else (VIDEO_SUFFIXES, PHOTO_SUFFIXES)
    if not output.is_dir() and output.suffix.lower() in other:
        name = "photo" if photo else "video"
        raise MediaError(
            f"the input {source.path} is a {name} but the output {output} is not; use one of {', '.join(kind)}"
        )
    check_output(output, source=source.path, overwrite=overwrite)
    if photo:
        photo_format(output)
    else:
        video_target(output)
    return output


def is_photo(path: Path) -> bool:
    """Whether the content is a photo format that can be read (an animated picture counts by its first frame)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return picture.format in PHOTO_FORMATS
    except Image.DecompressionBombError:
        return True  # a picture all the same; read_photo says that it is too large
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return path.suffix.lower() in PHOTO_SUFFIXES  # a damaged photo should be reported as a photo


def _photos_in(folder: Path) -> tuple[Path, ...]:
    """Files with a photo's suffix; those that turn out damaged are reported when they are read."""
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise MediaError(f"the folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    photos = tuple(file for file in files if file.suffix.lower() in PHOTO_SUFFIXES)
    if not photos:
        found = f"{len(files)} other files" if files else "nothing"
        raise MediaError(
            f"the folder {folder} holds no photo ({found}); expected files ending in {', '.join(PHOTO_SUFFIXES)}"
        )
    return photos


def _check_folder(source: FolderInput, output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise MediaError(f"the input {source.path} is a folder but the output {output} is a file; name a folder")
    if output.exists() and os.path.samefile(output, source.path):
        raise MediaError(f"the output folder {output} is the input folder; choose another folder for the results")
    if output.exists() and not os.access(output, os.W_OK | os.X_OK):
        raise MediaError(f"the output folder {output} is not writable; choose another folder or change its rights")
    if output.exists():
        existing = [photo.name for photo in source.photos if os.path.lexists(output / photo.name)]
        if existing and not overwrite:
            raise MediaError(
                f"the output folder {output} holds {existing[0]} already ({len(existing)} such files); "
                "add --overwrite to replace them or choose another folder"
            )
        return
    if not output.parent.is_dir():
        raise MediaError(f"the folder {output.parent} does not exist; create it or choose another output folder")
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise MediaError(f"the output folder {output} cannot be made ({error.strerror}); choose another") from error
