"""Who reads what: a pure function of integers, tested without files or processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import streams
from data_loaders.errors import InputError
from data_loaders.streams import EpochPlan, Piece, Window, check_world_size

Row = tuple[int, int]  # row group, and row in it


@dataclass(frozen=True)
class Case:
    """A plan and the world sizes that divide its streams."""

    plan: EpochPlan
    world_sizes: list[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Row groups of 0, 1 and more rows; streams fewer and more than the batch has examples."""
    num_rows = draw(st.lists(st.one_of(st.integers(0, 1), st.integers(0, 40)), min_size=1))
    num_rows[draw(st.integers(0, len(num_rows) - 1))] += 1  # a log without rows is refused earlier
    num_streams = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12]))
    plan = EpochPlan(
        num_rows_G=np.array(num_rows),
        num_streams=num_streams,
        batch_size=draw(st.integers(1, 30)),
        seed=draw(st.one_of(st.none(), st.integers(0, 3))),
        window_rows=draw(st.sampled_from([1, 5, 30, 1000])),
        epoch=draw(st.integers(0, 2)),
    )
    return Case(plan, [n for n in range(1, num_streams + 1) if num_streams % n == 0])


@pytest.fixture(autouse=True, scope="module")
def _row_groups_are_read_in_small_parts() -> Iterator[None]:
    """So that the row groups below are cut as those of millions of rows are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "MAX_PIECE_ROWS", 7)
        yield


def window_rows(plan: EpochPlan, window: Window) -> list[Row]:
    """A window's rows in the order of training."""
    read = [(piece.group, row) for piece in window.pieces for row in range(piece.start, piece.stop)]
    ordered: list[Row] = [(-1, -1)] * len(read)
    for row, place in zip(read, plan.places(window), strict=True):
        ordered[place] = row
    return ordered


def rows(plan: EpochPlan, *, streams: range, first_step: int, num_steps: int = 1) -> list[Row]:
    """The rows of some streams in some steps, stream by stream."""
    taken = []
    for stream in streams:
        per_step = int(plan.rows_per_step_V[stream])
        first, stop = first_step * per_step, (first_step + num_steps) * per_step
        for window in plan.windows(stream=stream, first_step=first_step):
            inside = slice(max(0, first - window.start), max(0, stop - window.start))
            taken += window_rows(plan, window)[inside]
    return taken


def own_streams(plan: EpochPlan, *, rank: int, world_size: int) -> range:
    return range(rank, plan.num_streams, world_size)


@settings(deadline=None)
@given(cases())
def test_every_row_of_an_epoch_is_read_exactly_once(case: Case) -> None:
    """At any number of streams, batch size, and sizes of row groups; `num_steps` is the end."""
    plan, everything = case.plan, range(case.plan.num_streams)
    read = [
        row
        for step in range(plan.num_steps)
        for row in rows(plan, streams=everything, first_step=step)
    ]
    wanted = [(group, row) for group, n in enumerate(plan.num_rows_G) for row in range(n)]
    assert sorted(read) == wanted
    assert rows(plan, streams=everything, first_step=plan.num_steps, num_steps=5) == []


@settings(deadline=None)
@given(cases())
def test_a_step_is_the_same_set_of_rows_at_every_world_size(case: Case) -> None:
    """So a run may stop at 8 ranks and go on at 4."""
    plan = case.plan
    for step in range(plan.num_steps):
        expected = sorted(rows(plan, streams=range(plan.num_streams), first_step=step))
        for world_size in case.world_sizes:
            found = [
                row
                for rank in range(world_size)
                for row in rows(
                    plan,
                    streams=own_streams(plan, rank=rank, world_size=world_size),
                    first_step=step,
                )
            ]
            assert sorted(found) == expected


@settings(deadline=None)
@given(cases())
def test_every_step_but_the_last_is_a_full_batch(case: Case) -> None:
    """Over all ranks together; the last has what is left, at least one example."""
    plan = case.plan
    sizes = [
        plan.num_examples(rank=0, world_size=1, step=step) for step in range(plan.num_steps + 2)
    ]
    full, rest = divmod(int(plan.num_rows_G.sum()), plan.batch_size)
    assert sizes == [plan.batch_size] * full + [rest] * (rest > 0) + [0, 0]


@settings(deadline=None)
@given(cases())
def test_num_examples_and_padded_sizes_count_the_pieces(case: Case) -> None:
    """A rank's number of examples is that of its rows; the padded size is the largest of them."""
    plan = case.plan
    for world_size in case.world_sizes:
        padded_sizes = plan.padded_sizes(world_size=world_size, steps=range(plan.num_steps + 1))
        for step, padded_size in enumerate(padded_sizes):
            counts = [
                len(
                    rows(
                        plan,
                        streams=own_streams(plan, rank=rank, world_size=world_size),
                        first_step=step,
                    )
                )
                for rank in range(world_size)
            ]
            assert counts == [
                plan.num_examples(rank=rank, world_size=world_size, step=step)
                for rank in range(world_size)
            ]
            assert padded_size == max(counts)


