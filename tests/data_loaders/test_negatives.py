"""Negatives in the batches of a log, against draws for each row in plain Python."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.batch import InteractionBatch
from data_loaders.config import DataConfig
from data_loaders.errors import InputError, SchemaError, StorageError
from data_loaders.fitting import fitted
from data_loaders.hashing import mix64
from data_loaders.loader import InteractionLoader
from data_loaders.negatives import SALT, NegativeSampler, _alias_table, _LogQ
from data_loaders.streams import Cursor, Piece
from tests.helpers.logs import write_groups

SIZES = [[7, 0, 1, 30], [13], [0, 2, 11]]
NUM_ROWS = {"row": 100, "item": 1000, "history": 1000, "tags": 1000}
FEATURES: dict[str, Any] = {
    "tags": {"kind": "id_list", "encoding": "direct", "table": "item", "weights": "tag_weights"},
    "row": {"kind": "id", "encoding": "direct"},
    "look": {"kind": "dense_vector", "length": 2},
    "hour": {"kind": "dense"},
    "history": {"kind": "id_list", "encoding": "direct", "table": "item"},
    "item": {"kind": "id", "encoding": "direct"},
    "price": {"kind": "dense", "std": 2.0},
}
TASKS: dict[str, Any] = {
    "click": {"kind": "binary"},
    "buy": {"kind": "binary", "where": "click"},
    "watch": {"kind": "regression"},
}


def items_of(items: list[int]) -> dict[str, pa.Array]:
    """The item's columns: all of them follow from its number."""
    return {
        "item": pa.array(items, pa.int32()),
        "price": pa.array([2.0 * item for item in items], pa.float64()),
        "look": pa.array([[item, -item] for item in items], pa.list_(pa.float32(), 2)),
        "tags": pa.array([[item] * (item % 3) for item in items], pa.list_(pa.int64())),
        "tag_weights": pa.array([[0.5] * (item % 3) for item in items], pa.list_(pa.float32())),
    }


def log_rows(start: int, stop: int) -> pa.Table:
    """Positives that know their number; their items are 500 and above, not in the catalogue."""
    rows = range(start, stop)
    context = {
        "row": pa.array(rows, pa.int64()),
        "hour": pa.array([row / 2 for row in rows], pa.float32()),
        "history": pa.array([[row] * (row % 4) for row in rows], pa.list_(pa.int64())),
        "click": pa.array([1] * len(rows), pa.int8()),
        "buy": pa.array([row % 2 for row in rows], pa.int8()),
        "watch": pa.array([row / 4 for row in rows], pa.float64()),
    }
    return pa.table(context | items_of([500 + row for row in rows]))


def write_catalogue(path: Path, *, num_items: int = 10, **columns: Any) -> None:
    table = items_of(list(range(num_items))) | columns
    pq.write_table(pa.table({name: item for name, item in table.items() if item is not None}), path)


def write_log(root: Path, *, sizes: list[list[int]] = SIZES) -> int:
    start, files = 0, []
    for groups in sizes:
        files.append([])
        for size in groups:
            files[-1].append(log_rows(start, start + size))
            start += size
    write_groups(root, split="train", files=files)
    write_catalogue(root / "items.parquet", count=pa.array(range(10)))
    return start


def make_config(root: Path, **data: Any) -> DataConfig:
    tree = {
        "root": str(root),
        "batch_size": 10,
        "num_streams": 6,
        "features": FEATURES,
        "tasks": TASKS,
        **data,
    }
    tree["negatives"] = {"catalogue": "items.parquet", "per_example": 3} | data.get("negatives", {})
    return DataConfig.model_validate(tree)


