"""Memory for what is filled over and over: rounds of batches, windows of encoded rows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def uninitialised(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An array from Arrow's memory pool, which hands out again what was freed.

    The C library gives large arrays back to the system, and each page costs anew when it is first
    touched.
    """
    size = math.prod(shape)
    buffer = pa.allocate_buffer(size * np.dtype(dtype).itemsize)
    return np.frombuffer(buffer, dtype, count=size).reshape(shape)


def frozen(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to; for compiled loops, which are compiled anew for arrays that
    can.
    """
    view = array.view()
    view.flags.writeable = False
    return view
