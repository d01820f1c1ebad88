"""How often an address may ask: token buckets, a bounded number of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from idm_rt.timing import Clock

_MAX_ADDRESSES = 4096


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float


class RateLimit:
    """A bucket per key, refilled steadily. When there are too many keys, the one unused for longest is forgotten."""

    def __init__(self, per_second: float, burst: float, clock: Clock = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str) -> float:
        """Use one token; returns 0, or the seconds until there is one (nothing is used then)."""
        now_s = self._clock()
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now_s)
        self._buckets[key] = bucket
        while len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now_s - bucket.filled_s) * self._rate)
        bucket.filled_s = now_s
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) / self._rate
        bucket.tokens -= 1.0
        return 0.0
