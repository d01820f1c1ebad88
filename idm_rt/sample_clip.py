"""Where the sample call is: a few seconds of a public-domain portrait, moved and degraded like a bad video call."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from idm_rt.errors import MediaError
from idm_rt.media.files import check_output, os_errors, replacing

SAMPLE_NAME = "astronaut_call.mp4"


def sample_clip() -> Path:
    """Path of the sample, in an installed package or in a checkout.

    Raises:
        MediaError: it is in neither.
    """
    places = list(_places())
    for path in places:
        if path.is_file():
            return path
    raise MediaError(f"the sample {SAMPLE_NAME} is not installed (looked in {', '.join(map(str, places))}); reinstall")


def _places() -> Iterator[Path]:
    spec = importlib.util.find_spec("idm_rt.sample")
    if spec is not None:
        yield from (Path(folder) / SAMPLE_NAME for folder in spec.submodule_search_locations or ())
    yield Path(__file__).resolve().parent.parent / "demos" / "sample" / SAMPLE_NAME


def copy_sample(output: Path, *, overwrite: bool = False) -> None:
    """Write a copy of the sample.

    Raises:
        MediaError: no sample here, or the output is refused or cannot be written.
    """
    source = sample_clip()
    if output.suffix.lower() != ".mp4":
        raise MediaError(f"the sample is an MP4 file, but the output is {output}; give it the suffix .mp4")
    check_output(output, source=source, overwrite=overwrite)
    with os_errors(output), replacing(output) as temporary:
        shutil.copyfile(source, temporary)
