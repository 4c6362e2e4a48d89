"""Puts encoded rows where they belong: into the order of their window, into the slots of batches.

Compiled loops without Python's lock: each value is moved once, whatever the number of rows, and
several threads can work at once. The first call of a new installation compiles for a second or two;
later processes load what was compiled.

Shape legend: R rows, C columns, N ids of a list feature, S steps of a round, B examples on this
rank, L list features.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from data_loaders.rows import EncodedRows, Ragged


def in_order(parts: list[tuple[EncodedRows, np.ndarray]], *, num_rows: int) -> EncodedRows:
    """Rows of several parts in one order.

    Args:
        parts: rows, and int64 (R,) the place of each; no place twice.
        num_rows: of the result; a place that no row takes holds zeros and empty lists.
    """
    first, _ = parts[0]
    ids = np.zeros((len(first.ids_FR), num_rows), first.ids_FR.dtype)
    dense = np.zeros((len(first.dense_DR), num_rows), np.float32)
    labels = np.zeros((len(first.labels_TR), num_rows), np.float32)
    for rows, places_R in parts:
        _scatter(rows.ids_FR, places_R, ids)
        _scatter(rows.dense_DR, places_R, dense)
        _scatter(rows.labels_TR, places_R, labels)
    lists = tuple(
        _lists_in_order(
            [(rows.lists[index], places_R) for rows, places_R in parts], num_rows=num_rows
        )
        for index in range(len(first.lists))
    )
    return EncodedRows(ids_FR=ids, lists=lists, dense_DR=dense, labels_TR=labels)


def _lists_in_order(parts: list[tuple[Ragged, np.ndarray]], *, num_rows: int) -> Ragged:
    offsets = np.zeros(num_rows + 1, np.int64)
    for ragged, places_R in parts:
        offsets[1:][places_R] = ragged.lengths_R
    np.cumsum(offsets, out=offsets)
    values = np.empty(offsets[-1], np.int64)
    weighted = parts[0][0].weights_N is not None
    weights = np.empty(offsets[-1], np.float32) if weighted else None
    for ragged, places_R in parts:
        _scatter_lists(ragged.values_N, ragged.offsets_R, places_R, offsets, values)
        if weights is not None:
            _scatter_lists(ragged.weights_N, ragged.offsets_R, places_R, offsets, weights)
    return Ragged(values_N=values, offsets_R=offsets, weights_N=weights)


@njit(cache=True, nogil=True)
def _scatter(source_CR: np.ndarray, places_R: np.ndarray, target_CR: np.ndarray) -> None:
    for c in range(source_CR.shape[0]):
        for r in range(len(places_R)):
            target_CR[c, places_R[r]] = source_CR[c, r]


@njit(cache=True, nogil=True)
def _scatter_lists(
    source_N: np.ndarray,
    offsets_R: np.ndarray,
    places_R: np.ndarray,
    target_offsets: np.ndarray,
    target_N: np.ndarray,
) -> None:
    for r in range(len(places_R)):
        target = target_offsets[places_R[r]]
        for n in range(offsets_R[r], offsets_R[r + 1]):
            target_N[target] = source_N[n]
            target += 1


@njit(cache=True, nogil=True)
def assign_slots(
    is_given_R: np.ndarray, first_place: int, rows_per_step: int, next_slot_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step and the slot in that step's batch of consecutive rows of a stream.

    Args:
        is_given_R: whether a row is there, or was skipped.
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
    source_CR: np.ndarray,
    first: int,
    step_R: np.ndarray,
    slot_R: np.ndarray,
    target_SBC: np.ndarray,
) -> None:
    """Dense features or labels into batches, row by row; rows are counted from `first` on."""
    for r in range(len(step_R)):
        if step_R[r] >= 0:
            for c in range(source_CR.shape[0]):
                target_SBC[step_R[r], slot_R[r], c] = source_CR[c, first + r]


@njit(cache=True, nogil=True)
def place_ids(
    source_CR: np.ndarray,
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
    for c in range(source_CR.shape[0]):
        for r in range(len(step_R)):
            s = step_R[r]
            if s >= 0:
                target_N[start_S[s] + c * num_given_S[s] + slot_R[r]] = source_CR[c, first + r]


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
    source_N: np.ndarray,
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
                target_N[target] = source_N[n]
                target += 1
