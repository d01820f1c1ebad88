"""From the output of the short-range BlazeFace net to boxes. Pure functions.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019. Anchors, scales and the
blending of overlapping boxes are those of MediaPipe's face detector.
"""

from __future__ import annotations

import math

import numpy as np

from idm_rt.tracking.records import FaceBox
from idm_rt.types import FloatArray

INPUT_SIZE = 128  # px: side of the square the net looks at
_GRIDS = ((16, 2), (8, 6))  # (cells per side, anchors per cell): strides 8 and 16
_SAME_IOU = 0.3  # boxes that overlap by more show one face


def anchors() -> FloatArray:
    """(896, 2) centres of the anchors, as fractions of the input's side, in the order of the net's rows."""
    rows = []
    for cells, per_cell in _GRIDS:
        centres = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        rows.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), per_cell, axis=0))
    return np.concatenate(rows).astype(np.float32)


def decode(regressors: FloatArray, logits: FloatArray, anchor_xy: FloatArray, min_score: float) -> list[FaceBox]:
    """Faces in the net's input, one box each, most certain first.

    Args:
        regressors: (896, 16) px: centre x, y against the anchor, width, height, then six key points x, y.
        logits: (896,).
        anchor_xy: (896, 2), see ``anchors``.
        min_score: boxes that are less certain are dropped, 0..1.

    Returns:
        Boxes as fractions of the input's side: 0 and 1 are its outer edges.
    """
    certain = np.flatnonzero(logits > math.log(min_score / (1.0 - min_score)))
    if not len(certain):
        return []
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits[certain], -100.0, 100.0).astype(np.float64)))
    raw = regressors[certain].astype(np.float64).reshape(-1, 8, 2) / INPUT_SIZE
    centre, half = raw[:, 0] + anchor_xy[certain], raw[:, 1] / 2.0
    eyes = (raw[:, 2:4] + anchor_xy[certain, None]).reshape(-1, 4)  # left x, y, right x, y; the viewer's left
    return _blend(np.hstack([centre - half, centre + half, eyes]), scores)


def _blend(rows: FloatArray, scores: FloatArray) -> list[FaceBox]:
    """Weighted non-maximum suppression: overlapping boxes become their mean, weighted by their scores."""
    order = np.argsort(-scores)
    faces = []
    while len(order):
        same = _iou(rows[order[0], :4], rows[order, :4]) > _SAME_IOU
        same[0] = True
        group = order[same]
        mean = scores[group] @ rows[group] / scores[group].sum()
        roll = math.atan2(mean[7] - mean[5], mean[6] - mean[4])
        faces.append(FaceBox(mean[:4], float(scores[order[0]]), roll))
        order = order[~same]
    return faces


def _iou(box_xyxy: FloatArray, others_xyxy: FloatArray) -> FloatArray:
    low, high = np.maximum(box_xyxy[:2], others_xyxy[:, :2]), np.minimum(box_xyxy[2:], others_xyxy[:, 2:])
    common, sides = np.maximum(high - low, 0.0), others_xyxy[:, 2:] - others_xyxy[:, :2]
    inter, areas = common[:, 0] * common[:, 1], sides[:, 0] * sides[:, 1]
    area = (box_xyxy[2] - box_xyxy[0]) * (box_xyxy[3] - box_xyxy[1])
    return inter / np.maximum(area + areas - inter, 1e-12)
