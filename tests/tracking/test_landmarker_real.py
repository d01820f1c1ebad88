"""The real nets on real faces: a public-domain photo, and a clip where the shared data is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from idm_rt import model_store
from idm_rt.errors import ConfigError, EngineError, ModelError
from idm_rt.geometry import align_matrix, transform_points
from idm_rt.landmarks import five_points
from idm_rt.model_files import find_fault
from idm_rt.tracking import FaceTracker, TrackerOptions, open_tracker
from idm_rt.tracking.face_search import eye_line_roll, mesh_in_box
from idm_rt.tracking.landmarker import FaceDetector, FaceLandmarker
from idm_rt.tracking.openvino_nets import OpenVinoFaceDetector, OpenVinoFaceMesh
from idm_rt.tracking.records import FaceBox, RawFace

TASK = model_store.cache_dir() / model_store.FACE_LANDMARKER.record.path
SHARED = Path(os.environ.get("IDM_RT_SHARED") or Path(__file__).parents[3] / "shared")
CLIP = SHARED / "data" / "clips" / "d3.mp4"

needs_task = pytest.mark.skipif(
    find_fault(TASK, model_store.FACE_LANDMARKER.record) is not None,
    reason="face_landmarker.task is not in the cache; 'idm-rt models fetch' gets it",
)
needs_clip = pytest.mark.skipif(not CLIP.exists(), reason="no shared clips; set IDM_RT_SHARED to their folder")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(512, 512, 3): an astronaut, her face about 100 px wide at (220, 115)."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="module")
def portrait(photo: np.ndarray) -> np.ndarray:
    """(256, 256, 3): the same face, large."""
    return np.ascontiguousarray(photo[0:256, 96:352])


@pytest.fixture(scope="module", params=["openvino", "mediapipe"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every promise holds for both."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return str(request.param)


@pytest.fixture(scope="module")
def nets(backend: str) -> Iterator[Nets]:
    with open_nets(backend) as opened:
        yield opened


@dataclass(frozen=True)
class Nets:
    """One backend's nets, and a mesh without memory made of both."""

    detector: FaceDetector | OpenVinoFaceDetector
    mesh: FaceLandmarker | OpenVinoFaceMesh

    def face(self, picture: np.ndarray) -> RawFace:
        """The largest face, looked at again where the first mesh lay, as it would be in a stream."""
        first = mesh_in_box(picture, self.detector.detect(picture)[0], self.mesh)
        assert first is not None
        face = mesh_in_box(picture, FaceBox(first.box_xyxy, 1.0, eye_line_roll(first.landmarks_xy)), self.mesh)
        assert face is not None
        return face


@contextmanager
def open_nets(backend: str) -> Iterator[Nets]:
    kinds = (FaceDetector, FaceLandmarker) if backend == "mediapipe" else (OpenVinoFaceDetector, OpenVinoFaceMesh)
    with kinds[0](TASK) as detector, kinds[1](TASK) as mesh:
        yield Nets(detector, mesh)  # type: ignore[arg-type]


def read_clip(limit: int, path: Path = CLIP) -> list[np.ndarray]:
    import av

    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == limit:
                break
    return frames


def follow(tracker: FaceTracker, frames: list[np.ndarray], step_ms: float = 33.0) -> list[np.ndarray]:
    """Landmarks of the single face of each frame."""
    landmarks = []
    for i, frame in enumerate(frames):
        (track,) = tracker.update(frame, step_ms * i).tracks
        landmarks.append(track.landmarks_xy)
    return landmarks


@needs_task
def test_landmarks_lie_on_the_face(portrait: np.ndarray, nets: Nets) -> None:
    face = nets.face(portrait)
    left_eye, right_eye, nose, left_mouth, right_mouth = five_points(face.landmarks_xy)
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert abs(face.yaw_deg) < 30 and abs(face.pitch_deg) < 30


@needs_task
def test_pixel_centres_lie_at_integers(portrait: np.ndarray, nets: Nets) -> None:
    face = nets.face(portrait)
    for factor in (2, 3):
        large = cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        bigger = nets.face(large)
        shift = ((bigger.landmarks_xy + 0.5) / factor - 0.5 - face.landmarks_xy).mean(axis=0)
        assert np.abs(shift).max() < 0.4


