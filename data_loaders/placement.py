"""Puts encoded rows where they belong: into the order of their window, into the slots of batches.

Compiled loops without Python's lock: each value is moved once, whatever the number of rows, and
several threads can work at once. The first call of a new installation compiles for a second or two;
later processes load what was compiled.

A round of batches is filled from the windows of all streams at once: `addresses_P` is where a
column of each window lies in memory, `step_R` and `slot_R`, from `assign_slots`, are where each row
goes.

Shape legend: P parts of windows, R rows of all parts, C columns, N ids of a list feature, S steps
of a round, B examples on this rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from data_loaders.memory import uninitialised
from data_loaders.rows import EncodedRows, Ragged

# Rows that turn from columns into rows together: both sides of so many stay in the cache.
BLOCK_ROWS = 32

# Rows of a window that lie in one round: from row `first` of `window_rows` on, `num_rows` of them,
# the first at `first_place` of its stream, counted from the round's first row; each step takes
# `rows_per_step` of the stream.
PART = np.dtype(
    [
        (name, np.int64)
        for name in ("first", "num_rows", "window_rows", "first_place", "rows_per_step")
    ]
)


def in_order(parts: Sequence[tuple[EncodedRows, np.ndarray]], *, num_rows: int) -> EncodedRows:
    """The rows of several parts in one order.

    This is done while they are in the processor's cache: what is read later, a few rows at a time
    of many windows, is then read in sequence.

    Args:
        parts: rows, and int64 (R,) the place of each; no place twice.
        num_rows: of the result; a place that no row takes has empty lists, and anything else.
    """
    places = [places_R for _, places_R in parts]

    def placed(columns: list[np.ndarray]) -> np.ndarray:
        target_CR = uninitialised((len(columns[0]), num_rows), columns[0].dtype)
        for values_CR, places_R in zip(columns, places, strict=True):
            _scatter(values_CR, places_R, target_CR)
        return target_CR

    return EncodedRows(
        ids_FR=placed([rows.ids_FR for rows, _ in parts]),
        lists=tuple(
            _lists_in_order(lists, places, num_rows=num_rows)
            for lists in zip(*(rows.lists for rows, _ in parts), strict=True)
        ),
        dense_DR=placed([rows.dense_DR for rows, _ in parts]),
        labels_TR=placed([rows.labels_TR for rows, _ in parts]),
    )


def _lists_in_order(
    lists: Sequence[Ragged], places: Sequence[np.ndarray], *, num_rows: int
) -> Ragged:
    offsets = np.zeros(num_rows + 1, np.int64)
    for ragged, places_R in zip(lists, places, strict=True):
        offsets[1:][places_R] = ragged.lengths_R
    np.cumsum(offsets, out=offsets)

    def placed(columns: list[np.ndarray]) -> np.ndarray:
        target_N = uninitialised((int(offsets[-1]),), columns[0].dtype)
        for values_N, ragged, places_R in zip(columns, lists, places, strict=True):
            _scatter_lists(values_N, ragged.offsets_R, places_R, offsets, target_N)
        return target_N

    weights = [ragged.weights_N for ragged in lists if ragged.weights_N is not None]
    return Ragged(
        values_N=placed([ragged.values_N for ragged in lists]),
        offsets_R=offsets,
        weights_N=placed(weights) if weights else None,
    )


@njit(cache=True, nogil=True)
def _scatter(values_CR: np.ndarray, places_R: np.ndarray, target_CR: np.ndarray) -> None:
    for c in range(values_CR.shape[0]):
        for r in range(len(places_R)):
            target_CR[c, places_R[r]] = values_CR[c, r]


@njit(cache=True, nogil=True)
def _scatter_lists(
    values_N: np.ndarray,
    offsets_R: np.ndarray,
    places_R: np.ndarray,
    target_offsets: np.ndarray,
    target_N: np.ndarray,
) -> None:
    for r in range(len(places_R)):
        target = target_offsets[places_R[r]]
        for n in range(offsets_R[r], offsets_R[r + 1]):
            target_N[target] = values_N[n]
            target += 1


def _pointer_of(_typing: Any, _address: Any) -> Any:
    """An address, as a pointer: numba takes no lists of arrays without copying them."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.uint64), generate


_pointer: Any = intrinsic(_pointer_of)


