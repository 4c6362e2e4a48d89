"""Makes windows several at once and ahead of their use."""

from __future__ import annotations

import collections
import heapq
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from data_loaders.streams import EpochPlan, Window
from data_loaders.windows import WindowReader, WindowRows

# Windows read at once: from object stores, which are far away, and from a disk at hand, where there
# is little to wait for.
REMOTE_THREADS = 8
LOCAL_THREADS = min(8, len(os.sched_getaffinity(0)))

# Windows made beyond those that the next batches need.
WINDOWS_AHEAD = 8


class WindowsAhead:
    """Windows of several streams by the step that needs them, read ahead in threads.

    Args:
        plan: of the epoch.
        streams: of this rank.
        first_step: where reading begins.
        reader: of the windows.
    """

    def __init__(
        self, plan: EpochPlan, *, streams: Sequence[int], first_step: int, reader: WindowReader
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._windows = heapq.merge(
            *(plan.windows(stream=stream, first_step=first_step) for stream in streams),
            key=self._first_step,
        )
        num_threads = LOCAL_THREADS if reader.is_local else REMOTE_THREADS
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="windows")
        self._last: dict[int, Future[WindowRows]] = {}
        self._reading: collections.deque[tuple[Window, Future[WindowRows]]] = collections.deque()

    def before(self, step: int) -> Iterator[WindowRows]:
        """The windows not taken yet that hold rows of the steps before `step`."""
        self._read_ahead()
        while self._reading and self._first_step(self._reading[0][0]) < step:
            _, rows = self._reading.popleft()
            self._read_ahead()
            yield rows.result()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read_ahead(self) -> None:
        for window in itertools.islice(self._windows, WINDOWS_AHEAD - len(self._reading)):
            before = self._last.get(window.stream)
            rows = self._pool.submit(self._reader.read, window, before=before)
            self._last[window.stream] = rows
            self._reading.append((window, rows))

    def _first_step(self, window: Window) -> int:
        return window.start // int(self._plan.rows_per_step_V[window.stream])
