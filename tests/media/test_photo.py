"""Photos in and out, with everything that is not the face."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from idm_rt.errors import MediaError
from idm_rt.media import files
from idm_rt.media import photo as photo_module
from idm_rt.media.photo import read_photo, to_eight_bits, write_photo

ORIENTATION, MODEL, ARTIST = 0x0112, 0x0110, 0x013B
ROTATE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def changed(image: np.ndarray) -> np.ndarray:
    """The picture with a brighter middle; ten rows and columns around it stay."""
    result = image.copy()
    result[10:-10, 10:-10] = np.clip(result[10:-10, 10:-10].astype(int) + 25, 0, 255)
    return result


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_applied_once(picture, tmp_path, orientation, suffix):
    stored = Image.fromarray(picture(64, 48))
    exif = Image.Exif()
    exif[ORIENTATION], exif[MODEL] = orientation, "Camera 1"
    stored.save(tmp_path / ("in" + suffix), exif=exif, quality=100)
    upright = stored.transpose(ROTATE[orientation]) if orientation > 1 else stored
    photo = read_photo(tmp_path / ("in" + suffix))
    assert np.abs(photo.image.astype(int) - np.asarray(upright)).mean() < 2
    write_photo(tmp_path / ("out" + suffix), changed(photo.image), like=photo)
    with Image.open(tmp_path / ("out" + suffix)) as result:
        assert result.size == upright.size
        assert result.getexif().get(ORIENTATION, 1) == 1
        assert result.getexif()[MODEL] == "Camera 1"
    again = read_photo(tmp_path / ("out" + suffix))
    assert np.abs(again.image.astype(int) - changed(photo.image)).mean() < 2


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_the_bits_of_untouched_pixels(tmp_path, channels, orientation):
    rng = np.random.default_rng(0)
    shape = (48, 64) if channels == 1 else (48, 64, channels)
    pixels = rng.integers(0, 65536, shape, dtype=np.uint16)
    pixels[:4, :4] = 65535
    pixels[4:8, :4] = 0
    done, data = cv2.imencode(".png", pixels)
    assert done
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = orientation, "Someone"
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    raw = data.tobytes()
    (tmp_path / "in.png").write_bytes(raw[:33] + chunk + raw[33:])

    photo = read_photo(tmp_path / "in.png")
    assert photo.bit_depth == 16
    assert photo.grayscale == (channels == 1)
    after = changed(photo.image)
    write_photo(tmp_path / "out.png", after, like=photo)

    result = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    upright = {1: pixels, 6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).swapaxes(0, 1)}[orientation]
    assert result.dtype == np.uint16
    assert result.shape == upright.shape
    border = np.ones(upright.shape[:2], bool)
    border[10:-10, 10:-10] = False
    np.testing.assert_array_equal(result[border], upright[border])
    difference = result.astype(int) - upright
    inner = difference[10:-10, 10:-10][..., :3] if channels > 1 else difference[10:-10, 10:-10]
    assert inner.max() <= 257 * 25
    assert np.median(inner) == 257 * 25
    if channels == 4:
        np.testing.assert_array_equal(result[..., 3], upright[..., 3])
    with Image.open(tmp_path / "out.png") as header:
        assert header.getexif()[ARTIST] == "Someone"
        assert header.getexif().get(ORIENTATION, 1) == 1


def test_16_bit_gray_with_alpha(tmp_path):
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 65536, (30, 40, 2), dtype=np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40, 30, 16, 4, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    (tmp_path / "in.png").write_bytes(data)
    photo = read_photo(tmp_path / "in.png")
    assert photo.grayscale
    np.testing.assert_array_equal(photo.deep, rows[..., 0])
    np.testing.assert_array_equal(photo.alpha, rows[..., 1])
    write_photo(tmp_path / "out.png", changed(photo.image), like=photo)
    again = read_photo(tmp_path / "out.png")
    np.testing.assert_array_equal(again.alpha, rows[..., 1])


def test_16_bit_tiff(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (48, 64, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "in.tiff"), pixels)
    photo = read_photo(tmp_path / "in.tiff")
    assert photo.bit_depth == 16
    write_photo(tmp_path / "out.tif", changed(photo.image), like=photo)
    result = cv2.imread(str(tmp_path / "out.tif"), cv2.IMREAD_UNCHANGED)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result[:10], pixels[:10])


def test_16_bits_become_8_in_a_jpeg(tmp_path):
    pixels = np.full((32, 32, 3), 257 * 100 + 3, np.uint16)
    cv2.imwrite(str(tmp_path / "in.png"), pixels)
    photo = read_photo(tmp_path / "in.png")
    write_photo(tmp_path / "out.jpg", photo.image, like=photo)
    assert abs(int(read_photo(tmp_path / "out.jpg").image.mean()) - 100) <= 1


def test_eight_bits_of_sixteen_and_back_are_exact():
    values = np.arange(65536, dtype=np.uint16)
    eight = to_eight_bits(values)
    assert np.abs(eight * 257.0 - values).max() <= 128
    np.testing.assert_array_equal(to_eight_bits((np.arange(256) * 257).astype(np.uint16)), np.arange(256))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_kept(picture, tmp_path, suffix, mode):
    image = Image.fromarray(picture(64, 48)).convert(mode)
    alpha = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    assert photo.grayscale == (mode == "LA")
    write_photo(tmp_path / ("out" + suffix), changed(photo.image), like=photo)
    again = read_photo(tmp_path / ("out" + suffix))
    np.testing.assert_array_equal(again.alpha, alpha)
    if suffix != ".webp":
        np.testing.assert_array_equal(again.image[:10], photo.image[:10])


def test_alpha_cannot_go_into_a_jpeg(picture, tmp_path):
    image = Image.fromarray(picture(64, 48))
    image.putalpha(128)
    image.save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    for name in ("out.jpg", "out.bmp"):
        with pytest.raises(MediaError, match="transparency"):
            write_photo(tmp_path / name, photo.image, like=photo)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("mode", ["L", "1"])
def test_grayscale_stays_grayscale(picture, tmp_path, suffix, mode):
    source = "in.png" if suffix == ".webp" or mode == "1" else "in" + suffix
    Image.fromarray(picture(64, 48)).convert(mode).save(tmp_path / source)
    photo = read_photo(tmp_path / source)
    assert photo.grayscale
    assert (photo.image == photo.image[..., :1]).all()
    tinted = changed(photo.image)
    tinted[20:25, 20:25, 0] = 255  # the network may answer in colour
    write_photo(tmp_path / ("out" + suffix), tinted, like=photo)
    with Image.open(tmp_path / ("out" + suffix)) as result:
        assert result.mode == ("RGB" if suffix == ".webp" else "L")  # WebP has no gray
    again = read_photo(tmp_path / ("out" + suffix))
    assert np.ptp(again.image.astype(int), axis=2).max() <= 2
    if suffix in (".png", ".tif", ".bmp"):
        np.testing.assert_array_equal(again.image[:10], photo.image[:10])


def test_palette_with_and_without_transparency(picture, tmp_path):
    base = Image.fromarray(picture(64, 48)).quantize(64)
    base.save(tmp_path / "plain.png")
    base.save(tmp_path / "clear.png", transparency=5)
    plain, clear = read_photo(tmp_path / "plain.png"), read_photo(tmp_path / "clear.png")
    np.testing.assert_array_equal(plain.image, np.asarray(base.convert("RGB")))
    assert plain.alpha is None
    np.testing.assert_array_equal(clear.alpha == 0, np.asarray(base) == 5)
    write_photo(tmp_path / "out.png", changed(clear.image), like=clear)
    np.testing.assert_array_equal(read_photo(tmp_path / "out.png").alpha, clear.alpha)


def test_cmyk_becomes_rgb(picture, tmp_path):
    Image.fromarray(picture(64, 48)).convert("CMYK").save(tmp_path / "in.jpg", quality=100)
    photo = read_photo(tmp_path / "in.jpg")
    assert np.abs(photo.image.astype(int) - picture(64, 48)).mean() < 4
    write_photo(tmp_path / "out.jpg", changed(photo.image), like=photo)
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.mode == "RGB"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_colour_profile_is_kept(picture, tmp_path, suffix):
    profile = srgb_profile()
    Image.fromarray(picture(64, 48)).save(tmp_path / "in.png", icc_profile=profile)
    photo = read_photo(tmp_path / "in.png")
    write_photo(tmp_path / ("out" + suffix), changed(photo.image), like=photo)
    with Image.open(tmp_path / ("out" + suffix)) as result:
        assert result.info["icc_profile"] == profile


def test_16_bit_png_keeps_its_colour_profile(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (48, 64, 3), dtype=np.uint16)
    raw = cv2.imencode(".png", pixels)[1].tobytes()
    body = b"name\0\0" + zlib.compress(srgb_profile())
    chunk = struct.pack(">I", len(body)) + b"iCCP" + body + struct.pack(">I", zlib.crc32(b"iCCP" + body))
    (tmp_path / "in.png").write_bytes(raw[:33] + chunk + raw[33:])
    photo = read_photo(tmp_path / "in.png")
    write_photo(tmp_path / "out.png", changed(photo.image), like=photo)
    with Image.open(tmp_path / "out.png") as result:
        assert result.info["icc_profile"] == srgb_profile()


def test_jpeg_is_written_without_colour_subsampling(picture, tmp_path):
    Image.fromarray(picture(64, 48)).save(tmp_path / "in.jpg", quality=50)
    photo = read_photo(tmp_path / "in.jpg")
    write_photo(tmp_path / "out.jpg", changed(photo.image), like=photo)
    with Image.open(tmp_path / "out.jpg") as result:
        assert {component[1:3] for component in result.layer} == {(1, 1)}
    assert np.abs(read_photo(tmp_path / "out.jpg").image.astype(int) - changed(photo.image)).mean() < 1.0


def test_an_unchanged_photo_is_copied_bit_for_bit(picture, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture(64, 48)).save(tmp_path / "in.jpg", quality=71, exif=exif)
    photo = read_photo(tmp_path / "in.jpg")
    write_photo(tmp_path / "out.jpeg", photo.image.copy(), like=photo)
    assert (tmp_path / "out.jpeg").read_bytes() == (tmp_path / "in.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("size", [(1, 1), (641, 359), (1, 300)])
def test_tiny_and_odd_sizes(picture, tmp_path, suffix, size):
    Image.fromarray(picture(*size)).save(tmp_path / ("in" + suffix))
    photo = read_photo(tmp_path / ("in" + suffix))
    assert photo.image.shape == (size[1], size[0], 3)
    write_photo(tmp_path / ("out" + suffix), 255 - photo.image, like=photo)
    assert read_photo(tmp_path / ("out" + suffix)).image.shape == photo.image.shape


def test_side_by_side_has_another_size(picture, tmp_path):
    image = Image.fromarray(picture(64, 48))
    image.putalpha(100)
    image.save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    write_photo(tmp_path / "out.jpg", np.hstack([photo.image, photo.image]), like=photo)
    assert read_photo(tmp_path / "out.jpg").image.shape == (48, 128, 3)


# ---- what cannot be read or written


def read_error(path: Path) -> str:
    with pytest.raises(MediaError) as error:
        read_photo(path)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_inputs_that_are_no_photo(tmp_path, picture):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.fromarray(picture(64, 48)).save(tmp_path / "in.gif")
    (tmp_path / "in.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "is not a photo" in read_error(tmp_path / "text.png")
    assert "is empty" in read_error(tmp_path / "empty.png")
    assert "GIF" in read_error(tmp_path / "in.gif")
    assert "convert it to .jpg or .png" in read_error(tmp_path / "in.heic")
    assert "does not exist" in read_error(tmp_path / "none.png")
    assert "is a folder" in read_error(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_cut_photos_are_refused(picture, tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / ("in" + suffix))
    data = (tmp_path / ("in" + suffix)).read_bytes()
    (tmp_path / ("cut" + suffix)).write_bytes(data[: len(data) // 2])
    assert "cut" + suffix in read_error(tmp_path / ("cut" + suffix))


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    body = zlib.compress(bytes(1000))
    idat = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + idat + end)
    text = read_error(tmp_path / "bomb.png")
    assert "too large" in text
    assert f"{photo_module.MAX_PIXELS // 1_000_000} million" in text


def test_refused_outputs(picture, tmp_path):
    Image.fromarray(picture(64, 48)).save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    (tmp_path / "there.png").write_bytes(b"precious")
    cases = {"there.png": "--overwrite", "in.png": "input itself", "x.mp4": "suffix .mp4", "no/x.png": "does not exist"}
    for name, message in cases.items():
        with pytest.raises(MediaError, match=message):
            write_photo(tmp_path / name, photo.image, like=photo)
    assert (tmp_path / "there.png").read_bytes() == b"precious"
    write_photo(tmp_path / "there.png", changed(photo.image), like=photo, overwrite=True)
    np.testing.assert_array_equal(read_photo(tmp_path / "there.png").image, changed(photo.image))


def test_a_side_too_long_for_the_format(tmp_path):
    Image.new("RGB", (16400, 4)).save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    with pytest.raises(MediaError, match="16400x4"):
        write_photo(tmp_path / "out.webp", photo.image, like=photo)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_full_disk_leaves_nothing(picture, tmp_path, monkeypatch):
    Image.fromarray(picture(64, 48)).save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")

    def onto_full_disk(path: Path) -> Path:
        link = path.with_name(".full.part")
        link.symlink_to("/dev/full")
        return link

    monkeypatch.setattr(files, "temporary_name", onto_full_disk)
    for image in (photo.image, changed(photo.image)):
        with pytest.raises(MediaError, match="disk is full"):
            write_photo(tmp_path / "out.png", image, like=photo)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.png"]
