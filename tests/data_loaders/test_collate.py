"""Batches, against a loop over their rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.batch import InteractionBatch
from data_loaders.collate import Layout, Part, collate
from data_loaders.placement import in_order
from data_loaders.rows import EncodedRows, Ragged
from data_loaders.streams import Cursor


@dataclass(frozen=True)
class Row:
    """An example, spelled out: ids of each feature, their weights, numbers, labels."""

    ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    dense: tuple[float, ...]
    labels: tuple[float, ...]


def spelled_out(rows: EncodedRows) -> list[Row]:
    """Every row of the columns."""
    found = []
    for row in range(len(rows)):
        ids = [(int(column[row]),) for column in rows.ids_FR]
        weights = [(1.0,) for _ in rows.ids_FR]
        for ragged in rows.lists:
            own = slice(ragged.offsets_R[row], ragged.offsets_R[row + 1])
            ids.append(tuple(ragged.values_N[own].tolist()))
            given = np.ones(len(ids[-1])) if ragged.weights_N is None else ragged.weights_N[own]
            weights.append(tuple(given.tolist()))
        dense, labels = rows.dense_DR[:, row].tolist(), rows.labels_TR[:, row].tolist()
        found.append(Row(tuple(ids), tuple(weights), tuple(dense), tuple(labels)))
    return found


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Up to 3 columns of each kind, none included."""
    num_ids, num_lists = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return Layout(
        keys=tuple(f"f{index}" for index in range(num_ids + num_lists)),
        num_ids=num_ids,
        num_dense=draw(st.integers(0, 3)),
        num_tasks=draw(st.integers(1, 3)),
        is_weighted=num_lists > 0 and draw(st.booleans()),
    )


# Ids of tables of so many rows, which int32 can count, or not.
TABLE_ROWS = {np.int32: 2**31, np.int64: 2**40}


def draw_rows(
    random: np.random.Generator, *, num_rows: int, layout: Layout, dtype: type = np.int32
) -> EncodedRows:
    """Rows of this layout; only the first list has weights."""
    lists, highest = [], TABLE_ROWS[dtype]
    for index in range(layout.num_lists):
        offsets = np.concatenate([[0], np.cumsum(random.integers(0, 4, num_rows))])
        has_weights = layout.is_weighted and index == 0
        weights = random.random(offsets[-1], np.float32) if has_weights else None
        values = random.integers(0, highest, offsets[-1], dtype)
        lists.append(Ragged(values_N=values, offsets_R=offsets, weights_N=weights))
    return EncodedRows(
        ids_FR=random.integers(0, highest, (layout.num_ids, num_rows), dtype),
        lists=tuple(lists),
        dense_DR=random.random((layout.num_dense, num_rows), np.float32),
        labels_TR=random.random((layout.num_tasks, num_rows), np.float32),
    )


def check_batch(batch: InteractionBatch, rows: list[Row], *, size: int, layout: Layout) -> None:
    """Feature-major ids; examples first, then padding without ids, labels or weight."""
    lengths, values, weights = [], [], []
    for feature in range(len(layout.keys)):
        for row in range(size):
            ids = rows[row].ids[feature] if row < len(rows) else ()
            lengths.append(len(ids))
            values += ids
            weights += rows[row].weights[feature] if row < len(rows) else ()
    assert batch.ids.keys() == list(layout.keys)
    assert batch.ids.stride() == size
    assert batch.ids.lengths().tolist() == lengths
    assert batch.ids.values().tolist() == values
    assert batch.ids.values().dtype == torch.int64
    assert batch.ids.lengths().dtype == torch.int32
    if layout.is_weighted:
        assert batch.ids.weights().tolist() == weights
        assert batch.ids.weights().dtype == torch.float32
    else:
        assert batch.ids.weights_or_none() is None
    num_padding = size - len(rows)
    assert batch.weights_B.tolist() == [1.0] * len(rows) + [0.0] * num_padding
    assert batch.dense_BD.tolist() == [list(row.dense) for row in rows] + (
        [[0.0] * layout.num_dense] * num_padding
    )
    assert batch.labels_BT[: len(rows)].tolist() == [list(row.labels) for row in rows]
    assert batch.labels_BT[len(rows) :].isnan().all()
    assert batch.labels_BT.shape == (size, layout.num_tasks)
    for tensor in (batch.weights_B, batch.dense_BD, batch.labels_BT):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()


@settings(deadline=None)
@given(
    layouts(),
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 4),
    st.integers(0, 2),
    st.sampled_from(list(TABLE_ROWS)),
    st.randoms(use_true_random=False),
)
def test_collate_is_the_loop_over_streams_and_rows(
    layout: Layout,
    rows_per_step: list[int],
    num_steps: int,
    num_padding: int,
    dtype: type,
    random: st.randoms,
) -> None:
    """Each step takes its rows of each stream, in as many windows as there are, but for those that
    were skipped.
    """
    draw = np.random.default_rng(random.randrange(100))
    parts, expected = [], [[] for _ in range(num_steps)]
    for per_step in rows_per_step:
        cut = int(draw.integers(0, per_step * num_steps + 1))  # two windows of this stream
        for first_place, stop_place in ((0, cut), (cut, per_step * num_steps)):
            before = int(draw.integers(0, 3))
            num_rows = before + stop_place - first_place
            rows = draw_rows(draw, num_rows=num_rows, layout=layout, dtype=dtype)
            is_given_R = draw.random(stop_place - first_place) < 0.8
            parts.append(
                Part(
                    rows=rows,
                    first=before,
                    is_given_R=is_given_R,
                    first_place=first_place,
                    rows_per_step=per_step,
                )
            )
            for offset, row in enumerate(spelled_out(rows)[before:]):
                if is_given_R[offset]:
                    expected[(first_place + offset) // per_step].append(row)
    sizes = [sum(rows_per_step) + num_padding] * num_steps
    sizes[-1] = max(len(expected[-1]), sizes[-1] - 1)  # the last step may be a smaller batch
    cursors = [Cursor(1, step) for step in range(num_steps)]
    batches = collate(parts, layout=layout, padded_sizes=sizes, cursors=cursors)
    assert [batch.cursor for batch in batches] == cursors
    for batch, rows, size in zip(batches, expected, sizes, strict=True):
        check_batch(batch, rows, size=size, layout=layout)


@settings(deadline=None)
@given(layouts(), st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_rows_in_order_are_the_rows_of_all_parts(
    layout: Layout, sizes: list[int], seed: int
) -> None:
    """Each at its place, in every column."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(sum(sizes)).astype(np.uint32)
    places = np.split(order, np.cumsum(sizes)[:-1])
    parts = [draw_rows(draw, num_rows=size, layout=layout) for size in sizes]
    expected: dict[int, Row] = {}
    for rows, places_R in zip(parts, places, strict=True):
        expected |= dict(zip(places_R.tolist(), spelled_out(rows), strict=True))
    found = in_order(list(zip(parts, places, strict=True)), num_rows=sum(sizes))
    assert spelled_out(found) == [expected[place] for place in range(sum(sizes))]
