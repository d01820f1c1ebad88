"""The tracker on OpenVINO against the tracker on mediapipe, frame by frame on the same clip.

The bounds are what mediapipe reaches against itself: in 28 runs its VIDEO mode was 1.3 to 6.2 crop px (95 %) from its
IMAGE mode, 0.5 to 1.9 in the median; see docs/adr/0006.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from idm_rt import model_store
from idm_rt.geometry import align_matrix, transform_points
from idm_rt.landmarks import five_points
from idm_rt.model_files import find_fault
from idm_rt.sample_clip import sample_clip
from idm_rt.tracking import open_tracker

TASK = model_store.cache_dir() / model_store.FACE_LANDMARKER.record.path
SHARED = Path(os.environ.get("IDM_RT_SHARED") or Path(__file__).parents[3] / "shared")
needs_task = pytest.mark.skipif(
    find_fault(TASK, model_store.FACE_LANDMARKER.record) is not None,
    reason="face_landmarker.task is not in the cache; 'idm-rt models fetch' gets it",
)
FRAMES = 30


def clip_path(name: str) -> Path:
    path = sample_clip() if name == "sample" else SHARED / "data" / "clips" / f"{name}.mp4"
    if not path.exists():
        pytest.skip(f"no clip {path.name}; set IDM_RT_SHARED to the folder of the shared clips")
    return path


def five_points_of(path: Path, backend: str) -> tuple[np.ndarray, set[int]]:
    """(FRAMES, 5, 2) px of the only face of each frame, and its ids."""
    import av

    points, ids = [], set()
    with open_tracker(TASK, backend=backend) as tracker, av.open(str(path)) as container:
        for i, frame in zip(range(FRAMES), container.decode(video=0), strict=False):
            (track,) = tracker.update(frame.to_ndarray(format="rgb24"), 40.0 * i).tracks
            points.append(five_points(track.landmarks_xy))
            ids.add(track.track_id)
    return np.array(points), ids


def in_crop(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return transform_points(matrix, points.reshape(-1, 2)).reshape(points.shape)


def shake(points: np.ndarray, matrices: list[np.ndarray]) -> float:
    """Mean second difference in crop px. Three frames share the middle one's alignment, or it would hide motion."""
    triples = [in_crop(matrices[i], points[i - 1 : i + 2]) for i in range(1, len(points) - 1)]
    return float(np.mean([np.linalg.norm(np.diff(triple, 2, axis=0), axis=2).mean() for triple in triples]))


@needs_task
@pytest.mark.parametrize("name", ["sample", "s32", "d18"])
def test_same_faces_at_the_same_places_and_no_more_jitter(name: str) -> None:
    pytest.importorskip("openvino")
    path = clip_path(name)
    (here, ids), (there, other_ids) = (five_points_of(path, backend) for backend in ("openvino", "mediapipe"))
    assert ids == other_ids == {0}
    matrices = [align_matrix(points) for points in there]
    apart = [
        np.linalg.norm(in_crop(m, a) - in_crop(m, b), axis=1) for m, a, b in zip(matrices, here, there, strict=True)
    ]
    assert np.median(apart) < 1.0 and np.percentile(apart, 95) < 2.5
    assert shake(here, matrices) <= 1.1 * shake(there, matrices)
