"""Run the relay until a signal comes, and be gone within three seconds after it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable

from aiohttp import web

from idm_rt.errors import ConfigError
from idm_rt.relay.app import build_app
from idm_rt.relay.events import tell
from idm_rt.relay.options import RelayOptions
from idm_rt.worker import LiveEnhancer

log = logging.getLogger(__name__)

_LAST_RESORT_S = 2.8  # aiortc joins decoder threads; one that is stuck would keep the process for ever


def serve(
    options: RelayOptions,
    on_ready: Callable[[str], None] | None = None,
    open_enhancer: Callable[[], LiveEnhancer] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Blocks.

    Args:
        options: see there.
        on_ready: called with the page's address once requests are taken.
        open_enhancer: None = as the options say.

    Raises:
        ConfigError: the address cannot be bound, or the certificate cannot be used.
    """
    asyncio.run(_serve(options, on_ready, open_enhancer))
    _leave_native_threads()


async def _serve(
    options: RelayOptions,
    on_ready: Callable[[str], None] | None,
    open_enhancer: Callable[[], LiveEnhancer] | None,
) -> None:
    context = tls_context(options)
    runner = web.AppRunner(build_app(options, open_enhancer), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            problem = error.strerror or error
            raise ConfigError(f"cannot listen on {options.host}:{options.port} ({problem}); choose --port") from error
        address = page_address(options, runner.addresses[0][1])
        tell("listening", address=address)
        if on_ready is not None:
            on_ready(address)
        await _until_signal()
        _exit_anyway(_LAST_RESORT_S)
        tell("stopping")
    finally:
        await runner.cleanup()


async def _until_signal() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _exit_anyway(after_s: float) -> None:
    def leave() -> None:
        log.error("some threads did not end in time: leaving without them")
        os._exit(1)

    timer = threading.Timer(after_s, leave)
    timer.daemon = True
    timer.start()


def _leave_native_threads() -> None:
    """End the process here if an engine is still being opened or closed: the interpreter's own end aborts in that."""
    until_s = time.monotonic() + 0.5
    for thread in [each for each in threading.enumerate() if each.name.startswith("idm-rt")]:
        thread.join(max(0.0, until_s - time.monotonic()))
        if thread.is_alive():
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(0)


def tls_context(options: RelayOptions) -> ssl.SSLContext | None:
    """For the certificate of the options; None without one.

    Raises:
        ConfigError: the files cannot be used.
    """
    if options.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_certificate, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        problem = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot use {options.tls_certificate} with {options.tls_key} ({problem})") from error
    return context


def page_address(options: RelayOptions, port: int) -> str:
    """Where the page is."""
    scheme = "http" if options.tls_certificate is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{scheme}://{host}:{port}/"
