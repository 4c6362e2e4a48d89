"""Importance by permutation: what moves, what does not, and what it says of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import InteractionBatch
from data_loaders.config import DataConfig
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from tests.helpers.logs import write_groups
from tests.helpers.ranks import run_ranks
from trainer.evaluate import chosen_checkpoint
from trainer.importance import measure_importance, permuted_batches
from trainer.loop import train
from trainer.progress import Progress
from trainer.recipe_file import build_recipe

FEATURES = {
    "user": {"kind": "id"},
    "price": {"kind": "dense"},
    "history": {"kind": "id_list", "weights": "history_weights"},
    "taste": {"kind": "dense_vector", "length": 2},
}
CONFIG = DataConfig.model_validate({"features": FEATURES, "tasks": {"click": {"kind": "binary"}}})
NUM_GIVEN, SIZE = 12, 15


def make_batch() -> InteractionBatch:
    """Every number of it is another; the last rows are padding."""
    random = np.random.default_rng(0)
    lengths = np.zeros((2, SIZE), np.int32)
    lengths[0, :NUM_GIVEN] = 1
    lengths[1, :NUM_GIVEN] = random.integers(0, 4, NUM_GIVEN)
    num_ids = int(lengths.sum())
    dense_BD = torch.arange(3.0 * SIZE).reshape(SIZE, 3)
    dense_BD[NUM_GIVEN:] = 0
    return InteractionBatch(
        ids=KeyedJaggedTensor(
            keys=["user", "history"],
            values=torch.arange(num_ids),
            lengths=torch.from_numpy(lengths.reshape(-1)),
            weights=torch.arange(num_ids) / 2,
        ),
        dense_BD=dense_BD,
        labels_BT=torch.zeros(SIZE, 1),
        weights_B=(torch.arange(SIZE) < NUM_GIVEN).float(),
        cursor=Cursor(),
    )


def values_of(batch: InteractionBatch) -> dict[str, list[Any]]:
    """What each feature says of each example."""
    found: dict[str, list[Any]] = {
        "price": batch.dense_BD[:, 0].tolist(),
        "taste": batch.dense_BD[:, 1:].tolist(),
    }
    for key in ("user", "history"):
        part = batch.ids[key]
        found[key] = [
            list(zip(values.tolist(), weights.tolist(), strict=True))
            for values, weights in zip(
                part.values().split(part.lengths().tolist()),
                part.weights().split(part.lengths().tolist()),
                strict=True,
            )
        ]
    return found


def test_one_feature_moves_among_the_examples_and_the_others_stay() -> None:
    """Ids go with their weights, vectors whole; padding stays; the seed decides."""
    batch = make_batch()
    before = values_of(batch)
    variants = dict(permuted_batches(batch, config=CONFIG, seed=7))
    assert list(variants) == ["", *FEATURES]
    assert values_of(variants.pop("")) == before
    for name, variant in variants.items():
        after = values_of(variant)
        assert {key: after[key] for key in FEATURES if key != name} == {
            key: before[key] for key in FEATURES if key != name
        }
        assert after[name] != before[name]
        assert sorted(after[name][:NUM_GIVEN]) == sorted(before[name][:NUM_GIVEN])
        assert after[name][NUM_GIVEN:] == before[name][NUM_GIVEN:]
        again = dict(permuted_batches(batch, config=CONFIG, seed=7))[name]
        assert values_of(again) == after
        other = dict(permuted_batches(batch, config=CONFIG, seed=8))[name]
        assert values_of(other) != after
    assert values_of(batch) == before


def write_log(root: Path) -> Path:
    """Clicks go by user and by one of two numbers; the rest is noise."""
    random = np.random.default_rng(1)
    for split, size in (("train", 3000), ("valid", 1500)):
        users, signal = random.integers(0, 20, size), random.normal(size=size)
        logits = 3.0 * (users % 2) - 1.5 + 1.2 * signal
        table = pa.table(
            {
                "user": users,
                "ad": random.integers(0, 20, size),
                "signal": signal.astype(np.float32),
                "noise": random.normal(size=size).astype(np.float32),
                "click": (random.random(size) < 1 / (1 + np.exp(-logits))).astype(np.int8),
                "watch": (signal + random.normal(size=size)).astype(np.float32),
            }
        )
        write_groups(root, split=split, files=[[table]])
    return root


def tree(root: Path) -> dict[str, Any]:
    return {
        "data": {
            "root": str(root / "log"),
            "batch_size": 256,
            "features": {
                **{name: {"kind": "id"} for name in ("user", "ad")},
                **{name: {"kind": "dense"} for name in ("signal", "noise")},
            },
            "tasks": {"click": {"kind": "binary"}, "watch": {"kind": "regression"}},
        },
        "embeddings": {"tables": {name: {"num_rows": 200, "dim": 4} for name in ("user", "ad")}},
        "model": {"shared_tower": [16], "task_tower": [8]},
        "optimizer": {"dense": {"learning_rate": 0.01}, "tables": {"learning_rate": 0.2}},
        "run": {"uri": str(root / "run"), "num_epochs": 6, "seed": 3, "log_interval_steps": 50},
    }


def train_and_measure(root: str) -> dict[str, Any]:
    """Importance, twice, and the progress that was told."""
    train(build_recipe(tree(Path(root)), overrides=[], source="toy"))
    checkpoint = chosen_checkpoint(locate(f"{root}/run"))
    told: list[Progress] = []
    found = [
        measure_importance(checkpoint, listener=told.append),
        measure_importance(checkpoint, listener=None),
    ]
    return {"found": found, "told": [(item.step, item.num_steps) for item in told]}


def test_what_a_label_depends_on_is_worth_more_than_noise(tmp_path: Path) -> None:
    """Of an id and of a number, by AUC and by loss; each call finds the same, and tells how far it
    is.
    """
    write_log(tmp_path / "log")
    [result] = run_ranks(train_and_measure, world_size=1, arguments={"root": str(tmp_path)})
    first, second = result["found"]
    assert first == second
    assert first["split"] == "valid"
    tasks = first["importance"]["tasks"]
    click, watch = tasks["click"], tasks["watch"]
    assert (click["metric"], watch["metric"]) == ("auc", "loss")
    assert click["value"] > 0.8
    for name in ("user", "signal"):
        assert click["features"][name] > 0.05
        for noise in ("ad", "noise"):
            assert abs(click["features"][noise]) < 0.02
    assert watch["features"]["signal"] > 0.3
    assert max(watch["features"][name] for name in ("user", "ad", "noise")) < 0.05
    num_forwards = 6 * 5  # batches of 256 of 1,500, each as it is and without each of 4 features
    assert result["told"] == [(step, num_forwards) for step in range(1, num_forwards + 1)]
