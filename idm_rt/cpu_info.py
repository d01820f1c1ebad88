"""How many CPU threads inference may use on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # "<quota> <period>" in microseconds, or "max <period>"


def available_cpus() -> int:
    """CPUs this process may really use, 1 or more: its affinity mask, cut by a container's CPU quota.

    ``os.cpu_count`` reports the host's CPUs even inside a container that is limited to two; inference with more
    threads than that is slower, not faster, because the scheduler throttles all of them together.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def cpu_quota(cpu_max: Path = _CGROUP_CPU_MAX) -> float | None:
    """CPUs granted by the control group (version 2) of this process; None when there is no limit."""
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
