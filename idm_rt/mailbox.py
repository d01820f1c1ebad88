"""A slot for one item between threads, or between a thread and an event loop: the newest wins."""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")
_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class MailboxClosed(Exception):
    """The mailbox was closed and is empty: nothing will come any more."""


class LatestMailbox(Generic[T]):
    """Holds at most one item; a newer one replaces an item that nobody has taken, which counts as a drop.

    This is the one place where a live stream loses frames, and why its delay cannot grow. Every method may be called
    from any thread; none but ``get`` blocks for longer than it takes to swap a reference, so ``put``, ``take`` and
    ``get_async`` are fit for an event loop. Several readers may wait, on threads and on event loops; each item goes
    to exactly one of them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._items: list[T] = []  # none or one
        self._waiters: list[_Waiter] = []
        self._closed = False
        self._puts = self._drops = 0

    @property
    def puts(self) -> int:
        """Items put so far."""
        return self._puts

    @property
    def drops(self) -> int:
        """Items that were replaced before anybody took them."""
        return self._drops

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called; the last item may still be there."""
        return self._closed

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> T | None:
        """Leave an item and return the one it replaced, if any. Never waits.

        Raises:
            MailboxClosed: it is closed.
        """
        with self._changed:
            if self._closed:
                raise MailboxClosed("the mailbox is closed")
            # The old item leaves with the return value: freeing a picture must not happen under the lock.
            replaced, self._items = self._items, [item]
            self._puts += 1
            self._drops += len(replaced)
            waiters = self._wake_threads()
        _wake_loops(waiters)
        return replaced[0] if replaced else None

    def take(self) -> T | None:
        """The item if there is one, else None. Never waits, and never raises for a closed mailbox."""
        with self._changed:
            return self._items.pop() if self._items else None

    def get(self, timeout_s: float | None = None) -> T:
        """Wait for an item and take it. Blocks: for threads, never on an event loop.

        Args:
            timeout_s: longest wait in seconds; None = for ever.

        Raises:
            TimeoutError: nothing came in time.
            MailboxClosed: it is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if self._items:
                return self._items.pop()
            if self._closed:
                raise MailboxClosed("the mailbox is closed")
        raise TimeoutError(f"no item within {timeout_s} s")

    async def get_async(self) -> T:
        """Wait for an item on an event loop and take it; the loop runs on meanwhile. May be cancelled at any time.

        A cancelled or beaten reader loses no item: waking up only means "look again", and all are woken.

        Raises:
            MailboxClosed: it is closed and empty.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._items:
                    return self._items.pop()
                if self._closed:
                    raise MailboxClosed("the mailbox is closed")
                waiter = (loop, loop.create_future())
                self._waiters.append(waiter)
            try:
                await waiter[1]
            finally:
                self._forget(waiter)

    def close(self) -> None:
        """Refuse further items and wake every reader. An item that lies here may still be taken. Twice is fine."""
        with self._changed:
            self._closed = True
            waiters = self._wake_threads()
        _wake_loops(waiters)

    def _wake_threads(self) -> list[_Waiter]:
        """Wake the waiting threads (the lock is held) and return the event loops' readers, to be woken without it."""
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        return waiters

    def _forget(self, waiter: _Waiter) -> None:
        with self._changed:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _wake_loops(waiters: list[_Waiter]) -> None:
    for loop, future in waiters:
        try:
            loop.call_soon_threadsafe(_resolve, future)
        except RuntimeError:  # that loop was closed with a reader still waiting: nobody is left to wake
            continue


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():  # cancelled meanwhile
        future.set_result(None)
