"""What the training split's columns hold: fitted once, when a data set is written.

`dataset.json` keeps it under `columns`; recipes take means, quantiles and vocabularies from there.
It is fitted while the rows go by, by whoever writes the split:

    fitter = Fitter({"price": "number", "user_id": "id"})       # or fitted_columns(recipe.data)
    write_split(root, split="train", tables=fitter.watch(tables), ...)
    DatasetInfo(..., columns=fitter.write(root))                # writes vocabularies/COLUMN.parquet

Fitters of parts merge. The result is the same to the last byte however the rows were ordered, cut
into tables, and spread over fitters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from data_loaders.config import DataConfig, DenseFeature, IdFeature, IdListFeature, Section
from data_loaders.errors import SchemaError
from data_loaders.exact_numbers import Moments, ValueCounts
from data_loaders.storage import Location

ColumnKind = Literal["number", "id"]

QUANTILE_PARTS = 100
# log1p of different kinds of CPU differs in the last bit
LOG_DIGITS = 12


class NumberStatistics(Section):
    """Of a column of numbers, over the values that are neither null nor NaN."""

    kind: Literal["number"] = "number"
    count: int
    missing: int
    min: float
    max: float
    mean: float
    std: float = Field(description="population standard deviation")
    log_mean: float | None = Field(None, description="of log(1 + x); null if a value is negative")
    log_std: float | None = None
    quantiles: list[float] = Field(description="101 of them: 0%, 1%, ..., 100%")


class IdStatistics(Section):
    """Of a column of ids (integers or strings) or of lists of ids."""

    kind: Literal["id"] = "id"
    count: int = Field(description="ids, over all lists")
    missing: int = Field(description="rows that are null")
    distinct: int
    vocabulary: str = Field(
        description="Parquet file below the data set's root with the columns id and count, "
        "by falling count, then by rising id"
    )


ColumnStatistics = Annotated[NumberStatistics | IdStatistics, Field(discriminator="kind")]


def fitted_columns(config: DataConfig) -> dict[str, ColumnKind]:
    """The columns of a recipe that are fitted: numbers, labels, and ids.

    A column that is read both ways is fitted as a number, unless its ids need a vocabulary.
    """
    columns: dict[str, ColumnKind] = {}
    for name, task in config.tasks.items():
        columns[task.column or name] = "number"
        if task.where is not None:
            columns[task.where] = "number"
    needs_vocabulary = set()
    for name, feature in config.features.items():
        column = feature.column or name
        if isinstance(feature, IdFeature | IdListFeature) and feature.encoding != "quantiles":
            columns.setdefault(column, "id")
            if feature.encoding == "vocabulary":
                needs_vocabulary.add(column)
        elif isinstance(feature, IdFeature | DenseFeature):
            columns[column] = "number"
    return columns | dict.fromkeys(needs_vocabulary, "id")


class Fitter:
    """Statistics and vocabularies of some columns of the tables that it sees."""

    def __init__(self, columns: Mapping[str, ColumnKind]) -> None:
        self._fits = {column: FITS[kind]() for column, kind in columns.items()}

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables as they are, fitted as they go by."""
        for table in tables:
            self.add(table)
            yield table

    def add(self, table: pa.Table) -> None:
        """Fits all rows of a table.

        Raises:
            SchemaError: a column's type does not suit its kind, or a number is infinite.
        """
        for column, fit in self._fits.items():
            for chunk in table[column].chunks:
                try:
                    fit.add(chunk)
                except SchemaError as error:
                    raise SchemaError(f"column {column}: {error}") from error

    def merge(self, other: Fitter) -> None:
        """Takes in what a fitter of the same columns has seen."""
        for column, fit in self._fits.items():
            fit.merge(other._fits[column])

    def write(self, root: Location) -> dict[str, ColumnStatistics]:
        """Writes `vocabularies/` below a data set's root; returns what `dataset.json` keeps.

        A column of numbers that holds none is left out.
        """
        columns: dict[str, ColumnStatistics] = {}
        for column, fit in self._fits.items():
            if isinstance(fit, IdFit):
                name = column.replace("%", "%25").replace("/", "%2F")
                columns[column] = fit.write(root, path=f"vocabularies/{name}.parquet")
            elif (statistics := fit.result()) is not None:
                columns[column] = statistics
        return columns


