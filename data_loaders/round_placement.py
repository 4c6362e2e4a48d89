"""Puts the rows of windows into the slots of batches, in compiled loops like those of `placement`.

A round of batches is filled from the windows of all streams at once, a run at a time: rows that lie
behind one another in their window lie so in their batch, too.

Shape legend: P parts of windows, A addresses of `EncodedRows`, R rows of all parts, C columns, N
ids, S steps of a round, B examples on this rank, F id features, K keys: id and list features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Rows that turn from columns into rows together: both sides of so many stay in the cache.
BLOCK_ROWS = 32

# Where the columns of a window lie among its addresses.
IDS, DENSE, LABELS, LISTS = range(4)

# Rows of a window that lie in one round: from row `first` of `window_rows` on, `num_rows` of them,
# the first at `first_place` of its stream, counted from the round's first row; each step takes
# `rows_per_step` of the stream.
PART = np.dtype(
    [
        (name, np.int64)
        for name in ("first", "num_rows", "window_rows", "first_place", "rows_per_step")
    ]
)

# From row `first` of a part's window on, `num_rows` rows that go to one step, from `slot` on.
RUN = np.dtype([(name, np.int64) for name in ("part", "first", "num_rows", "step", "slot")])


def _pointer_of(_typing: Any, _address: Any) -> Any:
    """An address, as a pointer: numba takes no lists of arrays without copying them."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.uint64), generate


_pointer: Any = intrinsic(_pointer_of)


