"""Degradations: reproducible, aligned to the pixel, really encoded, and clean when they should be."""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from export.blind import BlindRange, degrade_blind, gaussian_kernel
from export.codecs import CODECS, encode_decode, jpeg_round_trip
from export.degradation_sheets import main as sheets_main
from export.degradations import LEVELS, Level, crop_matrix, degrade, motion_kernel, pad_for_codec, scaling
from export.metrics import psnr
from export.prepare import FaceRecord, write_lines
from idm_rt.geometry import CROP_SIZE, transform_points


@pytest.fixture(scope="module")
def canvas():
    return cv2.resize(astronaut()[0:256, 96:352], (384, 384), interpolation=cv2.INTER_CUBIC)


def test_equal_seeds_give_equal_pairs(canvas):
    a, b = (degrade(canvas, LEVELS["call-medium"], np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(a.clean, b.clean) and np.array_equal(a.degraded, b.degraded)


def test_worse_levels_are_worse(canvas):
    def mean_psnr(level):
        pairs = [degrade(canvas, LEVELS[level], np.random.default_rng(s), augment=False) for s in range(12)]
        return np.mean([psnr(pair.clean, pair.degraded) for pair in pairs])

    mild, medium, hard = (mean_psnr(level) for level in ("call-mild", "call-medium", "call-hard"))
    assert mild > medium + 1.0 > hard + 2.0


def test_a_clean_share_of_one_leaves_the_face_alone(canvas):
    pair = degrade(canvas, Level(0.9, 1.0, clean_share=1.0), np.random.default_rng(0))
    assert np.array_equal(pair.clean, pair.degraded)


def test_the_mildest_call_is_aligned_to_the_pixel(canvas):
    """A shift by one pixel of this textured picture would cost more than 6 dB."""
    pairs = [degrade(canvas, Level(0.0, 0.02), np.random.default_rng(s), augment=True) for s in range(8)]
    for pair in pairs:
        moved = psnr(pair.clean[:, 1:], pair.degraded[:, :-1])
        assert psnr(pair.clean, pair.degraded) > moved + 2.0


def test_the_crop_is_the_middle_of_the_canvas():
    corner = transform_points(crop_matrix(384, None), np.array([[64.0, 64.0]]))
    assert np.allclose(corner, 0.0)
    assert CROP_SIZE + 2 * 64 == 384


def test_scaling_keeps_pixel_centres():
    assert np.allclose(transform_points(scaling(0.5), np.array([[0.5, 0.5]])), 0.0)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_codecs_return_every_frame_and_lose_more_when_coarser(name, canvas):
    frames = [np.roll(canvas[:128, :160], index, axis=1).copy() for index in range(4)]
    fine = encode_decode(frames, CODECS[name], 0.1)
    coarse = encode_decode(frames, CODECS[name], 0.9)
    assert len(fine) == len(coarse) == 4 and fine[0].shape == frames[0].shape
    assert psnr(fine[-1], frames[-1]) > psnr(coarse[-1], frames[-1]) + 3.0
    assert psnr(fine[-1], frames[-1]) > 33.0


def test_jpeg_quality_matters(canvas):
    assert psnr(jpeg_round_trip(canvas, 95), canvas) > psnr(jpeg_round_trip(canvas, 20), canvas) + 3.0


def test_motion_kernel_keeps_brightness():
    for angle in (0.0, 33.0, 90.0):
        kernel = motion_kernel(7.0, angle)
        assert kernel.sum() == pytest.approx(1.0) and kernel.min() >= 0.0


@pytest.mark.parametrize("size", [(10, 10), (65, 66), (64, 64), (101, 33)])
def test_padding_makes_sides_that_codecs_take(size):
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    padded = pad_for_codec(frame)
    assert padded.shape[0] >= 64 and padded.shape[1] >= 64
    assert padded.shape[0] % 2 == padded.shape[1] % 2 == 0
    assert np.array_equal(padded[: size[0], : size[1]], frame)


def test_the_published_range_is_worse_than_any_call_and_reproducible(canvas):
    pairs = [degrade(canvas, LEVELS["bfr"], np.random.default_rng(s), augment=False) for s in range(12)]
    again = degrade(canvas, LEVELS["bfr"], np.random.default_rng(0), augment=False)
    assert np.array_equal(again.degraded, pairs[0].degraded)
    values = [psnr(pair.clean, pair.degraded) for pair in pairs]
    assert 12.0 < np.mean(values) < 24.0 and np.std(values) > 1.0


def test_the_range_keeps_a_faces_detail_at_the_scale_of_our_crop(canvas):
    """Eyes of an FFHQ crop at 512 are 128 px apart, ours 76.8: blur of 10 px there is one of 6 px here."""
    assert BlindRange().to_crop() == pytest.approx(0.6)
    wide = BlindRange(blur_sigma=(10.0, 10.0))
    kernel = gaussian_kernel(wide, np.random.default_rng(0))
    x = np.arange(kernel.shape[1]) - kernel.shape[1] // 2
    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.sqrt((kernel.sum(0) * x**2).sum()) == pytest.approx(6.0, abs=0.2)


def test_the_mildest_draw_of_the_range_is_aligned(canvas):
    mild = BlindRange((0.1, 0.2), (0.8, 1.5), (0.0, 0.5), (98, 100))
    result = degrade_blind(canvas, mild, np.random.default_rng(0))
    assert psnr(result, canvas) > 35.0 > psnr(result[:, 1:], canvas[:, :-1])


def test_contact_sheets_show_every_level(canvas, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), canvas[..., ::-1])
    record = FaceRecord("a.png", "a.jpg", "nasa", "astronaut", "val", "public domain", 256, 0, 20)
    write_lines(tmp_path / "faces.jsonl", iter([asdict(record)]))
    out = tmp_path / "sheets"
    assert sheets_main([str(tmp_path), str(out), "--levels", "call-mild", "bfr", "--columns", "2"]) == 0
    sheet = cv2.imread(str(out / "bfr.png"))
    assert sheet.shape == (512, 512, 3) and not sheet[:, 256:].any()  # one face, one empty column
    assert (out / "call-mild.png").is_file()
