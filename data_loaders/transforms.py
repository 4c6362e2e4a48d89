"""From Arrow columns to the numbers that the model reads, whole row groups at a time.

Shape legend: R rows, F id features, D dense features, T tasks, N ids of a list feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.config import (
    BinaryTask,
    DataConfig,
    DenseFeature,
    IdFeature,
    IdListFeature,
    RegressionTask,
)
from data_loaders.errors import SchemaError
from data_loaders.hashing import hash_ids
from data_loaders.rows import EncodedRows, Ragged


class Encoder:
    """Hashes, transforms and checks the columns of row groups; several threads may share one.

    Args:
        config: features and tasks.
        num_rows: rows of the embedding table of each id feature.
    """

    def __init__(self, config: DataConfig, *, num_rows: Mapping[str, int]) -> None:
        self._config = config
        self._num_rows = num_rows

    def encode(self, table: pa.Table) -> EncodedRows:
        """The numbers of one row group.

        Args:
            table: the columns that `read_columns` names, with the types that the recipe expects.

        Raises:
            SchemaError: a value is impossible; the message names the column, not the file.
        """
        config, num_rows = self._config, self._num_rows
        ids, lists, dense = [], [], []
        for name, feature in config.features.items():
            column = _column(table, feature.column or name)
            if isinstance(feature, IdFeature):
                ids.append(
                    _encode_ids(
                        column, name=name, encoding=feature.encoding, num_rows=num_rows[name]
                    )
                )
            elif isinstance(feature, IdListFeature):
                lists.append(
                    _encode_lists(column, name=name, feature=feature, num_rows=num_rows[name])
                )
            else:
                dense.append(_encode_dense(column, name=name, feature=feature))
        labels = [
            _encode_labels(table, name=name, task=task) for name, task in config.tasks.items()
        ]
        return EncodedRows(
            ids_FR=_columns(ids, num_rows=table.num_rows, dtype=np.int64),
            lists=tuple(lists),
            dense_DR=_columns(dense, num_rows=table.num_rows, dtype=np.float32),
            labels_TR=_columns(labels, num_rows=table.num_rows, dtype=np.float32),
        )


def _encode_ids(column: pa.Array, *, name: str, encoding: str, num_rows: int) -> np.ndarray:
    """Table rows, int64: 0 for null, else the id itself (direct) or its hash in [1, num_rows)."""
    rows = np.zeros(len(column), np.int64)
    present = slice(None)
    if column.null_count:
        present = column.is_valid().to_numpy(zero_copy_only=False)
        column = column.drop_null()
    if encoding == "hash":
        rows[present] = 1 + (hash_ids(column) % np.uint64(num_rows - 1)).astype(np.int64)
        return rows
    direct = column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    outside = (direct < 0) | (direct >= num_rows)
    if outside.any():
        raise SchemaError(
            f"column {name}: id {direct[outside][0]} lies outside its table; "
            f"expected 0 to {num_rows - 1} (encoding: direct); "
            "enlarge the table's num_rows or use encoding: hash"
        )
    rows[present] = direct
    return rows


def _encode_lists(column: pa.Array, *, name: str, feature: IdListFeature, num_rows: int) -> Ragged:
    """The last `max_length` ids of each list; a null list is an empty one."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    if column.null_count:  # the bytes behind a null list may hold anything: give it no length
        ends = np.where(column.is_valid().to_numpy(zero_copy_only=False), offsets[1:], offsets[:-1])
    else:
        ends = offsets[1:]
    starts = np.maximum(offsets[:-1], ends - feature.max_length)
    values = column.values
    encoded = _encode_ids(values, name=name, encoding=feature.encoding, num_rows=num_rows)
    lengths = ends - starts
    if len(lengths) and lengths.sum() == len(encoded):
        return Ragged(values_N=encoded, offsets_R=np.concatenate([[0], np.cumsum(lengths)]))
    new_offsets = np.concatenate([[0], np.cumsum(lengths)])
    source = np.repeat(starts - new_offsets[:-1], lengths) + np.arange(new_offsets[-1])
    return Ragged(values_N=encoded[source], offsets_R=new_offsets)


def _encode_dense(column: pa.Array, *, name: str, feature: DenseFeature) -> np.ndarray:
    """float32, standardised; 0, the mean, where null or NaN."""
    standard = _standardise(_numbers(column), name=name, spec=feature)
    return np.nan_to_num(standard, copy=False, nan=0.0)


def _encode_labels(table: pa.Table, *, name: str, task: BinaryTask | RegressionTask) -> np.ndarray:
    """float32 in the units of the loss; NaN where null, NaN, or outside `where`."""
    column = task.column or name
    labels = _numbers(_column(table, column))
    if task.where is not None:
        labels = np.where(_numbers(_column(table, task.where)) == 1, labels, np.nan)
    if isinstance(task, RegressionTask):
        return _standardise(labels, name=column, spec=task)
    outside = (labels < 0) | (labels > 1)
    if outside.any():
        raise SchemaError(
            f"column {column}: label {labels[outside][0]:g} of the binary task {name} lies outside "
            "its range; expected 0 to 1, or null where not observed; "
            "use kind: regression for other numbers"
        )
    return labels.astype(np.float32)


def _standardise(
    numbers: np.ndarray, *, name: str, spec: DenseFeature | RegressionTask
) -> np.ndarray:
    with np.errstate(all="ignore"):  # what overflows, or has no logarithm, is refused below
        scaled = np.log1p(numbers) if spec.log else numbers
        standard = ((scaled - spec.mean) / spec.std).astype(np.float32)
    wrong = np.isinf(standard) | ((numbers < 0) if spec.log else False)
    if wrong.any():
        expected = "a finite number >= 0 (log: true)" if spec.log else "a finite number"
        raise SchemaError(
            f"column {name}: value {numbers[wrong][0]:g}; expected {expected}, "
            "or null where missing; clean the log, or correct the recipe"
        )
    return standard


def _numbers(column: pa.Array) -> np.ndarray:
    """float64, NaN where null."""
    if not pa.types.is_floating(column.type):
        column = pc.cast(column, pa.float64(), safe=False)  # integers beyond 2^53 are rounded
    return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).unify_dictionaries()
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _columns(arrays: list[np.ndarray], *, num_rows: int, dtype: type) -> np.ndarray:
    """One row per array."""
    if not arrays:
        return np.zeros((0, num_rows), dtype)
    return np.stack(arrays).astype(dtype, copy=False)
