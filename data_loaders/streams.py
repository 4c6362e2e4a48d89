"""Which rows each rank reads at each step: a pure function of integers.

The row groups of an epoch, in an order drawn from the seed, form one sequence of N rows. It is cut
into V virtual streams of equal length (to one row), and each step takes the next few rows of every
stream:

    stream 0 | stream 1 | ... | stream V-1       the epoch's rows, cut by V-1 positions
    b_0        b_1              b_(V-1)          rows a step takes; they sum to the batch size

A rank owns the streams with `v % world_size == rank`. So a step's examples are the same set at
every world size that divides V, a position in the log is two integers (epoch, step), and all ranks
end at the same step. Only the last step is shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_loaders.errors import InputError
from data_loaders.hashing import shuffled


@dataclass(frozen=True)
class Cursor:
    """A position in the log: `step` steps of epoch `epoch` are behind it."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` (exclusive) of a row group, counted in the group's order of this
    epoch.
    """

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class EpochPlan:
    """The order of one epoch.

    Attributes:
        num_rows_G: int64 (G,), rows of each row group; 0 is allowed.
        num_streams: V, any number; streams beyond the batch size stay empty.
        batch_size: examples per step over all ranks.
        seed: of the shuffle; None reads the log in its own order.
        epoch: makes another order of the same seed.
    """

    num_rows_G: np.ndarray
    num_streams: int
    batch_size: int
    seed: int | None
    epoch: int = 0

    @cached_property
    def order_G(self) -> np.ndarray:
        """int64 (G,): the row groups in this epoch's order."""
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

    def pieces(self, *, stream: int, first_step: int, num_steps: int) -> list[Piece]:
        """The rows of one stream in steps `first_step` to `first_step + num_steps`, in order."""
        start, end = int(self.cuts_V[stream]), int(self.cuts_V[stream + 1])
        per_step = int(self.rows_per_step_V[stream])
        first = min(start + first_step * per_step, end)
        last = min(start + (first_step + num_steps) * per_step, end)
        pieces = []
        position = int(np.searchsorted(self._group_ends, first, side="right"))
        while first < last:
            group = int(self.order_G[position])
            offset = int(self._group_ends[position]) - int(self.num_rows_G[group])
            stop = min(last, int(self._group_ends[position]))
            if stop > first:
                pieces.append(Piece(group=group, start=first - offset, stop=stop - offset))
            first, position = stop, position + 1
        return pieces

    def num_examples(self, *, rank: int, world_size: int, step: int) -> int:
        """Examples that a rank has in a step; the last step may leave some ranks with none."""
        own = slice(rank, None, world_size)
        rows_V, per_step_V = np.diff(self.cuts_V)[own], self.rows_per_step_V[own]
        return int(np.clip(rows_V - step * per_step_V, 0, per_step_V).sum())

    def padded_size(self, *, world_size: int, step: int) -> int:
        """The largest `num_examples` of any rank in a step: the batch's size on every rank."""
        sizes = (
            self.num_examples(rank=rank, world_size=world_size, step=step)
            for rank in range(world_size)
        )
        return max(sizes)

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
