"""From Arrow columns to the numbers that the model reads, whole row groups at a time.

Shape legend: R rows, F id features, D dense inputs, T tasks, N ids of a list feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.columns import column_of, columns_of, numbers_of, valid_of
from data_loaders.config import (
    DataConfig,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
)
from data_loaders.errors import WrongRowsError, wrong_rows_of
from data_loaders.id_encoding import IdEncoder
from data_loaders.label_columns import LabelColumns
from data_loaders.list_encoding import encode_lists, room_for_lists
from data_loaders.memory import uninitialised
from data_loaders.number_encoding import (
    DenseEncoder,
    ExampleWeightEncoder,
    LabelEncoder,
    finite_float32,
)
from data_loaders.rows import EncodedRows


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
        self._id_dtype = np.int32 if max(num_rows.values(), default=0) <= 2**31 else np.int64
        self._ids: dict[str, IdEncoder] = {}
        self._numbers: dict[str, DenseEncoder] = {}
        for name, feature in config.features.items():
            column = feature.column or name
            if isinstance(feature, DenseFeature):
                self._numbers[name] = DenseEncoder(feature, column=column)
            elif not isinstance(feature, DenseVectorFeature):
                self._ids[name] = IdEncoder(feature, column=column, num_rows=num_rows[name])
        self._labels = {name: LabelEncoder(task, name=name) for name, task in config.tasks.items()}
        self._weights = [ExampleWeightEncoder(name) for name in self._label_columns.weights]

    def encode(self, table: pa.Table) -> EncodedRows:
        """The numbers of one row group, in its order.

        Args:
            table: the columns that `read_columns` names, with the types that the recipe expects.

        Raises:
            WrongRowsError: a value is impossible; the message names the column, not the file.
            SchemaError: a column cannot be used.
        """
        place_R = np.arange(table.num_rows, dtype=np.uint32)
        rows = self.room([(table, place_R)], num_rows=table.num_rows)
        self.write(table, rows, place_R)
        return rows

    def room(self, parts: Sequence[tuple[pa.Table, np.ndarray]], *, num_rows: int) -> EncodedRows:
        """Where `num_rows` rows can be written to; their lists have their lengths, and nothing
        else holds anything yet.

        Args:
            parts: tables, and uint32 (R,) the place of each row; no place twice.
        """
        config = self._config
        return EncodedRows(
            ids_FR=uninitialised((self._num_ids, num_rows), self._id_dtype),
            lists=tuple(
                room_for_lists(
                    [(column_of(table, feature.column or name), place) for table, place in parts],
                    num_rows=num_rows,
                    feature=feature,
                    dtype=self._id_dtype,
                )
                for name, feature in config.features.items()
                if isinstance(feature, IdListFeature)
            ),
            dense_DR=uninitialised((config.num_dense_inputs, num_rows), np.float32),
            labels_TR=uninitialised((self._label_columns.num_columns, num_rows), np.float32),
        )

    def write(self, table: pa.Table, rows: EncodedRows, place_R: np.ndarray) -> None:
        """Writes the numbers of a table into `room`.

        Args:
            table: as for `encode`; rows that room was made for may be left out.
            place_R: of those that are there.

        Raises:
            WrongRowsError, SchemaError: as `encode`.
        """
        columns = columns_of(table)
        ids, dense, lists = iter(rows.ids_FR), iter(rows.dense_DR), iter(rows.lists)
        for name, feature in self._config.features.items():
            column = columns[feature.column or name]
            if isinstance(feature, IdFeature):
                self._ids[name].write(column, next(ids), place_R)
            elif isinstance(feature, DenseFeature):
                self._numbers[name].write(column, next(dense), place_R)
            elif isinstance(feature, IdListFeature):
                weights = None if feature.weights is None else columns[feature.weights]
                target, encoder = next(lists), self._ids[name]
                encode_lists(column, weights, target, place_R, encoder=encoder, feature=feature)
            else:
                vectors_RD = _encode_vectors(
                    column, name=feature.column or name, length=feature.length
                )
                for numbers_R in vectors_RD.T:
                    next(dense)[place_R] = numbers_R
        labels = iter(rows.labels_TR)
        for name, task in self._config.tasks.items():
            where = None if task.where is None else columns[task.where]
            self._labels[name].write(columns[task.column or name], where, next(labels), place_R)
        for encoder_of_weights in self._weights:
            encoder_of_weights.write(columns[encoder_of_weights.column], next(labels), place_R)
        for log_q_R in labels:
            log_q_R[place_R] = 0  # data_loaders.negatives knows it


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
        vectors[is_valid_R] = finite_float32(
            values, name=name, what="number in a vector", remedy="or null for the whole vector"
        ).reshape(-1, length)
    return vectors
