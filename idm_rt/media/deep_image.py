"""Photos with 16 bits per channel, which Pillow can only read as 8: decoded and encoded with OpenCV."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idm_rt.errors import MediaError
from idm_rt.media.orientation import EXIF_ORIENTATIONS, UPRIGHT

_LOG = logging.getLogger(__name__)

_PNG_HEADER_SIZE = 33  # signature (8) and IHDR chunk (25)
_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8

Deep = NDArray[np.uint16]


def read_deep(path: Path, picture: Image.Image, orientation: int) -> tuple[Deep, Deep | None] | None:
    """Colour ((H, W) gray or (H, W, 3) RGB) and alpha (H, W) of a 16-bit PNG or TIFF, upright; None for any other.

    Args:
        picture: the photo, opened by Pillow but not decoded.
        orientation: EXIF orientation 1..8.
    """
    if not _is_deep(path, picture):
        return None
    data = np.frombuffer(path.read_bytes(), np.uint8)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels: np.ndarray | None = cv2.imdecode(data, flags)
    if pixels is None or pixels.dtype != np.uint16:
        raise MediaError(f"{path} has 16 bits per channel in a form that cannot be read; save it as a 16-bit RGB PNG")
    pixels = EXIF_ORIENTATIONS.get(orientation, UPRIGHT).apply(pixels)
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels), None
    alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
    colour = np.ascontiguousarray(pixels[..., 2::-1])  # OpenCV's order is blue, green, red
    if picture.mode == "LA" or _png_colour_type(path, picture) == 4:
        colour = np.ascontiguousarray(colour[..., 0])
    return colour, alpha


def encode_deep(
    name: str, colour: Deep, alpha: Deep | NDArray[np.uint8] | None, exif: bytes, icc: bytes | None
) -> bytes:
    """The bytes of a 16-bit "PNG" or "TIFF"; a TIFF cannot take EXIF and the colour profile along (it is logged)."""
    if colour.ndim == 2 and alpha is not None:
        colour = np.repeat(colour[..., None], 3, axis=2)  # OpenCV writes no gray with alpha
    pixels = colour if colour.ndim == 2 else colour[..., ::-1]
    if alpha is not None:
        pixels = np.dstack([pixels, alpha])
    done, data = cv2.imencode(".png" if name == "PNG" else ".tiff", np.ascontiguousarray(pixels))
    if not done:
        raise MediaError(f"a 16-bit {name} of {pixels.shape[1]}x{pixels.shape[0]} px cannot be encoded; use .png")
    if name == "PNG":
        return _with_png_metadata(data.tobytes(), exif, icc)
    if exif or icc:
        _LOG.warning("EXIF data and colour profile are not kept in a 16-bit TIFF; write a .png to keep them")
    return data.tobytes()


def _is_deep(path: Path, picture: Image.Image) -> bool:
    if picture.format == "PNG":
        return _png_header(path)[24] == 16
    if picture.format == "TIFF":
        bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))
        sample_format = getattr(picture, "tag_v2", {}).get(339, (1,))
        return set(bits) == {16} and set(sample_format) == {1}  # 16 bits, unsigned
    return False


def _png_colour_type(path: Path, picture: Image.Image) -> int | None:
    """0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGB with alpha; None for other formats."""
    return _png_header(path)[25] if picture.format == "PNG" else None


def _png_header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_PNG_HEADER_SIZE)


def _with_png_metadata(data: bytes, exif: bytes, icc: bytes | None) -> bytes:
    """Insert iCCP and eXIf chunks (PNG, third edition, 11.3.2.3 and 11.3.3.2) behind the header."""
    chunks = b""
    if icc:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += _png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return data[:_PNG_HEADER_SIZE] + chunks + data[_PNG_HEADER_SIZE:]


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
