"""Reading ahead: the same items, errors in their place, and no thread left behind."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.prefetch import prefetch


class CorruptError(Exception):
    pass


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
    ahead.close()  # type: ignore[attr-defined]
    assert not threads()


def test_nothing_is_read_before_the_first_item_is_asked_for() -> None:
    """A loader that is built and not used opens no file."""
    started: list[int] = []
    ahead = prefetch((started.append(item) for item in range(3)), depth=3)
    assert not threads()
    ahead.close()  # type: ignore[attr-defined]
    assert started == []


def test_closing_early_ends_the_thread() -> None:
    """Also one that waits for a place in a full queue."""
    ahead = prefetch(itertools.count(), depth=2)
    assert [next(ahead), next(ahead)] == [0, 1]
    assert len(threads()) == 1
    ahead.close()  # type: ignore[attr-defined]
    assert not threads()


def test_two_run_side_by_side() -> None:
    """As training's loader and validation's do."""
    first, second = prefetch(iter(range(50)), depth=2), prefetch(iter(range(50, 100)), depth=2)
    assert list(zip(first, second, strict=True)) == [(item, item + 50) for item in range(50)]
