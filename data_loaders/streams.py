"""Which rows each rank reads at each step: a pure function of integers.

The row groups of an epoch, in an order drawn from the seed, form one sequence of N rows. It is cut
into V virtual streams of equal length (to one row), and each step takes the next few rows of every
stream:

    stream 0 | stream 1 | ... | stream V-1       the epoch's rows, cut by V-1 positions
    b_0        b_1              b_(V-1)          rows a step takes; they sum to the batch size

A stream reads a window of several row groups at a time and takes the window's rows in an order of
their own, drawn from the seed:

    stream v:  [group 7, group 3 | group 12, group 0 | ...]     windows of about `window_rows` rows

A rank owns the streams with `v % world_size == rank`. So a step's examples are the same set at
every world size that divides V, a position in the log is two integers (epoch, step), and all ranks
end at the same step. Only the last step is shorter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_loaders.errors import InputError
from data_loaders.hashing import hashed_range, shuffled

# Of a row group read at once; larger ones are read in parts of so many rows. A stream that begins
# in the middle of one decodes what is before it, too: `polytower prepare` writes smaller ones.
MAX_PIECE_ROWS = 65_536

# Said in fingerprints: another order under the same name would lose and double examples.
ORDER_VERSION = 2


@dataclass(frozen=True)
class Cursor:
    """A position in the log: `step` steps of epoch `epoch` are behind it."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` (exclusive) of a row group, counted in the file's order."""

    group: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Window:
    """Rows of a stream that are shuffled together.

    Attributes:
        stream: which one.
        start: position in the stream of the window's first row.
        pieces: where its rows lie, before the shuffle; none is empty.
    """

    stream: int
    start: int
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def stop(self) -> int:
        """Position behind the window's last row."""
        return self.start + sum(len(piece) for piece in self.pieces)


