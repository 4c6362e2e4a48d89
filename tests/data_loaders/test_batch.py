"""Batches, against a loop over their rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.batch import InteractionBatch, collate, id_feature_names
from data_loaders.config import DataConfig
from data_loaders.rows import EncodedRows, Ragged
from data_loaders.streams import Cursor


@st.composite
def encoded_rows(draw: st.DrawFn) -> EncodedRows:
    """Up to 5 rows with up to 3 columns of each kind, none included."""
    num_rows = draw(st.integers(0, 5))
    num_ids, num_lists, num_dense, num_tasks = (draw(st.integers(0, 3)) for _ in range(4))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    lists = []
    for _ in range(num_lists):
        offsets = np.concatenate([[0], np.cumsum(random.integers(0, 4, num_rows))])
        weights = random.random(offsets[-1], np.float32) if draw(st.booleans()) else None
        lists.append(
            Ragged(
                values_N=random.integers(0, 50, offsets[-1]), offsets_R=offsets, weights_N=weights
            )
        )
    return EncodedRows(
        ids_FR=random.integers(0, 50, (num_ids, num_rows)),
        lists=tuple(lists),
        dense_DR=random.random((num_dense, num_rows), np.float32),
        labels_TR=random.random((1 + num_tasks, num_rows), np.float32),
    )


def naive_ids(rows: EncodedRows, *, feature: int, row: int) -> list[int]:
    """The ids of one feature in one row."""
    if row >= len(rows):
        return []
    num_single = len(rows.ids_FR)
    if feature < num_single:
        return [int(rows.ids_FR[feature, row])]
    ragged = rows.lists[feature - num_single]
    return ragged.values_N[ragged.offsets_R[row] : ragged.offsets_R[row + 1]].tolist()


@settings(deadline=None)
@given(encoded_rows(), st.integers(0, 4))
def test_collate_is_the_loop_over_rows(rows: EncodedRows, num_padding: int) -> None:
    """Feature-major ids of single and list features; padding has no ids, no label, no weight."""
    num_features = len(rows.ids_FR) + len(rows.lists)
    keys = [f"f{index}" for index in range(num_features)]
    size = len(rows) + num_padding
    batch = collate(rows, keys=keys, padded_size=size, cursor=Cursor(2, 3))

    lengths, values = [], []
    for feature in range(num_features):
        for row in range(size):
            ids = naive_ids(rows, feature=feature, row=row)
            lengths.append(len(ids))
            values += ids
    assert batch.ids.keys() == keys
    assert batch.ids.stride() == size
    assert batch.ids.lengths().tolist() == lengths
    assert batch.ids.values().tolist() == values
    assert batch.ids.values().dtype == torch.int64
    assert batch.ids.lengths().dtype == torch.int32
    if any(ragged.weights_N is not None for ragged in rows.lists):
        expected = [1.0] * rows.ids_FR.size
        for ragged in rows.lists:
            expected += [
                1.0 if ragged.weights_N is None else ragged.weights_N[index]
                for index in range(len(ragged.values_N))
            ]
        assert batch.ids.weights().tolist() == expected
        assert batch.ids.weights().dtype == torch.float32
    else:
        assert batch.ids.weights_or_none() is None

    is_example = np.arange(size) < len(rows)
    np.testing.assert_array_equal(batch.weights_B, is_example)
    np.testing.assert_array_equal(batch.dense_BD[: len(rows)], rows.dense_DR.T)
    np.testing.assert_array_equal(batch.labels_BT[: len(rows)], rows.labels_TR.T)
    assert (batch.dense_BD[len(rows) :] == 0).all()
    assert batch.labels_BT[len(rows) :].isnan().all()
    assert batch.dense_BD.shape == (size, len(rows.dense_DR))
    for tensor in (batch.weights_B, batch.dense_BD, batch.labels_BT):
        assert tensor.dtype == torch.float32
    assert batch.cursor == Cursor(2, 3)


def test_keys_are_single_ids_then_lists_in_the_recipes_order() -> None:
    """The order of the columns of `EncodedRows`, whatever the recipe mixes."""
    kinds = {"a": "id_list", "b": "id", "c": "dense", "d": "id_list", "e": "id"}
    config = DataConfig.model_validate(
        {
            "features": {name: {"kind": kind} for name, kind in kinds.items()},
            "tasks": {"t": {"kind": "binary"}},
        }
    )
    assert id_feature_names(config) == ["b", "e", "a", "d"]


def small_batch() -> InteractionBatch:
    return collate(
        EncodedRows(
            ids_FR=np.array([[3, 4]]),
            lists=(Ragged(values_N=np.array([7, 8, 9]), offsets_R=np.array([0, 0, 3])),),
            dense_DR=np.array([[0.5, 1.5]], np.float32),
            labels_TR=np.array([[1.0, np.nan]], np.float32),
        ),
        keys=["user", "history"],
        padded_size=3,
        cursor=Cursor(1, 4),
    )


def assert_same(batch: InteractionBatch, expected: InteractionBatch) -> None:
    assert batch.ids.keys() == expected.ids.keys()
    for name in ("dense_BD", "labels_BT", "weights_B"):
        found, wanted = getattr(batch, name).cpu(), getattr(expected, name)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(batch.ids.values().cpu(), expected.ids.values())
    assert torch.equal(batch.ids.lengths().cpu(), expected.ids.lengths())
    assert batch.cursor == expected.cursor


def test_a_batch_that_moves_is_the_same_batch() -> None:
    """To a device of the same kind, as the pipelines do it."""
    batch = small_batch()
    assert_same(batch.to(torch.device("cpu"), non_blocking=True), batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_that_moves_to_the_gpu_is_the_same_batch() -> None:
    """Pinned, and copied on a stream of its own."""
    batch = small_batch()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = batch.pin_memory().to(torch.device("cuda"), non_blocking=True)
    torch.cuda.current_stream().wait_stream(stream)
    moved.record_stream(torch.cuda.current_stream())
    assert moved.ids.values().device.type == moved.dense_BD.device.type == "cuda"
    assert_same(moved, batch)