def make_loader(
    root: Path, *, seed: int | None = 0, rank: int = 0, world_size: int = 1, **data: Any
) -> InteractionLoader:
    return InteractionLoader(
        make_config(root, **data),
        split="train",
        num_rows=NUM_ROWS,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


Row = dict[str, Any]


def rows_of(batch: InteractionBatch) -> list[Row]:
    """A batch as rows of plain values, padding left out."""
    size = int(batch.weights_B.sum())
    assert batch.weights_B.tolist() == [1.0] * size + [0.0] * (len(batch.weights_B) - size)
    assert batch.ids.keys() == ["row", "item", "tags", "history"]
    ids = {key: jagged.to_dense() for key, jagged in batch.ids.to_dict().items()}
    weights = batch.ids["tags"].to_dense_weights()
    return [
        {
            "ids": {key: lists[at].tolist() for key, lists in ids.items()},
            "tag_weights": weights[at].tolist(),
            "dense": batch.dense_BD[at].tolist(),
            "labels": batch.labels_BT[at].tolist(),
        }
        for at in range(size)
    ]


def naive_row(number: int, *, item: int, labels: list[float]) -> Row:
    return {
        "ids": {
            "row": [number],
            "item": [item],
            "tags": [item] * (item % 3),
            "history": [number] * (number % 4),
        },
        "tag_weights": [0.5] * (item % 3),
        "dense": [float(item), float(-item), number / 2, float(item)],
        "labels": pytest.approx(labels, nan_ok=True),
    }


def mixed(value: int) -> int:
    return int(mix64(np.array([value % 2**64], np.uint64))[0])


def naive_rows(number: int, *, key: int, num_items: int = 10, per_example: int = 3) -> list[Row]:
    """A log row and its negatives, drawn evenly."""
    positive = naive_row(number, item=500 + number, labels=[1.0, number % 2, number / 4])
    state = mixed(key ^ int(SALT))
    items = [(mixed(state + nth) >> 32) * num_items >> 32 for nth in range(1, 1 + per_example)]
    nan = float("nan")
    return [positive, *(naive_row(number, item=item, labels=[0.0, nan, nan]) for item in items)]


def keys_of(loader: InteractionLoader, *, epoch: int) -> list[int]:
    """Of each row of the log."""
    plan = loader.plan(epoch=epoch)
    sizes = enumerate(size for groups in SIZES for size in groups)
    return [
        int(key)
        for group, size in sizes
        for key in plan.row_keys(Piece(group=group, start=0, stop=size))
    ]


@pytest.mark.parametrize("seed", [None, 0, 5])
@pytest.mark.parametrize("batch_size", [1, 10, 100])
def test_every_log_row_stands_once_before_its_own_negatives(
    tmp_path: Path, seed: int | None, batch_size: int
) -> None:
    """Over two epochs, the second with draws of its own; without a seed both are the same."""
    total = write_log(tmp_path)
    loader = make_loader(tmp_path, seed=seed, batch_size=batch_size)
    assert loader.num_examples == total
    drawn = []
    for epoch in (0, 1):
        keys = keys_of(loader, epoch=epoch if seed is not None else 0)
        start = Cursor(epoch=epoch if seed is not None else 0)
        rows = [
            row
            for batch in loader.batches(start=start, num_steps=loader.steps_per_epoch)
            for row in rows_of(batch)
        ]
        numbers = [row["ids"]["row"][0] for row in rows[::4]]
        assert sorted(numbers) == list(range(total))
        expected = [row for number in numbers for row in naive_rows(number, key=keys[number])]
        assert rows == expected
        drawn.append({row["ids"]["row"][0]: row["ids"]["item"] for row in rows[3::4]})
    assert (drawn[0] == drawn[1]) == (seed is None)


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_reads_the_same_rows(
    tmp_path: Path, world_size: int, sampling: str
) -> None:
    """Step by step together those of one rank, in batches of one size."""
    write_log(tmp_path)
    negatives = {"sampling": sampling}
    ranks = [
        make_loader(tmp_path, rank=rank, world_size=world_size, negatives=negatives)
        for rank in range(world_size)
    ]
    whole = make_loader(tmp_path, negatives=negatives)
    steps = whole.steps_per_epoch + 2
    streams = [item.batches(start=Cursor(), num_steps=steps) for item in ranks]
    for single, *batches in zip(
        whole.batches(start=Cursor(), num_steps=steps), *streams, strict=True
    ):
        together = [repr(row) for batch in batches for row in rows_of(batch)]
        assert collections.Counter(together) == collections.Counter(map(repr, rows_of(single)))
        assert len({len(batch.weights_B) for batch in batches}) == 1
        assert {batch.cursor for batch in batches} == {single.cursor}


def test_reading_goes_on_with_the_same_negatives(tmp_path: Path) -> None:
    """From the cursor of any batch."""
    write_log(tmp_path)
    loader = make_loader(tmp_path, rank=1, world_size=2)
    steps = loader.steps_per_epoch + 2
    whole = list(loader.batches(start=Cursor(), num_steps=steps))
    for done in range(1, steps):
        rest = loader.batches(start=whole[done - 1].cursor, num_steps=steps - done)
        found = [repr(rows_of(batch)) for batch in rest]
        assert found == [repr(rows_of(batch)) for batch in whole[done:]]


def test_a_skipped_row_takes_its_negatives_with_it(tmp_path: Path) -> None:
    """The others keep theirs."""
    total = write_log(tmp_path)
    path = tmp_path / "train" / "part-00001.parquet"
    table = pq.read_table(path)
    wrong = pa.array([1] * 4 + [7] + [1] * 8, pa.int8())
    pq.write_table(table.set_column(table.schema.get_field_index("click"), "click", wrong), path)
    loader = make_loader(tmp_path, seed=None, on_error="skip")
    keys = keys_of(loader, epoch=0)
    batches = list(loader.batches(start=Cursor(), num_steps=loader.steps_per_epoch))
    rows = [row for batch in batches for row in rows_of(batch)]
    kept = [number for number in range(total) if number != 38 + 4]
    assert rows == [row for number in kept for row in naive_rows(number, key=keys[number])]
    assert sum(item.num_rows for batch in batches for item in batch.skipped) == 1


def drawn_items(root: Path, *, num_items: int, **negatives: Any) -> np.ndarray:
    """How often each item is drawn for 4,000 log rows, five for each."""
    write_groups(root, split="train", files=[[log_rows(0, 50)] * 80])
    config = {"negatives": {"per_example": 5} | negatives}
    loader = make_loader(root, batch_size=4000, **config)
    [batch] = loader.batches(start=Cursor(), num_steps=1)
    items = batch.ids["item"].values().reshape(-1, 6)
    assert (items[:, 0] >= 500).all()
    return np.bincount(items[:, 1:].reshape(-1), minlength=num_items)


@pytest.mark.parametrize(("sampling", "power"), [("uniform", 1.0), ("popularity", 0.5)])
def test_items_are_drawn_as_often_as_asked(tmp_path: Path, sampling: str, power: float) -> None:
    """Within five standard deviations of chi-square; what never occurs is never drawn."""
    counts = np.random.default_rng(0).zipf(1.5, 60).clip(max=10_000)
    counts[::7] = 0
    write_catalogue(tmp_path / "items.parquet", num_items=60, count=pa.array(counts))
    found = drawn_items(tmp_path, num_items=60, sampling=sampling, power=power)
    weights = np.ones(60) if sampling == "uniform" else counts**power
    expected = 20_000 * weights / weights.sum()
    drawn = expected > 0
    assert not found[~drawn].any()
    chi_square = ((found - expected)[drawn] ** 2 / expected[drawn]).sum()
    freedom = drawn.sum() - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda w: sum(w) > 1e-3))
