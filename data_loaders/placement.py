"""Puts encoded rows into the order of their window.

Compiled loops without Python's lock: each value is moved once, whatever the number of rows, and
several threads can work at once. The first call of a new installation compiles for a second or two;
later processes load what was compiled.

Shape legend: R rows, C columns, N ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from data_loaders.memory import uninitialised
from data_loaders.rows import EncodedRows, Ragged


def in_order(parts: Sequence[tuple[EncodedRows, np.ndarray]], *, num_rows: int) -> EncodedRows:
    """The rows of several parts in one order.

    This is done while they are in the processor's cache: what is read later, a few rows at a time
    of many windows, is then read in sequence.

    Args:
        parts: rows, and uint32 (R,) the place of each; no place twice.
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


@njit(cache=True, nogil=True, error_model="numpy")
def places_of_ids(
    lengths_R: np.ndarray, place_R: np.ndarray, target_offsets: np.ndarray, place_N: np.ndarray
) -> None:
    """Where the ids of lists go, if the lists go to `place_R`."""
    n = 0
    for r in range(len(lengths_R)):
        target = target_offsets[place_R[r]]
        for i in range(lengths_R[r]):
            place_N[n] = target + i
            n += 1
