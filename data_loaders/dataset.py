"""A data set on storage: sharded Parquet per split, described by `dataset.json`, written last.

    ROOT/dataset.json
    ROOT/train/part-00000.parquet, part-00001.parquet, ...
    ROOT/valid/...        optional: chooses among checkpoints
    ROOT/test/...         optional: the final evaluation

A log of one's own needs only the Parquet files; `dataset.json` adds what a reader cannot know: that
the data set is complete, and what the best possible model would reach on it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from data_loaders.config import Section
from data_loaders.errors import SchemaError, StorageError
from data_loaders.statistics import ColumnStatistics
from data_loaders.storage import Location, first_line, is_of_store

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

# A flipped bit may decompress to other numbers: only a checksum tells.
PARQUET_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


class SplitInfo(Section):
    """What `dataset.json` says of one split.

    `best` is the oracle: for each task whose ground truth is known, the metrics (`auc`, `mse`, ...)
    of the true probability, or the true mean, over the labels of this very split.
    """

    examples: int
    best: dict[str, dict[str, float]] = Field(default_factory=dict)


class DatasetInfo(Section):
    """The content of `dataset.json`."""

    format: Literal[1] = 1
    name: str
    description: str = ""
    splits: dict[Split, SplitInfo]
    columns: dict[str, ColumnStatistics] = Field(
        default_factory=dict, description="fitted on the training split"
    )
    rejected: dict[str, int] = Field(
        default_factory=dict, description="rows of the raw log that were left out, by reason"
    )


def write_split(
    root: Location,
    *,
    split: Split,
    tables: Iterable[pa.Table],
    rows_per_file: int,
    rows_per_row_group: int,
) -> int:
    """Writes a split as `part-NNNNN.parquet` files of `rows_per_file` rows (the last one shorter).

    Returns:
        The number of examples written.
    """
    num_examples = 0
    for index, table in enumerate(rechunk(tables, num_rows=rows_per_file)):
        target = root.child(f"{split}/part-{index:05d}.parquet")
        with target.reporting("written"):
            target.parent_folder()
            pq.write_table(
                table,
                target.path,
                filesystem=target.filesystem,
                row_group_size=rows_per_row_group,
                **PARQUET_OPTIONS,
            )
        num_examples += table.num_rows
    return num_examples


class RowGroupWriter:
    """Writes one Parquet file from tables of any size, in row groups of even size."""

    def __init__(self, target: Location, *, schema: pa.Schema, rows_per_row_group: int) -> None:
        self._target = target
        self._rows_per_row_group = rows_per_row_group
        self._held = schema.empty_table()
        with target.reporting("written"):
            target.parent_folder()
            self._stream = target.filesystem.open_output_stream(target.path)
            self._writer = pq.ParquetWriter(self._stream, schema, **PARQUET_OPTIONS)

    def __enter__(self) -> RowGroupWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        with self._target.reporting("written"):
            if error is None and self._held.num_rows:
                self._writer.write_table(self._held)
            self._writer.close()
            self._stream.close()

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self._held = pa.concat_tables([self._held, table])
        size = self._rows_per_row_group
        with self._target.reporting("written"):
            while self._held.num_rows >= size:
                self._writer.write_table(self._held.slice(0, size), row_group_size=size)
                self._held = self._held.slice(size)


def write_dataset_info(root: Location, info: DatasetInfo) -> None:
    """Writes `dataset.json`; with its splits it makes the data set complete: call it last."""
    root.child("dataset.json").write_text(json.dumps(info.model_dump(), indent=2) + "\n")


def read_dataset_info(root: Location) -> DatasetInfo | None:
    """What `dataset.json` says; None for a log of one's own that has none.

    Raises:
        SchemaError: the file is no data set's description, or the data set is incomplete.
    """
    location = root.child("dataset.json")
    if not location.exists():
        return None
    try:
        info = DatasetInfo.model_validate_json(location.read_text())
    except ValidationError as error:
        raise SchemaError(
            f"{location.uri}: not a data set's description ({error.errors()[0]['msg']}); "
            "write it anew with `polytower generate` or `polytower prepare`, or remove it"
        ) from error
    if not info.splits:
        raise SchemaError(
            f"{root.uri}: this data set is incomplete, writing it was interrupted; "
            "write it again with the same command, or delete it"
        )
    return info


def refuse_existing(root: Location) -> None:
    """Data sets are never overwritten.

    Raises:
        StorageError: `root` holds files.
    """
    if root.children():
        raise StorageError(f"{root.uri}: is not empty; give another --out, or delete it first")


def begin_dataset(root: Location, *, name: str, description: str = "") -> None:
    """Marks the data set as one that is being written.

    Raises:
        StorageError: `root` holds files, or cannot be written.
    """
    refuse_existing(root)
    write_dataset_info(root, DatasetInfo(name=name, description=description, splits={}))


def parquet_files(root: Location, *, split: Split) -> list[Location]:
    """The split's Parquet files by name; none where the data set has no such split."""
    return [item for item in root.child(split).children() if item.name.endswith(".parquet")]


def open_parquet(
    location: Location,
    *,
    metadata: pq.FileMetaData | None = None,
    read_dictionary: Sequence[str] = (),
    buffer_bytes: int = 0,
) -> pq.ParquetFile:
    """Opens a Parquet file and reads its footer.

    Args:
        metadata: the footer, if it has been read before.
        read_dictionary: paths of columns to read as codes and distinct values.
        buffer_bytes: read each column so much at a time, instead of all of a row group at once.

    Raises:
        StorageError: it cannot be reached, is missing, is truncated, or is no Parquet file; the
            message names it.
    """
    try:
        return pq.ParquetFile(
            location.path,
            filesystem=location.filesystem,
            metadata=metadata,
            read_dictionary=list(read_dictionary),
            page_checksum_verification=True,
            pre_buffer=not buffer_bytes,
            buffer_size=buffer_bytes,
        )
    except FileNotFoundError as error:
        raise StorageError(f"{location.uri}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        location.num_bytes()  # names the storage where that, and not the file, is at fault
        if is_of_store(error):
            with location.reporting("read"):
                raise
        raise StorageError(
            f"{location.uri}: not a readable Parquet file ({first_line(error)}); "
            "it may be truncated: write it again"
        ) from error


def rechunk(tables: Iterable[pa.Table], *, num_rows: int) -> Iterator[pa.Table]:
    """The same rows in the same order, in tables of `num_rows` rows, the last one shorter."""
    held: list[pa.Table] = []
    for table in itertools.chain(tables, [None]):
        if table is not None:
            held.append(table)
        total = sum(part.num_rows for part in held)
        while total >= num_rows or (table is None and total):
            joined = pa.concat_tables(held)
            yield joined.slice(0, num_rows)
            held = [joined.slice(num_rows)]
            total = held[0].num_rows
