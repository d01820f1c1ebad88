"""The page: three static files, and the policy that keeps a browser from loading anything else."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Handler

_TYPES = {"index.html": "text/html", "relay.js": "text/javascript", "relay.css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def add_page(router: web.UrlDispatcher) -> None:
    """Serve the page at ``/``. Its files are read once."""
    folder = files("idm_rt.relay") / "page"
    for name, content_type in _TYPES.items():
        body = (folder / name).read_bytes()
        router.add_get("/" if name == "index.html" else f"/{name}", _serving(body, content_type))


def _serving(body: bytes, content_type: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)

    return handler