@needs_task
def test_mirrored_face_turns_the_other_way(portrait: np.ndarray, nets: Nets) -> None:
    face = nets.face(portrait)
    mirrored = nets.face(np.ascontiguousarray(portrait[:, ::-1]))
    assert mirrored.yaw_deg == pytest.approx(-face.yaw_deg, abs=4)
    assert mirrored.pitch_deg == pytest.approx(face.pitch_deg, abs=4)


@needs_task
@needs_clip
@pytest.mark.parametrize("name", ["s18.mp4", "s32.mp4"])
def test_head_that_turns_to_the_viewers_right_has_its_nose_there(name: str, backend: str) -> None:
    (frame,) = read_clip(1, CLIP.with_name(name))
    with open_tracker(TASK, backend=backend) as tracker:
        (track,) = tracker.update(frame, 0).tracks
    left_eye, right_eye, nose, _, _ = five_points(track.landmarks_xy)
    across = (right_eye - left_eye) / np.linalg.norm(right_eye - left_eye)
    offset = (nose - (left_eye + right_eye) / 2) @ across
    assert abs(track.yaw_deg) > 10 and np.sign(offset) == np.sign(track.yaw_deg)


@needs_task
def test_detector_misses_what_windows_find(photo: np.ndarray, backend: str) -> None:
    """The reason why frames are searched tile by tile."""
    small = cv2.resize(photo, (240, 240), interpolation=cv2.INTER_AREA)  # a face of about 60 px
    frame = np.full((720, 1280, 3), 100, np.uint8)
    frame[400:640, 900:1140] = small
    with open_nets(backend) as nets:
        assert nets.detector.detect(frame) == []
    with open_tracker(TASK, TrackerOptions(video=False), backend=backend) as tracker:
        (track,) = tracker.update(frame, 0).tracks
    assert 960 < track.box_xyxy[0] < track.box_xyxy[2] < 1080 and track.score > 0.5


