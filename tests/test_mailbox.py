"""One slot between threads and event loops: the newest wins, nothing is lost but what is counted, nobody sleeps on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from idm_rt.mailbox import LatestMailbox, MailboxClosed

PATIENCE_S = 20.0  # longer than any sane wait on a busy machine; only a failing test uses it up


def test_the_newest_wins_and_the_drop_is_counted():
    box: LatestMailbox[int] = LatestMailbox()
    assert box.put(1) is None and box.put(2) == 1 and box.put(3) == 2
    assert (len(box), box.puts, box.drops) == (1, 3, 2)
    assert box.get(0.0) == 3
    assert (len(box), box.drops, box.take()) == (0, 2, None)


def test_get_without_an_item_takes_the_timeout_and_no_longer():
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        LatestMailbox().get(0.05)
    assert 0.04 < time.monotonic() - start < 5.0


def test_none_is_an_item_for_get():
    box: LatestMailbox[None] = LatestMailbox()
    box.put(None)
    assert box.get(0.0) is None
    with pytest.raises(TimeoutError):
        box.get(0.0)


def test_a_closed_mailbox_gives_out_its_last_item_and_takes_no_other():
    box: LatestMailbox[int] = LatestMailbox()
    box.put(1)
    box.close()
    box.close()
    with pytest.raises(MailboxClosed):
        box.put(2)
    assert box.closed and box.get(0.0) == 1
    with pytest.raises(MailboxClosed):
        box.get(0.0)
    assert box.take() is None


class MailboxMachine(RuleBasedStateMachine):
    """Any sequence of calls on one thread, against the obvious model."""

    def __init__(self) -> None:
        super().__init__()
        self.box: LatestMailbox[int] = LatestMailbox()
        self.slot: int | None = None
        self.puts = self.taken = self.drops = 0
        self.closed = False

    @precondition(lambda self: not self.closed)
    @rule()
    def put(self):
        replaced = self.box.put(self.puts)
        assert replaced == self.slot
        self.drops += self.slot is not None
        self.slot, self.puts = self.puts, self.puts + 1

    @rule()
    def take(self):
        assert self.box.take() == self.slot
        self.taken += self.slot is not None
        self.slot = None

    @precondition(lambda self: self.slot is not None)
    @rule()
    def get(self):
        assert self.box.get(0.0) == self.slot
        self.taken += 1
        self.slot = None

    @precondition(lambda self: self.slot is not None)
    @rule()
    def get_async(self):
        assert asyncio.run(self.box.get_async()) == self.slot
        self.taken += 1
        self.slot = None

    @rule()
    def close(self):
        self.box.close()
        self.closed = True

    @invariant()
    def every_item_is_somewhere_once(self):
        assert self.box.puts == self.taken + self.box.drops + len(self.box)
        assert (self.box.drops, len(self.box)) == (self.drops, int(self.slot is not None))


TestMailboxMachine = MailboxMachine.TestCase
TestMailboxMachine.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


def read_on_thread(box: LatestMailbox[int], timeout_s: float | None) -> tuple[threading.Thread, list[int]]:
    """A thread that reads until the mailbox closes."""
    seen: list[int] = []

    def read() -> None:
        while True:
            try:
                seen.append(box.get(timeout_s))
            except TimeoutError:
                continue
            except MailboxClosed:
                return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread, seen


@pytest.mark.parametrize("timeout_s", [None, 0.0005])
def test_many_writers_and_readers_lose_nothing_uncounted(timeout_s):
    """Time-outs as short as the puts are apart: the moment at which a wake-up could get lost comes up often."""
    box: LatestMailbox[int] = LatestMailbox()
    readers = [read_on_thread(box, timeout_s) for _ in range(3)]

    def write(first: int) -> None:
        for item in range(first, first + 1500):
            box.put(item)
            if item % 7 == 0:
                time.sleep(0.0002)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 10_000)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join(PATIENCE_S)
    box.close()
    for thread, _ in readers:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    seen = [item for _, items in readers for item in items]
    assert len(seen) == len(set(seen)) and len(seen) + box.drops == box.puts == 3000
    for _, items in readers:  # what one reader sees of one writer is in order
        for writer in (False, True):
            mine = [item for item in items if (item >= 10_000) is writer]
            assert mine == sorted(mine)


def test_no_wake_up_is_lost_between_two_threads():
    """Ping-pong: if a single wake-up went missing both would wait for ever."""
    there: LatestMailbox[int] = LatestMailbox()
    back: LatestMailbox[int] = LatestMailbox()

    def echo() -> None:
        for _ in range(2000):
            back.put(there.get())

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    for item in range(2000):
        there.put(item)
        assert back.get(PATIENCE_S) == item
    thread.join(PATIENCE_S)


def test_no_wake_up_is_lost_between_a_thread_and_an_event_loop():
    there: LatestMailbox[int] = LatestMailbox()
    back: LatestMailbox[int] = LatestMailbox()

    def echo() -> None:
        for _ in range(1000):
            back.put(there.get())

    async def play() -> None:
        for item in range(1000):
            there.put(item)
            assert await asyncio.wait_for(back.get_async(), PATIENCE_S) == item

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    asyncio.run(play())
    thread.join(PATIENCE_S)


def test_waiting_on_a_loop_does_not_hold_up_the_loop():
    async def scene() -> int:
        box: LatestMailbox[int] = LatestMailbox()
        reader = asyncio.create_task(box.get_async())
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0)
            ticks += 1
        assert not reader.done()
        box.put(5)
        assert await reader == 5
        return ticks

    assert asyncio.run(scene()) == 20


def test_a_cancelled_reader_loses_no_item():
    """Cancelled in the very moment in which it was woken: the item stays for the next reader."""

    async def scene() -> None:
        box: LatestMailbox[int] = LatestMailbox()
        for item in range(50):
            first = asyncio.create_task(box.get_async())
            second = asyncio.create_task(box.get_async())
            await asyncio.sleep(0)
            box.put(item)
            first.cancel()
            assert await asyncio.wait_for(second, PATIENCE_S) == item
            assert (await asyncio.gather(first, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        assert box._waiters == [] and box.drops == 0

    asyncio.run(scene())


def test_time_outs_leave_no_waiters_behind():
    async def scene() -> None:
        box: LatestMailbox[int] = LatestMailbox()
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(box.get_async(), 0.0001)
        assert box._waiters == []

    asyncio.run(scene())


def test_closing_wakes_every_reader():
    async def scene(box: LatestMailbox[int]) -> None:
        readers = [asyncio.create_task(box.get_async()) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=box.close).start()
        for outcome in await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), PATIENCE_S):
            assert isinstance(outcome, MailboxClosed)

    box: LatestMailbox[int] = LatestMailbox()
    thread, seen = read_on_thread(box, None)
    asyncio.run(scene(box))
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and seen == []


def test_a_loop_that_is_gone_does_not_stop_the_writer():
    box: LatestMailbox[int] = LatestMailbox()
    loop = asyncio.new_event_loop()
    reader = loop.create_task(box.get_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    box.put(1)
    assert box.get(0.0) == 1
    assert not reader.done()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), max_size=60))
def test_threads_and_loops_share_the_items(pattern):
    """A reader on a loop and one on a thread: each item goes to one of them, or is counted as dropped."""

    async def scene() -> tuple[list[int], list[int], LatestMailbox[int]]:
        box: LatestMailbox[int] = LatestMailbox()
        thread, by_thread = read_on_thread(box, None)
        by_loop: list[int] = []

        async def read() -> None:
            while True:
                try:
                    by_loop.append(await box.get_async())
                except MailboxClosed:
                    return

        reader = asyncio.create_task(read())
        for item, pause in enumerate(pattern):
            box.put(item)
            await asyncio.sleep(0.0001 if pause else 0)
        box.close()
        await asyncio.wait_for(reader, PATIENCE_S)
        thread.join(PATIENCE_S)
        return by_thread, by_loop, box

    by_thread, by_loop, box = asyncio.run(scene())
    both = by_thread + by_loop
    assert len(set(both)) == len(both) and len(both) + box.drops == box.puts == len(pattern)
    assert by_thread == sorted(by_thread) and by_loop == sorted(by_loop)
