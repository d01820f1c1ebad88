"""The five stages joined: what goes in comes out, faults become bypass. Trackers and restorers here are small fakes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from idm_rt.blending import TemporalBlender
from idm_rt.config import EnhancerConfig
from idm_rt.enhancer import REOPEN_AFTER_S, Enhancer
from idm_rt.errors import EngineError
from idm_rt.geometry import ALIGN_TEMPLATE
from idm_rt.landmarks import LEFT_EYE, LEFT_MOUTH_CORNER, NOSE_TIP, NUM_LANDMARKS, RIGHT_EYE, RIGHT_MOUTH_CORNER
from idm_rt.pipeline import Pipeline
from idm_rt.timing import StageTimer
from idm_rt.tracking import TrackingResult
from idm_rt.types import FaceTrack, Frame


def make_track(centre_xy=(160.0, 120.0), side_px=150.0, track_id=0, yaw=0.0, age=100, score=1.0) -> FaceTrack:
    """A frontal face whose five points lie exactly on the template of a crop of ``side_px``."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, NUM_LANDMARKS)
    radius = np.sqrt(rng.uniform(0, 1, NUM_LANDMARKS))
    unit = np.stack([0.5 + 0.3 * radius * np.cos(angle), 0.56 + 0.38 * radius * np.sin(angle)], axis=1)
    oval = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    from idm_rt.landmarks import FACE_OVAL

    unit[list(FACE_OVAL)] = np.stack([0.5 + 0.3 * np.sin(oval), 0.56 - 0.38 * np.cos(oval)], axis=1)
    for indices, point in zip(
        (list(LEFT_EYE), list(RIGHT_EYE), [NOSE_TIP], [LEFT_MOUTH_CORNER], [RIGHT_MOUTH_CORNER]),
        ALIGN_TEMPLATE,
        strict=True,
    ):
        unit[indices] = point
    points = (unit - 0.5) * side_px + np.asarray(centre_xy)
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return FaceTrack(track_id, box, points, score, yaw, 0.0, age)


class ScriptedTracker:
    """Returns the same faces for every frame, or raises."""

    def __init__(self, tracks=(), cut=False) -> None:
        self.tracks, self.cut, self.error = list(tracks), cut, None
        self.resets = self.closes = 0

    def update(self, image, timestamp_ms) -> TrackingResult:
        if self.error is not None:
            raise self.error
        return TrackingResult(list(self.tracks), self.cut)

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closes += 1


