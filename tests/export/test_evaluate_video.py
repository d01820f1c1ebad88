"""Temporal measures on videos with figures that can be worked out, encoders at a bitrate, one clip by command."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from export import evaluate_clip, evaluate_video, video_tables
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
from idm_rt.landmarks import LEFT_EYE, LEFT_MOUTH_CORNER, NOSE_TIP, RIGHT_EYE, RIGHT_MOUTH_CORNER

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
    table = video_tables.video_table("c:", videos)
    assert table.header == ["", "warping error over truth's", "face PSNR, dB"]
    assert table.rows == [["truth", "+0.000", "99.00"], ["input", "+0.500", "30.00"]]
    clips = [{"videos": {"input": {"a": 1.0, "b": None}}}, {"videos": {"input": {"a": 3.0, "b": 4.0}}}]
    assert video_tables.mean_figures(clips) == {"input": {"a": 2.0, "b": 4.0}}


def test_gains_are_shares_of_what_goes_beyond_the_truth():
    names = {"truth": (1.0, 0.0), "input": (1.5, 2.0), "per frame": (2.0, 1.6), "pipeline": (1.4, 0.8)}
    mean = {name: {"warping_error": a, "still_flicker": b} for name, (a, b) in names.items()}
    assert video_tables.gains(mean).rows == [["per frame", "-60%", "-50%"], ["input", "-20%", "-60%"]]


@pytest.fixture
def landmarker():
    from idm_rt.errors import ModelError
    from idm_rt.model_store import find_landmarker

    try:
        find_landmarker()
    except ModelError:
        pytest.skip("no face landmarker here: fetch it with idm-rt models fetch")


FEW = ["--frames", "6", "--still-frames", "6", "--height", "240", "--kbps", "150", "--threads", "1"]


@pytest.mark.slow
def test_a_folder_of_clips_through_the_command_which_goes_on_when_killed(tmp_path, landmarker, monkeypatch, capsys):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copyfile(ROOT / "demos/sample/astronaut_call.mp4", clips / name)
    command = [str(clips), "--out", str(out), *FEW]
    seen, measure = [], evaluate_video.evaluate_clip

    def dies_at_the_second(path, *rest):
        seen.append(path.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return measure(path, *rest)

    monkeypatch.setattr(evaluate_video, "evaluate_clip", dies_at_the_second)
    assert evaluate_video.main(command) == 130 and not (out / "video.json").exists()
    assert evaluate_video.main([*command, "--kbps", "90"]) == 1
    assert "journal.jsonl belongs to a run with other settings (kbps)" in capsys.readouterr().err
    assert evaluate_video.main(command) == 0 and seen == ["a.mp4", "b.mp4", "b.mp4"]
    report = json.loads((out / "video.json").read_text())
    figures = report["clips"]["a"]["videos"]
    assert list(figures) == ["truth", "input", "per frame", "pipeline"]
    assert figures["truth"]["still_flicker"] == 0.0 < figures["input"]["still_flicker"]
    assert figures["pipeline"]["still_flicker"] < 1.5 * figures["per frame"]["still_flicker"]
    assert report["mean"]["input"] == figures["input"] and report["codec"] == "vp8"
    page = (out / "video.html").read_text()
    assert page.count("data:image/png") == 2 and "http" not in page and "flicker of a still" in page
    assert "| pipeline |" in (out / "video.md").read_text()


def test_a_dry_run_names_the_clips(tmp_path, capsys):
    (tmp_path / "b.webm").touch()
    (tmp_path / "a.mp4").touch()
    (tmp_path / "notes.txt").touch()
    assert evaluate_video.main([str(tmp_path), "--out", str(tmp_path / "out"), "--threads", "1", "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [Path(name).name for name in plan["clips"]] == ["a.mp4", "b.webm"] and plan["settings"]["kbps"] == 250.0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["nothing.mp4", "."])
def test_what_holds_no_video_is_refused(tmp_path, name):
    with pytest.raises(evaluate_video.ConfigError, match="no video and no folder of videos"):
        evaluate_video.clip_files([tmp_path / name])


def five_point_face() -> np.ndarray:
    """Landmarks of which only the five points are set, eyes 40 px apart."""
    place = np.zeros((478, 2))
    place[list(LEFT_EYE)], place[list(RIGHT_EYE)], place[NOSE_TIP] = (60.0, 60.0), (100.0, 60.0), (80.0, 80.0)
    place[LEFT_MOUTH_CORNER], place[RIGHT_MOUTH_CORNER] = (66.0, 96.0), (94.0, 96.0)
    return place


def test_another_face_in_the_picture_is_not_taken_for_this_one():
    place = five_point_face()
    near, neighbour = place + np.array([3.0, 1.0]), place + np.array([90.0, 0.0])
    assert evaluate_clip.face_at([neighbour, near], place) is near
    assert evaluate_clip.face_at([neighbour], place) is None
    assert evaluate_clip.face_at([], place) is None


def test_the_networks_look_at_blur(moving):
    """Identity and vgg-hed of frames against the truth's, with stand-ins that can be worked out."""

    class Colours:
        def embed(self, face):
            return face.mean((0, 1)) / 255.0

    class Contrast:
        def features(self, picture):
            return picture.std()

        def distance(self, a, b):
            return abs(a - b)

    place = five_point_face()
    videos = {"truth": moving, "input": [cv2.GaussianBlur(f, (0, 0), 3) for f in moving]}
    looks = evaluate_clip.looked_at(videos, [place] * 6, evaluate_clip.Networks(Colours(), Contrast()), 3)
    assert looks["truth"]["vgg_hed"] == looks["truth"]["identity"] == 0.0 < looks["input"]["vgg_hed"]
    assert looks["input"]["identity"] < 0.05


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
    monkeypatch.setattr(evaluate_clip, "find_landmarks", lambda frames: [None] * len(frames))
    with pytest.raises(evaluate_video.ConfigError, match=r"grey.mp4: found 4 frames, and a face in the first"):
        evaluate_clip.evaluate_clip(clip, None, None, evaluate_clip.VideoOptions())
    assert evaluate_video.main([str(clip), str(clip), "--out", str(tmp_path)]) == 1
    assert "same name" in capsys.readouterr().err
