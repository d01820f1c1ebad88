"""A real Chromium with a fake camera that plays the sample call: the page, and as WHIP publisher and WHEP viewer."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from relay_tools import GENEROUS, Whitener

from idm_rt.relay import RelayOptions

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.slow
PATIENCE_MS = 45_000


def load(name: str) -> ModuleType:
    """A script of the demo, which is no package."""
    path = ROOT / "demos" / "webrtc_relay" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


browser = load("browser")
if browser.find_chromium() is None:
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)
pytest.importorskip("playwright", reason="Playwright drives the browser: pip install playwright")


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return browser.write_camera(tmp_path_factory.mktemp("camera") / "camera.y4m")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A relay on a thread of its own, whose enhancer makes the middle white: that shows in any browser."""
    from aiohttp import web

    from idm_rt.relay import build_app

    loop, found, end = asyncio.new_event_loop(), [], asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        runner = web.AppRunner(build_app(RelayOptions(limits=GENEROUS), Whitener), shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await end.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(10)


BRIGHTNESS = """([element, x]) => {
  const video = element.startsWith("#") ? document.querySelector(element) : window.viewer.video;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 48];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 48);
  const [r, g, b] = context.getImageData(64 * x, 24, 1, 1).data;
  return (r + g + b) / 3;
}"""


def wait_for_brightness(page, element: str, x: float, *, above: float = 0.0, below: float = 256.0) -> None:
    for _ in range(300):
        if above < page.evaluate(BRIGHTNESS, [element, x]) < below:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"brightness at {x} stays {page.evaluate(BRIGHTNESS, [element, x])}")


def watched(context, address: str):
    """The page, with every complaint of the browser and every request it makes."""
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{address}/")
    return page, complaints, requests


def test_the_page_shows_oneself_restored(address: str, camera: Path, tmp_path: Path) -> None:
    with browser.chromium(camera) as context:
        page, complaints, requests = watched(context, address)
        page.get_by_role("button", name="Start").click()
        page.get_by_text("Connected.").wait_for(timeout=PATIENCE_MS)
        wait_for_brightness(page, "#shown", 0.5, above=190)
        browser.wait_for(page, "parseFloat(document.getElementById('n-fps').textContent) > 1")
        assert "ms" in page.locator("#n-delay").inner_text()
        assert page.locator("#n-engine").inner_text() == "running"
        assert page.locator("#device option").count() >= 1
        # the slider: the left half is what the relay received
        page.get_by_label("Before / after").fill("100")
        wait_for_brightness(page, "#shown", 0.3, below=190)
        page.get_by_label("Before / after").fill("0")
        wait_for_brightness(page, "#shown", 0.3, above=190)
        page.get_by_label("Restore faces").uncheck()
        wait_for_brightness(page, "#shown", 0.3, below=190)
        page.screenshot(path=tmp_path / "page.png")
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Not connected.").wait_for(timeout=PATIENCE_MS)
        favicon = [each for each in complaints if "favicon" not in each and "404" not in each]
        assert favicon == []
        assert all(url.startswith((address, "blob:")) for url in requests)


def test_the_page_can_be_worked_by_keyboard(address: str, camera: Path) -> None:
    with browser.chromium(camera) as context:
        page, _, _ = watched(context, address)
        focused = "document.activeElement.id || document.activeElement.name"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "start"
        page.keyboard.press("Enter")
        page.get_by_text("Connected.").wait_for(timeout=PATIENCE_MS)
        browser.wait_for(page, "!document.getElementById('strength').disabled")
        page.locator("#start").evaluate("() => document.body.focus()")
        seen = []
        for _ in range(12):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focused))
        assert {"split", "stop", "device", "enabled", "strength", "steps"} <= set(seen)
        page.locator("#strength").focus()
        page.keyboard.press("Home")
        assert page.locator("#strength-value").inner_text() == "0 %"
        labelled = "[...document.querySelectorAll('input,select')].every((each) => each.labels.length)"
        assert page.evaluate(labelled)


def test_the_page_says_why_there_is_no_camera(address: str, camera: Path) -> None:
    with browser.chromium(camera, "--deny-permission-prompts") as context:
        page, _, _ = watched(context, address)
        page.get_by_role("button", name="Start").click()
        page.get_by_role("alert").wait_for(timeout=PATIENCE_MS)
        assert "was not allowed to use the camera" in page.get_by_role("alert").inner_text()
        assert page.get_by_role("button", name="Start").is_enabled()


def test_chromium_publishes_by_whip_and_watches_by_whep(address: str, camera: Path) -> None:
    with browser.chromium(camera) as context:
        publisher = browser.publish(context, address, "room")
        viewers = [browser.view(context, address, "room") for _ in range(2)]
        for viewer in viewers:
            wait_for_brightness(viewer, "viewer", 0.5, above=190)
        assert publisher.evaluate("window.trickled") >= 1
        publisher.close()
        again = browser.publish(context, address, "room")  # a reload: the viewers go on
        before = browser.viewer_stats(viewers[0])["framesDecoded"]
        for _ in range(200):
            if browser.viewer_stats(viewers[0])["framesDecoded"] > before + 10:
                break
            viewers[0].wait_for_timeout(100)
        assert browser.viewer_stats(viewers[0])["framesDecoded"] > before + 10
        again.close()


def test_a_720p_camera_is_sent_whole(address: str, tmp_path: Path) -> None:
    """Without the hint in the answer Chromium scales it down to 640x360."""
    large = browser.write_camera(tmp_path / "large.y4m", (1280, 720))
    with browser.chromium(large) as context:
        publisher = browser.publish(context, address, "large", "?enhance=0", (1280, 720))
        sent = """async () => {
          for (const each of (await window.publisher.getStats()).values())
            if (each.type === "outbound-rtp") return [each.frameWidth, each.targetBitrate];
          return [0, 0];
        }"""
        for _ in range(100):
            width, bitrate = publisher.evaluate(sent)
            if width:
                break
            publisher.wait_for_timeout(100)
        assert width == 1280 or bitrate >= 1_000_000
        publisher.close()
