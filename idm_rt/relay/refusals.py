"""How a request is refused: a status, one line, and headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web


class Refused(Exception):
    """The request is answered with ``status`` and a line that says what was found and what is expected."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def response(self) -> web.Response:
        """As a problem document (RFC 9457)."""
        body = {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail}
        return web.Response(
            status=self.status,
            text=json.dumps(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


def busy(detail: str, retry_after_s: int) -> Refused:
    """503 with the time to wait."""
    return Refused(503, detail, {"Retry-After": str(max(1, retry_after_s))})
