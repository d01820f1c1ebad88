"""Connect and disconnect a publisher and a viewer again and again, and show that nothing grows.

    python demos/webrtc_relay/cycles.py [--cycles 200]

The relay runs in a process of its own with the real enhancer; its memory, threads and open files are read from /proc.
The peers are aiortc's. Prints a line every ten cycles and the slopes over the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from browser import running_relay

SDP = {"Content-Type": "application/sdp"}


async def begin(client: aiohttp.ClientSession, address: str, path: str, peer: RTCPeerConnection) -> str:
    """One WHIP or WHEP session; returns its location."""
    await peer.setLocalDescription(await peer.createOffer())
    async with client.post(f"{address}{path}", data=peer.localDescription.sdp, headers=SDP) as response:
        text = await response.text()
        if response.status != 201:
            raise RuntimeError(f"{path}: {response.status} {text}")
        await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
        return response.headers["Location"]


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
            async with client.delete(f"{address}{location}"):
                pass
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


async def run(address: str, cycles: int) -> None:
    """All cycles, with a line now and then."""
    process, seen = process_of(address), []
    began_s = time.monotonic()
    async with aiohttp.ClientSession() as client:
        for index in range(1, cycles + 1):
            await cycle(client, address)
            seen.append((index, *state_of(process)))
            if index % 10 == 0:
                _, memory, threads, files = seen[-1]
                print(f"{index:4} cycles  {memory:7.1f} MB  {threads:3.0f} threads  {files:3.0f} files", flush=True)
    later = np.array(seen[len(seen) // 2 :])
    slopes = [float(np.polyfit(later[:, 0], later[:, column], 1)[0]) for column in (1, 2, 3)]
    print(
        f"slopes per cycle, second half: {slopes[0] * 1000:+.0f} kB, {slopes[1]:+.3f} threads, {slopes[2]:+.3f} files; "
        f"{(time.monotonic() - began_s) / cycles:.2f} s a cycle"
    )


def main() -> None:
    """Start a relay and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cycles", type=int, default=200)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_relay(Path(folder), "--sessions-per-minute", "100000") as address,
    ):
        asyncio.run(run(address, options.cycles))


if __name__ == "__main__":
    main()
