"""What a log knew before each of its rows: sums and lists over earlier events of the same group.

An event counts for a row if it belongs to the same group (a user, a video, a user on a day) and its
moment is strictly smaller: never the row itself, nothing at the same moment, nothing later.

Shape legend: R rows that ask, E events that are known, sorted by group and moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Past:
    """For each row, the range of its earlier events.

    events    u1@3  u1@5  u1@5  u2@4          row u1@5: first 0, stop 1
    position  0     1     2     3             row u1@9: first 0, stop 3

    Attributes:
        order: int64 (E,), the events' indices by group and moment; ties keep their order.
        first: int64 (R,), position of the first event of the row's group.
        stop: int64 (R,), position behind the last event strictly earlier than the row.
    """

    order: np.ndarray
    first: np.ndarray
    stop: np.ndarray

    @classmethod
    def of(
        cls,
        *,
        events: tuple[np.ndarray, np.ndarray],
        rows: tuple[np.ndarray, np.ndarray],
    ) -> Past:
        """Groups and moments, both non-negative int64, of the events and of the rows."""
        (event_groups, event_moments), (row_groups, row_moments) = events, rows
        span = 1 + int(max(event_moments.max(initial=0), row_moments.max(initial=0)))
        num_groups = 1 + int(max(event_groups.max(initial=0), row_groups.max(initial=0)))
        assert span * num_groups < 2**63, "group and moment do not fit into one key"
        keys_E = event_groups * span + event_moments
        order = np.argsort(keys_E, kind="stable")
        sorted_E = keys_E[order]
        return cls(
            order=order,
            first=np.searchsorted(sorted_E, row_groups * span, side="left"),
            stop=np.searchsorted(sorted_E, row_groups * span + row_moments, side="left"),
        )

    @property
    def counts(self) -> np.ndarray:
        """int64 (R,): number of earlier events."""
        return self.stop - self.first

    def sums(self, values_E: np.ndarray) -> np.ndarray:
        """float64 (R,): the sum of the earlier events' values, given in the events' own order."""
        running = np.concatenate([[0.0], np.cumsum(values_E[self.order], dtype=np.float64)])
        return running[self.stop] - running[self.first]

    def last(self, values_E: np.ndarray, *, otherwise: float) -> np.ndarray:
        """The value of the latest earlier event; `otherwise` where there is none."""
        has_any = self.counts > 0
        latest = self.order[np.maximum(self.stop - 1, 0)] if len(self.order) else 0
        return np.where(has_any, values_E[latest] if len(values_E) else otherwise, otherwise)

    def lists(self, values_E: np.ndarray, *, max_length: int) -> pa.ListArray:
        """The values of the latest `max_length` earlier events, latest last."""
        starts_R = np.maximum(self.first, self.stop - max_length)
        offsets = np.concatenate([[0], np.cumsum(self.stop - starts_R)])
        positions = np.repeat(starts_R - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
        values = values_E[self.order[positions]]
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
