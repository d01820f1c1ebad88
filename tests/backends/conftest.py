"""Plans and GPUs that are not there."""

from __future__ import annotations

import pytest

from idm_rt.backends.nvidia import Gpu


@pytest.fixture
def gpu() -> Gpu:
    return Gpu("Fake GPU", "8.9", "570.86.15", 24_000)
