"""Lists of ids and their weights: from columns to the places of their rows.

Shape legend: R rows, N ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_loaders.columns import (
    gathered,
    kept_lists,
    numbers_of,
    valid_of,
    write_kept_lengths,
)
from data_loaders.config import IdListFeature
from data_loaders.errors import InputError, WrongRowsError, wrong_rows_of
from data_loaders.id_encoding import IdEncoder
from data_loaders.memory import uninitialised
from data_loaders.number_encoding import finite_float32
from data_loaders.placement import places_of_ids
from data_loaders.rows import Ragged

MAX_IDS = 2**32


def room_for_lists(
    columns: Sequence[tuple[pa.Array, np.ndarray]],
    *,
    num_rows: int,
    feature: IdListFeature,
    dtype: npt.DTypeLike,
) -> Ragged:
    """Where the lists of columns can be written to, with their lengths.

    Args:
        columns: with uint32 (R,), the place of each row; no place twice.
        num_rows: of the result; a place that no row takes has an empty list.
        dtype: of the ids.

    Raises:
        InputError: there are more than `MAX_IDS` ids.
    """
    offsets = np.zeros(num_rows + 1, np.int64)
    for column, place_R in columns:
        write_kept_lengths(column, offsets[1:], place_R, max_length=feature.max_length)
    np.cumsum(offsets, out=offsets)
    if offsets[-1] > MAX_IDS:  # their places are counted in 32 bits
        raise InputError(
            f"a window of {num_rows:,} rows has lists of {offsets[-1]:,} ids; expected at most "
            f"{MAX_IDS:,}; lower data.shuffle_rows, or a feature's max_length"
        )
    num_ids = (int(offsets[-1]),)
    return Ragged(
        values_N=uninitialised(num_ids, dtype),
        offsets_R=offsets,
        weights_N=uninitialised(num_ids, np.float32) if feature.is_weighted else None,
    )


def encode_lists(
    column: pa.Array,
    weights: pa.Array | None,
    target: Ragged,
    place_R: np.ndarray,
    *,
    encoder: IdEncoder,
    feature: IdListFeature,
) -> None:
    """Writes the last `max_length` ids of each list; a null list is an empty one.

    Args:
        weights: lists as long as those of the ids, if they have any.
        target: room for them.
        place_R: uint32, of each list.

    Raises:
        WrongRowsError: an id or a weight is impossible.
    """
    starts, lengths = kept_lists(column, max_length=feature.max_length)
    kept = gathered(column.values, starts=starts, lengths=lengths)
    place_N = uninitialised((len(kept),), np.uint32)
    places_of_ids(lengths, place_R, target.offsets_R, place_N)
    weights_N = None
    if weights is not None:
        ends = _weight_ends(weights, column, feature=feature, name=encoder.column)
        kept_weights = gathered(weights.values, starts=ends - lengths, lengths=lengths)
        with wrong_rows_of(lengths):
            weights_N = _weights_of(kept_weights, name=str(feature.weights))
    if feature.weights_sum_to_one:
        weights_N = _summing_to_one(weights_N, lengths_R=lengths, name=str(feature.weights))
    if target.weights_N is not None:
        target.weights_N[place_N] = weights_N
    with wrong_rows_of(lengths):
        encoder.write(kept, target.values_N, place_N)


def _weight_ends(
    weights: pa.Array, ids: pa.Array, *, feature: IdListFeature, name: str
) -> np.ndarray:
    """int64 (R,): where each list of weights ends in `weights.values`."""
    starts, num_weights = kept_lists(weights)
    _, num_ids = kept_lists(ids)
    differs = num_weights != num_ids
    if differs.any():
        row = int(np.argmax(differs))
        raise WrongRowsError(
            f"column {feature.weights}: a list of {num_weights[row]} "
            f"weights beside {num_ids[row]} ids in column {name}; "
            "expected as many, a null list counting as none; write the columns anew",
            is_wrong_R=differs,
        )
    return starts + num_weights


def _weights_of(values: pa.Array, *, name: str) -> np.ndarray:
    """float32 (N,); 1 where null."""
    numbers_N = numbers_of(values)
    if values.null_count:
        numbers_N = np.where(valid_of(values), numbers_N, 1.0)
    return finite_float32(numbers_N, name=name, what="weight", remedy="or null for a weight of 1")


def _summing_to_one(
    weights_N: np.ndarray | None, *, lengths_R: np.ndarray, name: str
) -> np.ndarray:
    """float32 (N,), each list's divided by their sum; all 0 where the sum is 0."""
    if weights_N is None:
        weights_N = np.ones(lengths_R.sum(), np.float32)
    if (weights_N < 0).any():
        with wrong_rows_of(lengths_R):
            raise WrongRowsError(
                f"column {name}: weight is {weights_N[weights_N < 0][0]:g}; expected 0 or more "
                "(weights_sum_to_one: true); write the column anew",
                is_wrong_R=weights_N < 0,
            )
    rows_N = np.repeat(np.arange(len(lengths_R)), lengths_R)
    sums_R = np.bincount(rows_N, weights=weights_N, minlength=len(lengths_R))
    return (weights_N / np.where(sums_R > 0, sums_R, 1)[rows_N]).astype(np.float32)
