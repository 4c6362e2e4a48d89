"""Memory for what is filled over and over: rounds of batches, encoded row groups."""

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


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """As `uninitialised`, all zeros."""
    array = uninitialised(shape, dtype)
    array.fill(0)
    return array
