"""``idm-rt relay-token``: a token for somebody who may use a relay."""

from __future__ import annotations

import argparse

from idm_rt.cli.output import Console
from idm_rt.cli.relay import run_token


def run(options: argparse.Namespace, console: Console) -> int:
    """Print it; returns the exit code."""
    return run_token(options, console)
