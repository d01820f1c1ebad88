"""Pastes the correction, not the picture, back into the frame, inside a soft mask of the face."""

from idm_rt.compositing.composite import composite
from idm_rt.compositing.confidence import face_confidence
from idm_rt.compositing.options import CompositeOptions

__all__ = ["CompositeOptions", "composite", "face_confidence"]
