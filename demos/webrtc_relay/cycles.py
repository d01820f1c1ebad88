"""Connect and disconnect a publisher and a viewer again and again, or hold one long call: nothing may grow.

    python demos/webrtc_relay/cycles.py [--cycles 200]
    python demos/webrtc_relay/cycles.py --call-minutes 10

The relay runs in a process of its own with the real enhancer; its memory, threads and open files are read from /proc.
The peers are aiortc's. Prints a line every ten cycles, or every half minute of the call, and the slopes over the second
half.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import tempfile
from pathlib import Path

import aiohttp
import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.contrib.media import MediaBlackhole
from browser import running_relay

from idm_rt.sample_clip import sample_clip

State = tuple[float, float, float, float]  # cycle or minute, MB, threads, open files


class SampleCamera(VideoStreamTrack):
    """The sample call again and again, with time stamps that go on (MediaPlayer's begin anew)."""

    def __init__(self) -> None:
        super().__init__()
        with av.open(str(sample_clip())) as clip:
            self._frames = itertools.cycle(list(clip.decode(video=0)))

    async def recv(self) -> av.VideoFrame:
        """The next frame, in time."""
        frame = next(self._frames)
        frame.pts, frame.time_base = await self.next_timestamp()
        return frame


SDP = {"Content-Type": "application/sdp"}


async def polite(client: aiohttp.ClientSession, method: str, url: str, body: str | None = None) -> tuple[int, str, str]:
    """Ask, and ask again when the relay says it was too often; returns status, text and location."""
    while True:
        async with client.request(method, url, data=body, headers=SDP if body else None) as response:
            if response.status != 429:
                return response.status, await response.text(), response.headers.get("Location", "")
            wait_s = float(response.headers.get("Retry-After", "1"))
        await asyncio.sleep(wait_s)


async def begin(client: aiohttp.ClientSession, address: str, path: str, peer: RTCPeerConnection) -> str:
    """One WHIP or WHEP session; returns its location."""
    await peer.setLocalDescription(await peer.createOffer())
    status, text, location = await polite(client, "POST", f"{address}{path}", peer.localDescription.sdp)
    if status != 201:
        raise RuntimeError(f"{path}: {status} {text}")
    await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
    return location


async def long_call(client: aiohttp.ClientSession, address: str, minutes: float) -> list[State]:
    """One publisher of the sample call and one viewer; the relay's state every half minute."""
    publisher, viewer = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    tracks: list[VideoStreamTrack] = []
    sink = MediaBlackhole()
    process = process_of(address)
    seen: list[State] = []
    try:
        publisher.addTransceiver(SampleCamera(), "sendonly")
        viewer.addTransceiver("video", "recvonly")
        viewer.on("track", tracks.append)
        await begin(client, address, "/whip/call", publisher)
        await begin(client, address, "/whep/call", viewer)
        sink.addTrack(tracks[0])
        await sink.start()
        for half in range(1, round(2 * minutes) + 1):
            await asyncio.sleep(30)
            seen.append((half / 2, *state_of(process)))
            print(f"{half / 2:5.1f} min  {line_of(seen[-1])}  {await frames_so_far(client, address)}", flush=True)
    finally:
        await sink.stop()
        await asyncio.gather(publisher.close(), viewer.close())
    return seen


async def frames_so_far(client: aiohttp.ClientSession, address: str) -> str:
    """Frames by outcome, from the relay's metrics."""
    async with client.get(f"{address}/metrics") as response:
        found = re.findall(r'idm_relay_frames_total{cause="\w*",outcome="(\w+)"} (\S+)', await response.text())
    counts: dict[str, int] = {}
    for outcome, count in found:
        counts[outcome] = counts.get(outcome, 0) + round(float(count))
    return ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))


async def cycle(client: aiohttp.ClientSession, address: str) -> None:
    """A publisher and a viewer come, see two frames, and go."""
    publisher, viewer = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    tracks: list[VideoStreamTrack] = []
    try:
        publisher.addTransceiver(VideoStreamTrack(), "sendonly")
        viewer.addTransceiver("video", "recvonly")
        viewer.on("track", tracks.append)
        published = await begin(client, address, "/whip/cycle", publisher)
        viewed = await begin(client, address, "/whep/cycle", viewer)
        for _ in range(2):
            await asyncio.wait_for(tracks[0].recv(), 30)
        for location in (viewed, published):
            await polite(client, "DELETE", f"{address}{location}")
    finally:
        await asyncio.gather(publisher.close(), viewer.close())


def process_of(address: str) -> int:
    """The process that listens on the relay's port."""
    port = f"{int(address.rsplit(':', 1)[1]):04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    inode = next(line.split()[9] for line in lines if line.split()[1].endswith(f":{port}") and line.split()[3] == "0A")
    for folder in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(folder) == f"socket:[{inode}]":
                return int(folder.parts[2])
        except OSError:  # the process ended meanwhile
            continue
    raise RuntimeError("the relay's process was not found")


def state_of(process: int) -> tuple[float, float, float]:
    """Resident memory in MB, threads, open files."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    memory = re.search(r"VmRSS:\s+(\d+)", status)
    threads = re.search(r"Threads:\s+(\d+)", status)
    assert memory is not None and threads is not None
    return int(memory[1]) / 1024.0, float(threads[1]), float(len(os.listdir(f"/proc/{process}/fd")))


async def many_cycles(client: aiohttp.ClientSession, address: str, cycles: int) -> list[State]:
    """The relay's state after every cycle."""
    process = process_of(address)
    seen: list[State] = []
    for index in range(1, cycles + 1):
        await cycle(client, address)
        seen.append((index, *state_of(process)))
        if index % 10 == 0:
            print(f"{index:4} cycles  {line_of(seen[-1])}", flush=True)
    return seen


def line_of(state: State) -> str:
    """For people."""
    _, memory, threads, files = state
    return f"{memory:7.1f} MB  {threads:3.0f} threads  {files:3.0f} files"


def slopes(seen: list[State], unit: str) -> str:
    """Growth over the second half, least squares."""
    later = np.array(seen[len(seen) // 2 :] if len(seen) > 3 else seen)
    memory, threads, files = (float(np.polyfit(later[:, 0], later[:, column], 1)[0]) for column in (1, 2, 3))
    return f"slopes per {unit}, second half: {memory * 1000:+.0f} kB, {threads:+.3f} threads, {files:+.3f} files"


async def run(address: str, cycles: int, minutes: float) -> None:
    """Cycles or a call, and what grew."""
    async with aiohttp.ClientSession() as client:
        if minutes:
            print(slopes(await long_call(client, address, minutes), "minute"))
            return
        print(slopes(await many_cycles(client, address, cycles), "cycle"))


def main() -> None:
    """Start a relay and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--call-minutes", type=float, default=0.0, help="hold one call for so long instead")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_relay(Path(folder), "--sessions-per-minute", "100000") as address,
    ):
        asyncio.run(run(address, options.cycles, options.call_minutes))


if __name__ == "__main__":
    main()
