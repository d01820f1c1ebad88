"""Changes of the controls, from keys and from the control page. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from idm_rt.config import STEPS
from idm_rt.virtual_camera.records import CameraControls

_STRENGTH_STEP = 0.1
KEYS_HELP = "e on/off, c compare, 1 2 4 steps, + - strength, m mirror the preview, q quit"


@dataclass(frozen=True, slots=True)
class KeyEffect:
    """What a key does."""

    controls: CameraControls
    mirror: bool  # of the preview
    quit: bool = False


def press(key: str, controls: CameraControls, mirror: bool) -> KeyEffect:
    """What follows when a key is pressed; keys without a meaning change nothing."""
    live = controls.live
    if key in ("q", "\x1b"):
        return KeyEffect(controls, mirror, quit=True)
    if key == "m":
        return KeyEffect(controls, not mirror)
    if key in ("e", " "):
        controls = replace(controls, live=replace(live, enabled=not live.enabled))
    elif key == "c":
        controls = replace(controls, compare=not controls.compare)
    elif key.isdigit() and int(key) in STEPS:
        controls = replace(controls, live=replace(live, steps=int(key)))
    elif key in ("+", "=", "-"):
        change = -_STRENGTH_STEP if key == "-" else _STRENGTH_STEP
        strength = round(min(1.0, max(0.0, live.strength + change)), 2)
        controls = replace(controls, live=replace(live, strength=strength))
    return KeyEffect(controls, mirror)


def parse_changes(text: str) -> dict[str, Any]:
    """The changes in a JSON object: ``enabled``, ``compare`` (booleans), ``steps``, ``strength`` (numbers).

    Raises:
        ValueError: anything else.
    """
    try:
        changes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("expected JSON") from error
    if not isinstance(changes, dict) or not changes:
        raise ValueError("expected a JSON object with the controls to change")
    for name, value in changes.items():
        _check(name, value)
    return changes


def _check(name: str, value: Any) -> None:
    if name in ("enabled", "compare"):
        good, expected = isinstance(value, bool), "true or false"
    elif name == "steps":
        good, expected = type(value) is int and value in STEPS, f"one of {', '.join(map(str, STEPS))}"
    elif name == "strength":
        good, expected = type(value) in (int, float) and 0.0 <= value <= 1.0, "a number from 0 to 1"
    else:
        raise ValueError(f"unknown control {name[:40]!r}")
    if not good:
        raise ValueError(f"{name}: expected {expected}")


def changed_controls(controls: CameraControls, changes: dict[str, Any]) -> CameraControls:
    """The controls with the changes of ``parse_changes``."""
    live = {name: changes[name] for name in ("enabled", "steps", "strength") if name in changes}
    return replace(controls, live=replace(controls.live, **live), compare=changes.get("compare", controls.compare))