@needs_task
def test_twenty_faces_in_one_photo(photo: np.ndarray, backend: str) -> None:
    frame = np.full((1040, 1300, 3), 100, np.uint8)
    for i in range(20):
        x, y = 260 * (i % 5), 260 * (i // 5)
        frame[y : y + 256, x : x + 256] = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    with open_tracker(TASK, TrackerOptions(video=False, max_faces=32), backend=backend) as tracker:
        tracks = tracker.update(frame, 0).tracks
    assert len(tracks) == 20
    cells = {(int(t.box_xyxy[0] // 260), int(t.box_xyxy[1] // 260)) for t in tracks}
    assert len(cells) == 20


@needs_task
def test_face_that_leaves_the_frame_is_followed_until_a_third_is_gone(photo: np.ndarray, backend: str) -> None:
    portrait = np.ascontiguousarray(photo[0:300, 60:400])
    with open_tracker(TASK, backend=backend) as tracker, open_nets(backend) as nets:
        whole = nets.face(portrait)
        x0, _, x1, _ = whole.box_xyxy
        ids, errors = set(), []
        for i in range(22):
            cut = int(x0 + (x1 - x0) * 0.35 * max(0, i - 5) / 16)
            moved = np.full_like(portrait, 90)
            moved[:, : portrait.shape[1] - cut] = portrait[:, cut:]
            (track,) = tracker.update(moved, 33.0 * i).tracks
            ids.add(track.track_id)
            errors.append(np.abs(track.landmarks_xy + np.array([cut, 0]) - whole.landmarks_xy).mean() / (x1 - x0))
    assert ids == {0} and max(errors[8:]) < 0.06
    assert track.score < 0.8  # a part is outside


@needs_task
def test_still_face_in_noise_is_steady_in_the_crop(portrait: np.ndarray, backend: str) -> None:
    rng = np.random.default_rng(0)
    frames = [np.clip(portrait + rng.normal(0, 6, portrait.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    with open_tracker(TASK, backend=backend) as tracker, open_nets(backend) as nets:
        raw = [five_points(nets.face(frame).landmarks_xy) for frame in frames]
        smooth = [five_points(xy) for xy in follow(tracker, frames)]
    matrix = align_matrix(np.mean(raw, axis=0))
    raw_step, step = (
        np.abs(np.diff([transform_points(matrix, points) for points in series[8:]], axis=0)).mean()
        for series in (raw, smooth)
    )
    assert step < raw_step / 3 and step < 0.2  # crop px per frame


@needs_task
@pytest.mark.parametrize("hw", [(1, 1), (1, 700), (2, 2000), (359, 641)])
def test_empty_and_degenerate_frames(hw: tuple[int, int], backend: str) -> None:
    for video in (True, False):
        with open_tracker(TASK, TrackerOptions(video=video), backend=backend) as tracker:
            assert [tracker.update(np.zeros((*hw, 3), np.uint8), 0).tracks for _ in range(2)] == [[], []]


@needs_task
def test_cost_follows_the_face_not_the_frame(portrait: np.ndarray, backend: str) -> None:
    """The same face in frames of which one has nine times the pixels; in turns, for the machine may be busy."""
    face = cv2.resize(portrait, (450, 450), interpolation=cv2.INTER_CUBIC)
    small, large = (np.full((*hw, 3), 100, np.uint8) for hw in ((480, 640), (1440, 1920)))
    small[10:460, 90:540] = large[10:460, 90:540] = face
    times: dict[int, list[float]] = {}
    with open_tracker(TASK, backend=backend) as first, open_tracker(TASK, backend=backend) as second:
        for i in range(30):
            for tracker, frame in ((first, small), (second, large)):
                start = time.process_time()
                assert len(tracker.update(frame, 33.0 * i).tracks) == 1
                times.setdefault(frame.size, []).append(time.process_time() - start)
    small_s, large_s = (float(np.quantile(times[frame.size], 0.25)) for frame in (small, large))
    assert large_s < 1.5 * small_s, f"{1000 * small_s:.1f} ms and {1000 * large_s:.1f} ms of CPU time"


@needs_task
@needs_clip
def test_real_clip_keeps_one_id_and_lags_little(backend: str) -> None:
    frames = read_clip(60)
    with open_nets(backend) as nets, open_tracker(TASK, backend=backend) as tracker:
        raw = np.array([nets.face(frame).landmarks_xy for frame in frames])
        results = [tracker.update(frame, 40.0 * i) for i, frame in enumerate(frames)]
    assert {track.track_id for result in results for track in result.tracks} == {0}
    assert not any(result.scene_cut for result in results) and all(result.tracks for result in results)
    smooth = np.array([result.tracks[0].landmarks_xy for result in results])
    size = np.ptp(raw[0], axis=0).max()
    assert np.linalg.norm(smooth - raw, axis=2).mean() < 0.01 * size
    bend = [np.linalg.norm(np.diff(xy, 2, axis=0), axis=2).mean() for xy in (raw, smooth)]
    assert bend[1] < 0.8 * bend[0]


@needs_task
@needs_clip
def test_real_clip_cut_to_a_photo_and_back(photo: np.ndarray, backend: str) -> None:
    clip = read_clip(4)
    with open_tracker(TASK, backend=backend) as tracker:
        results = [tracker.update(image, 33.0 * i) for i, image in enumerate([*clip, photo, photo, *clip])]
    assert [i for i, result in enumerate(results) if result.scene_cut] == [4, 6]
    first, second, third = (
        {t.track_id for r in part for t in r.tracks} for part in (results[:4], results[4:6], results[6:])
    )
    assert len(first | second | third) == 3


def test_missing_and_broken_files_say_what_to_do(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.task", tmp_path / "empty.task"
    broken.write_bytes(b"not a zip file")
    empty.write_bytes(b"")
    for kind in (FaceLandmarker, FaceDetector, OpenVinoFaceMesh, OpenVinoFaceDetector):
        for path in (tmp_path / "absent.task", broken, empty, tmp_path):
            with pytest.raises(ModelError, match="models fetch") as info:
                kind(path)
            assert str(path) in str(info.value) and "\n" not in str(info.value)


def test_missing_mediapipe_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(EngineError, match="pip install mediapipe"):
        FaceLandmarker(tmp_path / "any.task")


@needs_task
def test_process_that_forgets_to_close_ends_quietly() -> None:
    code = (
        "import sys, numpy as np\n"
        "from skimage.data import astronaut\n"
        "from idm_rt.tracking import open_tracker\n"
        "tracker = open_tracker(sys.argv[1])\n"
        "print(len(tracker.update(astronaut(), 0).tracks))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(TASK)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "1")
    assert done.stderr == ""


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, idm_rt.tracking; print([m for m in ('numpy', 'cv2', 'mediapipe') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@needs_task
@pytest.mark.parametrize("kind", [FaceDetector, FaceLandmarker, OpenVinoFaceDetector, OpenVinoFaceMesh])
def test_closed_net_is_a_bug(kind: type) -> None:
    net = kind(TASK)
    net.close()
    net.close()
    picture = np.zeros((64, 64, 3), np.uint8)
    around = () if "Detector" in kind.__name__ else (FaceBox(np.array([8.0, 8.0, 56.0, 56.0])),)
    with pytest.raises(ValueError, match="closed"):
        net.detect(picture, *around)


@needs_task
def test_both_backends_agree_on_a_face(portrait: np.ndarray) -> None:
    with open_nets("openvino") as ours, open_nets("mediapipe") as theirs:
        (box,), (other_box) = ours.detector.detect(portrait), theirs.detector.detect(portrait)[0]
        face, other = ours.face(portrait), theirs.face(portrait)
    assert box.box_xyxy == pytest.approx(other_box.box_xyxy, abs=5) and box.score == pytest.approx(
        other_box.score, abs=0.1
    )
    matrix = align_matrix(five_points(other.landmarks_xy))
    here, there = (transform_points(matrix, five_points(item.landmarks_xy)) for item in (face, other))
    assert np.linalg.norm(here - there, axis=1).max() < 2.0  # crop px
    assert (face.yaw_deg, face.pitch_deg) == pytest.approx((other.yaw_deg, other.pitch_deg), abs=3)


@needs_task
@pytest.mark.parametrize("turn_deg", [-40, -20, 20, 40])
def test_turned_head_is_meshed_upright(photo: np.ndarray, turn_deg: int) -> None:
    """A head on its side is meshed as the upright one is, when it is known how it is turned."""
    centre = (222.0, 115.0)
    turn = cv2.getRotationMatrix2D(centre, turn_deg, 1.0)
    turned = cv2.warpAffine(photo, turn, (512, 512), borderMode=cv2.BORDER_REFLECT_101)
    with open_nets("openvino") as nets:
        upright, tilted = (nets.face(picture[:300, :400].copy()) for picture in (photo, turned))
    assert np.degrees(eye_line_roll(tilted.landmarks_xy) - eye_line_roll(upright.landmarks_xy)) == pytest.approx(
        -turn_deg, abs=2
    )
    error = np.linalg.norm(tilted.landmarks_xy - transform_points(turn, upright.landmarks_xy), axis=1)
    assert error.mean() < 0.02 * np.ptp(upright.landmarks_xy[:, 1])


@needs_task
def test_chosen_backend_and_its_reason_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, photo: np.ndarray
) -> None:
    with open_tracker(TASK) as tracker:
        assert (tracker.backend, tracker.backend_reason) == ("openvino", "the fastest that works here")

    refused: list[Any] = []

    def refuse(detector: object, mesh: object) -> None:
        refused.extend([detector, mesh])
        raise EngineError("the face mesh lies 31.0 px beside a drawn face")

    monkeypatch.setattr("idm_rt.tracking.opening.check_nets", refuse)
    with open_tracker(TASK) as tracker:
        assert tracker.backend == "mediapipe" and "31.0 px beside" in tracker.backend_reason
        assert len(tracker.update(photo, 0).tracks) == 1
    assert "runs on mediapipe" in caplog.text and "31.0 px beside" in caplog.text
    for net in refused:
        with pytest.raises(ValueError, match="closed"):
            net._run()
    with pytest.raises(EngineError, match="31.0 px beside"):
        open_tracker(TASK, backend="openvino")


@needs_task
@pytest.mark.parametrize(("cpus", "asked", "used"), [(1, None, 1), (2, None, 2), (16, None, 2), (16, 1, 1), (16, 8, 2)])
def test_nets_run_on_two_threads_at_most(
    monkeypatch: pytest.MonkeyPatch, cpus: int, asked: int | None, used: int
) -> None:
    def refuse(model: bytes, shape: list[int], threads: int) -> None:
        raise EngineError(f"{threads} threads")

    monkeypatch.setattr("idm_rt.tracking.opening.available_cpus", lambda: cpus)
    monkeypatch.setattr("idm_rt.tracking.openvino_nets.compile_model", refuse)
    with pytest.raises(EngineError, match=f"^{used} threads$"):
        open_tracker(TASK, backend="openvino", threads=asked)


def test_missing_openvino_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "idm_rt.tracking.openvino_nets", None)
    with pytest.raises(EngineError, match="pip install openvino"):
        open_tracker(tmp_path / "any.task", backend="openvino")


def test_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'fastest'; choose one of auto, openvino, mediapipe"):
        open_tracker(tmp_path / "any.task", backend="fastest")
