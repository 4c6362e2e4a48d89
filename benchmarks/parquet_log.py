"""The files that the input benchmark reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from benchmarks.input_encoding import Columns
from data_loaders.dataset import open_parquet
from data_loaders.storage import Location


@dataclass(frozen=True)
class Log:
    """What every contender reads.

    Attributes:
        files: Parquet.
        names: of the columns to read.
        columns: what they mean.
        batch_size: examples per batch.
    """

    files: tuple[Location, ...]
    names: tuple[str, ...]
    columns: Columns
    batch_size: int


def log_facts(log: Log) -> dict[str, Any]:
    """What there is to read.

    `column_bytes` are the bytes of the columns in the files, compressed, which no reader can avoid
    to read; `arrow_bytes` the same columns decoded.
    """
    names = set(log.names)
    num_row_groups = num_examples = column_bytes = arrow_bytes = 0
    for file in log.files:
        with open_parquet(file) as parquet:
            footer = parquet.metadata
            num_row_groups += footer.num_row_groups
            num_examples += footer.num_rows
            column_bytes += sum(_column_bytes(footer, names=names))
            arrow_bytes += parquet.read(columns=list(log.names)).nbytes
    return {
        "examples": num_examples,
        "files": len(log.files),
        "row_groups": num_row_groups,
        "columns": list(log.names),
        "file_bytes": sum(file.num_bytes() for file in log.files),
        "column_bytes": column_bytes,
        "arrow_bytes": arrow_bytes,
    }


def _column_bytes(footer: pq.FileMetaData, *, names: set[str]) -> list[int]:
    """Compressed sizes of all pieces of the columns; `a.list.element` is a piece of column `a`."""
    pieces = [
        footer.row_group(group).column(index)
        for group in range(footer.num_row_groups)
        for index in range(footer.num_columns)
    ]
    return [
        piece.total_compressed_size
        for piece in pieces
        if piece.path_in_schema in names or piece.path_in_schema.split(".")[0] in names
    ]
