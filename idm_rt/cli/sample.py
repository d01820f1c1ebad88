"""``idm-rt sample``: a short call to try things on."""

from __future__ import annotations

import argparse

from idm_rt.cli.output import Console
from idm_rt.sample_clip import copy_sample


def run(options: argparse.Namespace, console: Console) -> int:
    """Write the sample; returns the exit code."""
    copy_sample(options.output, overwrite=options.overwrite)
    console.say(f"{options.output} is written; now: idm-rt enhance {options.output} enhanced.mp4")
    return 0
