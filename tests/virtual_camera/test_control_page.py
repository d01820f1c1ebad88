"""The control page over real HTTP: what the owner can do, and everything a stranger cannot."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from camera_fakes import SIZE, FakeCable, WhiteEnhancer
from hypothesis import given
from hypothesis import strategies as st

from idm_rt.errors import ConfigError, MediaError
from idm_rt.live_records import LiveControls
from idm_rt.virtual_camera import CameraControls, CameraOptions, VirtualCamera
from idm_rt.virtual_camera.control_input import changed_controls, parse_changes, press
from idm_rt.virtual_camera.sinks import NullSink, SinkKeeper

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install .[camera]")

from idm_rt.virtual_camera.control_page import ControlPage

START = CameraControls(LiveControls())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[VirtualCamera, ControlPage]]:
    camera = VirtualCamera(
        FakeCable(),
        lambda: SinkKeeper(NullSink, time.monotonic, reopens=False),
        WhiteEnhancer,
        CameraOptions(size=SIZE),
    )
    with camera, ControlPage(camera) as page:
        yield camera, page


@pytest.fixture
def camera(served: tuple[VirtualCamera, ControlPage]) -> VirtualCamera:
    served[0].set_controls(START)
    return served[0]


class Client:
    """Speaks to the page; by default as the page's own script does."""

    def __init__(self, page: ControlPage) -> None:
        parts = urlsplit(page.url)
        self.host = parts.netloc
        self.token = parse_qs(parts.query)["token"][0]

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, dict[str, str], str]:
        given = {
            "Host": self.host, "X-Token": self.token, "Origin": f"http://{self.host}",
            "Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        connection = http.client.HTTPConnection(self.host, timeout=30)
        text = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        if text is not None:
            connection.putheader("Content-Length", str(len(text)))
        connection.endheaders(text.encode() if isinstance(text, str) else text)
        response = connection.getresponse()
        data = response.read().decode()
        connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, data


@pytest.fixture
def client(served: tuple[VirtualCamera, ControlPage]) -> Client:
    return Client(served[1])


def test_the_page_and_its_parts_come_with_strict_headers(client: Client) -> None:
    for path, kind in ((f"/?token={client.token}", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "css")):
        status, headers, text = client.ask("GET", path, X_Token=None, Origin=None)
        assert status == 200 and kind in headers["content-type"] and text
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    page = client.ask("GET", f"/?token={client.token}")[2]
    assert "style=" not in page and "onclick" not in page and client.token not in page  # nothing the policy forbids


def test_the_owner_sees_numbers_and_changes_controls(client: Client, camera: VirtualCamera) -> None:
    status, _, text = client.ask("GET", "/api/status")
    assert status == 200 and json.loads(text)["controls"]["live"]["enabled"] is True
    changes = {"enabled": False, "strength": 0.25, "steps": 2, "compare": True}
    status, _, text = client.ask("POST", "/api/controls", changes)
    assert status == 200
    assert camera.controls == CameraControls(LiveControls(enabled=False, steps=2, strength=0.25), compare=True)
    assert json.loads(text)["controls"]["compare"] is True


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 403),
        ("GET", "/?token=wrong", {}, 403),
        ("GET", "/?token=%C3%A4", {}, 403),
        ("GET", "/api/status", {"X_Token": None}, 403),
        ("GET", "/api/status", {"X_Token": "wrong"}, 403),
        ("GET", "/api/status", {"Host": "evil.example"}, 421),
        ("GET", "/page.js", {"Host": "evil.example:80"}, 421),
        ("GET", "/api/status", {"Origin": "http://evil.example"}, 403),
        ("GET", "/api/status", {"Origin": "null"}, 403),
        ("POST", "/api/controls", {"X_Token": "wrong"}, 403),
        ("POST", "/api/controls", {"Origin": "http://evil.example"}, 403),
        ("POST", "/api/controls", {"Origin": None}, 403),
        ("POST", "/api/controls", {"Content_Type": "text/plain"}, 415),
        ("POST", "/api/controls", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ("GET", "/api/controls", {}, 405),
        ("GET", "/../etc/passwd", {}, 404),
        ("GET", "/page.html", {}, 404),
        ("DELETE", "/api/status", {}, 405),
    ],
)
def test_strangers_are_refused(
    client: Client, camera: VirtualCamera, method: str, path: str, headers: dict[str, str | None], status: int
) -> None:
    body = {"enabled": False} if method == "POST" else None
    found, answer, text = client.ask(method, path, body, **headers)
    assert found == status and "content-security-policy" in answer
    assert client.token not in text and camera.controls == START


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "{}", "null", '{"enabled": 1}', '{"steps": 3}', '{"steps": true}', '{"strength": 1.5}',
     '{"strength": NaN}', '{"strength": "1"}', '{"nothing": 1}', "[" * 2000, b"\xff\xfe", "1" * 4000],
)  # fmt: skip
def test_malformed_changes_change_nothing(client: Client, camera: VirtualCamera, body: str | bytes) -> None:
    status, _, text = client.ask("POST", "/api/controls", body)
    assert status == 400 and "\n" not in text and len(text) <= 200
    assert camera.controls == START