@settings(deadline=None)
@given(cases(), st.lists(st.integers(0, 60), max_size=4))
def test_a_stream_reads_the_same_however_its_steps_are_split(case: Case, splits: list[int]) -> None:
    """Resuming at any step goes on where an uninterrupted run would be."""
    plan = case.plan
    cuts = sorted({0, plan.num_steps, *(min(cut, plan.num_steps) for cut in splits)})
    for stream in range(plan.num_streams):
        own = range(stream, stream + 1)
        whole = rows(plan, streams=own, first_step=0, num_steps=plan.num_steps)
        parts = [
            row
            for first, stop in itertools.pairwise(cuts)
            for row in rows(plan, streams=own, first_step=first, num_steps=stop - first)
        ]
        assert parts == whole


@settings(deadline=None)
@given(cases())
def test_windows_cut_a_stream_into_whole_pieces_of_row_groups(case: Case) -> None:
    """One behind the other; no piece is empty, longer than what is read at once, or of two parts of
    a row group; a window closes with the piece that makes it large enough.
    """
    plan = case.plan
    for stream in range(plan.num_streams):
        position = 0
        windows = list(plan.windows(stream=stream))
        for index, window in enumerate(windows):
            assert window.start == position
            assert len(window) > 0
            for piece in window.pieces:
                assert 0 <= piece.start < piece.stop <= plan.num_rows_G[piece.group]
                assert piece.start // 7 == (piece.stop - 1) // 7
            assert len(window) - len(window.pieces[-1]) < plan.window_rows
            assert index in (0, 1, len(windows) - 1) or len(window) >= plan.window_rows
            position = window.stop
        assert position == plan.cuts_V[stream + 1] - plan.cuts_V[stream]


@settings(deadline=None)
@given(cases())
def test_only_edge_groups_are_read_by_two_streams(case: Case) -> None:
    """So that a reader knows which row groups are worth keeping."""
    plan = case.plan
    readers: dict[int, set[int]] = {}
    for stream in range(plan.num_streams):
        for window in plan.windows(stream=stream):
            for piece in window.pieces:
                readers.setdefault(piece.group, set()).add(stream)
    for group, by in readers.items():
        for stream in by if len(by) > 1 else ():
            assert group in plan.edge_groups(stream)


@settings(deadline=None)
@given(cases())
def test_without_a_seed_one_stream_reads_the_log_in_its_own_order(case: Case) -> None:
    """Row group by row group, row by row."""
    plan = EpochPlan(
        num_rows_G=case.plan.num_rows_G,
        num_streams=1,
        batch_size=case.plan.batch_size,
        seed=None,
    )
    read = rows(plan, streams=range(1), first_step=0, num_steps=plan.num_steps)
    assert read == sorted(read)


def test_rows_are_shuffled_over_a_window_of_several_row_groups() -> None:
    """Those of a row group do not stay together, and each window has an order of its own."""
    plan = EpochPlan(num_rows_G=np.full(8, 5), num_streams=1, batch_size=4, seed=0, window_rows=20)
    [_, first, second] = plan.windows(stream=0)
    assert len({piece.group for piece in first.pieces}) == 4
    groups = [group for group, _ in window_rows(plan, first)]
    changes = sum(left != right for left, right in itertools.pairwise(groups))
    assert changes > 8
    assert plan.places(first)[:15].tolist() != plan.places(second).tolist()


def test_row_keys_depend_on_seed_epoch_row_group_and_row_alone() -> None:
    """Whatever window or rank a row comes to."""

    def keys(piece: Piece, *, seed: int = 0, epoch: int = 0) -> list[int]:
        plan = EpochPlan(
            num_rows_G=np.full(2, 9), num_streams=3, batch_size=4, seed=seed, epoch=epoch
        )
        return plan.row_keys(piece).tolist()

    whole = keys(Piece(group=1, start=0, stop=9))
    assert keys(Piece(group=1, start=3, stop=7)) == whole[3:7]
    others = (
        keys(Piece(group=0, start=0, stop=9)),
        keys(Piece(group=1, start=0, stop=9), seed=1),
        keys(Piece(group=1, start=0, stop=9), epoch=1),
    )
    assert len({*whole, *(key for other in others for key in other)}) == 36


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    """The same seed and epoch give the same order; another of either gives another."""

    def order(seed: int, epoch: int) -> tuple[int, ...]:
        plan = EpochPlan(
            num_rows_G=np.ones(40, np.int64), num_streams=1, batch_size=1, seed=seed, epoch=epoch
        )
        return tuple(plan.order_G.tolist())

    assert order(0, 0) == order(0, 0)
    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_a_log_of_a_hundred_billion_rows_does_not_overflow() -> None:
    """Positions are exact beyond 32 bits, and where rows times batch size is large."""
    plan = EpochPlan(
        num_rows_G=np.full(100_000, 1_000_003), num_streams=64, batch_size=65_536, seed=0
    )
    assert plan.cuts_V[0] == 0
    assert plan.cuts_V[-1] == plan.num_rows_G.sum() == 100_000 * 1_000_003
    assert (np.diff(plan.cuts_V) > 0).all()
    assert plan.num_steps == -(-100_000 * 1_000_003 // 65_536)


def test_a_world_size_that_does_not_divide_the_streams_is_refused() -> None:
    """The message says which do, and which key to change."""
    check_world_size(num_streams=12, world_size=4)
    with pytest.raises(InputError) as caught:
        check_world_size(num_streams=12, world_size=5)
    message = str(caught.value)
    assert "\n" not in message
    assert "5 ranks" in message
    assert "data.num_streams=12" in message
    assert "1, 2, 3, 4, 6, 12 ranks" in message
