"""What the makers of public data sets share: reading raw files, and the shape of their result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from data_loaders.dataset import Split
from data_loaders.errors import SchemaError, StorageError
from data_loaders.public.vocabulary import Codes
from data_loaders.storage import Location, first_line


@dataclass(frozen=True)
class PublicData:
    """Training data in memory: `splits` to write, and what each column of codes stands for."""

    description: str
    splits: dict[Split, pa.Table]
    codes: dict[str, Codes]


def read_csv(
    source: Location,
    name: str,
    *,
    types: Mapping[str, pa.DataType],
    has_header: bool,
    expected: str,
) -> pa.Table:
    """The columns `types` of a CSV file, compressed or not (by its ending); empty strings are null.

    Args:
        source: the folder.
        name: the file in it.
        types: the wanted columns; without a header line all columns, in their order.
        has_header: whether the first line names the columns.
        expected: what `source` should hold, for messages.
    """
    location = _existing(source, name, expected=expected)
    names = None if has_header else list(types)
    try:
        with location.filesystem.open_input_stream(location.path) as stream:
            table = pacsv.read_csv(
                stream,
                read_options=pacsv.ReadOptions(column_names=names),
                convert_options=pacsv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise _unfit(location, error, expected=expected) from error
    return table


def read_parquet(source: Location, name: str, *, columns: list[str], expected: str) -> pa.Table:
    """The named columns of a Parquet file; `expected` says what `source` should hold."""
    location = _existing(source, name, expected=expected)
    try:
        with location.filesystem.open_input_file(location.path) as file:
            parquet = pq.ParquetFile(file)
            absent = [column for column in columns if column not in parquet.schema_arrow.names]
            if absent:
                raise SchemaError(
                    f"{location.uri}: has no column {absent[0]!r}; expected {expected}"
                )
            return parquet.read(columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unfit(location, error, expected=expected) from error


def _existing(source: Location, name: str, *, expected: str) -> Location:
    location = source.child(name)
    if not location.exists():
        raise StorageError(f"{location.uri}: no such file; --source must hold {expected}")
    return location


def _unfit(location: Location, error: Exception, *, expected: str) -> SchemaError:
    return SchemaError(f"{location.uri}: {first_line(error)}; expected {expected}")
