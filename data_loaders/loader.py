"""Streams a split of the log to one rank, batch by batch, from any position."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from data_loaders.batch import InteractionBatch, collate, id_feature_names
from data_loaders.config import DataConfig
from data_loaders.dataset import Split, open_parquet
from data_loaders.errors import SchemaError, StorageError
from data_loaders.hashing import shuffled
from data_loaders.prefetch import Prefetch
from data_loaders.row_groups import list_row_groups, read_columns
from data_loaders.rows import EncodedRows, concat_rows
from data_loaders.storage import first_line
from data_loaders.streams import Cursor, EpochPlan, Piece, check_world_size
from data_loaders.transforms import Encoder

# Rows are gathered from their row groups for several steps at once: enough that numpy's work
# outweighs Python's.
ROWS_PER_ROUND = 16384

# Row groups read at once: object stores are far away, and decoding leaves Python alone.
READ_THREADS = 8


class InteractionLoader:
    """Reads the row groups that this rank's streams need, and no others.

    Args:
        config: the recipe's section `data`.
        split: which part of the data set.
        num_rows: rows of the embedding table of each id feature.
        seed: of the shuffle of row groups and of the rows in each; None keeps the log's order.
        rank: of this process, 0 to world_size - 1.
        world_size: ranks that share the log.

    Raises:
        InputError: the data set cannot serve the recipe or this number of ranks.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        split: Split,
        num_rows: Mapping[str, int],
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        # Without a shuffle the order is of no interest: as many streams as ranks keep the fewest
        # row groups open.
        self._num_streams = config.num_streams if seed is not None else world_size
        check_world_size(num_streams=self._num_streams, world_size=world_size)
        self._config = config
        self._encoder = Encoder(config, num_rows=num_rows)
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._keys = id_feature_names(config)
        self._columns = read_columns(config)
        self._groups = list_row_groups(config, split=split)
        self.num_examples = self._groups.num_examples
        self.steps_per_epoch = self.plan(epoch=0).num_steps
        self.fingerprint = (
            f"{self._groups.fingerprint}-{self._num_streams}-{config.batch_size}-{seed}"
        )

    def plan(self, *, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        return EpochPlan(
            num_rows_G=self._groups.num_rows_G,
            num_streams=self._num_streams,
            batch_size=self._config.batch_size,
            seed=self._seed,
            epoch=epoch,
        )

    def batches(
        self, *, start: Cursor, num_steps: int, pin_memory: bool = False
    ) -> Prefetch[InteractionBatch]:
        """This rank's part of `num_steps` steps from `start`, read ahead by a thread.

        Args:
            start: the position to begin at.
            num_steps: to read, over as many epochs as that takes.
            pin_memory: where the GPU copies from without waiting.

        Raises:
            StorageError: a file cannot be read (named).
            SchemaError: a value is impossible (file and column named).
        """
        batches = self._batches(start=start, num_steps=num_steps)
        return Prefetch(
            (batch.pin_memory() for batch in batches) if pin_memory else batches,
            max_bytes=self._config.prefetch_bytes,
            num_bytes=lambda batch: batch.num_bytes,
        )

    def _batches(self, *, start: Cursor, num_steps: int) -> Iterator[InteractionBatch]:
        epoch, step = start.epoch, start.step
        while num_steps > 0:
            plan = self.plan(epoch=epoch)
            steps = min(plan.num_steps - step, num_steps)
            yield from self._epoch_batches(plan, first_step=step, num_steps=steps)
            num_steps -= steps
            epoch, step = epoch + 1, 0

    def _epoch_batches(
        self, plan: EpochPlan, *, first_step: int, num_steps: int
    ) -> Iterator[InteractionBatch]:
        """Steps of one epoch, a round of several steps at a time."""
        streams = range(self._rank, self._num_streams, self._world_size)
        last_step = first_step + num_steps
        per_round = max(1, ROWS_PER_ROUND * self._world_size // plan.batch_size)
        cache = _GroupCache(self, seed=self._seed, epoch=plan.epoch)
        cache.expect(
            piece
            for stream in streams
            for piece in plan.pieces(stream=stream, first_step=first_step, num_steps=num_steps)
        )
        for step in range(first_step, last_step, per_round):
            steps = min(per_round, last_step - step)
            pieces = [
                (stream, piece)
                for stream in streams
                for piece in plan.pieces(stream=stream, first_step=step, num_steps=steps)
            ]
            yield from self._round_batches(plan, cache, pieces, first_step=step, num_steps=steps)

    def _round_batches(
        self,
        plan: EpochPlan,
        cache: _GroupCache,
        pieces: list[tuple[int, Piece]],
        *,
        first_step: int,
        num_steps: int,
    ) -> Iterator[InteractionBatch]:
        cache.load(piece.group for _, piece in pieces)
        # rows of the round, stream by stream; then a stable sort by step puts each step's rows
        # together
        parts = [cache.rows(piece) for _, piece in pieces]
        rows = concat_rows(parts) if parts else self.no_rows
        taken: dict[int, int] = collections.defaultdict(int)
        step_of_row = []
        for stream, piece in pieces:
            count = piece.stop - piece.start
            positions = taken[stream] + np.arange(count)
            step_of_row.append(positions // plan.rows_per_step_V[stream])
            taken[stream] += count
        steps_R = np.concatenate(step_of_row) if step_of_row else np.zeros(0, np.int64)
        order = np.argsort(steps_R, kind="stable")
        ends = np.searchsorted(steps_R[order], np.arange(num_steps), side="right")
        start = 0
        for index, end in enumerate(ends):
            step = first_step + index
            is_last = step + 1 == plan.num_steps
            yield collate(
                rows.take(order[start:end]),
                keys=self._keys,
                padded_size=plan.padded_size(world_size=self._world_size, step=step),
                cursor=Cursor(plan.epoch + 1, 0) if is_last else Cursor(plan.epoch, step + 1),
            )
            start = int(end)

    @property
    def no_rows(self) -> EncodedRows:
        """Zero rows with the right columns, for a rank whose streams have ended."""
        return self.read(0).take(np.zeros(0, np.int64))

    def read(self, group: int) -> EncodedRows:
        """Reads and encodes one row group, in the file's order.

        Raises:
            StorageError: the file cannot be read (named).
            SchemaError: a value is impossible (file and column named).
        """
        file = self._groups.files[self._groups.file_G[group]]
        index = int(self._groups.index_G[group])
        try:
            with open_parquet(file) as parquet:
                table = parquet.read_row_group(index, columns=self._columns)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"{file.uri}: row group {index} cannot be read ({first_line(error)}); "
                "the file is damaged or was changed: write it again"
            ) from error
        if table.num_rows != self._groups.num_rows_G[group]:
            raise StorageError(
                f"{file.uri}: row group {index} has {table.num_rows} rows and had "
                f"{self._groups.num_rows_G[group]} when the run began; "
                "a log must not change under a run"
            )
        try:
            return self._encoder.encode(table)
        except SchemaError as error:
            raise SchemaError(f"{file.uri}: {error}") from error


class _GroupCache:
    """Row groups in this epoch's row order, kept as long as a piece of them is still to come."""

    def __init__(self, loader: InteractionLoader, *, seed: int | None, epoch: int) -> None:
        self._loader = loader
        self._seed = seed
        self._epoch = epoch
        self._rows_left: collections.Counter[int] = collections.Counter()
        self._held: dict[int, EncodedRows] = {}

    def expect(self, pieces: Iterator[Piece]) -> None:
        """Tells which pieces will be asked for."""
        for piece in pieces:
            self._rows_left[piece.group] += piece.stop - piece.start

    def load(self, groups: Iterable[int]) -> None:
        """Reads those that are not held yet, several at once."""
        missing = [group for group in dict.fromkeys(groups) if group not in self._held]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            self._held.update(zip(missing, pool.map(self._read, missing), strict=True))

    def _read(self, group: int) -> EncodedRows:
        rows = self._loader.read(group)
        if self._seed is None:
            return rows
        return rows.take(shuffled(len(rows), key=(self._seed, self._epoch, group)))

    def rows(self, piece: Piece) -> EncodedRows:
        """The rows of a piece whose row group is loaded."""
        rows = self._held[piece.group].take(np.arange(piece.start, piece.stop))
        self._rows_left[piece.group] -= len(rows)
        if not self._rows_left[piece.group]:
            del self._held[piece.group]
        return rows
