"""A list of finished items, so that a killed command goes on instead of starting again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from export.runs import differing_keys
from idm_rt.errors import ConfigError


class Journal:
    """JSON lines, one per finished item, appended and flushed at once; a half-written last line is dropped.

    The first line holds the settings: a journal of other settings is refused.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Open or create it.

        Raises:
            ConfigError: it was made with other settings.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        wanted = json.dumps(settings, sort_keys=True, default=str)
        if lines and lines[0] != wanted:
            differing = ", ".join(differing_keys(json.loads(lines[0]), json.loads(wanted)))
            raise ConfigError(
                f"{path} belongs to a run with other settings ({differing}); use another folder, or delete this one"
            )
        self.done: dict[str, Any] = dict(json.loads(line) for line in lines[1:])
        whole = "".join(line + "\n" for line in [wanted, *lines[1:]])
        path.write_text(whole, encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def add(self, key: str, value: Any) -> None:
        """Note that the item is finished."""
        self.done[key] = value
        self._file.write(json.dumps([key, value]) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
