"""Read request bodies: bounded in size and time, of the type that is expected, never trusted."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from aiohttp import web

from idm_rt.config import STEPS
from idm_rt.relay.options import RelayOptions
from idm_rt.relay.refusals import Refused
from idm_rt.worker import LiveControls


async def read_text(request: web.Request, content_type: str, options: RelayOptions) -> str:
    """The body as text.

    Raises:
        Refused: 415 of another type, 413 too large, 408 too slow, 400 not UTF-8.
    """
    if request.content_type != content_type:
        raise Refused(415, f"expected Content-Type: {content_type}", {"Accept": content_type})
    try:
        async with asyncio.timeout(options.timeouts.body_s):
            raw = await request.read()
    except TimeoutError:
        raise Refused(408, f"the body did not come within {options.timeouts.body_s:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, f"the body is larger than {options.limits.body_bytes} bytes") from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "the body is not UTF-8") from None


async def read_json(request: web.Request, options: RelayOptions) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        Refused: as ``read_text``; 400 if it is no JSON object.
    """
    text = await read_text(request, "application/json", options)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is no JSON object")
    return value


def read_controls(values: dict[str, Any], present: LiveControls) -> LiveControls:
    """The controls with what ``values`` change: enabled, steps, strength.

    Raises:
        Refused: 422, a value that cannot be.
    """
    enabled = values.get("enabled", present.enabled)
    steps, strength = values.get("steps", present.steps), values.get("strength", present.strength)
    if not isinstance(enabled, bool):
        raise Refused(422, "enabled is neither true nor false")
    if isinstance(steps, bool) or steps not in STEPS:
        raise Refused(422, f"steps is none of {', '.join(map(str, STEPS))}")
    return LiveControls(enabled, int(steps), read_fraction(strength, "strength"))


def read_fraction(value: Any, name: str) -> float:
    """A number from 0 to 1.

    Raises:
        Refused: 422, something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise Refused(422, f"{name} is no number from 0 to 1")
    return float(value)


def query_controls(request: web.Request, options: RelayOptions) -> tuple[LiveControls, bool]:
    """Controls from an address, as in ``/whip/room?steps=2&strength=0.5&enhance=0``; and whether to restore at all.

    Raises:
        Refused: 422, a value that cannot be.
    """
    query = request.query
    values: dict[str, Any] = {}
    try:
        if "steps" in query:
            values["steps"] = int(query["steps"])
        if "strength" in query:
            values["strength"] = float(query["strength"])
    except ValueError:
        raise Refused(422, "steps and strength in the address are no numbers") from None
    if query.get("enhance", "1") not in ("0", "1"):
        raise Refused(422, "enhance in the address is neither 0 nor 1")
    default = LiveControls(steps=options.enhancer.steps, strength=options.enhancer.strength)
    return read_controls(values, default), query.get("enhance", "1") == "1"
