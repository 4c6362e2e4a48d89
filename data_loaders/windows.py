"""Makes the windows of a rank's streams.

Shape legend: R rows.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.errors import SchemaError, StorageError, UnreachableError, WrongRowsError
from data_loaders.id_dropout import drop_ids
from data_loaders.negatives import KeyedRows, NegativeSampler
from data_loaders.placement import in_order
from data_loaders.reader import LogReader
from data_loaders.rows import EncodedRows
from data_loaders.skipping import Skipped
from data_loaders.streams import MAX_PIECE_ROWS, EpochPlan, Piece, Window
from data_loaders.transforms import Encoder

# Row groups per stream from which on a log is long.
SHORT_LOG_GROUPS = 2

Encoded = TypeVar("Encoded")


@dataclass(frozen=True)
class WindowRows:
    """A window that has been read.

    Attributes:
        window: what it is.
        rows: in the order of training, each with its negatives behind it.
        is_given_R: bool, False for a row that was skipped, in whose place is anything.
        skipped: what was.
    """

    window: Window
    rows: EncodedRows
    is_given_R: np.ndarray
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Placed:
    """R rows of a window as they were read.

    Attributes:
        piece: where they lie in the log.
        table: their columns.
        place_R: uint32, of each in the window.
    """

    piece: Piece
    table: pa.Table
    place_R: np.ndarray


class WindowReader:
    """Reads, encodes and shuffles windows; several threads may share one.

    Args:
        plan: of the epoch.
        streams: of this rank.
        first_step: where reading begins.
        reader: of the log.
        encoder: of its columns.
        config: `on_error`, and the features' dropout.
        negatives: draws items, if the recipe asks for them.
    """

    def __init__(
        self,
        plan: EpochPlan,
        *,
        streams: Sequence[int],
        first_step: int,
        reader: LogReader,
        encoder: Encoder,
        config: DataConfig,
        negatives: NegativeSampler | None = None,
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._encoder = encoder
        self._config = config
        self._negatives = negatives
        self._has_draws = negatives is not None or any(
            feature.dropout
            for feature in config.features.values()
            if isinstance(feature, IdFeature | IdListFeature)
        )
        self._lock = threading.Lock()
        edges = (plan.edge_groups(stream, first_step=first_step) for stream in streams)
        uses = collections.Counter(group for groups in edges for group in groups)
        # how many streams of this rank are still to read a row group that several share; in a long
        # log such row groups are few, and reading them again costs less than keeping them
        is_short = len(plan.num_rows_G) < SHORT_LOG_GROUPS * plan.num_streams
        self._uses = {group: count for group, count in uses.items() if count > 1 and is_short}
        self._shared: dict[int, Future[pa.Table]] = {}
        self._parts: dict[int, tuple[tuple[int, int], Iterator[pa.Table]]] = {}

    @property
    def is_local(self) -> bool:
        """Whether the log lies on this machine."""
        return self._reader.is_local

    def read(self, window: Window, *, before: Future[WindowRows] | None) -> WindowRows:
        """A window's rows.

        Args:
            before: the stream's window before, if that is being read too.

        Raises:
            StorageError: a file cannot be read (named).
            SchemaError: a value is impossible (file and column named).
        """
        if before is not None and window.pieces[0].start:  # perhaps the next part of a row group
            before.exception()
        places_R = self._plan.places(window)
        skipped: list[Skipped] = []
        placed: list[_Placed] = []
        start = 0
        for piece in window.pieces:
            place_R = places_R[start : start + len(piece)]
            start += len(piece)
            table = self._usable_table(piece, stream=window.stream, skipped=skipped)
            if table is not None:
                placed.append(_Placed(piece, table, place_R))
        make = self._encoded if not self._has_draws else self._encoded_with_draws
        rows, is_given_R = make(placed, num_rows=len(window), skipped=skipped)
        return WindowRows(window=window, rows=rows, is_given_R=is_given_R, skipped=tuple(skipped))

    def _encoded(
        self, placed: Sequence[_Placed], *, num_rows: int, skipped: list[Skipped]
    ) -> tuple[EncodedRows, np.ndarray]:
        """The rows of a window, and bool (R,): which of them can be used."""
        is_given_R = np.zeros(num_rows, bool)
        rows = self._encoder.room(
            [(item.table, item.place_R) for item in placed], num_rows=num_rows
        )
        for item in placed:
            is_usable_R, _ = self._usable(
                item,
                encode=lambda table, place_R: self._encoder.write(table, rows, place_R),
                skipped=skipped,
            )
            is_given_R[item.place_R] = is_usable_R
        return rows, is_given_R

    def _encoded_with_draws(
        self, placed: Sequence[_Placed], *, num_rows: int, skipped: list[Skipped]
    ) -> tuple[EncodedRows, np.ndarray]:
        """As `_encoded`, with negatives behind each row, and ids dropped in both alike."""
        is_given_R = np.zeros(num_rows, bool)
        parts: list[tuple[EncodedRows, np.ndarray]] = []
        for item in placed:
            is_usable_R, rows = self._usable(
                item, encode=lambda table, _: self._encoder.encode(table), skipped=skipped
            )
            is_given_R[item.place_R] = is_usable_R
            if rows is not None:
                key_R = self._plan.row_keys(item.piece)[is_usable_R]
                parts += self._drawn(KeyedRows(rows, key_R, item.place_R[is_usable_R]))
        is_given_R = np.repeat(is_given_R, self._config.rows_per_example)
        if not parts:
            return self._encoder.room([], num_rows=len(is_given_R)), is_given_R
        return in_order(parts, num_rows=len(is_given_R)), is_given_R

    def _drawn(self, examples: KeyedRows) -> Iterator[tuple[EncodedRows, np.ndarray]]:
        """Log rows and their negatives, and their places."""
        kinds = (examples,) if self._negatives is None else self._negatives.grown(examples)
        for kind in kinds:
            rows = kind.rows
            if self._plan.seed is not None:
                rows = drop_ids(rows, config=self._config, key_R=kind.key_R)
            yield rows, kind.place_R

    def _usable_table(
        self, piece: Piece, *, stream: int, skipped: list[Skipped]
    ) -> pa.Table | None:
        """The rows of a piece, if they can be read."""
        uri = self._reader.file_of(piece.group).uri
        try:
            table = self._table(piece, stream=stream)
            if len(table) != len(piece):  # compiled loops go by the plan
                raise StorageError(
                    f"{uri}: a row group has {len(table)} rows where its footer says {len(piece)}; "
                    "the file is damaged: write it again"
                )
        except StorageError as error:
            if self._config.on_error == "fail" or isinstance(error, UnreachableError):
                raise
            skipped.append(Skipped.because(error, uri=uri, num_rows=len(piece)))
            return None
        return table

    def _usable(
        self,
        item: _Placed,
        *,
        encode: Callable[[pa.Table, np.ndarray], Encoded],
        skipped: list[Skipped],
    ) -> tuple[np.ndarray, Encoded | None]:
        """Encodes those rows of a piece that can be used: bool (R,), which those are, and what
        `encode` returns for them, if there are any.
        """
        uri = self._reader.file_of(item.piece.group).uri
        table, is_given_R = item.table, np.ones(len(item.piece), bool)
        while is_given_R.any():  # until no column is at fault any more
            try:
                return is_given_R, encode(table, item.place_R[is_given_R])
            except SchemaError as error:
                if self._config.on_error == "fail":
                    raise SchemaError(f"{uri}: {error}") from error
                is_wrong_R = np.ones(table.num_rows, bool)
                if isinstance(error, WrongRowsError):
                    is_wrong_R = error.is_wrong_R
                num_wrong = int(is_wrong_R.sum())
                skipped.append(Skipped.because(error, uri=uri, num_rows=num_wrong))
                is_given_R[np.flatnonzero(is_given_R)[is_wrong_R]] = False
                table = table.filter(pa.array(~is_wrong_R))
        return is_given_R, None

    def _table(self, piece: Piece, *, stream: int) -> pa.Table:
        if self._reader.groups.num_rows_G[piece.group] <= MAX_PIECE_ROWS:
            return self._whole(piece.group).slice(piece.start, len(piece))
        index, first = divmod(piece.start, MAX_PIECE_ROWS)
        return self._part(piece.group, stream=stream, index=index).slice(first, len(piece))

    def _whole(self, group: int) -> pa.Table:
        """A row group; read once where several streams of this rank share it."""
        with self._lock:
            if group not in self._uses:
                shared, is_mine = None, False
            else:
                is_mine = group not in self._shared
                shared = self._shared.setdefault(group, Future())
                self._uses[group] -= 1
                if not self._uses[group]:
                    del self._uses[group], self._shared[group]
        if shared is None:
            return self._reader.read(group)
        if is_mine:
            try:
                shared.set_result(self._reader.read(group))
            except Exception as error:  # raised in every thread that waits
                shared.set_exception(error)
        return shared.result()

    def _part(self, group: int, *, stream: int, index: int) -> pa.Table:
        """A part of a large row group; a stream asks for one after the other."""
        position, parts = self._parts.pop(stream, (None, None))
        if parts is None or position != (group, index):
            parts = self._reader.parts(group, first_part=index)
        part = next(parts)
        if (index + 1) * MAX_PIECE_ROWS < self._reader.groups.num_rows_G[group]:
            self._parts[stream] = ((group, index + 1), parts)
        return part
