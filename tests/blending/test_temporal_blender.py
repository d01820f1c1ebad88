from __future__ import annotations

import cv2
import numpy as np
import pytest

from idm_rt.blending import BlendOptions, TemporalBlender

FRAME_MS = 1000.0 / 30.0
INNER = (slice(48, 208), slice(48, 208))  # away from the crop's border, where nothing is known of the motion
UNGATED = {"noise_floor": 200.0, "noise_cap": 200.0, "lag_open": 200.0, "lag_closed": 400.0}


def flicker(outputs: np.ndarray) -> float:
    """RMS difference of neighbouring frames, over the later half of a clip."""
    later = outputs[len(outputs) // 2 :]
    return float(np.sqrt(np.mean(np.square(np.diff(later, axis=0)))))


def run(blender: TemporalBlender, faces, start_ms: float = 0.0) -> np.ndarray:
    blended = [blender.blend([face], start_ms + i * FRAME_MS)[0] for i, face in enumerate(faces)]
    return np.stack([face.correction for face in blended])


@pytest.fixture
def static_clip(make_restored, make_texture, make_band_noise):
    """A still face under sensor noise; the correction is the same detail plus fresh flicker in each frame."""
    rng = np.random.default_rng(1)
    scene = make_texture(0)[64:320, 64:320]
    detail = make_band_noise(rng, 8.0)
    faces = []
    for _ in range(16):
        image = np.clip(scene + rng.normal(0, 1.0, scene.shape), 0, 255).astype(np.uint8)
        faces.append(make_restored(image, detail + make_band_noise(rng, 3.0)))
    return faces, detail


def test_flicker_of_a_still_face_falls_and_its_detail_stays(static_clip):
    faces, detail = static_clip
    corrections = np.stack([face.correction for face in faces])
    blended = run(TemporalBlender(), faces)
    assert flicker(blended[:, *INNER]) < 0.35 * flicker(corrections[:, *INNER])
    last = blended[-1][INNER]
    share = float(np.sum(last * detail[INNER]) / np.sum(detail[INNER] ** 2))
    assert 0.9 < share < 1.1
    error = lambda c: float(np.sqrt(np.mean((c - detail[INNER]) ** 2)))  # noqa: E731
    assert error(last) < 0.6 * error(corrections[-1][INNER])


def test_a_still_face_is_steadied_more_than_a_moving_one_is(static_clip):
    faces, _ = static_clip

    def shown(options: BlendOptions) -> float:
        images = np.stack([face.crop.image for face in faces])
        return flicker((run(TemporalBlender(options), faces) + images)[:, *INNER])

    assert shown(BlendOptions()) < 0.8 * shown(BlendOptions(still_px=0.0, moving_px=1e-6))


def test_a_blink_after_a_long_still_is_shown_at_once(static_clip, make_restored):
    """Fifteen still frames, then a bar crosses the eyes: no trace of the past there, and the cheeks stay steady."""
    faces, detail = static_clip
    blender = TemporalBlender()
    run(blender, faces[:-1])
    shut, loud = faces[-1].crop.image.copy(), faces[-1].correction.copy()
    shut[90:120, 60:200] = 255 - shut[90:120, 60:200]
    loud[90:120, 60:200] = 25.0
    out = blender.blend([make_restored(shut, loud)], 15 * FRAME_MS)[0].correction
    assert np.abs(out - loud)[96:114, 70:190].mean() < 0.5
    steady = (slice(190, 240), slice(60, 200))
    assert np.abs(out - detail)[steady].mean() < 0.6 * np.abs(loud - detail)[steady].mean()


def test_a_slow_shadow_on_a_still_face_is_followed(make_restored, make_texture):
    """A cheek darkens by 1 step a frame: less than noise, and yet the history must not stay behind."""

    def behind(options: BlendOptions) -> float:
        rng = np.random.default_rng(1)
        blender, scene = TemporalBlender(options), make_texture(0)[64:320, 64:320].astype(np.float32)
        shadow = np.zeros((256, 256, 1), np.float32)
        shadow[120:200, 120:200] = 1.0
        shadow = cv2.GaussianBlur(shadow, (0, 0), 8)[..., None]
        for index in range(24):
            image = scene - max(0, index - 8) * shadow + rng.normal(0, 1.0, scene.shape)
            face = make_restored(np.clip(image, 0, 255).astype(np.uint8), np.zeros_like(scene))
            out = blender.blend([face], index * FRAME_MS)[0].correction
        return float(np.abs(cv2.blur(out, (9, 9)))[140:180, 140:180].mean())

    assert behind(BlendOptions(lag_open=200.0, lag_closed=400.0)) > 4.0
    assert behind(BlendOptions()) < 2.0


def test_identical_frames_give_identical_output(make_restored, make_texture, make_band_noise):
    image = make_texture(0)[64:320, 64:320]
    correction = make_band_noise(np.random.default_rng(0), 8.0)
    blended = run(TemporalBlender(), [make_restored(image.copy(), correction.copy()) for _ in range(5)])
    for output in blended:
        np.testing.assert_array_equal(output, correction)


def test_the_first_frame_passes_unchanged_and_nothing_is_modified(static_clip):
    faces, _ = static_clip
    kept = [(face.crop.image.copy(), face.correction.copy()) for face in faces[:3]]
    blended = run(TemporalBlender(), faces[:3])
    np.testing.assert_array_equal(blended[0], kept[0][1])
    for face, (image, correction) in zip(faces, kept, strict=False):
        np.testing.assert_array_equal(face.crop.image, image)
        np.testing.assert_array_equal(face.correction, correction)


def test_a_restorer_that_reuses_its_buffer_does_not_change_the_past(static_clip, make_restored):
    faces, _ = static_clip
    wanted = run(TemporalBlender(), faces[:2])
    blender, buffer = TemporalBlender(), faces[0].correction.copy()
    blender.blend([make_restored(faces[0].crop.image, buffer)], 0.0)
    buffer[:] = 1e3
    found = blender.blend([faces[1]], FRAME_MS)[0].correction
    np.testing.assert_array_equal(found, wanted[1])


def moving_clip(make_restored, make_texture, make_band_noise, speed: float, flicker_rms: float):
    """The whole scene slides by ``speed`` px a frame; the true detail slides along. Returns faces and true details."""
    rng = np.random.default_rng(2)
    scene, wide_detail = make_texture(3).astype(np.float32), make_band_noise(rng, 8.0, 384)
    faces, details = [], []
    for i in range(14):
        shift = np.array([[1.0, 0, -10 - speed * i], [0, 1.0, -40 - 0.4 * speed * i]])
        image = cv2.warpAffine(scene, shift, (256, 256), flags=cv2.INTER_LINEAR)
        detail = cv2.warpAffine(wide_detail, shift, (256, 256), flags=cv2.INTER_CUBIC)
        details.append(detail)
        noisy = np.clip(image + rng.normal(0, 1.0, image.shape), 0, 255).astype(np.uint8)
        faces.append(make_restored(noisy, detail + make_band_noise(rng, flicker_rms)))
    return faces, np.stack(details)


@pytest.mark.parametrize("speed", [0.3, 1.5, 4.0])
def test_detail_that_moves_with_the_face_is_followed(make_restored, make_texture, make_band_noise, speed):
    faces, details = moving_clip(make_restored, make_texture, make_band_noise, speed, 3.0)
    fresh = np.stack([face.correction for face in faces])
    blended = run(TemporalBlender(), faces)
    error = lambda c: float(np.sqrt(np.mean((c - details)[7:, *INNER] ** 2)))  # noqa: E731
    assert error(blended) < 0.8 * error(fresh)


def test_a_patch_that_jumps_leaves_no_ghost(make_restored, make_texture, make_band_noise):
    """A hand crosses the face faster than any flow follows: behind it the picture is as without a past."""
    rng = np.random.default_rng(5)
    scene, hand = make_texture(0)[64:320, 64:320], make_texture(9)[:80, :60]
    hand = np.clip(255 - hand.astype(int), 0, 255).astype(np.uint8)
    detail, hand_detail = make_band_noise(rng, 6.0), 25.0 * np.sign(make_band_noise(rng, 1.0))[:80, :60]
    blender, ghosts, steady = TemporalBlender(), [], []
    for i in range(8):
        image, correction = scene.copy(), detail.copy()
        x = 40 + 30 * (i - 3)
        if i >= 3:
            image[90:170, x : x + 60], correction[90:170, x : x + 60] = hand, hand_detail
        out = blender.blend([make_restored(image, correction)], i * FRAME_MS)[0].correction
        if i >= 4:
            uncovered = (slice(98, 162), slice(x - 30, x - 8))  # hand in the last frame, face in this one
            ghosts.append(np.abs(out - correction)[uncovered].mean())
            steady.append(np.abs(out - correction)[190:240, 60:200].mean())
    assert max(ghosts) < 0.1 * 25.0
    assert max(steady) < 0.5


def test_without_the_gate_that_patch_would_leave_a_ghost(make_restored, make_texture, make_band_noise):
    """The test above can fail: with the gate wide open the same scene shows the ghost."""
    rng = np.random.default_rng(5)
    scene = make_texture(0)[64:320, 64:320]
    options = BlendOptions(**UNGATED)
    blender = TemporalBlender(options)
    covered, correction = scene.copy(), make_band_noise(rng, 6.0)
    covered[90:170, 100:160] = 255 - covered[90:170, 100:160]
    loud = correction.copy()
    loud[90:170, 100:160] = 25.0
    blender.blend([make_restored(covered, loud)], 0.0)
    out = blender.blend([make_restored(scene, correction)], FRAME_MS)[0].correction
    assert np.abs(out - correction)[100:160, 110:150].mean() > 5.0


def test_reset_forgets(static_clip):
    faces, _ = static_clip
    blender = TemporalBlender()
    run(blender, faces[:5])
    blender.reset()
    np.testing.assert_array_equal(run(blender, faces[5:6], 5 * FRAME_MS)[0], faces[5].correction)


@pytest.mark.parametrize(
    ("gap_ms", "remembered"), [(FRAME_MS, True), (200.0, True), (251.0, False), (-1.0, False), (-5000.0, False)]
)
def test_a_gap_or_a_step_back_in_time_forgets(static_clip, gap_ms, remembered):
    faces, _ = static_clip
    blender = TemporalBlender()
    run(blender, faces[:5])
    out = blender.blend([faces[5]], 4 * FRAME_MS + gap_ms)[0].correction
    assert np.array_equal(out, faces[5].correction) != remembered


@pytest.mark.parametrize(("missed", "remembered"), [(0, True), (2, True), (3, True), (4, False)])
def test_a_track_that_stays_away_is_forgotten(static_clip, missed, remembered):
    faces, _ = static_clip
    blender = TemporalBlender(BlendOptions(max_gap_ms=1e6))
    run(blender, faces[:5])
    for i in range(missed):
        assert blender.blend([], (5 + i) * FRAME_MS) == []
    out = blender.blend([faces[5]], (5 + missed) * FRAME_MS)[0].correction
    assert np.array_equal(out, faces[5].correction) != remembered


def test_a_new_id_has_no_past_and_each_id_has_its_own(make_restored, make_texture, make_band_noise):
    rng = np.random.default_rng(3)
    image = make_texture(0)[64:320, 64:320]
    noises = [make_band_noise(rng, 1.5) for _ in range(4)]
    blender = TemporalBlender()
    blender.blend([make_restored(image, noises[0], 1), make_restored(image, noises[1], 2)], 0.0)
    second, first, new = blender.blend(
        [make_restored(image, noises[2], 2), make_restored(image, noises[2], 1), make_restored(image, noises[3], 7)],
        FRAME_MS,
    )
    assert [f.crop.track.track_id for f in (second, first, new)] == [2, 1, 7]
    np.testing.assert_array_equal(new.correction, noises[3])
    np.testing.assert_allclose(first.correction, (noises[0] + noises[2]) / 2, atol=1e-4)
    np.testing.assert_allclose(second.correction, (noises[1] + noises[2]) / 2, atol=1e-4)


def test_swapped_ids_do_not_mix_two_people(make_restored, make_texture, make_band_noise):
    """If the tracker ever swaps two faces the gate closes: the other person's detail is not shown."""
    rng = np.random.default_rng(3)
    people = [make_texture(seed)[64:320, 64:320] for seed in (0, 1)]
    details = [make_band_noise(rng, 8.0) for _ in people]

    def leak(blender: TemporalBlender) -> float:
        blender.blend([make_restored(people[k], details[k], k) for k in (0, 1)], 0.0)
        swapped = blender.blend([make_restored(people[1 - k], details[1 - k], k) for k in (0, 1)], FRAME_MS)
        errors = [swapped[k].correction[INNER] - details[1 - k][INNER] for k in (0, 1)]
        return float(np.sqrt(np.mean(np.square(errors))))

    assert leak(TemporalBlender()) < 0.4 * leak(TemporalBlender(BlendOptions(**UNGATED)))


def test_confidence_is_passed_on(make_restored, make_texture):
    image, nothing = make_texture(0)[64:320, 64:320], np.zeros((256, 256, 3), np.float32)
    assert TemporalBlender().blend([make_restored(image, nothing, 1, 0.4)], 0.0)[0].confidence == 0.4


def test_another_crop_size_starts_anew(make_restored):
    blender = TemporalBlender()
    for size in (256, 512, 64):
        image, correction = np.full((size, size, 3), 9, np.uint8), np.full((size, size, 3), 3.0, np.float32)
        np.testing.assert_array_equal(blender.blend([make_restored(image, correction)], 0.0)[0].correction, correction)


def test_memory_is_bounded_by_the_faces_in_sight(make_restored, make_texture):
    image, nothing = make_texture(0)[64:320, 64:320], np.zeros((256, 256, 3), np.float32)
    blender = TemporalBlender()
    for i in range(40):
        blender.blend([make_restored(image, nothing, track_id=i)], i * FRAME_MS)
    assert len(blender._histories) <= BlendOptions().max_missed + 1


def test_carry_moves_the_last_correction_along(make_restored, make_texture, make_band_noise):
    faces, details = moving_clip(make_restored, make_texture, make_band_noise, 1.5, 0.0)
    blender = TemporalBlender()
    run(blender, faces[:8])
    carried = blender.carry([faces[8].crop], 8 * FRAME_MS)[0]
    assert carried.crop is faces[8].crop and carried.confidence == 1.0
    error = np.sqrt(np.mean((carried.correction - details[8])[INNER] ** 2))
    frozen = np.sqrt(np.mean((details[7] - details[8])[INNER] ** 2))
    assert error < 0.5 * frozen
    assert error < 0.6 * np.sqrt(np.mean(details[8][INNER] ** 2))  # and better than no correction at all


def test_carry_shows_nothing_where_the_face_has_changed(make_restored, make_texture, make_band_noise):
    scene = make_texture(0)[64:320, 64:320]
    blender = TemporalBlender()
    blender.blend([make_restored(scene, make_band_noise(np.random.default_rng(0), 8.0))], 0.0)
    changed = scene.copy()
    changed[100:160, 100:160] = 255 - changed[100:160, 100:160]
    carried = blender.carry([make_restored(changed, scene * 0.0).crop], FRAME_MS)[0].correction
    assert np.abs(carried[110:150, 110:150]).mean() < 0.6
    assert np.abs(carried[190:240, 60:200]).mean() > 3.0


def test_carry_without_a_past_is_no_correction(make_restored, make_texture):
    image = make_texture(0)[64:320, 64:320]
    carried = TemporalBlender().carry([make_restored(image, image * 0.0).crop], 0.0)[0]
    assert carried.confidence == 0.0 and not carried.correction.any()


@pytest.mark.parametrize(
    "values",
    [
        {"max_count": -1.0},
        {"still_count": 4.0},
        {"still_px": 1.0},
        {"lag_closed": 0.5},
        {"output_share": 1.5},
        {"noise_floor": 0.0},
        {"noise_floor": 9.0},
        {"gate_open": 3.0},
        {"max_missed": -1},
        {"max_gap_ms": 0.0},
    ],
)
def test_options_that_cannot_work_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        BlendOptions(**values)
