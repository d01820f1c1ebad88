"""Which of the faces seen now is which of the faces known before. Pure functions."""

from __future__ import annotations

from idm_rt.tracking.windows import distance_in_sizes
from idm_rt.types import FloatArray


def match_boxes(known: list[FloatArray], seen: list[FloatArray], max_distance: float) -> list[tuple[int, int]]:
    """Pairs (known index, seen index), each index at most once, closest pairs first.

    Boxes are (4,) px; the distance is ``windows.distance_in_sizes``, so it means the same for small and large faces.
    Greedy is enough: faces that are one box apart cannot both be near the same two places.
    """
    distances = sorted((distance_in_sizes(a, b), i, j) for i, a in enumerate(known) for j, b in enumerate(seen))
    pairs: list[tuple[int, int]] = []
    free_known, free_seen = set(range(len(known))), set(range(len(seen)))
    for distance, i, j in distances:
        if distance <= max_distance and i in free_known and j in free_seen:
            pairs.append((i, j))
            free_known.remove(i)
            free_seen.remove(j)
    return pairs
