"""Reads row groups, whole or in parts, from files that must not have changed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from data_loaders.dataset import open_parquet, rechunk
from data_loaders.errors import StorageError, UnreachableError
from data_loaders.retries import retried
from data_loaders.row_groups import RowGroups, footer_bytes, footer_digest
from data_loaders.storage import Location, first_line, is_of_store
from data_loaders.streams import MAX_PIECE_ROWS

# Of each column of a row group that is read in parts.
BUFFER_BYTES = 2**20

# Footers of files that are being read. Parsed, one takes eight times its bytes, in thousands of
# small pieces: where many are kept, their pieces lie everywhere among what comes and goes, and the
# heap grows tenfold what they hold themselves. So few are kept parsed, and more as bytes.
FOOTERS_KEPT = 128
PARSED_FOOTERS_KEPT = 8


class LogReader:
    """Reads the row groups of a split; several threads may share one.

    Args:
        groups: of the split, as they were when the run began.
        columns: to read; strings among them come as codes and distinct values.
    """

    def __init__(self, groups: RowGroups, *, columns: Sequence[str]) -> None:
        self.groups = groups
        self._columns = list(columns)
        self._footer_bytes = functools.lru_cache(FOOTERS_KEPT)(self._read_footer)
        self._footer = functools.lru_cache(PARSED_FOOTERS_KEPT)(self._parse_footer)

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this machine."""
        return self.groups.files[0].is_local

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
        """As `retried`; the error names the row group."""
        try:
            return retried(read, file=self.file_of(group))
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(group, error) from error

    def _read(self, group: int) -> pa.Table:
        with self._open(group) as parquet:
            # not in Arrow's threads: whole row groups are read side by side already
            return parquet.read_row_group(
                int(self.groups.index_G[group]), columns=self._columns, use_threads=False
            )

    def _open(self, group: int, *, buffer_bytes: int = 0) -> pq.ParquetFile:
        file_index = int(self.groups.file_G[group])
        file = self.groups.files[file_index]
        # every time: a footer is read once for each time that its file was written; and first: here
        # an error tells whether the storage or the file is at fault
        num_bytes, written_at = file.version()
        if num_bytes != self.groups.num_bytes[file_index]:
            raise _changed(file)
        footer = self._footer(file_index, written_at)
        return open_parquet(
            file,
            metadata=footer,
            read_dictionary=self._strings(footer),
            buffer_bytes=buffer_bytes,
        )

    def _parse_footer(self, file_index: int, written_at: int | None) -> pq.FileMetaData:
        return pq.read_metadata(pa.BufferReader(self._footer_bytes(file_index, written_at)))

    def _read_footer(self, file_index: int, _written_at: int | None) -> pa.Buffer:
        file = self.groups.files[file_index]
        with open_parquet(file) as parquet:
            content = footer_bytes(parquet.metadata)
        num_bytes = self.groups.num_bytes[file_index]
        if footer_digest(content, num_bytes=num_bytes) != self.groups.digests[file_index]:
            raise _changed(file)
        return content

    def _strings(self, footer: pq.FileMetaData) -> list[str]:
        """Paths of the columns that hold strings."""
        columns = (footer.schema.column(index) for index in range(footer.num_columns))
        return [
            column.path
            for column in columns
            if column.path.partition(".")[0] in self._columns
            and column.logical_type.type == "STRING"
        ]

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
