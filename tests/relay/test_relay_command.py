"""``idm-rt relay`` and ``idm-rt relay-token`` as a user starts them: a process of its own, ended by a signal."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCSessionDescription
from relay_tools import closing, offer, publisher, viewer
from rtc_fakes import read, use_loopback, wait_until

from idm_rt.relay.tokens import Grant, verify

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "idm_rt"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def running(tmp_path: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """The process, the relay's address and the file of its log."""
    out, log = tmp_path / "out.txt", tmp_path / "log.txt"
    with out.open("wb") as out_file, log.open("wb") as log_file:
        process = subprocess.Popen(
            [*COMMAND, "relay", "--port", "0", *map(str, arguments)], cwd=ROOT, stdout=out_file, stderr=log_file
        )
        try:
            end_s = time.monotonic() + 60
            while (found := re.search(r"the relay is at (\S+)", out.read_text())) is None:
                assert process.poll() is None and time.monotonic() < end_s, log.read_text()
                time.sleep(0.05)
            yield process, found[1], log
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_all_peers_within_three_seconds(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    use_loopback(monkeypatch)

    async def run(address: str, process: subprocess.Popen[bytes]) -> float:
        sender, watcher = publisher(), viewer()
        tracks = []
        watcher.on("track", tracks.append)
        async with closing(sender, watcher), aiohttp.ClientSession() as client:
            for peer, path in ((sender, "whip"), (watcher, "whep")):
                sdp, headers = await offer(peer), {"Content-Type": "application/sdp"}
                response = await client.post(f"{address}{path}/room", data=sdp, headers=headers)
                assert response.status == 201
                await peer.setRemoteDescription(RTCSessionDescription(await response.text(), "answer"))
                await wait_until(lambda peer=peer: peer.connectionState == "connected")
            await read(tracks[0], 3)
            began_s = time.monotonic()
            process.send_signal(number)
            await asyncio.to_thread(process.wait, 30)
            return time.monotonic() - began_s

    with running(tmp_path) as (process, address, log):
        seconds = asyncio.run(run(address, process))
        assert process.returncode == 0, log.read_text()
        record_property("exit after s", round(seconds, 2))
        assert seconds < 3.0
        assert '"event": "session ended"' in log.read_text() and "Traceback" not in log.read_text()


def test_a_signal_while_the_engine_still_opens(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _, log):
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert time.monotonic() - began_s < 3.0 and process.returncode == 0, log.read_text()


def test_another_address_without_a_secret_is_a_usage_error() -> None:
    done = command("relay", "--host", "0.0.0.0")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "there is no secret to sign tokens with; give --secret-file FILE" in done.stderr


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("relay", "--port", port)
    assert done.returncode == 2
    assert re.search(rf"error: cannot listen on 127\.0\.0\.1:{port} \(.*\); choose --port", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "'70000' is not a whole number from 0 to 65535"),
        (["--secret-file", "/no/such/file"], "cannot read the secret /no/such/file (No such file or directory)"),
        (["--tls-cert", "c.pem"], "TLS needs both a certificate and its key"),
        (["--stun", "example.org"], "STUN server is 'example.org'; write it like stun:"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    done = command("relay", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_token_opens_what_it_was_made_for(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    done = command("relay-token", "publish", "--room", "demo", "--minutes", 5, "--secret-file", secret)
    assert done.returncode == 0
    grant = verify(secret.read_bytes().strip(), done.stdout.strip(), time.time())
    assert (grant.role, grant.room) == ("publish", "demo") and 200 < grant.expires_s - time.time() <= 300
    assert isinstance(grant, Grant)
    assert command("relay-token", "publish").returncode == 2
    secret.write_text("short")
    done = command("relay-token", "view", "--secret-file", secret)
    assert done.returncode == 2 and "openssl rand -hex 32" in done.stderr
