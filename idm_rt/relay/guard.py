"""The rules that every request meets before a handler does."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from idm_rt.relay.events import tell
from idm_rt.relay.metrics import Metrics
from idm_rt.relay.options import RelayOptions
from idm_rt.relay.rate_limit import RateLimit
from idm_rt.relay.refusals import Refused
from idm_rt.relay.tokens import BadToken, verify

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_CORS_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"
_CORS_HEADERS = "authorization, content-type, if-match"
_EXPOSED = "location, etag, link, retry-after, accept-post, accept-patch"


class Guard:
    """Host, origin, rate, and tokens; also what every answer carries."""

    def __init__(self, options: RelayOptions, metrics: Metrics) -> None:
        self._options, self._metrics = options, metrics
        limits = options.limits
        self._requests = RateLimit(limits.requests_per_second, limits.requests_per_second * 2)
        self._sessions = RateLimit(limits.sessions_per_minute / 60.0, 10.0)

    def middleware(self) -> Middleware:
        """For ``web.Application``."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            began_s = time.monotonic()
            response = await self._answer(request, handler)
            self._finish(request, response)
            self._tell(request, response.status, time.monotonic() - began_s)
            return response

        return guarded

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            return await handler(request)
        except Refused as refused:
            return refused.response()
        except web.HTTPException as error:
            allowed = {name: value for name, value in error.headers.items() if name in ("Allow", "Location")}
            return Refused(error.status, error.reason, allowed).response()

    def _check(self, request: web.Request) -> None:
        """Raises ``Refused`` unless host, origin and rate are in order."""
        wait_s = self._requests.take(request.remote or "")
        if wait_s > 0.0:
            self._metrics.refused("rate")
            raise Refused(429, "too many requests from this address", {"Retry-After": str(round(wait_s) + 1)})
        if not self._is_our_name(request.host):
            self._metrics.refused("host")
            raise Refused(421, "the Host header names another server")
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_allowed_origin(origin, request):
            self._metrics.refused("origin")
            raise Refused(403, "this origin may not use the relay; its operator can allow it with --allow-origin")

    def _is_our_name(self, host: str) -> bool:
        """Without tokens the name must be ours: else a page elsewhere could point its own name at 127.0.0.1."""
        if self._options.secret is not None:
            return True
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return name in (*_LOOPBACK_NAMES, self._options.host, *self._options.hosts)

    def _is_allowed_origin(self, origin: str, request: web.Request) -> bool:
        return origin == f"{request.scheme}://{request.host}" or origin in self._options.origins

    def new_session(self, request: web.Request) -> None:
        """Count a new session of an address.

        Raises:
            Refused: 429, too many.
        """
        wait_s = self._sessions.take(request.remote or "")
        if wait_s > 0.0:
            self._metrics.refused("rate")
            raise Refused(429, "too many new sessions from this address", {"Retry-After": str(round(wait_s) + 1)})

    def authorize(self, request: web.Request, role: str, room: str | None) -> None:
        """Ask for a token, where tokens are in use.

        Raises:
            Refused: 401 without a valid one, 403 if it is for something else.
        """
        secret = self._options.secret
        if secret is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        challenge = {"WWW-Authenticate": 'Bearer realm="idm-rt relay"'}
        if scheme.lower() != "bearer" or not token:
            self._metrics.refused("token")
            raise Refused(401, "expected an Authorization: Bearer header; see idm-rt relay-token --help", challenge)
        try:
            grant = verify(secret, token.strip(), time.time())
        except BadToken as error:
            self._metrics.refused("token")
            raise Refused(401, str(error), challenge) from error
        if not grant.allows(role, room):
            self._metrics.refused("token")
            raise Refused(403, "the token is for another room or role")

    def _finish(self, request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Cache-Control", "no-store")
        origin = request.headers.get("Origin")
        if origin is not None and response.status != 403 and self._is_allowed_origin(origin, request):
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
            headers["Vary"] = "Origin"
            if request.method == "OPTIONS":
                headers["Access-Control-Allow-Methods"] = _CORS_METHODS
                headers["Access-Control-Allow-Headers"] = _CORS_HEADERS

    def _tell(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        self._metrics.request(route, request.method if request.method in _CORS_METHODS else "other", status)
        tell("request", None, route=route, method=request.method[:16], status=status, ms=round(seconds * 1000.0, 1))