class Sharpener:
    """A restorer whose correction is fine detail of known size, so that it passes the tone match."""

    size = 256

    def __init__(self, gain=8.0) -> None:
        self.gain, self.batches, self.error, self.closed = gain, [], None, False

    def correction(self, crops, steps=1):
        if self.error is not None:
            raise self.error
        self.batches.append((len(crops), steps))
        rows = np.where(np.arange(256) // 4 % 2, self.gain, -self.gain).astype(np.float32)
        return np.broadcast_to(rows[None, :, None, None], crops.shape).astype(np.float32).copy()

    def close(self) -> None:
        self.closed = True

    def warm_up(self) -> None:
        self.correction(np.zeros((1, 256, 256, 3), np.uint8))


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(40, 210, (240, 320, 3), dtype=np.uint8)


def make_enhancer(tracker, restorer, clock=lambda: 0.0, **config) -> Enhancer:
    return Enhancer(
        EnhancerConfig(**config), clock=clock, make_tracker=lambda _: tracker, make_restorer=lambda _: restorer
    )


def test_frame_keeps_pts_and_the_pixels_away_from_the_face(image):
    pipeline = Pipeline(ScriptedTracker([make_track()]), Sharpener(), TemporalBlender())
    frame = Frame(image, pts=77, time_base=Fraction(1, 90_000), captured_s=1.5)
    before = image.copy()
    out = pipeline.process(frame, 0.0).frame
    assert (out.pts, out.time_base, out.captured_s) == (77, Fraction(1, 90_000), 1.5)
    assert np.array_equal(image, before)
    changed = (out.image != image).any(axis=2)
    assert changed[80:160, 120:200].mean() > 0.5
    assert not changed[:, :60].any() and not changed[:, 260:].any()


def test_no_face_returns_the_very_same_frame(image):
    restorer = Sharpener()
    frame = Frame(image)
    result = Pipeline(ScriptedTracker(), restorer, TemporalBlender()).process(frame, 0.0)
    assert result.frame is frame and restorer.batches == []


def test_faces_are_restored_in_one_batch_and_hidden_ones_cost_nothing(image):
    tracks = [
        make_track((80, 120), 110, 0),
        make_track((240, 120), 110, 1),
        make_track((160, 60), 110, 2, yaw=80.0),
    ]
    restorer = Sharpener()
    result = Pipeline(ScriptedTracker(tracks), restorer, TemporalBlender()).process(Frame(image), 0.0, steps=4)
    assert restorer.batches == [(2, 4)]
    assert result.restored == 2 and len(result.tracks) == 3


def test_a_scene_cut_forgets_the_blenders_past(image):
    tracker, restorer = ScriptedTracker([make_track()]), Sharpener(gain=8.0)
    pipeline = Pipeline(tracker, restorer, TemporalBlender())
    for index in range(5):
        pipeline.process(Frame(image), index * 33.0)
    restorer.gain, tracker.cut = -8.0, True
    cut = pipeline.process(Frame(image), 165.0).frame.image
    fresh = Pipeline(tracker, restorer, TemporalBlender()).process(Frame(image), 165.0).frame.image
    assert np.array_equal(cut, fresh)


def test_identical_frames_give_identical_output(image):
    pipeline = Pipeline(ScriptedTracker([make_track()]), Sharpener(), TemporalBlender())
    outputs = [pipeline.process(Frame(image), index * 33.0).frame.image for index in range(4)]
    assert all(np.array_equal(outputs[0], other) for other in outputs[1:])


def test_stage_times_are_taken(image):
    timer = StageTimer()
    Pipeline(ScriptedTracker([make_track()]), Sharpener(), TemporalBlender(), timer=timer).process(Frame(image), 0.0)
    assert set(timer.summary()) == {"track", "crop", "restore", "blend", "composite"}


def test_strength_zero_is_the_input_and_runs_nothing(image):
    tracker = ScriptedTracker([make_track()])
    tracker.error = AssertionError("must not be called")
    enhancer = make_enhancer(tracker, Sharpener(), strength=0.0)
    assert enhancer.process(image, 0.0) is image
    assert enhancer.counts.frames == 1 and enhancer.counts.bypassed == {}


def test_strength_scales_the_change(image):
    def change(strength):
        out = make_enhancer(ScriptedTracker([make_track()]), Sharpener(20.0), strength=strength).process(image, 0.0)
        return np.abs(out.astype(int) - image).sum()

    assert change(0.25) < change(0.5) < change(1.0)
    assert change(0.5) == pytest.approx(change(1.0) / 2, rel=0.1)


@pytest.mark.parametrize("stage", ["tracker", "restorer"])
def test_a_fault_shows_the_original_once_logged_and_recovers(image, stage, caplog):
    tracker, restorer = ScriptedTracker([make_track()]), Sharpener()
    enhancer = make_enhancer(tracker, restorer)
    broken = tracker if stage == "tracker" else restorer
    broken.error = EngineError("the engine died")
    for index in range(3):
        assert enhancer.process(image, index * 33.0) is image
    assert enhancer.counts.bypassed == {"EngineError: the engine died": 3}
    assert enhancer.last.bypassed == "EngineError: the engine died"
    assert sum("the engine died" in record.message for record in caplog.records) == 1
    broken.error = None
    assert not np.array_equal(enhancer.process(image, 133.0), image)
    assert enhancer.last.bypassed is None


def test_a_lasting_fault_has_the_stages_opened_anew(image):
    now = [0.0]
    opened = []

    def make_restorer(_):
        restorer = Sharpener()
        restorer.error = EngineError("lost device") if not opened else None
        opened.append(restorer)
        return restorer

    enhancer = Enhancer(
        EnhancerConfig(),
        clock=lambda: now[0],
        make_tracker=lambda _: ScriptedTracker([make_track()]),
        make_restorer=make_restorer,
    )
    assert enhancer.process(image, 0.0) is image
    now[0] = REOPEN_AFTER_S / 2
    assert enhancer.process(image, 500.0) is image and len(opened) == 1
    now[0] = REOPEN_AFTER_S + 0.1
    assert enhancer.process(image, 1000.0) is image
    assert len(opened) == 2 and opened[0].closed
    assert not np.array_equal(enhancer.process(image, 1033.0), image)


def test_carry_moves_the_last_correction_along_without_the_network(image):
    restorer = Sharpener()
    timer = StageTimer()
    pipeline = Pipeline(ScriptedTracker([make_track()]), restorer, TemporalBlender(), timer=timer)
    first = pipeline.process(Frame(image), 0.0)
    carried = pipeline.process(Frame(image), 33.0, carry=True)
    assert len(restorer.batches) == 1 and (first.restored, carried.restored) == (1, 0)
    assert np.array_equal(carried.frame.image, first.frame.image)  # the same picture: the same correction
    assert timer.summary()["restore"]["count"] == 1 and timer.summary()["blend"]["count"] == 2


def test_carry_follows_the_face(image):
    """The picture and the face in it move by 7 px, one and a half stripes: so does what is added to it."""
    tracker = ScriptedTracker([make_track()])
    pipeline = Pipeline(tracker, Sharpener(), TemporalBlender())
    moved = np.roll(image, 7, axis=0)
    first = pipeline.process(Frame(image), 0.0).frame.image.astype(int) - image
    tracker.tracks = [make_track((160.0, 127.0))]
    carried = pipeline.process(Frame(moved), 33.0, carry=True).frame.image.astype(int) - moved
    face = (slice(90, 150), slice(140, 180))
    followed, stood_still = np.roll(first, 7, axis=0)[face], first[face]
    assert np.abs(followed).mean() > 1.0
    assert np.abs(carried[face] - followed).mean() < 0.25 * np.abs(followed).mean()
    assert np.abs(carried[face] - followed).mean() < 0.25 * np.abs(carried[face] - stood_still).mean()


def test_carry_without_a_past_shows_the_original(image):
    enhancer = make_enhancer(ScriptedTracker([make_track()]), Sharpener())
    assert enhancer.process_frame(Frame(image), 0.0, carry=True).image is image
    assert enhancer.last.bypassed is None and enhancer.last.restored == 0


def test_carry_is_refused_for_unrelated_pictures(image):
    with pytest.raises(ValueError, match="blender"):
        Pipeline(ScriptedTracker(), Sharpener(), None).process(Frame(image), 0.0, carry=True)
    with pytest.raises(ValueError, match="temporal"):
        make_enhancer(ScriptedTracker(), Sharpener(), temporal=False).process_frame(Frame(image), 0.0, carry=True)


def test_steps_and_strength_of_one_frame(image):
    restorer = Sharpener(20.0)
    enhancer = make_enhancer(ScriptedTracker([make_track()]), restorer, steps=2)
    full = enhancer.process_frame(Frame(image), 0.0).image
    weak = enhancer.process_frame(Frame(image), 33.0, steps=4, strength=0.25).image
    assert restorer.batches == [(1, 2), (1, 4)] and enhancer.last.restored == 1
    assert np.abs(weak.astype(int) - image).sum() < 0.5 * np.abs(full.astype(int) - image).sum()
    assert enhancer.process_frame(Frame(image), 66.0, strength=0.0).image is image
    with pytest.raises(ValueError, match="strength is 2"):
        enhancer.process_frame(Frame(image), 99.0, strength=2.0)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.zeros((4, 4), np.uint8), ValueError),
        (np.zeros((4, 4, 3), np.float32), TypeError),
        ("picture", TypeError),
        (np.zeros((4, 4, 4), np.uint8), ValueError),
    ],
)
def test_what_is_no_picture_is_the_callers_bug(bad, error):
    enhancer = make_enhancer(ScriptedTracker(), Sharpener())
    with pytest.raises(error):
        enhancer.process(bad, 0.0)


def test_counts(image):
    enhancer = make_enhancer(ScriptedTracker([make_track(), make_track((80, 120), 100, 1)]), Sharpener())
    enhancer.process(image, 0.0)
    enhancer.process(image, 33.0)
    counts = enhancer.counts
    assert (counts.frames, counts.frames_with_faces, counts.faces, counts.restored) == (2, 2, 4, 4)


def test_a_failing_tracker_closes_the_restorer():
    restorer = Sharpener()

    def make_tracker(_):
        raise EngineError("no mediapipe")

    with pytest.raises(EngineError):
        Enhancer(EnhancerConfig(), make_tracker=make_tracker, make_restorer=lambda _: restorer)
    assert restorer.closed
