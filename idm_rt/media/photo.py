"""Read a photo as upright 8-bit RGB and write it back with everything else it held."""

from __future__ import annotations

import io
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from idm_rt.errors import MediaError
from idm_rt.media.deep_image import encode_deep, read_deep
from idm_rt.media.files import check_input, check_output, os_errors, replacing
from idm_rt.media.orientation import EXIF_ORIENTATIONS, UPRIGHT
from idm_rt.types import RgbImage, check_rgb

_LOG = logging.getLogger(__name__)

MAX_PIXELS = 2 * 89_478_485  # where Pillow suspects a decompression bomb; 21 times 4K, 0.5 GB as RGB
PHOTO_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # Pillow's names
_FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
PHOTO_SUFFIXES = tuple(_FORMAT_OF_SUFFIX)
_HOLDS_ALPHA = {"PNG", "WEBP", "TIFF"}
_HOLDS_DEPTH = {"PNG", "TIFF"}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},  # 4:4:4: lips and eyes keep their colour edges
    "WEBP": {"quality": 95, "method": 4},
    "PNG": {"compress_level": 6},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
}
_MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # px, limits of the formats (of libjpeg's build for JPEG)
_MAX_JPEG_EXIF = 65_533  # bytes, one APP1 segment
_EXIF_ORIENTATION = 0x0112
# Description, maker, model, software, date, artist, copyright, and the EXIF and GPS directories.
_DESCRIPTIVE_TAGS = {270, 271, 272, 305, 306, 315, 33432, 34665, 34853}


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in the form the pipeline takes, and what must survive it. All arrays are upright."""

    image: RgbImage  # (H, W, 3); a gray photo has three equal channels
    path: Path
    format: str  # one of PHOTO_FORMATS
    grayscale: bool
    alpha: NDArray[np.uint8] | NDArray[np.uint16] | None  # (H, W); uint16 if the photo has 16 bits
    deep: NDArray[np.uint16] | None  # (H, W) gray or (H, W, 3) RGB as stored, for photos with 16 bits per channel
    exif: bytes  # without the orientation, which is applied; empty if there is none
    icc_profile: bytes | None  # of ``image``

    @property
    def bit_depth(self) -> int:
        """8 or 16 bits per channel."""
        return 8 if self.deep is None else 16


def read_photo(path: str | Path) -> Photo:
    """Decode a photo; EXIF orientation is applied.

    Raises:
        MediaError: missing, empty, damaged, not one of ``PHOTO_FORMATS``, or more than ``MAX_PIXELS``.
    """
    path = Path(path)
    check_input(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged by MAX_PIXELS instead
            with Image.open(path) as picture:
                return _read(path, picture)
    except UnidentifiedImageError as error:
        raise MediaError(f"{path} is not a photo that can be read; {_expected(path)}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports damage as any of the three
        raise MediaError(f"the photo {path} is damaged ({error}); copy or export it again") from error


def write_photo(path: str | Path, image: RgbImage, *, like: Photo, overwrite: bool = False) -> None:
    """Write ``image`` with the alpha, depth, EXIF, colour profile and grayness of ``like``.

    An unchanged image in the same format is written as a copy of the file, bit for bit. The file appears under its
    name only when it is complete.

    Args:
        image: (H, W, 3) uint8 RGB of the size of ``like.image``, or another size (side by side: alpha and 16-bit
            depth, which belong to the pixels, are then left out).

    Raises:
        MediaError: unsupported suffix, output refused, transparency that the format cannot hold, disk full.
    """
    path = Path(path)
    check_rgb(image)
    name = photo_format(path)
    check_output(path, source=like.path, overwrite=overwrite)
    if max(image.shape[:2]) > _MAX_SIDE.get(name, 2**31):
        raise MediaError(f"{path} cannot hold {image.shape[1]}x{image.shape[0]} px; give it the suffix .png or .tif")
    same_size = image.shape == like.image.shape
    if like.alpha is not None and same_size and name not in _HOLDS_ALPHA:
        raise MediaError(f"{path} cannot hold the transparency of {like.path}; give it the suffix .png, .webp or .tif")
    with replacing(path) as temporary, os_errors(path):
        if name == like.format and same_size and np.array_equal(image, like.image):
            shutil.copyfile(like.path, temporary)
        elif like.deep is not None and same_size and name in _HOLDS_DEPTH:
            temporary.write_bytes(encode_deep(name, _deep_result(image, like), like.alpha, like.exif, like.icc_profile))
        else:
            temporary.write_bytes(_encode(name, image, like if same_size else None, like))


def photo_format(path: Path) -> str:
    """Pillow's name of the format that the suffix of ``path`` asks for.

    Raises:
        MediaError: another suffix than ``PHOTO_SUFFIXES``.
    """
    name = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if name is None:
        found = f"suffix {path.suffix}" if path.suffix else "no suffix"
        raise MediaError(f"the output {path} has {found}; a photo is written as one of {', '.join(PHOTO_SUFFIXES)}")
    return name


def _read(path: Path, picture: Image.Image) -> Photo:
    if picture.format not in PHOTO_FORMATS:
        raise MediaError(f"{path} is a {picture.format} picture; {_expected(path)}")
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(path, f"{picture.width}x{picture.height}")
    count = getattr(picture, "n_frames", 1)
    if count > 1:
        _LOG.warning("%s holds %d pictures; only the first is used", path, count)
    exif = picture.getexif()
    orientation = exif.pop(_EXIF_ORIENTATION, 1)
    if picture.format == "TIFF":  # where the layout of the file is told in the same tags
        for tag in set(exif) - _DESCRIPTIVE_TAGS:
            del exif[tag]
    pixels = _deep_pixels(path, picture, orientation) or _pixels(path, picture, orientation)
    return Photo(
        image=pixels.image,
        path=path,
        format=picture.format,
        grayscale=pixels.grayscale,
        alpha=pixels.alpha,
        deep=pixels.deep,
        exif=exif.tobytes() if exif else b"",
        icc_profile=pixels.icc_profile,
    )


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The fields of ``Photo`` that decoding gives."""

    image: RgbImage
    grayscale: bool
    alpha: NDArray[np.uint8] | NDArray[np.uint16] | None
    deep: NDArray[np.uint16] | None
    icc_profile: bytes | None


