"""Reads row groups, whole or in parts, from files that must not have changed."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from data_loaders.dataset import open_parquet, rechunk
from data_loaders.errors import StorageError, UnreachableError
from data_loaders.row_groups import RowGroups, footer_digest
from data_loaders.storage import Location, first_line, is_of_store
from data_loaders.streams import MAX_PIECE_ROWS

# Of each column of a row group that is read in parts.
BUFFER_BYTES = 2**20

# Footers of files that are being read; one may take some 100 kB.
FOOTERS_KEPT = 128

# Beyond what the store's client retries by itself: a connection may also break in mid-answer.
RETRY_WAITS_SECONDS = (0.5, 2.0)
# Nothing is begun anew later than that: the client gives up a silent store after some 45 s.
RETRY_WITHIN_SECONDS = 30.0


@dataclass(frozen=True)
class _Footer:
    metadata: pq.FileMetaData
    strings: list[str]  # paths of the columns that hold strings


class LogReader:
    """Reads the row groups of a split; several threads may share one.

    Args:
        groups: of the split, as they were when the run began.
        columns: to read; strings among them come as codes and distinct values.
    """

    def __init__(self, groups: RowGroups, *, columns: Sequence[str]) -> None:
        self.groups = groups
        self._columns = list(columns)
        self._footer = functools.lru_cache(FOOTERS_KEPT)(self._read_footer)

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this machine."""
        return isinstance(self.groups.files[0].filesystem, pafs.LocalFileSystem)

    def file_of(self, group: int) -> Location:
        """The file that a row group lies in."""
        return self.groups.files[self.groups.file_G[group]]

    def no_rows(self) -> pa.Table:
        """An empty table of the columns' types."""
        with self._open(0) as parquet:
            return parquet.schema_arrow.empty_table().select(self._columns)

    def read(self, group: int) -> pa.Table:
        """A whole row group.

        Raises:
            StorageError: the file is missing, damaged, out of reach, or not the one that the run
                began with; the message names it.
        """
        return self._retried(group, read=lambda: self._read(group))

    def parts(self, group: int, *, first_part: int) -> Iterator[pa.Table]:
        """A large row group in parts of `MAX_PIECE_ROWS` rows, from one of them on.

        Raises:
            StorageError: as `read`.
        """
        num_parts = -(-int(self.groups.num_rows_G[group]) // MAX_PIECE_ROWS)
        parts: Iterator[pa.Table] = iter(())
        for index in range(first_part, num_parts):

            def read(index: int = index) -> pa.Table:
                nonlocal parts
                part = next(parts, None)
                if part is None:  # at the beginning, and after an error, which ends a generator
                    parts = self._parts(group, first_part=index)
                    part = next(parts)
                return part

            yield self._retried(group, read=read)

    def _parts(self, group: int, *, first_part: int) -> Iterator[pa.Table]:
        with self._open(group, buffer_bytes=BUFFER_BYTES) as parquet:
            batches = parquet.iter_batches(
                batch_size=MAX_PIECE_ROWS,
                row_groups=[int(self.groups.index_G[group])],
                columns=self._columns,
                use_threads=False,
            )
            tables = (pa.Table.from_batches([batch]) for batch in batches)
            parts = rechunk(tables, num_rows=MAX_PIECE_ROWS)
            yield from itertools.islice(parts, first_part, None)

    def _retried(self, group: int, *, read: Callable[[], pa.Table]) -> pa.Table:
        """What `read` returns, tried again where the store, and not the file, may be at fault."""
        waits = [] if self.is_local else list(RETRY_WAITS_SECONDS)
        last_start = time.monotonic() + RETRY_WITHIN_SECONDS
        while True:
            try:
                return read()
            except (pa.ArrowException, OSError, StorageError) as error:
                if not waits or time.monotonic() + waits[0] > last_start:
                    if isinstance(error, StorageError):
                        raise
                    raise self._unreadable(group, error) from error
                time.sleep(waits.pop(0))

    def _read(self, group: int) -> pa.Table:
        with self._open(group) as parquet:
            # not in Arrow's threads: whole row groups are read side by side already
            return parquet.read_row_group(
                int(self.groups.index_G[group]), columns=self._columns, use_threads=False
            )

    def _open(self, group: int, *, buffer_bytes: int = 0) -> pq.ParquetFile:
        file_index = int(self.groups.file_G[group])
        file = self.groups.files[file_index]
        # every time: the footer is read once; and first: here an error tells whether the storage or
        # the file is at fault
        if file.num_bytes() != self.groups.num_bytes[file_index]:
            raise _changed(file)
        footer = self._footer(file_index)
        return open_parquet(
            file,
            metadata=footer.metadata,
            read_dictionary=footer.strings,
            buffer_bytes=buffer_bytes,
        )

    def _read_footer(self, file_index: int) -> _Footer:
        file = self.groups.files[file_index]
        with open_parquet(file) as parquet:
            metadata = parquet.metadata
        num_bytes = self.groups.num_bytes[file_index]
        if footer_digest(metadata, num_bytes=num_bytes) != self.groups.digests[file_index]:
            raise _changed(file)
        columns = (metadata.schema.column(index) for index in range(metadata.num_columns))
        return _Footer(
            metadata=metadata,
            strings=[
                column.path
                for column in columns
                if column.path.partition(".")[0] in self._columns
                and column.logical_type.type == "STRING"
            ],
        )

    def _unreadable(self, group: int, error: Exception) -> StorageError:
        kind, remedy = StorageError, "the file is damaged or was changed: write it again"
        if is_of_store(error):
            kind = UnreachableError
            remedy = "it was tried again and again: go on when the store is well"
        return kind(
            f"{self.file_of(group).uri}: row group {self.groups.index_G[group]} cannot be read "
            f"({first_line(error)}); {remedy}"
        )


def _changed(file: Location) -> StorageError:
    return StorageError(
        f"{file.uri}: is not the file that it was when the run began (its size or footer "
        "has changed); a log must not change under a run: put the old file back"
    )
