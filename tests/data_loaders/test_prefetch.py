"""Reading ahead: the same items, errors in their place, and no thread left behind."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.prefetch import Prefetch


class CorruptError(Exception):
    pass


def prefetch(items: Iterator[Any], *, depth: int) -> Prefetch[Any]:
    """Up to `depth` items of one byte each, made one at a time."""
    return Prefetch(([item] for item in items), max_bytes=depth, num_bytes=lambda item: 1)


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "prefetch"}


@settings(deadline=None)
@given(st.lists(st.none() | st.integers()), st.integers(1, 5))
def test_items_come_in_their_order(items: list[int | None], depth: int) -> None:
    """All of them, None and equal ones too."""
    assert list(prefetch(iter(items), depth=depth)) == items
    assert not threads()


@pytest.mark.parametrize("position", [0, 1, 5])
@pytest.mark.parametrize("kind", [CorruptError, KeyboardInterrupt, StopAsyncIteration])
def test_an_exception_arrives_behind_the_items_before_it(
    position: int, kind: type[BaseException]
) -> None:
    """In the consumer's thread, whatever its class."""

    def items() -> Iterator[int]:
        yield from range(position)
        raise kind("here")

    taken = []
    with pytest.raises(kind, match="here"):  # noqa: PT012 - the items before it are the point
        for item in prefetch(items(), depth=2):
            taken.append(item)
    assert taken == list(range(position))
    assert not threads()


def test_an_exceptions_traceback_says_where_it_was_raised() -> None:
    """Not only where it was raised again."""

    def read_row_group() -> Iterator[int]:
        yield 1 // 0

    with pytest.raises(ZeroDivisionError) as caught:
        list(prefetch(read_row_group(), depth=1))
    assert "read_row_group" in [entry.name for entry in caught.traceback]


def test_it_runs_ahead_by_depth_and_no_further() -> None:
    """`depth` items wait in the queue, and one is in the thread's hand."""
    started: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for item in itertools.count():
            started.append(item)
            if item == 4:
                enough.set()
            yield item

    ahead = prefetch(items(), depth=3)
    assert next(ahead) == 0
    assert enough.wait(timeout=30)  # 1, 2, 3 in the queue and 4 waiting for a place
    assert started == [0, 1, 2, 3, 4]
    ahead.close()
    assert not threads()


def test_reading_starts_before_the_first_item_is_asked_for() -> None:
    """The model is built meanwhile."""
    started = threading.Event()

    def items() -> Iterator[int]:
        started.set()
        yield 0

    ahead = prefetch(items(), depth=3)
    assert started.wait(timeout=30)
    ahead.close()


def test_large_items_count_for_what_they_weigh() -> None:
    """The thread pauses when the bytes are reached, however few items they are."""
    started: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for item in itertools.count():
            started.append(item)
            if item == 2:
                enough.set()
            yield item

    ahead = Prefetch(([item] for item in items()), max_bytes=100, num_bytes=lambda item: 60)
    assert enough.wait(timeout=30)  # 0 and 1 are waiting, 2 is in the thread's hand
    assert started == [0, 1, 2]
    ahead.close()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(), max_size=4)), st.integers(1, 5))
def test_items_that_are_made_together_come_one_by_one(some: list[list[int]], depth: int) -> None:
    """In their order, also where none is made at a time."""
    ahead = Prefetch(iter(some), max_bytes=depth, num_bytes=lambda item: 1)
    assert list(ahead) == list(itertools.chain(*some))
    assert not threads()


def test_an_exception_comes_behind_all_that_were_made_together() -> None:
    """However few of them had been taken when it was raised."""

    def some() -> Iterator[list[int]]:
        yield [0, 1, 2]
        raise CorruptError("here")

    ahead = Prefetch(some(), max_bytes=1, num_bytes=lambda item: 1)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CorruptError, match="here"):
        next(ahead)


def test_closing_it_drops_what_was_made_together_too() -> None:
    """Also what was handed over with an item that was taken."""
    ahead = Prefetch(iter([[0, 1], [2]]), max_bytes=10, num_bytes=lambda item: 1)
    assert next(ahead) == 0
    ahead.close()
    assert list(ahead) == []


def test_what_fails_after_closing_is_not_told() -> None:
    """However often one asks."""
    is_closed = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        is_closed.wait(timeout=30)
        raise CorruptError

    ahead = prefetch(items(), depth=2)
    assert next(ahead) == 0
    threading.Timer(0.1, is_closed.set).start()
    ahead.close()
    assert [list(ahead) for _ in range(3)] == [[], [], []]


def test_dropping_it_ends_the_thread() -> None:
    """Without close, as when an exception passes by."""
    ahead = prefetch(itertools.count(), depth=2)
    next(ahead)
    (thread,) = threads()
    del ahead
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_closing_early_ends_the_thread() -> None:
    """Also one that waits for a place in a full queue."""
    ahead = prefetch(itertools.count(), depth=2)
    assert [next(ahead), next(ahead)] == [0, 1]
    assert len(threads()) == 1
    ahead.close()
    assert not threads()


def test_two_run_side_by_side() -> None:
    """As training's loader and validation's do."""
    first, second = prefetch(iter(range(50)), depth=2), prefetch(iter(range(50, 100)), depth=2)
    assert list(zip(first, second, strict=True)) == [(item, item + 50) for item in range(50)]
