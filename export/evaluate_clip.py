"""One clip, degraded as a call degrades it and restored in two ways: what ``export.evaluate_video`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from export.codecs import CODECS, at_bitrate, round_trip
from export.degradation_sheets import labelled
from export.losses import VggHed
from export.measures import VGG_FILE, as_batch
from export.metrics import DlibIdentity
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
from export.video_tables import PER_FRAME, PIPELINE
from idm_rt.blending import TemporalBlender
from idm_rt.errors import ConfigError
from idm_rt.geometry import align_matrix, crop_face
from idm_rt.landmarks import five_points
from idm_rt.media.video_reader import VideoReader
from idm_rt.model_store import find_landmarker
from idm_rt.pipeline import Pipeline
from idm_rt.restorer import Restorer
from idm_rt.tracking import TrackerOptions, open_tracker
from idm_rt.types import FloatArray, Frame, RgbImage

Video = list[RgbImage]


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How clips are degraded and restored."""

    model: str | None = None
    engine: str = "auto"
    steps: int = 1
    height: int = 360  # px: a call's frame
    frames: int = 60  # per clip
    still_frames: int = 30
    codec: str = "vp8"  # of export.codecs.CODECS
    kbps: float = 250.0
    noise: float = 3.0  # the camera's, sigma in 8-bit steps
    look_every: int = 5  # frames between two looks of the networks that measure identity and vgg-hed
    threads: int | None = None


def read_clip(path: Path, height: int, count: int) -> tuple[Video, Fraction]:
    """The first frames, scaled to an even size of this height, and the frame rate.

    Raises:
        MediaError: unreadable, or no video.
    """
    with VideoReader(path) as reader:
        frames = [scaled(frame.image, height) for frame in islice(reader, count)]
        return frames, Fraction(reader.info.average_rate or 30)


def scaled(image: RgbImage, height: int) -> np.ndarray:
    """Scaled down to ``height`` (never up), both sides even."""
    height = min(height, image.shape[0]) // 2 * 2
    width = round(image.shape[1] * height / image.shape[0] / 2) * 2
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def through_call(frames: Video, rate: Fraction, options: VideoOptions) -> Video:
    """What the other side of a call sees of the frames; equal frames get other noise each."""
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, options.noise, f.shape) + 0.5, 0, 255).astype(np.uint8) for f in frames]
    return round_trip(noisy, CODECS[options.codec], at_bitrate(options.codec, options.kbps), rate)


def restored(frames: Video, rate: Fraction, restorer: Restorer, steps: int, blender: TemporalBlender | None) -> Video:
    """The frames through tracker, restorer, this blender and compositing."""
    with closing(open_tracker(find_landmarker(), TrackerOptions(max_faces=1))) as tracker:
        pipeline = Pipeline(tracker, restorer, blender)
        return [
            pipeline.process(Frame(frame), float(1000 * index / rate), steps).frame.image
            for index, frame in enumerate(frames)
        ]


def find_landmarks(frames: Video, places: Sequence[FloatArray] | None = None) -> list[FloatArray | None]:
    """(478, 2) landmarks in each frame, found anew and not smoothed; None without a face.

    ``places``: where the face is in the truth, frame by frame; without them, the largest face is meant.
    """
    with closing(open_tracker(find_landmarker(), TrackerOptions(max_faces=3, video=False))) as tracker:
        found = [[track.landmarks_xy for track in tracker.update(frame, 0).tracks] for frame in frames]
    if places is None:
        return [faces[0] if faces else None for faces in found]
    return [face_at(faces, place) for faces, place in zip(found, places, strict=True)]


def face_at(faces: Sequence[FloatArray], place: FloatArray) -> FloatArray | None:
    """The face that lies where one is expected, within the distance of its eyes; None if others were found instead."""
    eyes = float(np.linalg.norm(np.diff(five_points(place)[:2], axis=0)))
    away = [float(np.linalg.norm((face - place).mean(axis=0))) for face in faces]
    return faces[int(np.argmin(away))] if away and min(away) < eyes else None


def make_videos(truth: Video, rate: Fraction, restorer: Restorer, options: VideoOptions) -> dict[str, Video]:
    """Truth, degraded input and both ways to restore it."""
    degraded = through_call(truth, rate, options)
    return {
        "truth": truth,
        "input": degraded,
        PER_FRAME: restored(degraded, rate, restorer, options.steps, None),
        PIPELINE: restored(degraded, rate, restorer, options.steps, TemporalBlender()),
    }


