"""The relay's parts alone, on turned clocks: tokens, rates, budget, feeds, pool."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiortc.mediastreams import MediaStreamError
from clocks import TurnedClock
from hypothesis import given
from hypothesis import strategies as st
from rtc_fakes import AudioSource, VideoSource, Whitener, drain, read, wait_until

from idm_rt.relay.admission import Admission
from idm_rt.relay.feeds import Feed
from idm_rt.relay.pool import EnhancerPool
from idm_rt.relay.rate_limit import RateLimit
from idm_rt.relay.tokens import BadToken, Grant, mint, verify
from idm_rt.types import Frame

SECRET = b"a secret of sixteen bytes and more"
NOW = 1_800_000_000.0


def test_a_token_says_what_was_granted() -> None:
    grant = Grant("publish", "room", int(NOW) + 60)
    assert verify(SECRET, mint(SECRET, grant), NOW) == grant
    assert grant.allows("publish", "room") and grant.allows("publish", None)
    assert not grant.allows("view", "room") and not grant.allows("publish", "other")
    assert Grant("view", "*", 0).allows("view", "any")
    with pytest.raises(ValueError, match="role is 'admin', expected one of publish"):
        mint(SECRET, Grant("admin", "room", 0))


@given(position=st.integers(0, 200), letter=st.characters(codec="utf-8"))
def test_a_token_with_any_letter_changed_is_none(position: int, letter: str) -> None:
    token = mint(SECRET, Grant("publish", "room", int(NOW) + 60))
    position %= len(token)
    changed = token[:position] + letter + token[position + 1 :]
    if _parts(changed) == _parts(token):
        return  # the last letter of base64 has bits that mean nothing
    with pytest.raises(BadToken):
        verify(SECRET, changed, NOW)


def _parts(token: str) -> list[object]:
    try:
        payload, signature = token.split(".")
        return [payload, base64.b64decode(signature + "=", altchars=b"-_", validate=True)]
    except ValueError:
        return [token]


@given(st.text())
def test_nothing_else_is_a_token(text: str) -> None:
    with pytest.raises(BadToken):
        verify(SECRET, text, NOW)


@pytest.mark.parametrize(
    "body", ["[]", "{}", '{"role":1,"room":2,"exp":"x"}', '{"role":"view","room":"r","exp":NaN}', "x"]
)
def test_a_signed_token_that_is_malformed_is_none(body: str) -> None:
    import hashlib
    import hmac

    payload = base64.urlsafe_b64encode(body.encode()).rstrip(b"=").decode()
    signature = hmac.new(SECRET, payload.encode(), hashlib.sha256).digest()
    with pytest.raises(BadToken):
        verify(SECRET, f"{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}", NOW)


def test_a_bucket_empties_and_refills() -> None:
    clock = TurnedClock()
    limit = RateLimit(2.0, 3.0, clock)
    assert [limit.take("a") for _ in range(3)] == [0.0] * 3
    assert limit.take("a") == pytest.approx(0.5) and limit.take("b") == 0.0
    clock.advance(0.5)
    assert limit.take("a") == 0.0 and limit.take("a") > 0.0
    clock.advance(1000.0)
    assert [limit.take("a") for _ in range(3)] == [0.0] * 3 and limit.take("a") > 0.0


def test_a_crowd_of_addresses_takes_no_memory() -> None:
    limit = RateLimit(1.0, 1.0, TurnedClock())
    for index in range(10_000):
        limit.take(str(index))
    assert len(limit) <= 4096


class Cpu:
    """A processor clock that runs at a rate."""

    def __init__(self, clock: TurnedClock) -> None:
        self.clock, self.rate, self._at_s, self._used_s = clock, 0.0, clock(), 0.0

    def __call__(self) -> float:
        self._used_s += (self.clock() - self._at_s) * self.rate
        self._at_s = self.clock()
        return self._used_s


def test_sessions_are_admitted_by_what_the_present_ones_cost() -> None:
    clock = TurnedClock()
    cpu = Cpu(clock)
    admission = Admission(4, 0.9, clock, cpu)

    def run(counts: dict[str, int], cores: float, seconds: float = 30.0) -> None:
        admission.measure(counts)
        cpu.rate = cores
        for _ in range(round(seconds)):
            clock.advance(1.0)
            cpu()
            admission.measure(counts)

    run({"call": 1}, 0.5)  # half a core each: seven fit into 3.6
    assert admission.used_cores == pytest.approx(0.5) and admission.admits("call", {"call": 6})
    assert not admission.admits("call", {"call": 7}) and admission.admits("view", {"call": 6})
    run({"call": 2}, 3.0)  # one and a half each: two fit
    assert not admission.admits("call", {"call": 2}) and admission.admits("view", {"call": 2})
    run({"call": 1}, 4.0)
    assert admission.admits("call", {})  # the first always does: the governor makes it fit


def test_a_feed_outlives_its_publishers() -> None:
    async def run() -> None:
        feed = Feed("video")
        viewer = feed.subscribe()
        feed.attach(VideoSource(count=8))
        before = await read(viewer, 3)
        await wait_until(lambda: not feed.attached)
        await asyncio.sleep(0.2)
        second = VideoSource()
        feed.attach(second)
        after = await read(viewer, 5)
        assert all(b.pts > a.pts for a, b in zip([*before, *after], [*before, *after][1:], strict=False))
        assert 0.15 < float((after[-4].pts - before[-1].pts) / 90_000) < 2.0  # the pause is kept
        feed.close()
        assert second.readyState == "ended"
        with pytest.raises(MediaStreamError):
            await viewer.recv()

    asyncio.run(run())


def test_a_viewer_that_does_not_read_keeps_the_newest_only() -> None:
    async def run() -> None:
        feed = Feed("audio")
        lazy, eager = feed.subscribe(), feed.subscribe()
        feed.attach(AudioSource(count=60))
        await lazy.recv()
        reader = asyncio.ensure_future(drain(eager))
        await wait_until(lambda: not feed.attached)
        assert len(lazy._frames) == 25
        feed.close()
        assert await asyncio.wait_for(reader, 10) >= 55

    asyncio.run(run())


class Resettable(Whitener):
    def __init__(self) -> None:
        super().__init__()
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


def test_the_pool_lends_again_what_comes_back_healthy() -> None:
    import numpy as np

    frame = Frame(np.zeros((8, 8, 3), np.uint8))
    made: list[Resettable] = []

    def opener() -> Resettable:
        made.append(Resettable())
        return made[-1]

    pool = EnhancerPool(opener)
    assert not pool.ready
    pool.warm()
    assert pool.ready and len(made) == 1 and made[0].resets == 1
    first = pool.open()
    first.process_frame(frame, 0.0)
    second = pool.open()
    assert len(made) == 2
    first.close()
    first.close()
    second.close()  # one too many
    assert not made[0].closed.is_set() and made[1].closed.is_set()
    third = pool.open()
    made[0].error = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        third.process_frame(frame, 0.0)
    third.close()
    assert made[0].closed.is_set() and len(made) == 2
    fourth = pool.open()
    pool.close()
    fourth.close()
    assert made[2].closed.is_set()


def test_one_enhancer_is_opened_at_a_time_and_what_comes_back_is_lent_again() -> None:
    """Sessions that come and go while an engine opens must not begin an engine each."""
    gate, made = threading.Event(), []

    def opener() -> Resettable:
        gate.wait(30)
        made.append(Resettable())
        return made[-1]

    pool = EnhancerPool(opener)
    with ThreadPoolExecutor(6) as threads:
        done = [threads.submit(lambda: pool.open().close()) for _ in range(6)]
        gate.set()
        for each in done:
            each.result(timeout=30)
    assert len(made) == 1 and pool.opened == 6


def test_the_pool_tells_why_it_cannot_open() -> None:
    def broken() -> Whitener:
        raise OSError("no engine")

    pool = EnhancerPool(broken)
    pool.warm()
    assert not pool.ready and pool.error == "OSError: no engine"


def test_events_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    import logging
    import sys

    from idm_rt.relay.events import LOGGER, log_to, tell

    logger = logging.getLogger(LOGGER)
    before = logger.handlers, logger.propagate, logger.level
    try:
        log_to(sys.stderr)
        tell("request", None, route='/"\n', status=200)
    finally:
        logger.handlers, logger.propagate, level = before
        logger.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["route"] == '/"\n'
