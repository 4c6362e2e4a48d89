"""Batches keep what they hold, wherever they go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.collate import Layout, Part, collate
from data_loaders.config import DataConfig
from data_loaders.rows import EncodedRows, Ragged
from data_loaders.streams import Cursor


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
    rows = EncodedRows(
        ids_FR=np.array([[3, 4]]),
        lists=(Ragged(values_N=np.array([7, 8, 9]), offsets_R=np.array([0, 0, 3])),),
        dense_DR=np.array([[0.5, 1.5]], np.float32),
        labels_TR=np.array([[1.0, np.nan]], np.float32),
    )
    part = Part(rows=rows, first=0, is_given_R=np.ones(2, bool), first_place=0, rows_per_step=2)
    keys = ("user", "history")
    layout = Layout(keys=keys, num_ids=1, num_dense=1, num_tasks=1, is_weighted=False)
    [batch] = collate([part], layout=layout, padded_sizes=[3], cursors=[Cursor(1, 4)])
    return batch


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
