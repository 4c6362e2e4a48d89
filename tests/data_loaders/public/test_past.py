"""Sums and lists over strictly earlier events, against a loop over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders.public.past import Past

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def earlier(events: list[tuple[int, int]], row: tuple[int, int]) -> list[int]:
    """Indices of the row's earlier events, by moment, ties in their order."""
    group, moment = row
    found = [index for index, item in enumerate(events) if item[0] == group and item[1] < moment]
    return sorted(found, key=lambda index: events[index][1])


@given(events=PAIRS, rows=PAIRS, max_length=st.integers(1, 4))
def test_only_strictly_earlier_events_of_the_group_count(
    events: list[tuple[int, int]], rows: list[tuple[int, int]], max_length: int
) -> None:
    """Counts, sums, latest value and lists equal those of a loop."""
    past = Past.of(events=columns(events), rows=columns(rows))
    values = np.arange(len(events), dtype=np.float64) ** 2
    expected = [earlier(events, row) for row in rows]
    assert past.counts.tolist() == [len(found) for found in expected]
    assert past.sums(values) == pytest.approx([values[found].sum() for found in expected])
    latest = past.last(values, otherwise=-1)
    assert latest.tolist() == [values[found[-1]] if found else -1 for found in expected]
    lists = past.lists(values, max_length=max_length)
    assert lists.to_pylist() == [values[found[-max_length:]].tolist() for found in expected]
