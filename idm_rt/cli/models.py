"""``idm-rt models list|fetch|verify``: the files that hold the networks."""

from __future__ import annotations

import argparse

from idm_rt import model_store
from idm_rt.cli.output import Console
from idm_rt.errors import ModelError


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the chosen action; returns the exit code."""
    return {"list": _list, "fetch": _fetch, "verify": _verify}[options.action](console)


def _list(console: Console) -> int:
    for file in model_store.inventory():
        size = f"{file.size / 1e6:6.1f} MB" if file.size is not None else "   unknown"
        console.say(f"{'ok' if file.ok else 'BAD':<4}{size}  {file.name}  {file.path}  ({file.licence})")
        if not file.ok:
            console.say(f"    {file.fault}")
    return 0


def _fetch(console: Console) -> int:
    path = model_store.find_landmarker()
    console.say(f"{path} is in place, size and SHA-256 are right")
    return 0


def _verify(console: Console) -> int:
    """All files, then one error for the first that is not right."""
    files = model_store.inventory()
    for file in files:
        console.say(f"{'ok' if file.ok else 'BAD':<4}{file.name}")
    bad = [file for file in files if not file.ok]
    if bad:
        cure = cure_for(bad[0])
        raise ModelError(f"{len(bad)} of {len(files)} model files are not right: {bad[0].fault}; {cure}")
    return 0


def cure_for(file: model_store.StoredFile) -> str:
    """What to type to get a file that is missing or damaged."""
    if file.name == model_store.FACE_LANDMARKER.record.path:
        return "idm-rt models fetch gets it"
    return "reinstall idm-rt, or restore the folder engines/models of the checkout"
