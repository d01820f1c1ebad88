"""The relay as an aiohttp application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from idm_rt.relay.guard import Guard
from idm_rt.relay.handlers import Handlers
from idm_rt.relay.metrics import CONTENT_TYPE, Metrics
from idm_rt.relay.options import RelayOptions
from idm_rt.relay.page_files import add_page
from idm_rt.relay.peers import gather_loopback
from idm_rt.relay.pool import EnhancerPool
from idm_rt.relay.service import RelayService
from idm_rt.webrtc import apply_codec_options
from idm_rt.webrtc.arrivals import frame_left
from idm_rt.worker import LiveEnhancer, enhancer_opener

SERVICE = web.AppKey("service", RelayService)


def build_app(
    options: RelayOptions | None = None, open_enhancer: Callable[[], LiveEnhancer] | None = None
) -> web.Application:
    """An application ready to be served; ``app[SERVICE]`` is what it does.

    It changes aiortc's codecs and, on a loopback address, aioice's candidates for the whole process.

    Args:
        options: None = the defaults.
        open_enhancer: opens an enhancer; None = as ``options.enhancer`` says.
    """
    options = options or RelayOptions()
    metrics = Metrics()
    pool = EnhancerPool(open_enhancer or enhancer_opener(options.enhancer))
    guard = Guard(options, metrics)
    app = web.Application(middlewares=[guard.middleware()], client_max_size=options.limits.body_bytes)
    service = app[SERVICE] = RelayService(options, pool, metrics)
    Handlers(service, guard).add_to(app.router)
    _add_probes(app.router, service, guard)
    add_page(app.router)
    app.cleanup_ctx.append(_run)
    apply_codec_options(options.codec, frame_left)
    gather_loopback(options.is_loopback)
    return app


async def _run(app: web.Application) -> AsyncIterator[None]:
    """Warm an engine and look after the sessions while the application runs; then end everything."""
    service = app[SERVICE]
    # threads of their own: the loop's executor would be waited for without end
    threading.Thread(target=service.pool.warm, name="idm-rt warm", daemon=True).start()
    looking = asyncio.ensure_future(service.look_after())
    yield
    looking.cancel()
    await service.close()
    closing = threading.Thread(target=service.pool.close, name="idm-rt pool", daemon=True)
    closing.start()
    await asyncio.sleep(0)
    closing.join(0.3)


def _add_probes(router: web.UrlDispatcher, service: RelayService, guard: Guard) -> None:
    async def healthz(request: web.Request) -> web.Response:
        """Alive: the event loop answers."""
        return web.json_response({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        """Ready: an engine has been opened, and the relay is not shutting down."""
        if service.ending:
            return web.json_response({"status": "shutting down"}, status=503)
        if not service.pool.ready:
            return web.json_response({"status": "starting" if service.pool.error is None else "no engine"}, status=503)
        return web.json_response({"status": "ready"})

    async def metrics(request: web.Request) -> web.Response:
        guard.authorize(request, "metrics", None)
        return web.Response(body=service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    router.add_get("/healthz", healthz)
    router.add_get("/readyz", readyz)
    router.add_get("/metrics", metrics)