@njit(cache=True, nogil=True, error_model="numpy")
def plan_round(
    is_given_R: np.ndarray,
    parts: np.ndarray,
    addresses_PA: np.ndarray,
    num_ids: int,
    num_given_S: np.ndarray,
    lengths_SKB: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each row goes, and the number of ids of each key of each example.

    Args:
        is_given_R: bool, False for a row that was skipped.
        parts: of dtype `PART`, stream by stream, in the order of the rows in each.
        num_ids: F.
        num_given_S: int64; becomes the number of examples of each step.
        lengths_SKB: int32; becomes the numbers of ids, 0 in padding.

    Returns:
        The runs, part by part, of dtype `RUN`; and int64 (S, K), the sums of `lengths_SKB`.
    """
    num_given_S[:] = 0
    runs = _runs_of(is_given_R, parts, num_given_S)
    return runs, _place_lengths(addresses_PA, parts, runs, num_given_S, num_ids, lengths_SKB)


@njit(cache=True, nogil=True, error_model="numpy")
def fill_round(
    addresses_PA: np.ndarray,
    parts: np.ndarray,
    runs: np.ndarray,
    num_given_S: np.ndarray,
    num_ids: int,
    no_ids: np.ndarray,
    start_SK: np.ndarray,
    ids_N: np.ndarray,
    id_weights_N: np.ndarray,
    dense_SBD: np.ndarray,
    labels_SBT: np.ndarray,
    weights_SB: np.ndarray,
) -> None:
    """Fills the batches of a round.

    Args:
        num_given_S: int64, the number of examples of each step.
        no_ids: (0,), of the type that ids have in windows.
        start_SK: int64, where the ids of each key of each step begin; moved on for lists.
        id_weights_N: float32 ones, or none if no list has weights.
        dense_SBD: float32; 0 in padding.
        labels_SBT: float32; NaN in padding.
        weights_SB: float32; becomes 1 for examples and 0 for padding.
    """
    _place_numbers(addresses_PA[:, DENSE], parts, runs, num_given_S, 0.0, dense_SBD)
    _place_numbers(addresses_PA[:, LABELS], parts, runs, num_given_S, np.nan, labels_SBT)
    _place_ids(addresses_PA, parts, runs, num_ids, no_ids, start_SK, ids_N, id_weights_N)
    for s in range(len(num_given_S)):
        weights_SB[s, : num_given_S[s]] = 1
        weights_SB[s, num_given_S[s] :] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _runs_of(is_given_R: np.ndarray, parts: np.ndarray, num_given_S: np.ndarray) -> np.ndarray:
    """Where each row goes; counts the examples of each step."""
    runs = np.empty(len(is_given_R), RUN)
    num_runs, r = 0, 0
    for p in range(len(parts)):
        part = parts[p]
        step = part.first_place // part.rows_per_step
        left = (step + 1) * part.rows_per_step - part.first_place
        is_open = False
        for n in range(part.num_rows):
            if left == 0:
                step, left, is_open = step + 1, part.rows_per_step, False
            left -= 1
            if is_given_R[r]:
                if not is_open:
                    run = runs[num_runs]
                    run.part, run.first, run.num_rows = p, part.first + n, 0
                    run.step, run.slot = step, num_given_S[step]
                    num_runs += 1
                runs[num_runs - 1].num_rows += 1
                num_given_S[step] += 1
            is_open = is_given_R[r]
            r += 1
    return runs[:num_runs]


@njit(cache=True, nogil=True, error_model="numpy")
def _place_numbers(
    addresses_P: np.ndarray,
    parts: np.ndarray,
    runs: np.ndarray,
    num_given_S: np.ndarray,
    padding: float,
    target_SBC: np.ndarray,
) -> None:
    """Dense features or labels into batches, row by row, and `padding` behind them."""
    num_columns = target_SBC.shape[2]
    for run in runs:
        window_rows = parts[run.part].window_rows
        values = addresses_P[run.part] + np.uint64(4 * run.first)
        for begin in range(0, run.num_rows, BLOCK_ROWS):
            num_rows = min(BLOCK_ROWS, run.num_rows - begin)
            target_RC = target_SBC[run.step, run.slot + begin : run.slot + begin + num_rows]
            for c in range(num_columns):
                source = _pointer(values + np.uint64(4 * (c * window_rows + begin)))
                values_R = carray(source, (num_rows,), np.float32)
                for r in range(num_rows):
                    target_RC[r, c] = values_R[r]
    for s in range(len(num_given_S)):
        target_SBC[s, num_given_S[s] :] = padding


@njit(cache=True, nogil=True, error_model="numpy")
def _place_lengths(
    addresses_PA: np.ndarray,
    parts: np.ndarray,
    runs: np.ndarray,
    num_given_S: np.ndarray,
    num_ids: int,
    lengths_SKB: np.ndarray,
) -> np.ndarray:
    """The number of ids of each key of each example into batches: int64 (S, K), their sums."""
    num_steps, num_keys, _ = lengths_SKB.shape
    sums_SK = np.zeros((num_steps, num_keys), np.int64)
    for s in range(num_steps):
        sums_SK[s, :num_ids] = num_given_S[s]
        lengths_SKB[s, :num_ids, : num_given_S[s]] = 1
        lengths_SKB[s, :, num_given_S[s] :] = 0
    for run in runs:
        for k in range(num_ids, num_keys):
            address = addresses_PA[run.part, LISTS + 3 * (k - num_ids)]
            source = _pointer(address + np.uint64(8 * run.first))
            offsets_R = carray(source, (run.num_rows + 1,), np.int64)
            lengths_R = lengths_SKB[run.step, k, run.slot : run.slot + run.num_rows]
            for r in range(run.num_rows):
                lengths_R[r] = offsets_R[r + 1] - offsets_R[r]
            sums_SK[run.step, k] += offsets_R[run.num_rows] - offsets_R[0]
    return sums_SK


@njit(cache=True, nogil=True, error_model="numpy")
def _place_ids(
    addresses_PA: np.ndarray,
    parts: np.ndarray,
    runs: np.ndarray,
    num_ids: int,
    no_ids: np.ndarray,
    start_SK: np.ndarray,
    ids_N: np.ndarray,
    weights_N: np.ndarray,
) -> None:
    """The ids of all features into batches."""
    begin = 0
    while begin < len(runs):  # the runs of a part: column by column, to read in sequence
        p, end = runs[begin].part, begin
        while end < len(runs) and runs[end].part == p:
            end += 1
        for k in range(num_ids):
            column = addresses_PA[p, IDS] + np.uint64(no_ids.itemsize * k * parts[p].window_rows)
            for run in runs[begin:end]:
                start = start_SK[run.step, k] + run.slot
                _copy(column, no_ids, run.first, run.num_rows, ids_N, start)
        for k in range(num_ids, start_SK.shape[1]):
            offsets, values, weights = addresses_PA[p, LISTS + 3 * (k - num_ids) :][:3]
            offsets_R = carray(_pointer(offsets), (parts[p].window_rows + 1,), np.int64)
            for run in runs[begin:end]:
                first = offsets_R[run.first]
                length = offsets_R[run.first + run.num_rows] - first
                start = start_SK[run.step, k]
                _copy(values, no_ids, first, length, ids_N, start)
                if len(weights_N) and weights:
                    _copy(weights, weights_N, first, length, weights_N, start)
                start_SK[run.step, k] += length
        begin = end


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _copy(
    address: np.uint64,
    like: np.ndarray,
    first: int,
    length: int,
    target_N: np.ndarray,
    start: int,
) -> None:
    """Values `first` to `first + length` of those of `like`'s type that lie at an address."""
    source = _pointer(address + np.uint64(like.itemsize * first))
    values_N = carray(source, (length,), like.dtype)
    part_N = target_N[start : start + length]
    for n in range(length):
        part_N[n] = values_N[n]