class NumberFit:
    """Of numbers and bools."""

    def __init__(self) -> None:
        self._missing = 0
        self._numbers = Moments()
        self._logs: Moments | None = Moments()  # None: a number is negative
        self._values = ValueCounts()
        self._range = (np.inf, -np.inf)

    def add(self, column: pa.Array) -> None:
        """Takes in an array; null and NaN are missing."""
        if not (_is_number(column.type) or pa.types.is_null(column.type)):
            raise SchemaError(f"expected numbers or bools, found {column.type}")
        if not pa.types.is_floating(column.type):
            column = pc.cast(column, pa.float64(), safe=False)  # integers beyond 2^53 are rounded
        # + 0.0: of -0.0 and 0.0 the smaller would be the one that comes first
        numbers = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False) + 0.0
        values = numbers[~np.isnan(numbers)]
        self._missing += len(numbers) - len(values)
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        if np.isinf(low) or np.isinf(high):
            raise SchemaError(f"expected finite numbers, found {low if np.isinf(low) else high}")
        self._range = (min(self._range[0], low), max(self._range[1], high))
        self._numbers.add(values)
        self._values.add(values)
        if low < 0:
            self._logs = None
        elif self._logs is not None:
            self._logs.add(np.log1p(values))

    def merge(self, other: NumberFit) -> None:
        self._missing += other._missing
        self._numbers.merge(other._numbers)
        self._values.merge(other._values)
        low, high = self._range
        self._range = (min(low, other._range[0]), max(high, other._range[1]))
        if self._logs is None or other._logs is None:
            self._logs = None
        else:
            self._logs.merge(other._logs)

    def result(self) -> NumberStatistics | None:
        """None if there are no numbers."""
        if not self._numbers.count:
            return None
        low, high = self._range
        inner = self._values.quantiles(parts=QUANTILE_PARTS)[1:-1]
        return NumberStatistics(
            count=self._numbers.count,
            missing=self._missing,
            min=low,
            max=high,
            mean=self._numbers.mean(),
            std=self._numbers.std(),
            log_mean=None if self._logs is None else _rounded(self._logs.mean()),
            log_std=None if self._logs is None else _rounded(self._logs.std()),
            # where neighbours share a count, the middle of the outermost lies outside
            quantiles=[low, *(min(max(low, value), high) for value in inner), high],
        )


class IdFit:
    """Of integers, strings, or lists of those."""

    def __init__(self) -> None:
        self._missing = 0
        self._counts: list[pa.Table] = []  # of id and count; the first one has each id once
        self._num_pending = 0

    def add(self, column: pa.Array) -> None:
        """Takes in an array; null ids within a list do not count."""
        if pa.types.is_null(column.type):
            self._missing += len(column)
            return
        self._missing += column.null_count
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = column.flatten()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        id_type = _vocabulary_type(column.type)
        counts = pc.value_counts(column.drop_null())
        ids = counts.field("values").cast(id_type)
        self._append(pa.table({"id": ids, "count": counts.field("counts")}))

    def merge(self, other: IdFit) -> None:
        self._missing += other._missing
        for counts in other._counts:
            self._append(counts)

    def result(self) -> pa.Table:
        """The vocabulary: id and count, by falling count, then by rising id."""
        self._compact()
        if not self._counts:
            return pa.table({"id": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        return self._counts[0].sort_by([("count", "descending"), ("id", "ascending")])

    def write(self, root: Location, *, path: str) -> IdStatistics:
        """Writes the vocabulary to `path` below a data set's root."""
        vocabulary = self.result()
        target = root.child(path)
        with target.reporting("written"):
            target.parent_folder()
            pq.write_table(vocabulary, target.path, filesystem=target.filesystem)
        return IdStatistics(
            count=pc.sum(vocabulary["count"]).as_py() or 0,
            missing=self._missing,
            distinct=vocabulary.num_rows,
            vocabulary=path,
        )

    def _append(self, counts: pa.Table) -> None:
        if self._counts and self._counts[0].schema != counts.schema:
            found = (self._counts[0]["id"].type, counts["id"].type)
            raise SchemaError(f"expected ids of one type, found {found[0]} and {found[1]}")
        self._counts.append(counts)
        self._num_pending += counts.num_rows
        if self._num_pending > self._counts[0].num_rows:  # each id is moved a few times at most
            self._compact()

    def _compact(self) -> None:
        if len(self._counts) > 1:
            joined = pa.concat_tables(self._counts)
            sums = joined.group_by("id").aggregate([("count", "sum")])
            self._counts = [sums.rename_columns(["id", "count"]).combine_chunks()]
        self._num_pending = 0


FITS: dict[ColumnKind, Any] = {"number": NumberFit, "id": IdFit}


def _vocabulary_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_integer(found):
        return pa.uint64() if found == pa.uint64() else pa.int64()
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return pa.string()
    raise SchemaError(f"expected ids (integers or strings) or lists of ids, found {found}")


def _is_number(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(found)
        or pa.types.is_floating(found)
        or pa.types.is_boolean(found)
        or pa.types.is_decimal(found)
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{LOG_DIGITS}g}")
