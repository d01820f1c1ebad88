"""Temporal measures on videos with figures that can be worked out, encoders at a bitrate, one clip by command."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from export import evaluate_video
from export.codecs import CODECS, at_bitrate, round_trip
from export.metrics import psnr
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

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def moving():
    """Six frames of a textured picture that moves by (2, 1) px a frame."""
    base = cv2.GaussianBlur(astronaut(), (0, 0), 1.0)
    return [np.ascontiguousarray(base[40 + k : 168 + k, 120 + 2 * k : 280 + 2 * k]) for k in range(6)]


@pytest.fixture(scope="module")
def inside():
    mask = np.zeros((128, 160), bool)
    mask[16:112, 16:144] = True
    return [mask] * 6


def test_flow_says_where_things_were(moving, inside):
    flow = backward_flows(moving)[2]
    assert np.median(flow[inside[0]], axis=0) == pytest.approx([2.0, 1.0], abs=0.2)  # it moves up and left


def test_warping_error_sees_noise_and_not_motion(moving, inside):
    flows = backward_flows(moving)
    masks = seen_masks(moving, flows, inside)
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, 8, f.shape), 0, 255).astype(np.uint8) for f in moving]
    assert np.mean([mask.mean() for mask in masks]) > 0.4
    clean, worse = warping_error(moving, flows, masks), warping_error(noisy, flows, masks)
    assert clean < 2.0 and worse > clean + 4.0
    assert warping_error(moving, flows, [np.zeros_like(mask) for mask in masks]) == 0.0


def test_flicker_is_the_deviation_over_time():
    mask = np.zeros((4, 4), bool)
    mask[1] = True
    frames = [np.full((4, 4, 3), 100 + 6 * (k % 2), np.uint8) for k in range(10)]
    frames[0][0] = 255  # outside the mask
    assert flicker(frames, mask) == pytest.approx(3.0)
    assert flicker([frames[1]] * 3, mask) == 0.0


def test_jitter_ignores_even_motion_and_frames_without_a_face():
    start = np.random.default_rng(0).uniform(0, 100, (5, 2))
    even = [start + k * np.array([3.0, -1.0]) for k in range(5)]
    assert landmark_jitter(even, 50.0) == pytest.approx(0.0, abs=1e-9)
    bent = [*even[:4], even[4] + np.array([0.0, 2.0])]
    assert landmark_jitter(bent, 50.0) == pytest.approx(2.0 / 3 / 50 * 100)
    assert landmark_jitter([even[0], None, even[2], even[3]], 50.0) is None


def test_identity_tells_a_steady_stranger_from_an_unsteady_friend():
    truth = np.zeros((4, 2))
    stranger = np.tile([1.0, 0.0], (4, 1))
    unsteady = np.array([[0.2, 0.0], [-0.2, 0.0]] * 2)
    assert identity_figures(stranger, truth) == pytest.approx((1.0, 0.0))
    assert identity_figures(unsteady, truth) == pytest.approx((0.2, 0.2))


def test_masks_and_their_psnr():
    mask = face_mask(np.array([[2.0, 2.0], [12.0, 2.0], [7.0, 12.0], [7.0, 5.0]]), (16, 16))
    assert mask[3, 7] and not mask[13, 7] and not mask[10, 2]
    truth = np.full((16, 16, 3), 100, np.uint8)
    other = truth.copy()
    other[mask] += 10
    other[~mask] = 0
    assert masked_psnr([other], [truth], [mask]) == pytest.approx(28.13, abs=0.01)
    assert masked_psnr([truth], [truth], [mask]) == 99.0


@pytest.mark.parametrize("name", sorted(CODECS))
def test_more_bits_lose_less(name):
    base = cv2.resize(astronaut(), (320, 320), interpolation=cv2.INTER_AREA)
    frames = [np.ascontiguousarray(base[k : 240 + k, k : 240 + k]) for k in range(12)]
    poor, rich = (round_trip(frames, CODECS[name], at_bitrate(name, kbps), Fraction(30)) for kbps in (60, 1500))
    quality = [np.mean([psnr(a, b) for a, b in zip(frames[4:], x[4:], strict=True)]) for x in (poor, rich)]
    assert len(poor) == len(rich) == 12 and quality[1] > quality[0] + 2.0


def test_the_table_gives_the_warping_error_over_the_truths():
    videos = {"truth": {"warping_error": 1.0, "psnr_db": 99.0}, "input": {"warping_error": 1.5, "psnr_db": 30.0}}
    table = evaluate_video.video_table("c:", videos)
    assert table.header == ["", "warping error over truth's", "face PSNR, dB"]
    assert table.rows == [["truth", "+0.000", "99.00"], ["input", "+0.500", "30.00"]]
    clips = [{"videos": {"input": {"a": 1.0, "b": None}}}, {"videos": {"input": {"a": 3.0, "b": 4.0}}}]
    assert evaluate_video.mean_figures(clips) == {"input": {"a": 2.0, "b": 4.0}}


@pytest.mark.slow
def test_the_sample_call_through_the_command(tmp_path):
    from idm_rt.errors import ModelError
    from idm_rt.model_store import find_landmarker

    try:
        find_landmarker()
    except ModelError:
        pytest.skip("no face landmarker here: fetch it with idm-rt models fetch")
    clip, out = ROOT / "demos/sample/astronaut_call.mp4", tmp_path / "out"
    few = ["--frames", "6", "--still-frames", "6", "--height", "240", "--kbps", "150"]
    assert evaluate_video.main([str(clip), "--out", str(out), *few]) == 0
    report = json.loads((out / "video.json").read_text())
    figures = report["clips"]["astronaut_call"]["videos"]
    assert list(figures) == ["truth", "input", "per frame", "pipeline"]
    assert figures["truth"]["still_flicker"] == 0.0 < figures["input"]["still_flicker"]
    assert figures["pipeline"]["still_flicker"] < 1.5 * figures["per frame"]["still_flicker"]
    assert report["mean"]["input"] == figures["input"] and report["codec"] == "vp8"
    page = (out / "video.html").read_text()
    assert "data:image/png" in page and "http" not in page
    assert "| pipeline |" in (out / "video.md").read_text()


def test_a_clip_without_a_face_is_named(tmp_path, capsys, monkeypatch):
    import av

    clip = tmp_path / "grey.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 128
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((128, 128, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    monkeypatch.setattr(evaluate_video, "open_restorer", lambda *a: (_ for _ in ()).throw(AssertionError("opened")))
    monkeypatch.setattr(evaluate_video, "find_landmarks", lambda frames: [None] * len(frames))
    with pytest.raises(evaluate_video.ConfigError, match=r"grey.mp4: found 4 frames, and a face in the first"):
        evaluate_video.evaluate_clip(clip, None, None, evaluate_video.VideoOptions())
    assert evaluate_video.main([str(clip), str(clip), "--out", str(tmp_path)]) == 1
    assert "same name" in capsys.readouterr().err