def _deep_pixels(path: Path, picture: Image.Image, orientation: int) -> _Pixels | None:
    """Pixels of a photo with 16 bits per channel; None for any other."""
    decoded = read_deep(path, picture, orientation)
    if decoded is None:
        return None
    colour, alpha = decoded
    eight = to_eight_bits(colour)
    grayscale = colour.ndim == 2
    image = np.repeat(eight[..., None], 3, axis=2) if grayscale else eight
    return _Pixels(image, grayscale, alpha, colour, picture.info.get("icc_profile"))


def _pixels(path: Path, picture: Image.Image, orientation: int) -> _Pixels:
    """Pixels of a photo with at most 8 bits per channel."""
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        raise MediaError(f"{path} has pixels of the kind {picture.mode}; convert it to 8 or 16 bits per channel")
    picture.load()
    profile = picture.info.get("icc_profile")
    grayscale = picture.mode in ("1", "L", "LA", "La")
    upright = EXIF_ORIENTATIONS.get(orientation, UPRIGHT).apply
    alpha = None
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = np.array(upright(np.asarray(picture.getchannel("A"))), order="C")
    elif picture.mode == "CMYK":
        picture, profile = _cmyk_to_rgb(picture, profile), None
    image = np.array(upright(np.asarray(picture.convert("RGB"))), order="C")
    return _Pixels(image, grayscale, alpha, None, profile)


def _cmyk_to_rgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB of a print picture, through its own ink profile if it has one."""
    if profile:
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(picture, io.BytesIO(profile), srgb, outputMode="RGB")
            if converted is not None:
                return converted
        except ImageCms.PyCMSError as error:
            _LOG.warning("the colour profile of a CMYK photo cannot be used (%s); converted without it", error)
    return picture.convert("RGB")


def _encode(name: str, image: RgbImage, pixels_like: Photo | None, like: Photo) -> bytes:
    """The bytes of an 8-bit picture; ``pixels_like`` gives the alpha, if that still fits."""
    picture = Image.fromarray(to_gray(image)) if like.grayscale else Image.fromarray(np.ascontiguousarray(image))
    if pixels_like is not None and pixels_like.alpha is not None:
        picture.putalpha(Image.fromarray(to_eight_bits(pixels_like.alpha)))
    options = dict(_SAVE_OPTIONS[name])
    if name == "WEBP" and like.alpha is not None:
        options["exact"] = True  # keep the colour under transparent pixels
    if like.exif and name == "JPEG" and len(like.exif) > _MAX_JPEG_EXIF:
        _LOG.warning("the EXIF data of %s are too long for a JPEG and are left out", like.path)
    elif like.exif and name != "BMP":
        options["exif"] = like.exif
    if like.icc_profile and name != "BMP":
        options["icc_profile"] = like.icc_profile
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def _deep_result(image: RgbImage, like: Photo) -> NDArray[np.uint16]:
    """The 16-bit picture plus what changed in its 8-bit view, so that untouched pixels keep all their bits."""
    assert like.deep is not None
    before, after = (to_gray(like.image), to_gray(image)) if like.grayscale else (like.image, image)
    change = (after.astype(np.int32) - before) * 257
    return np.clip(like.deep + change, 0, 65535).astype(np.uint16)


def to_eight_bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 0..65535 to the nearest of uint8 0..255; uint8 is returned as it is."""
    if array.dtype == np.uint8:
        return array
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_gray(image: RgbImage) -> NDArray[np.uint8]:
    """(H, W) luma (ITU-R BT.601); three equal channels come back exactly."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _expected(path: Path) -> str:
    if path.suffix.lower() in (".heic", ".heif", ".avif"):
        return "convert it to .jpg or .png first (phones can be set to save JPEG, 'most compatible')"
    return f"expected one of {', '.join(PHOTO_SUFFIXES)}"


def _too_large(path: Path, found: str) -> MediaError:
    return MediaError(f"{path} is too large ({found}); at most {MAX_PIXELS // 1_000_000} million pixels; scale it down")
