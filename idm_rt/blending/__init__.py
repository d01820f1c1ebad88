"""Steadies the restored detail over time: motion-compensated, gated, per track."""

from idm_rt.blending.blender import TemporalBlender
from idm_rt.blending.options import BlendOptions

__all__ = ["BlendOptions", "TemporalBlender"]
