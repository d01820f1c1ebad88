"""A small page on this machine alone that shows the camera's numbers and changes its controls."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from importlib.resources import files
from types import TracebackType
from typing import Any, Self

from idm_rt.errors import ConfigError, MediaError
from idm_rt.virtual_camera.control_input import changed_controls, parse_changes
from idm_rt.virtual_camera.virtual_camera import VirtualCamera

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_BODY_LIMIT = 4096  # bytes
_START_WITHIN_S = 5.0
_TOKEN_HEADER = "X-Token"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS = {"page.js": "text/javascript", "page.css": "text/css"}


class ControlPage:
    """Serves the page on 127.0.0.1, on a thread of its own, for as long as the ``with`` block runs.

    Who has the token may see and change the controls, nobody else: each request must name it, come for this very
    host (a name that was rebound to 127.0.0.1 does not), and come from the page itself if it changes anything.
    """

    def __init__(self, camera: VirtualCamera, port: int = 0) -> None:
        """``port``: 0 = any free one."""
        self._camera, self._port = camera, port
        self._token = secrets.token_urlsafe(24)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="idm-rt page", daemon=True)

    @property
    def url(self) -> str:
        """What to open in a browser; holds the token."""
        return f"http://{HOST}:{self._port}/?token={self._token}"

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            ConfigError: aiohttp is not installed.
            MediaError: the port is taken.
        """
        _load()
        self._socket = self._bind()
        self._port = self._socket.getsockname()[1]
        self._thread.start()
        if not self._ready.wait(_START_WITHIN_S) or self._fault is not None:
            self._socket.close()
            raise MediaError(f"the control page cannot be started ({self._fault}); --no-page goes on without it")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._end is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(1.0)

    def _bind(self) -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            server.bind((HOST, self._port))
        except OSError as error:
            server.close()
            raise MediaError(
                f"port {self._port} of the control page cannot be had ({error.strerror}); choose another --page-port"
            ) from error
        return server

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # the camera goes on without its page
            log.warning("the control page has ended: %s", error)
            self._fault = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        web = _load()
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()

        async def guard(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
            return await self._guard(request, handler)

        application = web.Application(middlewares=[web.middleware(guard)], client_max_size=_BODY_LIMIT)
        application.router.add_get("/", self._page)
        application.router.add_get("/{name:page[.](?:js|css)}", self._asset)
        application.router.add_get("/api/status", self._status)
        application.router.add_post("/api/controls", self._change)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            self._ready.set()
            await self._end.wait()
        finally:
            await runner.cleanup()

    async def _guard(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Refuse strangers, and give every answer the same headers."""
        web = _load()
        refusal = self._refusal(request)
        try:
            response = web.Response(status=refusal[0], text=refusal[1]) if refusal else await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=error.reason)
        response.headers.update(_HEADERS)
        return response

    def _refusal(self, request: Any) -> tuple[int, str] | None:
        own = {f"{HOST}:{self._port}", f"localhost:{self._port}"}
        if request.headers.get("Host") not in own:
            return 421, "this page is for this machine alone"
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in own}:
            return 403, "another site may not use this page"
        if request.path.lstrip("/") in _ASSETS:
            return None  # no secrets in them
        given = request.query.get("token", "") if request.path == "/" else request.headers.get(_TOKEN_HEADER, "")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return 403, "the token is missing or wrong: open the address that idm-rt camera shows"
        if request.method == "POST" and origin is None:
            return 403, "changes must come from the page"
        if request.method == "POST" and request.content_type != "application/json":
            return 415, "expected application/json"
        return None

    async def _page(self, request: Any) -> Any:
        return _load().Response(text=_read("page.html"), content_type="text/html")

    async def _asset(self, request: Any) -> Any:
        name = request.match_info["name"]
        return _load().Response(text=_read(name), content_type=_ASSETS[name])

    async def _status(self, request: Any) -> Any:
        return _load().json_response(self._camera.status().to_dict())

    async def _change(self, request: Any) -> Any:
        web = _load()
        try:
            changes = parse_changes(await request.text())
            self._camera.set_controls(changed_controls(self._camera.controls, changes))
        except ValueError as error:
            return web.Response(status=400, text=" ".join(str(error).split())[:200])
        return web.json_response(self._camera.status().to_dict())


def _read(name: str) -> str:
    return (files("idm_rt.virtual_camera") / "page" / name).read_text(encoding="utf-8")


def _load() -> Any:
    try:
        from aiohttp import web
    except ImportError as error:
        raise ConfigError("the control page needs aiohttp; pip install 'idm-rt[camera]', or --no-page") from error
    return web
