"""A foreign WHIP publisher: FFmpeg's muxer, as PyAV bundles it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import av
import pytest
from relay_tools import closing, join, relay, viewer
from rtc_fakes import is_white, read_until, use_loopback, wait_until

PUBLISHER = Path(__file__).with_name("ffmpeg_publisher.py")


@pytest.mark.skipif("whip" not in av.formats_available, reason="this PyAV's FFmpeg has no WHIP muxer")
def test_ffmpeg_publishes_and_a_viewer_sees_it_restored_with_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loopback(monkeypatch)

    async def body() -> None:
        async with relay() as under_test:
            address = under_test.client.make_url("/whip/room")
            process = await asyncio.create_subprocess_exec(sys.executable, str(PUBLISHER), str(address), "60")
            watcher = viewer("video", "audio")
            try:
                async with closing(watcher):
                    await wait_until(lambda: process.returncode is not None or "room" in under_test.service.rooms)
                    joined = await join(under_test, "/whep/room", watcher)
                    await read_until(joined.tracks["video"], is_white)
                    assert (await asyncio.wait_for(joined.tracks["audio"].recv(), 30)).sample_rate == 48_000
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    asyncio.run(asyncio.wait_for(body(), 120))
