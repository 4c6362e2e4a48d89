"""Puts encoded rows where they belong: into the order of their window, into the slots of batches.

Compiled loops without Python's lock: each value is moved once, whatever the number of rows, and
several threads can work at once. The first call of a new installation compiles for a second or two;
later processes load what was compiled.

R rows come from `first` on in the columns of a window; `step_R` and `slot_R`, from `assign_slots`,
say where each of them goes.

Shape legend: R rows, C columns, N ids of a list feature, S steps of a round, B examples on this
rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from data_loaders.memory import uninitialised
from data_loaders.rows import EncodedRows, Ragged

# Rows that turn from columns into rows together: both sides of so many stay in the cache.
BLOCK_ROWS = 32


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


@njit(cache=True, nogil=True)
def assign_slots(
    is_given_R: np.ndarray, first_place: int, rows_per_step: int, next_slot_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step and the slot in that step's batch of consecutive rows of a stream.

    Args:
        is_given_R: bool, False for a row that was skipped.
        first_place: of the rows in the stream, counted from the first row of step 0.
        rows_per_step: that a step takes of the stream.
        next_slot_S: int64, the next free slot of each step; moved on.

    Returns:
        int64 (R,) steps, -1 for a row that was skipped, and int64 (R,) slots.
    """
    num_rows = len(is_given_R)
    step_R, slot_R = np.empty(num_rows, np.int64), np.zeros(num_rows, np.int64)
    for r in range(num_rows):
        step_R[r] = -1
        if is_given_R[r]:
            step = (first_place + r) // rows_per_step
            step_R[r], slot_R[r] = step, next_slot_S[step]
            next_slot_S[step] += 1
    return step_R, slot_R


@njit(cache=True, nogil=True)
def place_numbers(
    values_CR: np.ndarray,
    first: int,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    target_SBC: np.ndarray,
) -> None:
    """Dense features or labels into batches, row by row."""
    for begin in range(0, len(step_R), BLOCK_ROWS):
        for c in range(values_CR.shape[0]):
            for r in range(begin, min(begin + BLOCK_ROWS, len(step_R))):
                if step_R[r] >= 0:
                    target_SBC[step_R[r], slot_R[r], c] = values_CR[c, first + r]


@njit(cache=True, nogil=True)
def place_ids(
    values_CR: np.ndarray,
    first: int,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    start_S: np.ndarray,
    num_given_S: np.ndarray,
    target_N: np.ndarray,
) -> None:
    """Single ids into batches, feature by feature.

    Args:
        start_S: where the values of each step begin in the target.
        num_given_S: examples of each step.
    """
    for c in range(values_CR.shape[0]):
        for r in range(len(step_R)):
            s = step_R[r]
            if s >= 0:
                target_N[start_S[s] + c * num_given_S[s] + slot_R[r]] = values_CR[c, first + r]


@njit(cache=True, nogil=True)
def place_lengths(
    offsets_R: np.ndarray,
    first: int,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    target_SB: np.ndarray,
) -> None:
    """The lengths of lists into batches."""
    for r in range(len(step_R)):
        if step_R[r] >= 0:
            length = offsets_R[first + r + 1] - offsets_R[first + r]
            target_SB[step_R[r], slot_R[r]] = length


@njit(cache=True, nogil=True)
def place_lists(
    values_N: np.ndarray,
    offsets_R: np.ndarray,
    first: int,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    start_SB: np.ndarray,
    target_N: np.ndarray,
) -> None:
    """The ids of lists, or their weights, into batches; `start_SB` is where each list begins."""
    for r in range(len(step_R)):
        if step_R[r] >= 0:
            target = start_SB[step_R[r], slot_R[r]]
            for n in range(offsets_R[first + r], offsets_R[first + r + 1]):
                target_N[target] = values_N[n]
                target += 1
