"""Streams a split of the log to one rank, batch by batch, from any position."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping

import numpy as np

from data_loaders.batch import InteractionBatch
from data_loaders.collate import Layout, Part, collate
from data_loaders.config import DataConfig
from data_loaders.dataset import Split
from data_loaders.errors import InputError
from data_loaders.hashing import shuffled
from data_loaders.negatives import NegativeSampler
from data_loaders.placement import in_order
from data_loaders.prefetch import Prefetch
from data_loaders.reader import LogReader
from data_loaders.row_groups import list_row_groups, read_columns
from data_loaders.skipping import Skipped
from data_loaders.streams import ORDER_VERSION, Cursor, EpochPlan, Window, check_world_size
from data_loaders.transforms import Encoder
from data_loaders.windows import WindowReader, WindowRows
from data_loaders.windows_ahead import WindowsAhead

# Rows are put into batches for several steps at once: enough that moving them outweighs Python.
ROWS_PER_ROUND = 32768

# A window without a shuffle: small ones are read side by side.
UNSHUFFLED_WINDOW_ROWS = 8192


class InteractionLoader:
    """Reads the row groups that this rank's streams need, and no others.

    Args:
        config: the recipe's section `data`.
        split: which part of the data set.
        num_rows: rows of the embedding table of each id feature.
        seed: of the shuffle of row groups and of the rows in a window; None keeps the log's order.
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
        self._negatives = NegativeSampler(config, num_rows=num_rows) if config.negatives else None
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._layout = Layout.of(config)
        # a run asks at every step for the one that it is in; the next may be read ahead
        self._plan = functools.lru_cache(2)(self._new_plan)
        groups = list_row_groups(config, split=split)
        self._reader = LogReader(groups, columns=read_columns(config))
        self.num_examples = groups.num_examples
        self.files = groups.identities
        self.steps_per_epoch = self.plan(epoch=0).num_steps
        order = (ORDER_VERSION, self._num_streams, config.shuffle_rows, config.batch_size, seed)
        drawn_from = () if self._negatives is None else (self._negatives.fingerprint,)
        self.fingerprint = "-".join(map(str, (groups.fingerprint, *order, *drawn_from)))
        self._load_compiled_loops()

    def plan(self, *, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        return self._plan(epoch)

    def _new_plan(self, epoch: int) -> EpochPlan:
        return EpochPlan(
            num_rows_G=self._reader.groups.num_rows_G,
            num_streams=self._num_streams,
            batch_size=self._config.batch_size,
            seed=self._seed,
            window_rows=(
                UNSHUFFLED_WINDOW_ROWS
                if self._seed is None
                else self._config.shuffle_rows // self._num_streams
            ),
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
        rounds = self._rounds(start=start, num_steps=num_steps)
        return Prefetch(
            ([batch.pin_memory() for batch in batches] for batches in rounds)
            if pin_memory
            else rounds,
            max_bytes=self._config.prefetch_bytes,
            num_bytes=lambda batch: batch.num_bytes,
        )

    def _load_compiled_loops(self) -> None:
        """Compiles them, or loads what was compiled, now: not while the first batch is awaited."""
        try:
            rows = self._encoder.encode(self._reader.no_rows())
        except InputError:  # raised again, or skipped, where it stands in the log
            return
        rows = in_order([(rows, shuffled(0, key=(0,)))], num_rows=0)
        part = Part(rows=rows, first=0, is_given_R=np.ones(0, bool), first_place=0, rows_per_step=1)
        collate([part], layout=self._layout, padded_sizes=[1], cursors=[Cursor()])

    def _rounds(self, *, start: Cursor, num_steps: int) -> Iterator[list[InteractionBatch]]:
        epoch, step = start.epoch, start.step
        # what was left out when the log was listed is told once in a run
        untold = self._reader.groups.skipped if self._rank == 0 and start == Cursor() else ()
        while num_steps > 0:
            plan = self.plan(epoch=epoch)
            steps = min(plan.num_steps - step, num_steps)
            for batches in self._epoch_rounds(plan, first_step=step, num_steps=steps):
                batches[0].skipped, untold = (*untold, *batches[0].skipped), ()
                yield batches
            num_steps -= steps
            epoch, step = epoch + 1, 0

    def _epoch_rounds(
        self, plan: EpochPlan, *, first_step: int, num_steps: int
    ) -> Iterator[list[InteractionBatch]]:
        """Steps of one epoch, a round of several steps at a time."""
        streams = [
            stream
            for stream in range(self._rank, self._num_streams, self._world_size)
            if plan.rows_per_step_V[stream]
        ]
        reader = WindowReader(
            plan,
            streams=streams,
            first_step=first_step,
            reader=self._reader,
            encoder=self._encoder,
            config=self._config,
            negatives=self._negatives,
        )
        windows = WindowsAhead(plan, streams=streams, first_step=first_step, reader=reader)
        try:
            yield from self._made_of(windows, plan, first_step=first_step, num_steps=num_steps)
        finally:
            windows.close()

    def _made_of(
        self, windows: WindowsAhead, plan: EpochPlan, *, first_step: int, num_steps: int
    ) -> Iterator[list[InteractionBatch]]:
        held: list[WindowRows] = []
        size = self._config.rows_per_example
        for steps in self._round_steps(plan, range(first_step, first_step + num_steps)):
            taken = list(windows.before(steps.stop))
            held = sorted(held + taken, key=lambda rows: (rows.window.stream, rows.window.start))
            parts = [
                part for rows in held for part in _parts(rows, plan=plan, steps=steps, size=size)
            ]
            sizes = plan.padded_sizes(world_size=self._world_size, steps=steps)
            batches = collate(
                parts,
                layout=self._layout,
                padded_sizes=[num_examples * size for num_examples in sizes],
                cursors=[_cursor_behind(plan, step) for step in steps],
            )
            told = _skipped_by_step(taken, plan=plan)
            for step, batch in zip(steps, batches, strict=True):
                batch.skipped = tuple(told[step])
            yield batches
            held = [rows for rows in held if _last_step(rows.window, plan=plan) >= steps.stop]

    def _round_steps(self, plan: EpochPlan, steps: range) -> Iterator[range]:
        """Steps that are put together at once: few at first, so that training starts soon."""
        rows_per_step = plan.batch_size * self._config.rows_per_example
        most = max(1, ROWS_PER_ROUND * self._world_size // rows_per_step)
        start, size = steps.start, 1
        while start < steps.stop:
            yield range(start, min(start + size, steps.stop))
            start, size = start + size, min(2 * size, most)


def _parts(rows: WindowRows, *, plan: EpochPlan, steps: range, size: int) -> Iterator[Part]:
    """The rows of a window that some steps take, if any; `size` of them for each log row."""
    window, per_step = rows.window, int(plan.rows_per_step_V[rows.window.stream])
    begin = steps.start * per_step
    first, stop = max(begin, window.start), min(steps.stop * per_step, window.stop)
    if first < stop:
        yield Part(
            rows=rows.rows,
            first=(first - window.start) * size,
            is_given_R=rows.is_given_R[
                (first - window.start) * size : (stop - window.start) * size
            ],
            first_place=(first - begin) * size,
            rows_per_step=per_step * size,
        )


def _last_step(window: Window, *, plan: EpochPlan) -> int:
    return (window.stop - 1) // int(plan.rows_per_step_V[window.stream])


def _cursor_behind(plan: EpochPlan, step: int) -> Cursor:
    is_last = step + 1 == plan.num_steps
    return Cursor(plan.epoch + 1, 0) if is_last else Cursor(plan.epoch, step + 1)


def _skipped_by_step(taken: list[WindowRows], *, plan: EpochPlan) -> dict[int, list[Skipped]]:
    """What windows left out, told by the step that takes their first row, so that reading on from
    any later step does not tell it again.
    """
    told: dict[int, list[Skipped]] = collections.defaultdict(list)
    for rows in taken:
        told[rows.window.start // int(plan.rows_per_step_V[rows.window.stream])] += rows.skipped
    return told
