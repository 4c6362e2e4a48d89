"""Runs an iterator ahead of its consumer."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Iterator[Item]):
    """Yields the same items, made ahead by a thread that starts at once.

    An exception of `items` is raised at its place.

    Args:
        items: what to iterate over, a few at a time; only the thread touches it. Those few are
            handed over at once: where the consumer is the faster one, each time wakes it.
        max_bytes: the thread pauses while as much or more is waiting to be handed over.
        num_bytes: size of an item.
    """

    def __init__(
        self, items: Iterator[Sequence[Item]], *, max_bytes: int, num_bytes: Callable[[Item], int]
    ) -> None:
        self._waiting: _Waiting[Item] = _Waiting(max_bytes=max_bytes, num_bytes=num_bytes)
        self._at_hand: collections.deque[Item] = collections.deque()
        # the thread knows the queue and not this object, so that dropping it ends the thread
        self._thread = threading.Thread(
            target=self._waiting.fill, args=(items,), name="prefetch", daemon=True
        )
        self._thread.start()
        # at the latest when the process ends: a thread that still runs compiled code then aborts it
        weakref.finalize(self, _abandon, self._waiting, self._thread)

    def close(self) -> None:
        """Ends the thread; what it made is dropped."""
        self._waiting.stop()
        self._thread.join()
        self._at_hand.clear()

    def __next__(self) -> Item:
        while not self._at_hand:
            self._at_hand.extend(self._waiting.take())
        return self._at_hand.popleft()


def _abandon(waiting: _Waiting[Item], thread: threading.Thread) -> None:
    waiting.stop()
    # garbage may be collected in a thread that this one waits for
    if threading.current_thread() is threading.main_thread():
        thread.join()


class _Waiting(Generic[Item]):
    """Items between the thread that makes them and the one that takes them."""

    def __init__(self, *, max_bytes: int, num_bytes: Callable[[Item], int]) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = num_bytes
        # waiting for it costs one change of threads, and for a condition several
        self._items: queue.SimpleQueue[tuple[Sequence[Item], int] | BaseException] = (
            queue.SimpleQueue()
        )
        self._bytes = 0
        self._is_stopped = False
        self._changed = threading.Condition()

    def fill(self, items: Iterator[Sequence[Item]]) -> None:
        end: BaseException = StopIteration()
        try:
            for some in items:
                num_bytes = sum(map(self._num_bytes, some))
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._is_stopped:
                        return
                    self._bytes += num_bytes
                    self._items.put((some, num_bytes))
        except BaseException as error:  # raised in the consumer's thread
            end = error
        with self._changed:
            if not self._is_stopped:
                self._items.put(end)

    def take(self) -> Sequence[Item]:
        item = self._items.get()
        if isinstance(item, BaseException):
            self._items.put(item)  # whoever asks again is told again
            raise item
        some, num_bytes = item
        with self._changed:
            self._bytes -= num_bytes
            self._changed.notify_all()
        return some

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        with contextlib.suppress(queue.Empty):
            while True:
                self._items.get_nowait()
        self._items.put(StopIteration())

    def _has_room(self) -> bool:
        return self._is_stopped or self._bytes < self._max_bytes