def test_an_alias_table_has_the_probabilities_of_its_weights(weights: list[float]) -> None:
    """An item's own share of its slot, and its shares of those that it is the alias of."""
    weights_I = np.array(weights) / np.mean(weights)
    keep_I, alias_I = _alias_table(weights_I)
    assert ((keep_I >= 0) & (keep_I <= 1)).all()
    share_I = keep_I + np.bincount(alias_I, weights=1 - keep_I, minlength=len(weights))
    np.testing.assert_allclose(share_I, weights_I, rtol=1e-9, atol=1e-9)


def test_ids_are_dropped_in_negatives_as_in_positives(tmp_path: Path) -> None:
    """Else the row of rare ids would be a sign of a positive."""
    write_groups(tmp_path, split="train", files=[[log_rows(0, 50)] * 80])
    write_catalogue(tmp_path / "items.parquet")
    vocabulary = tmp_path / "vocabulary.parquet"
    ids = [*range(10), *range(500, 550)]
    pq.write_table(pa.table({"id": pa.array(ids), "count": [9] * len(ids)}), vocabulary)
    item = {"kind": "id", "encoding": "vocabulary", "dropout": 0.3, "vocabulary": str(vocabulary)}
    data = {"features": FEATURES | {"item": item}, "batch_size": 4000}
    data["features"]["tags"] = FEATURES["tags"] | {"table": "tags"}
    data["features"]["history"] = FEATURES["history"] | {"table": "tags"}
    config = fitted(make_config(tmp_path, **data), num_rows=NUM_ROWS)
    loader = InteractionLoader(config, split="train", num_rows=NUM_ROWS, seed=0)
    [batch] = loader.batches(start=Cursor(), num_steps=1)
    is_rare = (batch.ids["item"].values() == 1).reshape(-1, 4).double()
    assert is_rare.mean(0).tolist() == pytest.approx([0.3] * 4, abs=0.04)
    assert len(is_rare.unique(dim=0)) == 2**4  # one draw for each


