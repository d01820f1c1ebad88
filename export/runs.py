"""Run directories: resolved configuration, statistics and checkpoints, each written atomically."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idm_rt.errors import ConfigError, IdmError


@contextmanager
def moved_into_place(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; moved onto it when the block ends well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old or the new content, never half of it."""
    with moved_into_place(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


class RunDirectory:
    """``config.json`` (must agree between resumptions), ``stats.jsonl`` and ``checkpoint.pt`` of one training run."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """Create the directory or open it again.

        Raises:
            ConfigError: the directory belongs to a run with another configuration.
        """
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        known = path / "config.json"
        config = json.loads(json.dumps(config, default=str))
        if known.is_file():
            differing = differing_keys(json.loads(known.read_text()), config)
            if differing:
                raise ConfigError(
                    f"{path} holds a run with other settings ({', '.join(differing)}); use another directory"
                )
        else:
            write_json(known, config)

    def log(self, row: dict[str, Any]) -> None:
        """Append one row of statistics."""
        with (self.path / "stats.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def stats(self) -> list[dict[str, Any]]:
        """All rows so far; a half-written last line is left out."""
        table = self.path / "stats.jsonl"
        if not table.is_file():
            return []
        lines = table.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]


def differing_keys(known: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of the settings that two configurations do not share."""
    return sorted(key for key in known.keys() | wanted.keys() if known.get(key) != wanted.get(key))


def run_command(action: Callable[[], object]) -> int:
    """Run a command's action: one line on stderr and status 1 for errors a user can meet, 130 for Ctrl-C.

    A full disk or a folder that may not be written is one of them: what is finished is kept, every command resumes.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        action()
    except IdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}; mend that and run the same command again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0
