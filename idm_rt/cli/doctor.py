"""``idm-rt doctor``: does everything work here."""

from __future__ import annotations

import argparse

from idm_rt.cli.output import Console, one_line
from idm_rt.doctor import diagnose, diagnosis_lines


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the diagnosis; returns 0 if ``enhance`` can run, else 1 with the first cure as the error."""
    diagnosis = diagnose()
    if options.json:
        console.json(diagnosis.to_dict())
    else:
        for line in diagnosis_lines(diagnosis):
            console.say(one_line(line))
    fault = diagnosis.first_fault
    if fault is None:
        return 0
    console.error(f"{fault.name}: {fault.found}; {fault.cure}")
    return 1