def test_a_catalogue_elsewhere_is_named_by_its_uri(tmp_path: Path) -> None:
    """And belongs to what the cursor counts in, by content and not by place."""
    write_log(tmp_path)
    elsewhere = tmp_path / "elsewhere.parquet"
    elsewhere.write_bytes((tmp_path / "items.parquet").read_bytes())
    below = make_loader(tmp_path)
    for uri in (str(elsewhere), elsewhere.as_uri()):
        loader = make_loader(tmp_path, negatives={"catalogue": uri})
        assert loader.fingerprint == below.fingerprint
    write_catalogue(elsewhere, num_items=11)
    other = make_loader(tmp_path, negatives={"catalogue": str(elsewhere)})
    assert other.fingerprint != below.fingerprint


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (None, StorageError, "no such file (data.negatives.catalogue)"),
        ({"item": None, "price": None, "look": None, "tags": None}, SchemaError, "has no column"),
        ({"price": pa.array(["x"] * 10)}, SchemaError, "column price (feature price): expected a"),
        (
            {"item": pa.array([2000] * 10), "count": pa.array([1] * 10)},
            SchemaError,
            "column item: id 2000 lies outside",
        ),
        ({"tag_weights": None}, SchemaError, "no column tag_weights (weights of feature tags)"),
        ({}, SchemaError, "column count: expected numbers"),
        ({"count": pa.array(["x"] * 10)}, SchemaError, "column count: expected numbers"),
        ({"count": pa.array([1] * 9 + [-2])}, SchemaError, "column count: -2; expected a number"),
        ({"count": pa.array([1] * 9 + [None])}, SchemaError, "column count: null; expected"),
        ({"count": pa.array([0] * 10)}, SchemaError, "column count: is 0 for every item"),
        ({"num_items": 0, "count": pa.array([], pa.int64())}, SchemaError, "has no rows"),
    ],
)
def test_a_catalogue_that_cannot_serve_is_refused(
    tmp_path: Path, columns: dict[str, Any] | None, error: type[InputError], message: str
) -> None:
    """In one line that begins with the file."""
    write_log(tmp_path)
    catalogue = tmp_path / "items.parquet"
    if columns is None:
        catalogue.unlink()
        catalogue.mkdir()  # a folder is no file either
    else:
        write_catalogue(catalogue, **columns)
    config = make_config(tmp_path, negatives={"sampling": "popularity"})
    with pytest.raises(error) as caught:
        NegativeSampler(config, num_rows=NUM_ROWS)
    assert str(caught.value).startswith(f"{catalogue}: {message}")
    assert "\n" not in str(caught.value)


def test_a_damaged_catalogue_is_named(tmp_path: Path) -> None:
    """Its footer is whole, its pages are not."""
    write_log(tmp_path)
    catalogue = tmp_path / "items.parquet"
    content = bytearray(catalogue.read_bytes())
    content[4:400] = b"\xff" * 396
    catalogue.write_bytes(content)
    with pytest.raises(StorageError, match=r"items\.parquet: cannot be read") as caught:
        make_loader(tmp_path)
    assert "\n" not in str(caught.value)


def with_log_q(root: Path, **negatives: Any) -> DataConfig:
    tasks = {
        "click": {"kind": "binary"},
        "choice": {
            "kind": "ranking",
            "column": "click",
            "loss": "sampled_softmax",
            "example_weight": "watch",
        },
    }
    return make_config(
        root, tasks=tasks, negatives={"sampling": "popularity", "item": "item"} | negatives
    )


def test_rows_know_how_often_their_item_is_drawn(tmp_path: Path) -> None:
    """By count ** power; a positive that the catalogue has not as its rarest; weights stay."""
    write_log(tmp_path)
    loader = InteractionLoader(
        with_log_q(tmp_path, power=0.5),
        split="train",
        num_rows=NUM_ROWS,
        seed=0,
        rank=0,
        world_size=1,
    )
    # of counts 0 to 9: item 0 is never drawn
    chances = {item: np.sqrt(item) for item in range(1, 10)}
    expected = {item: np.log(chance / sum(chances.values())) for item, chance in chances.items()}
    seen = set()
    for batch in loader.batches(start=Cursor(), num_steps=loader.steps_per_epoch):
        given = int(batch.weights_B.sum())
        items = batch.ids["item"].values().tolist()
        rows = batch.ids["row"].values().tolist()
        labels_BT = batch.labels_BT[:given]
        assert labels_BT.shape[1] == 4
        found = zip(items, rows, labels_BT.tolist(), strict=True)
        for place, (item, row, label_T) in enumerate(found):
            assert label_T[:2] == ([1.0, 1.0] if place % 4 == 0 else [0.0, 0.0])
            assert label_T[2] == row / 4
            assert label_T[3] == pytest.approx(expected.get(item, expected[1]), rel=1e-5)
            seen.add(item)
    assert {1, 9, 500} <= seen


def test_items_that_share_a_row_are_drawn_as_often_as_all_of_them(tmp_path: Path) -> None:
    """The model cannot tell them apart."""
    found = _LogQ(np.array([5, 3, 5, 9]), np.array([1.0, 4.0, 3.0, 0.0]), place=0)
    np.testing.assert_allclose(np.exp(found.of(np.array([5, 3, 9, 1]))), 0.5, rtol=1e-6)


def test_a_catalogue_without_the_item_is_refused(tmp_path: Path) -> None:
    """The feature exists, but only the log has it."""
    write_log(tmp_path)
    with pytest.raises(SchemaError, match=r"no column of the feature row \(data\.negatives\.item"):
        NegativeSampler(with_log_q(tmp_path, item="row"), num_rows=NUM_ROWS)
