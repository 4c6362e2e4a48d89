"""CSV files whose cells stay text: what a cell means is for the recipe to say, not for the file.

The first line names the columns; cells may be quoted and then hold line breaks.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from data_loaders.errors import SchemaError
from data_loaders.raw.json_lines import open_text
from data_loaders.storage import Location, first_line

# Arrow shows a row of the wrong width as text, and fails if it is none. So bytes that are no UTF-8
# pass the parser as a character that no text holds, and become bytes again behind it.
STAND_IN = "\ufdd0"
NO_TEXT = b"\xff"


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return STAND_IN, error.end


codecs.register_error("polytower_stand_in", _stand_in)


@dataclass(frozen=True)
class CsvBlock:
    """Some rows.

    Attributes:
        table: the well-formed ones, each column binary.
        numbers_R: int64 (R,), which row of the file each is, from 1 on, the header not counted.
        invalid: number and text of those with another number of cells than the header has.
        bytes_read: of the file so far, as it lies.
    """

    table: pa.Table
    numbers_R: np.ndarray
    invalid: tuple[tuple[int, str], ...]
    bytes_read: int


def first_columns(file: Location) -> list[str]:
    """The names in the first line.

    Raises:
        SchemaError: there is none.
    """
    stream, raw = open_text(file)
    with raw, stream:
        try:
            reader = pacsv.open_csv(
                _Text(stream),
                read_options=pacsv.ReadOptions(use_threads=False),
                parse_options=_parse_options([]),
            )
            return list(reader.schema.names)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"{file.uri}: not a CSV file: {first_line(error)}") from error


def csv_blocks(file: Location, *, columns: tuple[str, ...], block_bytes: int) -> Iterator[CsvBlock]:
    """All rows; `columns` are those of the first line."""
    invalid: list[tuple[int, str]] = []
    stream, raw = open_text(file)
    num_valid = num_told = 0
    with raw, stream:
        text = _Text(stream)
        reader = pacsv.open_csv(
            text,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block_bytes),
            parse_options=_parse_options(invalid),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.binary()), strings_can_be_null=False
            ),
        )
        while True:
            try:
                table = pa.Table.from_batches([reader.read_next_batch()])
            except StopIteration:
                table = reader.schema.empty_table()
            told = tuple(invalid[num_told:])
            if not table.num_rows and not told and text.is_over:
                return
            numbers_R = _row_numbers(
                num_valid, table.num_rows, skipped=[number for number, _ in invalid]
            )
            num_told += len(told)
            num_valid += table.num_rows
            yield CsvBlock(
                _as_read(table) if text.is_marked else table, numbers_R, told, raw.tell()
            )


@dataclass
class _Text:
    """A stream of bytes as the parser can take it: UTF-8 throughout."""

    stream: pa.NativeFile
    closed: bool = False
    is_over: bool = False
    is_marked: bool = False
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("polytower_stand_in")
    )

    def read(self, num_bytes: int) -> bytes:
        while not self.is_over:
            content = self.stream.read(num_bytes)
            self.is_over = not content
            text = self._decoder.decode(content, final=self.is_over)
            self.is_marked |= STAND_IN in text
            if text:  # not if it ends within a character
                return text.encode()
        return b""

    def close(self) -> None:
        self.closed = True


def _parse_options(invalid: list[tuple[int, str]]) -> pacsv.ParseOptions:
    def skip(row: pacsv.InvalidRow) -> str:
        invalid.append((row.number - 1, row.text.replace(STAND_IN, "\ufffd")))
        return "skip"

    return pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip)


def _row_numbers(start: int, num_rows: int, *, skipped: list[int]) -> np.ndarray:
    """Numbers, from 1 on, of the well-formed rows `start` to `start + num_rows`."""
    ordinals_R = np.arange(start, start + num_rows)
    before = np.array(skipped, np.int64) - 1 - np.arange(len(skipped))  # well-formed ones
    return ordinals_R + 1 + np.searchsorted(before, ordinals_R, side="right")


def _as_read(table: pa.Table) -> pa.Table:
    return pa.table(
        {
            name: pc.replace_substring(column, STAND_IN.encode(), NO_TEXT)
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )
