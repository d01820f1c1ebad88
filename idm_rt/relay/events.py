"""The relay's log: one JSON object per line, without frame content, tokens, SDP or addresses of third parties."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from idm_rt.relay.sessions import Session

LOGGER = "idm_rt.relay.events"
log = logging.getLogger(LOGGER)


def tell(event: str, session: Session | None = None, **fields: Any) -> None:
    """Log an event. A session is named by the first characters of its id: the whole one would be a key to it."""
    if not log.isEnabledFor(logging.INFO):
        return
    record: dict[str, Any] = {"time": round(time.time(), 3), "event": event}
    if session is not None:
        record |= {"session": session.id[:6], "role": session.role, "room": session.room}
    log.info("%s", json.dumps(record | fields, default=str))


def log_to(stream: TextIO) -> None:
    """Write events to this stream, one a line."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
