"""``python -m idm_rt`` is the command ``idm-rt``."""

from __future__ import annotations

import sys

from idm_rt.cli import main

if __name__ == "__main__":
    sys.exit(main())
