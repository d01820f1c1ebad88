"""The command line. Importing it loads no heavy library, so that ``--help`` answers at once."""

from __future__ import annotations

from idm_rt.cli.entry import main

__all__ = ["main"]
