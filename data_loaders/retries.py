"""Reads again what an object store failed to give."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from data_loaders.errors import StorageError
from data_loaders.storage import Location

Result = TypeVar("Result")

# Beyond what the store's client retries by itself: a connection may also break in mid-answer.
WAITS_SECONDS = (0.5, 2.0)
# Nothing is begun anew later than that: the client gives up a silent store after some 45 s.
WITHIN_SECONDS = 30.0


def retried(read: Callable[[], Result], *, file: Location) -> Result:
    """What `read` returns, tried again where the store, and not the file, may be at fault.

    Args:
        read: may be called several times.
        file: that it reads; a local one is tried once.
    """
    waits = [] if file.is_local else list(WAITS_SECONDS)
    last_start = time.monotonic() + WITHIN_SECONDS
    while True:
        try:
            return read()
        except (pa.ArrowException, OSError, StorageError):
            if not waits or time.monotonic() + waits[0] > last_start:
                raise
            time.sleep(waits.pop(0))