@njit(cache=True, nogil=True, error_model="numpy")
def assign_slots(
    is_given_R: np.ndarray, parts: np.ndarray, next_slot_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step and the slot in that step's batch of each row.

    Args:
        is_given_R: bool, False for a row that was skipped.
        parts: of dtype `PART`, stream by stream, in the order of the rows in each.
        next_slot_S: int64, the next free slot of each step; moved on.

    Returns:
        int32 (R,) steps, -1 for a row that was skipped, and int32 (R,) slots.
    """
    step_R = np.empty(len(is_given_R), np.int32)
    slot_R = np.empty(len(is_given_R), np.int32)
    r = 0
    for part in parts:
        step = part.first_place // part.rows_per_step
        left = (step + 1) * part.rows_per_step - part.first_place
        for _ in range(part.num_rows):
            if left == 0:
                step, left = step + 1, part.rows_per_step
            left -= 1
            if is_given_R[r]:
                step_R[r], slot_R[r] = step, next_slot_S[step]
                next_slot_S[step] += 1
            else:
                step_R[r], slot_R[r] = -1, 0
            r += 1
    return step_R, slot_R


@njit(cache=True, nogil=True, error_model="numpy")
def place_numbers(
    addresses_P: np.ndarray,
    parts: np.ndarray,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    target_SBC: np.ndarray,
) -> None:
    """Dense features or labels into batches, row by row."""
    num_columns = target_SBC.shape[2]
    start = 0
    for p in range(len(parts)):
        part = parts[p]
        values_CR = carray(_pointer(addresses_P[p]), (num_columns, part.window_rows), np.float32)
        for begin in range(0, part.num_rows, BLOCK_ROWS):
            stop = min(begin + BLOCK_ROWS, part.num_rows)
            for c in range(num_columns):
                for r in range(begin, stop):
                    s = step_R[start + r]
                    if s >= 0:
                        target_SBC[s, slot_R[start + r], c] = values_CR[c, part.first + r]
        start += part.num_rows


@njit(cache=True, nogil=True, error_model="numpy")
def place_ids(
    addresses_P: np.ndarray,
    parts: np.ndarray,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    start_S: np.ndarray,
    num_given_S: np.ndarray,
    num_columns: int,
    target_N: np.ndarray,
) -> None:
    """Single ids into batches, feature by feature.

    Args:
        start_S: where the values of each step begin in the target.
        num_given_S: examples of each step.
    """
    start = 0
    for p in range(len(parts)):
        part = parts[p]
        values_CR = carray(_pointer(addresses_P[p]), (num_columns, part.window_rows), np.int64)
        for c in range(num_columns):
            for r in range(part.num_rows):
                s = step_R[start + r]
                if s >= 0:
                    slot = start_S[s] + c * num_given_S[s] + slot_R[start + r]
                    target_N[slot] = values_CR[c, part.first + r]
        start += part.num_rows


@njit(cache=True, nogil=True, error_model="numpy")
def place_lengths(
    addresses_P: np.ndarray,
    parts: np.ndarray,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    target_SB: np.ndarray,
) -> None:
    """The lengths of lists into batches, from the addresses of their offsets."""
    start = 0
    for p in range(len(parts)):
        part = parts[p]
        offsets_R = carray(_pointer(addresses_P[p]), (part.window_rows + 1,), np.int64)
        for r in range(part.num_rows):
            if step_R[start + r] >= 0:
                length = offsets_R[part.first + r + 1] - offsets_R[part.first + r]
                target_SB[step_R[start + r], slot_R[start + r]] = length
        start += part.num_rows


@njit(cache=True, nogil=True, error_model="numpy")
def place_lists(
    values_P: np.ndarray,
    offsets_P: np.ndarray,
    parts: np.ndarray,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    start_SB: np.ndarray,
    target_N: np.ndarray,
) -> None:
    """The ids of lists, or their weights, into batches, from the addresses of both.

    Args:
        start_SB: where each list begins in the target.
        target_N: of the values' dtype.
    """
    start = 0
    for p in range(len(parts)):
        part = parts[p]
        offsets_R = carray(_pointer(offsets_P[p]), (part.window_rows + 1,), np.int64)
        values_N = carray(_pointer(values_P[p]), (offsets_R[part.window_rows],), target_N.dtype)
        for r in range(part.num_rows):
            if step_R[start + r] >= 0:
                target = start_SB[step_R[start + r], slot_R[start + r]]
                for n in range(offsets_R[part.first + r], offsets_R[part.first + r + 1]):
                    target_N[target] = values_N[n]
                    target += 1
        start += part.num_rows