@dataclass(frozen=True, slots=True)
class Networks:
    """What looks at single faces."""

    identity: DlibIdentity
    vgg: VggHed


def open_networks(weights: Path | None) -> Networks | None:
    """The networks in a folder, if one is given.

    Raises:
        ModelError: a file is missing.
    """
    return Networks(DlibIdentity(weights), VggHed(weights / VGG_FILE)) if weights else None


def evaluate_clip(
    path: Path, restorer: Restorer, networks: Networks | None, options: VideoOptions
) -> tuple[dict[str, Any], np.ndarray]:
    """(figures of each video, strip of the face in each).

    Raises:
        ConfigError: no face in the clip's first frame, or fewer than three frames.
    """
    truth, rate = read_clip(path, options.height, options.frames)
    landmarks = find_landmarks(truth)
    if len(truth) < 3 or landmarks[0] is None:
        raise ConfigError(f"{path}: found {len(truth)} frames, and a face in the first is needed; give a talking head")
    places = filled(landmarks)
    moving = make_videos(truth, rate, restorer, options)
    still = make_videos([truth[0]] * options.still_frames, rate, restorer, options)
    faces = [face_mask(place, frame.shape[:2]) for place, frame in zip(places, truth, strict=True)]
    flows = backward_flows(truth)
    masks = seen_masks(truth, flows, faces)
    points = {name: landmarks if name == "truth" else find_landmarks(video, places) for name, video in moving.items()}
    eyes = float(np.linalg.norm(np.diff(five_points(places[0])[:2], axis=0)))
    changed = [face & ~mask for face, mask in zip(faces[1:], masks, strict=True)]
    looks = looked_at(moving, places, networks, options.look_every) if networks else {}
    figures = {
        name: {
            "warping_error": warping_error(video, flows, masks),
            # the first half a second settles encoder and blender
            "still_flicker": flicker(still[name][options.still_frames // 2 :], faces[0]),
            "landmark_jitter": landmark_jitter(points[name], eyes),
            "psnr_db": masked_psnr(video, truth, faces),
            # blinks, lips, what appears: a ghost would cost it here
            "psnr_changed_db": masked_psnr(video[1:], truth[1:], changed) if np.any(changed) else None,
            **looks.get(name, {}),
        }
        for name, video in moving.items()
    }
    return {"frames": len(truth), "fps": float(rate), "videos": figures}, strip(moving, places)


def filled(landmarks: Sequence[FloatArray | None]) -> list[FloatArray]:
    """Frames without a face take the last one's place; the first has one."""
    places: list[FloatArray] = []
    for found in landmarks:
        places.append(places[-1] if found is None else found)
    return places


@torch.no_grad()
def looked_at(
    videos: dict[str, Video], places: list[FloatArray], networks: Networks, every: int
) -> dict[str, dict[str, float]]:
    """Of every so-manieth frame: dlib's embedding (distance to the truth, deviation over time) and vgg-hed."""
    picked = range(0, len(places), every)
    matrices = {index: align_matrix(five_points(places[index])) for index in picked}
    crops = {name: [crop_face(video[i], matrix) for i, matrix in matrices.items()] for name, video in videos.items()}
    truth = np.stack([networks.identity.embed(crop) for crop in crops["truth"]])
    features = [networks.vgg.features(as_batch(crop)) for crop in crops["truth"]]
    out = {}
    for name, faces in crops.items():
        embeddings = truth if name == "truth" else np.stack([networks.identity.embed(face) for face in faces])
        distance, spread = identity_figures(embeddings, truth)
        looks = [networks.vgg.features(as_batch(face)) for face in faces] if name != "truth" else features
        vgg = [float(networks.vgg.distance(a, b)) for a, b in zip(looks, features, strict=True)]
        out[name] = {"identity": distance, "identity_std": spread, "vgg_hed": float(np.mean(vgg))}
    return out


def strip(videos: dict[str, Video], places: list[FloatArray], moments: int = 3) -> np.ndarray:
    """One row per moment: the aligned face in each video."""
    rows = []
    for index in np.linspace(0, len(places) - 1, moments).astype(int):
        matrix = align_matrix(five_points(places[index]))
        rows.append(np.hstack([labelled(crop_face(v[index], matrix), f"{n} {index}") for n, v in videos.items()]))
    return np.vstack(rows)
