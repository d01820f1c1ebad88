"""Pictures of the sample call."""

from __future__ import annotations

import av
import numpy as np

from idm_rt.sample_clip import sample_clip


def sample_pictures(count: int) -> list[np.ndarray]:
    """The first pictures, (H, W, 3) uint8 RGB each."""
    pictures = []
    with av.open(str(sample_clip())) as container:
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="rgb24"))
            if len(pictures) == count:
                break
    return pictures
