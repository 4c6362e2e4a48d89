"""Raw rows, block by block, from any of the formats, seen through one small surface.

Shape legend: R rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data_loaders.dataset import open_parquet
from data_loaders.errors import SchemaError
from data_loaders.raw.cells import ITEM_TYPES, Cells, convert, json_text
from data_loaders.raw.columns import RawColumn
from data_loaders.raw.csv_files import csv_blocks
from data_loaders.raw.files import Part
from data_loaders.raw.json_lines import blocks_of_lines, open_text, parsed
from data_loaders.storage import Location, first_line, locate

# Rows of a block of Parquet, and of what is written on the way: a row may hold long lists.
BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Malformed:
    """What is no row at all; `number` counts as `Block.numbers_R` does."""

    number: int
    reason: str
    text: str


class Rows(Protocol):
    """Well-formed rows."""

    def cells(self, column: RawColumn, *, missing: Sequence[str], list_separator: str) -> Cells:
        """A column, converted; nulls where the file does not have it."""

    def records(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Some rows as they were read."""

    def identity(self) -> pa.Table:
        """Columns that are equal where whole rows are."""


@dataclass(frozen=True)
class Block:
    """Some rows of a part, in order.

    Attributes:
        rows: the well-formed ones.
        numbers_R: int64, which row of the file each is, from 1 on; of JSON lines, which line.
        malformed: the others.
        bytes_read: of the part, so far.
    """

    rows: Rows
    numbers_R: np.ndarray
    malformed: tuple[Malformed, ...]
    bytes_read: int


def read_part(part: Part, *, columns: Sequence[str] | None, block_bytes: int) -> Iterator[Block]:
    """Reads a part.

    Args:
        part: of a raw log.
        columns: of a Parquet file, those that are wanted; None for all.
        block_bytes: of text, read at once.

    Raises:
        StorageError: the file cannot be read.
        SchemaError: it is not what its ending says.
    """
    file = locate(part.uri)
    with file.reporting("read"):
        try:
            if part.format == "csv":
                yield from _csv_blocks(file, part, block_bytes=block_bytes)
            elif part.format == "json":
                yield from _json_blocks(file, block_bytes=block_bytes)
            else:
                yield from _parquet_blocks(file, part, columns=columns)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"{file.uri}: cannot be read: {first_line(error)}") from error


@dataclass(frozen=True)
class ArrowRows:
    """Of CSV, whose cells are bytes, and of Parquet."""

    table: pa.Table

    def cells(self, column: RawColumn, *, missing: Sequence[str], list_separator: str) -> Cells:
        name = column.name
        if name in self.table.column_names:
            found = self.table[name].combine_chunks()
        else:
            found = pa.nulls(self.table.num_rows)
        try:
            return convert(found, to=column.type, missing=missing, list_separator=list_separator)
        except SchemaError as error:
            raise SchemaError(f"column {name}: {error}") from error

    def records(self, rows: np.ndarray) -> list[dict[str, Any]]:
        records = self.table.take(pa.array(rows)).to_pylist()
        return [{name: _shown(value) for name, value in row.items()} for row in records]

    def identity(self) -> pa.Table:
        return self.table


@dataclass(frozen=True)
class JsonRows:
    """Of JSON lines."""

    objects: list[dict[str, Any]]

    def cells(self, column: RawColumn, *, missing: Sequence[str], list_separator: str) -> Cells:
        values = [record.get(column.name) for record in self.objects]
        texts = pa.array([json_text(value) for value in values], pa.string())
        cells = convert(texts, to=column.type, missing=missing, list_separator=list_separator)
        nested = dict if column.type in ITEM_TYPES else list | dict
        wrong_R = np.array([isinstance(value, nested) for value in values], bool)
        return Cells(cells.values, cells.wrong_R | wrong_R)

    def records(self, rows: np.ndarray) -> list[dict[str, Any]]:
        return [self.objects[row] for row in rows]

    def identity(self) -> pa.Table:
        return pa.table({"": [json.dumps(record, sort_keys=True) for record in self.objects]})


def _csv_blocks(file: Location, part: Part, *, block_bytes: int) -> Iterator[Block]:
    for block in csv_blocks(file, columns=part.columns, block_bytes=block_bytes):
        malformed = tuple(
            Malformed(number, "another number of cells than the header", text)
            for number, text in block.invalid
        )
        yield Block(ArrowRows(block.table), block.numbers_R, malformed, block.bytes_read)


def _json_blocks(file: Location, *, block_bytes: int) -> Iterator[Block]:
    stream, raw = open_text(file)
    number = 0
    with raw, stream:
        for lines in blocks_of_lines(stream, block_bytes=block_bytes):
            objects, numbers, malformed = [], [], []
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                record = parsed(line)
                if isinstance(record, str):
                    malformed.append(Malformed(number, record, line.decode(errors="replace")))
                else:
                    objects.append(record)
                    numbers.append(number)
            numbers_R = np.array(numbers, np.int64)
            yield Block(JsonRows(objects), numbers_R, tuple(malformed), raw.tell())


def _parquet_blocks(
    file: Location, part: Part, *, columns: Sequence[str] | None
) -> Iterator[Block]:
    wanted = [name for name in part.columns if columns is None or name in columns]
    with open_parquet(file) as parquet:
        total = sum(parquet.metadata.row_group(group).num_rows for group in part.row_groups)
        done = 0
        for batch in parquet.iter_batches(
            batch_size=BLOCK_ROWS, row_groups=list(part.row_groups), columns=wanted
        ):
            numbers_R = part.first_row + done + 1 + np.arange(batch.num_rows)
            done += batch.num_rows
            table = pa.Table.from_batches([batch])
            yield Block(ArrowRows(table), numbers_R, (), part.num_bytes * done // total)


def _shown(value: Any) -> Any:
    """A cell as JSON can hold it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