@dataclass(frozen=True)
class EpochPlan:
    """The order of one epoch.

    Attributes:
        num_rows_G: int64 (G,), rows of each row group; 0 is allowed.
        num_streams: V, any number; streams beyond the batch size stay empty.
        batch_size: examples per step over all ranks.
        seed: of the shuffle; None reads the log in its own order.
        window_rows: a stream's window closes with the row group that brings it to this many.
        epoch: makes another order of the same seed.
    """

    num_rows_G: np.ndarray
    num_streams: int
    batch_size: int
    seed: int | None
    window_rows: int = 8192
    epoch: int = 0

    @cached_property
    def order_G(self) -> np.ndarray:
        """int64 or uint32 (G,): the row groups in this epoch's order."""
        num_groups = len(self.num_rows_G)
        if self.seed is None:
            return np.arange(num_groups)
        return shuffled(num_groups, key=(self.seed, self.epoch))

    @cached_property
    def rows_per_step_V(self) -> np.ndarray:
        """int64 (V,): rows that each step takes of each stream."""
        share, rest = divmod(self.batch_size, self.num_streams)
        return share + (np.arange(self.num_streams) < rest)

    @cached_property
    def cuts_V(self) -> np.ndarray:
        """int64 (V + 1,): where each stream starts and ends in the epoch's sequence of rows."""
        filled = np.concatenate([[0], np.cumsum(self.rows_per_step_V)])
        return int(self.num_rows_G.sum()) * filled // self.batch_size

    @cached_property
    def num_steps(self) -> int:
        """Steps until every stream is read to its end."""
        taken = self.rows_per_step_V > 0
        return int(np.max(-(-np.diff(self.cuts_V)[taken] // self.rows_per_step_V[taken])))

    def windows(self, *, stream: int, first_step: int = 0) -> Iterator[Window]:
        """The windows of a stream, from the one that holds its first row of `first_step` on."""
        first_row = first_step * int(self.rows_per_step_V[stream])
        # One piece at first, so that training starts soon; then windows that end at different steps
        # in different streams, which spreads the work over the steps.
        spread = max(1, self.window_rows * (stream + 1) // self.num_streams)
        thresholds = itertools.chain([1, spread], itertools.repeat(self.window_rows))
        enough = next(thresholds)
        start, held, pieces = 0, 0, []
        for piece in self._pieces(stream):
            pieces.append(piece)
            held += len(piece)
            if held >= enough:
                if start + held > first_row:
                    yield Window(stream=stream, start=start, pieces=tuple(pieces))
                start, held, pieces, enough = start + held, 0, [], next(thresholds)
        if held and start + held > first_row:
            yield Window(stream=stream, start=start, pieces=tuple(pieces))

    def places(self, window: Window) -> np.ndarray:
        """uint32 (R,): the place in training of each of a window's rows, piece after piece."""
        if self.seed is None:
            return np.arange(len(window), dtype=np.uint32)
        key = (self.seed, self.epoch, window.stream, window.start)
        return shuffled(len(window), key=key)

    def row_keys(self, piece: Piece) -> np.ndarray:
        """uint64 (R,), of each row of a piece: what is drawn for it in this epoch."""
        key = (self.seed or 0, self.epoch, piece.group)
        return hashed_range(piece.start, piece.stop, key=key)

    def edge_groups(self, stream: int, *, first_step: int = 0) -> set[int]:
        """The first and the last row group that a stream reads from the window of `first_step` on;
        it may share them with other streams.
        """
        first = next(self.windows(stream=stream, first_step=first_step), None)
        if first is None:
            return set()
        last = np.searchsorted(self._group_ends, int(self.cuts_V[stream + 1]) - 1, side="right")
        return {first.pieces[0].group, int(self.order_G[last])}

    def _pieces(self, stream: int) -> Iterator[Piece]:
        """All rows of a stream, before the shuffle of its windows."""
        position, end = int(self.cuts_V[stream]), int(self.cuts_V[stream + 1])
        index = int(np.searchsorted(self._group_ends, position, side="right"))
        while position < end:
            group = int(self.order_G[index])
            offset = int(self._group_ends[index]) - int(self.num_rows_G[group])
            stop = min(end, int(self._group_ends[index]))
            while position < stop:
                part = (position - offset) // MAX_PIECE_ROWS + 1  # parts end where the reader's do
                part_stop = min(stop, offset + part * MAX_PIECE_ROWS)
                yield Piece(group=group, start=position - offset, stop=part_stop - offset)
                position = part_stop
            index += 1

    def num_examples(self, *, rank: int, world_size: int, step: int) -> int:
        """Examples that a rank has in a step; the last step may leave some ranks with none."""
        return int(self._taken_V(step)[rank::world_size].sum())

    def padded_sizes(self, *, world_size: int, steps: range) -> list[int]:
        """The largest `num_examples` of any rank in each step: the batch's size on every rank."""
        num_full = max(0, min(steps.stop, self.num_steps - 1) - steps.start)
        rest = [self._padded_size(world_size, step=step) for step in steps[num_full:]]
        return [self._padded_size(world_size, step=0)] * num_full + rest

    def _padded_size(self, world_size: int, *, step: int) -> int:
        taken_V = self._taken_V(step)
        return max(int(taken_V[rank::world_size].sum()) for rank in range(world_size))

    def _taken_V(self, step: int) -> np.ndarray:
        """Rows that a step takes of each stream."""
        rows_V, per_step_V = np.diff(self.cuts_V), self.rows_per_step_V
        return np.clip(rows_V - step * per_step_V, 0, per_step_V)

    @cached_property
    def _group_ends(self) -> np.ndarray:
        return np.cumsum(self.num_rows_G[self.order_G])


def check_world_size(*, num_streams: int, world_size: int) -> None:
    """Every rank must own as many streams as every other.

    Raises:
        InputError: the world size does not divide the number of streams.
    """
    if num_streams % world_size:
        choices = [str(n) for n in range(1, num_streams + 1) if num_streams % n == 0]
        raise InputError(
            f"{world_size} ranks cannot share data.num_streams={num_streams} streams evenly; "
            f"use {', '.join(choices)} ranks, or set data.num_streams to a multiple of {world_size}"
        )
