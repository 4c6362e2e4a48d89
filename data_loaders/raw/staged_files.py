"""The files that the steps of `polytower prepare` hand to each other, below ROOT/_staging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_loaders.dataset import RowGroupWriter
from data_loaders.prepare_config import PrepareConfig
from data_loaders.raw.cells import ARROW_TYPES
from data_loaders.raw.cleaning import REJECTED_SCHEMA
from data_loaders.raw.columns import RawColumn
from data_loaders.raw.rows import BLOCK_ROWS
from data_loaders.storage import Location, locate

# Keys in memory before they are written.
KEYS_AT_ONCE = 2**21

KEYS_SCHEMA = pa.schema(
    {"first": pa.uint64(), "second": pa.uint64(), "row": pa.int64(), "score": pa.float64()}
)


@dataclass(frozen=True)
class Job:
    """What all steps know.

    Attributes:
        staging: URI of a folder for files on the way.
        rejected: URI of the folder of rejected rows.
        num_ranges: hash ranges in which duplicates are looked for.
        block_bytes: of text, read at once.
    """

    columns: tuple[RawColumn, ...]
    prepare: PrepareConfig
    staging: str
    rejected: str
    num_ranges: int
    block_bytes: int

    def staged(self, name: str) -> Location:
        return locate(self.staging).child(name)

    @property
    def schema(self) -> pa.Schema:
        """Of the data set."""
        fields = {item.name: ARROW_TYPES[item.type] for item in self.columns if item.is_written}
        return pa.schema(fields)


class KeyWriter:
    """Keys of a part, written now and then: a file with a row group per hash range."""

    def __init__(self, part: int, *, job: Job) -> None:
        self.num_rows = self.num_files = 0
        self._part, self._job = part, job
        self._held: list[pa.Table] = []
        self._num_held = 0

    def add(self, keys_RK: np.ndarray, *, scores: pa.ChunkedArray) -> None:
        rows = np.arange(self.num_rows, self.num_rows + len(keys_RK))
        columns = [keys_RK[:, 0], keys_RK[:, 1], rows, scores]
        self._held.append(pa.table(columns, schema=KEYS_SCHEMA))
        self.num_rows += len(keys_RK)
        self._num_held += len(keys_RK)
        if self._num_held >= KEYS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._num_held:
            return
        keys = pa.concat_tables(self._held)
        range_R = keys["second"].to_numpy() % np.uint64(self._job.num_ranges)
        target = self._job.staged(key_file(self._part, self.num_files))
        with target.reporting("written"):
            target.parent_folder()
            with pq.ParquetWriter(target.path, KEYS_SCHEMA, filesystem=target.filesystem) as writer:
                for index in range(self._job.num_ranges):
                    selected = keys.filter(pa.array(range_R == index))
                    writer.write_table(selected, row_group_size=max(1, selected.num_rows))
        self.num_files += 1
        self._held, self._num_held = [], 0


class RejectedRows:
    """A file that is only there if there are such rows."""

    def __init__(self, target: Location) -> None:
        self._target = target
        self._writer: RowGroupWriter | None = None

    def write(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        if self._writer is None:
            self._writer = RowGroupWriter(
                self._target, schema=REJECTED_SCHEMA, rows_per_row_group=BLOCK_ROWS
            )
        self._writer.write(rows)

    def __enter__(self) -> RejectedRows:
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if self._writer is not None:
            self._writer.__exit__(error, *rest)


def clean_file(part: int) -> str:
    return f"clean-{part:05d}.parquet"


def splits_file(part: int) -> str:
    return f"splits-{part:05d}.parquet"


def key_file(part: int, number: int) -> str:
    return f"keys-{part:05d}-{number:05d}.parquet"


def duplicates_file(index: int) -> str:
    return f"duplicates-{index:05d}.parquet"
