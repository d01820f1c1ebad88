"""A real Chromium beside the relay: a fake camera that plays the sample call, and the calls of WHIP and WHEP.

Needs Debian's ``chromium`` (or another one named by CHROMIUM) and ``pip install playwright``; no browser is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from idm_rt.sample_clip import sample_clip

FPS = 30

# Both ends speak to the relay from its own page, so that its rules on origins hold.
_PUBLISH = """async ({path, size}) => {
  const [width, height] = size;
  const camera = await navigator.mediaDevices.getUserMedia({video: {width, height, frameRate: 30}});
  const peer = new RTCPeerConnection();
  for (const track of camera.getTracks()) peer.addTransceiver(track, {direction: "sendonly", streams: [camera]});
  window.publisher = peer;
  let etag = null, location_ = null, waiting = [];
  const trickle = async (candidate) => {
    const sdp = peer.localDescription.sdp;
    const pick = (name) => sdp.match(new RegExp(`a=${name}:.*`))[0];
    const line = candidate ? `a=${candidate.candidate}` : "a=end-of-candidates";
    const lines = [pick("ice-ufrag"), pick("ice-pwd"), "m=video 9 UDP/TLS/RTP/SAVPF 0", pick("mid"), line, ""];
    const body = lines.join("\\r\\n");
    const headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": etag};
    const response = await fetch(location_, {method: "PATCH", headers, body});
    if (response.status !== 204) throw new Error(`trickle: ${response.status}`);
    window.trickled = (window.trickled || 0) + 1;
  };
  peer.onicecandidate = ({candidate}) => etag ? trickle(candidate) : waiting.push(candidate);
  await peer.setLocalDescription(await peer.createOffer());
  const headers = {"Content-Type": "application/sdp"};
  let response;
  for (let attempt = 0; attempt < 5; attempt++) {  // a publisher that vanished holds its room for three seconds
    response = await fetch(path, {method: "POST", headers, body: peer.localDescription.sdp});
    if (response.status !== 409) break;
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After"))));
  }
  if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
  [etag, location_] = [response.headers.get("ETag"), response.headers.get("Location")];
  window.session = location_;
  await peer.setRemoteDescription({type: "answer", sdp: await response.text()});
  for (const candidate of waiting) await trickle(candidate);
  return location_;
}"""

_VIEW = """async (path) => {
  const peer = new RTCPeerConnection();
  peer.addTransceiver("video", {direction: "recvonly"});
  const video = document.createElement("video");
  video.autoplay = video.muted = true;
  video.style.cssText = "position:fixed;inset:0;width:640px;height:480px;z-index:9";
  document.body.append(video);
  window.viewer = {peer, video, presented: 0, gaps: [], last: 0};
  const look = (now, about) => {
    const view = window.viewer;
    view.presented = about.presentedFrames;
    if (view.last) view.gaps.push(now - view.last);
    view.last = now;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  peer.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((done) => {
    const ready = () => { if (peer.iceGatheringState === "complete") done(); };
    peer.onicegatheringstatechange = ready; setTimeout(done, 1500); ready();
  });
  const headers = {"Content-Type": "application/sdp"};
  const response = await fetch(path, {method: "POST", headers, body: peer.localDescription.sdp});
  if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
  await peer.setRemoteDescription({type: "answer", sdp: await response.text()});
  return window.session = response.headers.get("Location");
}"""

_STATS = """async () => {
  for (const report of (await window.viewer.peer.getStats()).values())
    if (report.type === "inbound-rtp" && report.kind === "video")
      return {...report, presented: window.viewer.presented, gaps: window.viewer.gaps.splice(0)};
  return {framesDecoded: 0, presented: 0, gaps: []};
}"""


def find_chromium() -> str | None:
    """Path of a Chromium on this machine; None if there is none."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def write_camera(path: Path, size: tuple[int, int] = (640, 480), fps: int = FPS) -> Path:
    """The sample call as YUV4MPEG2, which Chromium plays in a loop as its camera; returns ``path``."""
    width, height = size
    with path.open("wb") as file, av.open(str(sample_clip())) as clip:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in clip.decode(video=0):
            planes = frame.reformat(width, height, "yuv420p").to_ndarray()
            file.write(b"FRAME\n" + planes.tobytes())
    return path


@contextmanager
def running_relay(folder: Path, *arguments: str) -> Iterator[str]:
    """``idm-rt relay`` as a process of its own; yields its address once it is ready to restore."""
    log = folder / "relay.log"  # files and no pipes: nobody would read those
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "idm_rt", "relay", "--port", "0", *arguments], stdout=file, stderr=file
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path, timeout_s: float = 90.0) -> str:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s and process.poll() is None:
        found = re.search(r"the relay is at (\S+)/", log.read_text())
        if found:
            try:
                with urlopen(f"{found[1]}/readyz", timeout=5):
                    return found[1]
            except HTTPError:  # 503: not ready yet
                pass
        time.sleep(0.2)
    raise RuntimeError(f"the relay did not become ready; its log:\n{log.read_text()}")


@contextmanager
def chromium(camera: Path, *more: str) -> Iterator[Any]:
    """A headless browser whose camera plays a file; yields Playwright's browser context."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=[
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={camera}",
                *("--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
                *("--disable-renderer-backgrounding", "--disable-background-timer-throttling"),
                "--disable-backgrounding-occluded-windows",
                *(more or ("--use-fake-ui-for-media-stream",)),
            ],
        )
        try:
            yield browser.new_context(viewport={"width": 1120, "height": 760})
        finally:
            browser.close()


def publish(context: Any, address: str, room: str, query: str = "", size: tuple[int, int] = (640, 480)) -> Any:
    """A page that publishes its camera by WHIP, candidates trickled; returns the page."""
    page = context.new_page()
    page.goto(f"{address}/")
    page.evaluate(_PUBLISH, {"path": f"/whip/{room}{query}", "size": list(size)})
    return page


def view(context: Any, address: str, room: str) -> Any:
    """A page that watches a room by WHEP; returns the page."""
    page = context.new_page()
    page.goto(f"{address}/")
    page.evaluate(_VIEW, f"/whep/{room}")
    return page


def hang_up(page: Any) -> None:
    """End a page's session as WHIP and WHEP say (DELETE), and close the page."""
    page.evaluate("async () => (await fetch(window.session, {method: 'DELETE'})).status")
    page.close()


def viewer_stats(page: Any) -> dict[str, Any]:
    """What the viewer's getStats says of its video, with the frames presented and the gaps between them (ms)."""
    return dict(page.evaluate(_STATS))


def wait_for(page: Any, condition: str, timeout_s: float = 60.0) -> None:
    """Wait until an expression holds in a page. (Playwright's own way evaluates text, which the page's policy forbids.)

    Raises:
        TimeoutError: it does not in time.
    """
    end_s = time.monotonic() + timeout_s
    while not page.evaluate(f"() => Boolean({condition})"):
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {condition}")
        page.wait_for_timeout(100)