def test_an_oversized_body_is_refused(client: Client, camera: VirtualCamera) -> None:
    assert client.ask("POST", "/api/controls", "x" * 100_000)[0] == 413
    assert camera.controls == START


def test_it_listens_on_this_machine_alone(client: Client) -> None:
    port = int(client.host.split(":")[1])
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in own:
        with pytest.raises(OSError), socket.create_connection((address, port), timeout=2):
            pass


def test_a_taken_port_is_one_line(client: Client, camera: VirtualCamera) -> None:
    port = int(client.host.split(":")[1])
    with pytest.raises(MediaError, match=f"port {port} of the control page"), ControlPage(camera, port):
        pass


def test_without_aiohttp_the_extra_is_named(camera: VirtualCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(ConfigError, match=r"pip install 'idm-rt\[camera\]'"), ControlPage(camera):
        pass


def test_the_page_ends_with_its_block(camera: VirtualCamera) -> None:
    with ControlPage(camera) as page:
        client = Client(page)
        assert client.ask("GET", "/api/status")[0] == 200
    assert sum(thread.name == "idm-rt page" for thread in threading.enumerate()) == 1  # the other one's
    with pytest.raises(OSError):
        client.ask("GET", "/api/status")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
)
NAMES = st.sampled_from(["enabled", "compare", "steps", "strength", "live", "__class__"])


@given(st.text() | JSON.map(json.dumps) | st.dictionaries(NAMES, JSON, max_size=4).map(json.dumps))
def test_any_text_is_a_valid_change_or_refused(text: str) -> None:
    try:
        changes = parse_changes(text)
    except ValueError:
        return
    controls = changed_controls(START, changes)
    assert 0.0 <= controls.live.strength <= 1.0 and controls.live.steps in (1, 2, 4)
    assert type(controls.live.enabled) is bool and type(controls.compare) is bool


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_any_keys_leave_valid_controls(keys: str) -> None:
    controls, mirror = START, True
    for key in keys:
        effect = press(key, controls, mirror)
        controls, mirror = effect.controls, effect.mirror
        assert effect.quit == (key in "q\x1b")
    assert 0.0 <= controls.live.strength <= 1.0 and controls.live.steps in (1, 2, 4)


def test_what_the_keys_do() -> None:
    assert press("e", START, True).controls.live.enabled is False
    assert press(" ", press("e", START, True).controls, True).controls == START
    assert press("c", START, True).controls.compare is True
    assert press("4", START, True).controls.live.steps == 4 and press("3", START, True).controls == START
    assert press("-", START, True).controls.live.strength == 0.9 and press("+", START, True).controls == START
    assert press("m", START, True).mirror is False and press("m", START, True).controls == START
