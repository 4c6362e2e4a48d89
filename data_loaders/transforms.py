"""From Arrow columns to the numbers that the model reads, whole row groups at a time.

Shape legend: R rows, F id features, D dense inputs, T tasks, N ids of a list feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.columns import column_of, gathered, list_bounds, numbers_of, valid_of
from data_loaders.config import (
    DataConfig,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
)
from data_loaders.errors import WrongRowsError, wrong_rows_of
from data_loaders.id_encoding import IdEncoder
from data_loaders.label_columns import LabelColumns
from data_loaders.memory import uninitialised
from data_loaders.number_encoding import encode_dense, encode_example_weights, encode_labels
from data_loaders.rows import EncodedRows, Ragged


class Encoder:
    """Hashes, looks up, transforms and checks the columns of row groups; several threads may share
    one.

    Args:
        config: features and tasks, fitted (`data_loaders.fitting`).
        num_rows: rows of the embedding table of each id feature.

    Raises:
        InputError: a vocabulary cannot be read, or is another one than the recipe was fitted with.
    """

    def __init__(self, config: DataConfig, *, num_rows: Mapping[str, int]) -> None:
        self._config = config
        self._label_columns = LabelColumns.of(config)
        self._num_ids = sum(isinstance(item, IdFeature) for item in config.features.values())
        self._ids = {
            name: IdEncoder(feature, column=feature.column or name, num_rows=num_rows[name])
            for name, feature in config.features.items()
            if isinstance(feature, IdFeature | IdListFeature)
        }

    def encode(self, table: pa.Table) -> EncodedRows:
        """The numbers of one row group.

        Args:
            table: the columns that `read_columns` names, with the types that the recipe expects.

        Raises:
            WrongRowsError: a value is impossible; the message names the column, not the file.
            SchemaError: a column cannot be used.
        """
        config, num_rows = self._config, table.num_rows
        ids_FR = uninitialised((self._num_ids, num_rows), np.int64)
        dense_DR = uninitialised((config.num_dense_inputs, num_rows), np.float32)
        labels_TR = uninitialised((self._label_columns.num_columns, num_rows), np.float32)
        ids, dense = iter(ids_FR), iter(dense_DR)
        lists = []
        for name, feature in config.features.items():
            column_name = feature.column or name
            column = column_of(table, column_name)
            if isinstance(feature, IdFeature):
                next(ids)[:] = self._ids[name].rows(column)
            elif isinstance(feature, IdListFeature):
                weights = None if feature.weights is None else column_of(table, feature.weights)
                lists.append(
                    _encode_lists(
                        column, weights, encoder=self._ids[name], feature=feature, name=column_name
                    )
                )
            elif isinstance(feature, DenseVectorFeature):
                vectors_RD = _encode_vectors(column, name=column_name, length=feature.length)
                for numbers_R in vectors_RD.T:
                    next(dense)[:] = numbers_R
            else:
                encode_dense(column, next(dense), name=column_name, feature=feature)
        for (name, task), labels_R in zip(config.tasks.items(), labels_TR, strict=False):
            where = None if task.where is None else column_of(table, task.where)
            encode_labels(
                column_of(table, task.column or name), where, labels_R, name=name, task=task
            )
        for index, name in enumerate(self._label_columns.weights, start=len(config.tasks)):
            encode_example_weights(column_of(table, name), labels_TR[index], name=name)
        if self._label_columns.log_q is not None:
            labels_TR[self._label_columns.log_q] = 0  # data_loaders.negatives knows it
        return EncodedRows(
            ids_FR=ids_FR, lists=tuple(lists), dense_DR=dense_DR, labels_TR=labels_TR
        )


def _encode_lists(
    column: pa.Array,
    weights: pa.Array | None,
    *,
    encoder: IdEncoder,
    feature: IdListFeature,
    name: str,
) -> Ragged:
    """The last `max_length` ids of each list; a null list is an empty one."""
    starts, ends = list_bounds(column)
    lengths = np.minimum(ends - starts, feature.max_length)
    kept = gathered(column.values, starts=ends - lengths, lengths=lengths)
    weights_N = None
    if weights is not None:
        weight_starts, weight_ends = list_bounds(weights)
        differs = (weight_ends - weight_starts) != (ends - starts)
        if differs.any():
            row = int(np.argmax(differs))
            raise WrongRowsError(
                f"column {feature.weights}: a list of {weight_ends[row] - weight_starts[row]} "
                f"weights beside {ends[row] - starts[row]} ids in column {name}; "
                "expected as many, a null list counting as none; write the columns anew",
                is_wrong_R=differs,
            )
        kept_weights = gathered(weights.values, starts=weight_ends - lengths, lengths=lengths)
        with wrong_rows_of(lengths):
            weights_N = _weights_of(kept_weights, name=str(feature.weights))
    if feature.weights_sum_to_one:
        weights_N = _summing_to_one(weights_N, lengths_R=lengths, name=str(feature.weights))
    with wrong_rows_of(lengths):
        values_N = encoder.rows(kept)
    return Ragged(
        values_N=values_N,
        offsets_R=np.concatenate([[0], np.cumsum(lengths)]),
        weights_N=weights_N,
    )


def _weights_of(values: pa.Array, *, name: str) -> np.ndarray:
    """float32 (N,); 1 where null."""
    numbers_N = numbers_of(values)
    if values.null_count:
        numbers_N = np.where(valid_of(values), numbers_N, 1.0)
    return _as_float32(numbers_N, name=name, what="weight", remedy="or null for a weight of 1")


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


def _encode_vectors(column: pa.Array, *, name: str, length: int) -> np.ndarray:
    """float32 (R, length); zeros where null."""
    is_valid_R = valid_of(column)
    lengths = pc.list_value_length(column).drop_null().to_numpy(zero_copy_only=False)
    wrong = lengths != length
    if wrong.any():
        with wrong_rows_of(is_valid_R):
            raise WrongRowsError(
                f"column {name}: a vector of {lengths[wrong][0]} numbers; expected {length} "
                "(length), or null where missing; write the column anew, or correct the recipe's "
                "length",
                is_wrong_R=wrong,
            )
    values = numbers_of(column.flatten())  # leaves null lists out; a null in a vector becomes NaN
    vectors = np.zeros((len(column), length), np.float32)
    with wrong_rows_of(is_valid_R * length):
        vectors[is_valid_R] = _as_float32(
            values, name=name, what="number in a vector", remedy="or null for the whole vector"
        ).reshape(-1, length)
    return vectors


def _as_float32(numbers: np.ndarray, *, name: str, what: str, remedy: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # refused below
        narrow = numbers.astype(np.float32)
    wrong = ~np.isfinite(narrow)
    if wrong.any():
        raise WrongRowsError(
            f"column {name}: {what} is {numbers[wrong][0]:g}; expected a finite number, {remedy}; "
            "write the column anew",
            is_wrong_R=wrong,
        )
    return narrow
