"""Head pose from a mesh: signs, known angles, the canonical face's file format."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from idm_rt.errors import ModelError
from idm_rt.tracking.head_pose import CanonicalFace, head_pose, look_degrees, read_canonical_face

RNG = np.random.default_rng(3)
POINTS = RNG.uniform(-6, 6, (478, 3)) * [1.0, 1.2, 0.6]
KEPT = np.arange(0, 478, 15)
FACE = CanonicalFace(KEPT, np.full(len(KEPT), 1 / len(KEPT)), POINTS[KEPT])


def turned(yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """Rotation whose third column looks that way, the head held upright."""
    yaw, pitch = np.radians([yaw_deg, pitch_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return about_y @ about_x


def seen_by_camera(rotation: np.ndarray, distance_cm: float, centre: float, side: float) -> np.ndarray:
    """(478, 3) px as the mesh net reports it: perspective x and y, depth in the scale of the face's middle."""
    points = POINTS @ rotation.T - [0, 0, distance_cm]
    near = side / (2 * np.tan(np.radians(31.5)))
    x, y = (near * points[:, axis] / -points[:, 2] for axis in (0, 1))
    return np.stack([centre + x, centre - y, -(points[:, 2] + distance_cm) * near / distance_cm], axis=1)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-60, 10), (20, -35), (0, 25)])
@pytest.mark.parametrize("distance_cm", [20.0, 40.0])
def test_pose_of_a_projected_face_is_found(yaw: float, pitch: float, distance_cm: float) -> None:
    mesh = seen_by_camera(turned(yaw, pitch), distance_cm, centre=200, side=400)
    assert head_pose(FACE, mesh, np.array([200.0, 200.0]), 400) == pytest.approx((yaw, pitch), abs=2.5)


def test_size_of_the_picture_does_not_matter() -> None:
    mesh = seen_by_camera(turned(25, -10), 25, centre=200, side=400)
    first = head_pose(FACE, mesh, np.array([200.0, 200.0]), 400)
    assert head_pose(FACE, mesh * 3, np.array([600.0, 600.0]), 1200) == pytest.approx(first)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-70, 10), (20, -40)])
def test_signs(yaw: float, pitch: float) -> None:
    assert look_degrees(turned(yaw, pitch)[:, 2]) == pytest.approx((yaw, pitch))


def message(*fields: tuple[int, bytes | int | float]) -> bytes:
    """A protocol buffer message of short fields."""
    encoded = b""
    for number, value in fields:
        if isinstance(value, bytes):
            length = len(value)
            size = bytes([length & 127 | 128, length >> 7]) if length > 127 else bytes([length])
            encoded += bytes([number << 3 | 2]) + size + value
        elif isinstance(value, float):
            encoded += bytes([number << 3 | 5]) + struct.pack("<f", value)
        else:
            encoded += bytes([number << 3, value])
    return encoded


def test_canonical_face_is_read_from_its_message() -> None:
    vertices = [(3, float(value)) for value in range(20)]  # four vertices of five numbers
    metadata = message(
        (1, message((1, 0), *vertices)), (2, message((1, 3), (2, 0.75))), (2, message((1, 1), (2, 0.25)))
    )
    face = read_canonical_face(metadata)
    assert face.indices.tolist() == [3, 1] and face.weights.tolist() == [0.75, 0.25]
    assert face.points.tolist() == [[15.0, 16.0, 17.0], [5.0, 6.0, 7.0]]


@pytest.mark.parametrize("broken", [b"", b"\x0a", b"\xff\xff", b"\x12\x02\x08\x01", b"\x0b"])
def test_bytes_without_a_face_are_refused(broken: bytes) -> None:
    with pytest.raises(ModelError, match="canonical face.*models fetch"):
        read_canonical_face(broken)
