"""From ids to rows of an embedding table, one feature at a time.

Shape legend: N ids.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from data_loaders.columns import numbers_of, raw_values, valid_of, write_coded, write_rows_of_codes
from data_loaders.config import IdFeature, IdListFeature
from data_loaders.errors import InputError, SchemaError, WrongRowsError, wrong_rows_of
from data_loaders.hashing import hash_rows, write_hashed
from data_loaders.id_vocabulary import FIRST_ROW, read_vocabulary
from data_loaders.memory import frozen
from data_loaders.storage import first_line

MISSING_ROW = 0
_THEMSELVES = frozen(np.zeros(0, np.int64))


class IdEncoder:
    """Brings the ids of one feature into the rows of its table; several threads may share one.

    Args:
        feature: fitted.
        column: name of the ids' column, for messages.
        num_rows: of the table.

    Raises:
        InputError: the feature's vocabulary cannot be read, or is another one now.
    """

    def __init__(self, feature: IdFeature | IdListFeature, *, column: str, num_rows: int) -> None:
        self.column = column
        self._num_rows = num_rows
        self._is_number = feature.encoding == "quantiles"
        self._is_hashed = feature.encoding == "hash"
        self._is_direct = feature.encoding == "direct"
        self._fill = feature.fill if isinstance(feature, IdFeature) else None
        self._rows_of: Callable[[pa.Array], np.ndarray] = self._hashed
        if feature.encoding == "direct":
            self._rows_of = self._direct
        elif feature.encoding == "vocabulary":
            assert feature.vocabulary is not None, "fitted() names it"
            assert feature.vocabulary_digest is not None, "fitted() knows it"
            self._vocabulary = read_vocabulary(
                feature.vocabulary,
                digest=feature.vocabulary_digest,
                min_count=feature.min_count,
                max_ids=num_rows - FIRST_ROW,
            )
            self._rows_of = self._known
        elif isinstance(feature, IdFeature) and feature.encoding == "quantiles":
            assert feature.boundaries is not None, "fitted() finds them"
            self._boundaries = np.asarray(feature.boundaries, np.float64)
            self._rows_of = self._ranges

    def write(self, ids: pa.Array, out_N: np.ndarray, place_N: np.ndarray) -> None:
        """Writes the row of each id to its place; for a null the row of `fill`, or row 0.

        Raises:
            SchemaError: an id has no row, or is of another type than it must be.
        """
        is_dictionary = pa.types.is_dictionary(ids.type)
        if not (self._is_hashed or self._is_direct or is_dictionary):
            out_N[place_N] = self._rows(ids)
            return
        missing_row = self._missing_row(ids.type) if ids.null_count else MISSING_ROW
        if self._is_hashed:
            write_hashed(ids, out_N, place_N, num_rows=self._num_rows, missing_row=missing_row)
        elif is_dictionary:
            rows_D = self._rows_of(ids.dictionary)
            write_rows_of_codes(ids.indices, out_N, place_N, rows_D=rows_D, missing_row=missing_row)
        else:
            rows = (self._num_rows, _THEMSELVES, missing_row)
            if not write_coded(*raw_values(ids), *rows, place_N, out_N):
                self._rows(ids)  # raises

    def _rows(self, ids: pa.Array) -> np.ndarray:
        """int64 (N,), the row of each."""
        if not ids.null_count:
            return self._filled(ids)
        rows = np.full(len(ids), self._missing_row(ids.type), np.int64)
        is_valid = valid_of(ids)
        with wrong_rows_of(is_valid):
            rows[is_valid] = self._filled(ids.drop_null())
        return rows

    def _filled(self, ids: pa.Array) -> np.ndarray:
        if not pa.types.is_floating(ids.type):
            return self._rows_of(ids)
        rows = self._rows_of(ids)  # of quantiles, where NaN is missing too
        is_nan = np.isnan(numbers_of(ids))
        return np.where(is_nan, self._missing_row(ids.type), rows) if is_nan.any() else rows

    def _missing_row(self, kind: pa.DataType) -> int:
        if self._fill is None:
            return MISSING_ROW
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        try:
            fill = pa.array([self._fill], pa.float64() if self._is_number else kind)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise SchemaError(
                f"column {self.column}: fill {self._fill!r} is no {kind} ({first_line(error)}); "
                "correct the recipe's fill"
            ) from error
        try:
            return int(self._rows_of(fill)[0])
        except WrongRowsError as error:  # it is the recipe's, whatever the rows hold
            raise InputError(f"{error} (this id is the recipe's fill)") from None

    def _hashed(self, ids: pa.Array) -> np.ndarray:
        return hash_rows(ids, num_rows=self._num_rows)

    def _direct(self, ids: pa.Array) -> np.ndarray:
        rows = ids.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        outside = (rows < 0) | (rows >= self._num_rows)
        if outside.any():
            raise WrongRowsError(
                f"column {self.column}: id {rows[outside][0]} lies outside its table; "
                f"expected 0 to {self._num_rows - 1} (encoding: direct); "
                "enlarge the table's num_rows or use encoding: hash",
                is_wrong_R=outside,
            )
        return rows

    def _known(self, ids: pa.Array) -> np.ndarray:
        return self._vocabulary.rows(ids, name=self.column)

    def _ranges(self, numbers: pa.Array) -> np.ndarray:
        """Row 1 is below the first boundary; a boundary belongs to the range above it."""
        return 1 + np.searchsorted(self._boundaries, numbers_of(numbers), side="right")
