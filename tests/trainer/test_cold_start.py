"""Metrics by whether an id is known, against scikit-learn on the examples of each part."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from sklearn import metrics as sklearn
from torchrec.optim.keyed import CombinedOptimizer
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cluster import display
from data_loaders.errors import InputError
from data_loaders.hashing import hash_rows
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from tests.helpers.logs import write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import assert_close, make_recipe, summary, train_on
from trainer.cold_start import ColdStartMetrics
from trainer.config import Recipe
from trainer.evaluate import chosen_checkpoint, evaluate_checkpoint
from trainer.loop import train
from trainer.model import StepOutput
from trainer.recipe_file import build_recipe

FEATURES = {
    "user": {"kind": "id"},
    "item_id": {"kind": "id", "encoding": "vocabulary"},
    "history": {"kind": "id_list", "encoding": "vocabulary"},
    "ad": {"kind": "id", "encoding": "vocabulary"},
}


def metrics_of(features: dict[str, Any], *, slices: list[str] | None = None) -> ColdStartMetrics:
    tree = {
        "data": {
            "features": features,
            "tasks": {"click": {"kind": "binary"}, "watch": {"kind": "regression", "std": 2.0}},
        },
        "embeddings": {"tables": {name: {"num_rows": 9, "dim": 4} for name in features}},
        "run": {"num_steps": 1, "slices": slices},
    }
    recipe = build_recipe(tree, overrides=(), source="toy")
    return ColdStartMetrics(recipe, optimizer=CombinedOptimizer([]), device=torch.device("cpu"))


KEYS = ["user", "item_id", "ad", "history"]
SIZE, NUM_PADDING = 600, 5


def make_step(random: np.random.Generator) -> tuple[StepOutput, KeyedJaggedTensor, dict[str, Any]]:
    """A step whose last rows are padding, its ids, and the rows of both features."""
    rows = {"item_id": random.integers(0, 4, SIZE), "ad": random.integers(0, 3, SIZE)}
    labels = (random.random((SIZE, 2)) < 0.3).astype(np.float32)
    labels[random.random((SIZE, 2)) < 0.2] = np.nan
    outputs = random.normal(size=(SIZE, 2)).astype(np.float32)
    weights = np.ones(SIZE, np.float32)
    weights[-NUM_PADDING:] = 0
    labels[-NUM_PADDING:] = np.nan
    kept = SIZE - NUM_PADDING
    lengths = np.zeros((len(KEYS), SIZE), np.int32)
    lengths[:, :kept] = 1
    values = [np.zeros(kept, int), rows["item_id"][:kept], rows["ad"][:kept], np.ones(kept, int)]
    ids = KeyedJaggedTensor(
        keys=KEYS,
        values=torch.from_numpy(np.concatenate(values)),
        lengths=torch.from_numpy(lengths.reshape(-1)),
    )
    output = StepOutput(
        outputs_BK=torch.from_numpy(outputs),
        labels_BT=torch.from_numpy(labels),
        weights_B=torch.from_numpy(weights),
        losses_T=torch.zeros(2),
        sums_3T=torch.zeros(3, 2),
        cursor=Cursor(),
    )
    return output, ids, rows


def test_known_and_rare_ids_are_measured_apart() -> None:
    """Over several steps; a missing id, padding and unobserved labels count nowhere."""
    random = np.random.default_rng(0)
    found = metrics_of(FEATURES)
    outputs, labels, rows = [], [], []
    for _ in range(3):
        output, ids, rows_of = make_step(random)
        found.update(output, ids=ids)
        outputs.append(output.outputs_BK.numpy())
        labels.append(output.labels_BT.numpy())
        rows.append(rows_of)
    outputs_BT, labels_BT = np.concatenate(outputs), np.concatenate(labels)
    results = found.reduce_and_reset()
    expected_keys = set()
    for feature in ("item_id", "ad"):
        rows_B = np.concatenate([step[feature] for step in rows])
        for part, is_part in (("warm", rows_B >= 2), ("cold", rows_B == 1)):
            expected_keys |= {f"auc_{feature}_{part}", f"examples_{feature}_{part}"}
            chosen = is_part & ~np.isnan(labels_BT[:, 0])
            auc = sklearn.roc_auc_score(labels_BT[chosen, 0], outputs_BT[chosen, 0])
            assert results["click"][f"auc_{feature}_{part}"] == pytest.approx(auc, abs=1e-3)
            assert results["click"][f"examples_{feature}_{part}"] == chosen.sum()
            chosen = is_part & ~np.isnan(labels_BT[:, 1])
            mse = 4 * np.mean((labels_BT[chosen, 1] - outputs_BT[chosen, 1]) ** 2)
            assert results["watch"][f"mse_{feature}_{part}"] == pytest.approx(mse, rel=1e-5)
    assert set(results["click"]) == expected_keys
    again = found.reduce_and_reset()["click"]
    assert again["examples_ad_cold"] == 0
    assert again["auc_ad_cold"] is None


def test_only_features_with_a_vocabulary_are_told_apart_by_default() -> None:
    """Or those that the recipe names."""
    output, ids, _ = make_step(np.random.default_rng(0))
    found = metrics_of({"user": {"kind": "id"}})
    found.update(output, ids=ids)
    assert found.reduce_and_reset() == {}
    found = metrics_of(FEATURES, slices=["ad"])
    found.update(output, ids=ids)
    assert {key for key in found.reduce_and_reset()["click"] if key.startswith("auc")} == {
        *("auc_ad_warm", "auc_ad_cold")
    }


def test_what_is_no_id_is_refused() -> None:
    """By the key, with the nearest name."""
    with pytest.raises(
        InputError, match=r"run\.slices: no feature adx of kind id; did you mean ad\?"
    ):
        metrics_of(FEATURES, slices=["adx"])


def train_and_evaluate(recipe: Recipe) -> dict[str, Any]:
    train(recipe)
    return evaluate_there(str(recipe.run.uri))


def evaluate_there(run: str) -> dict[str, Any]:
    return evaluate_checkpoint(chosen_checkpoint(locate(run)), data_root=None, listener=None).tasks


def test_hashed_ids_are_known_if_training_has_updated_their_rows(tmp_path: Path) -> None:
    """Counted by hand; the same of its checkpoint on another number of ranks."""
    log = write_toy_log(tmp_path / "log")
    recipe = make_recipe(
        log,
        tmp_path / "run",
        "run.slices=[user]",
        "run.eval_interval_steps=2",
        run={"num_epochs": 1},
    )

    def users(split: str) -> list[int]:
        files = [pq.read_table(file)["user"] for file in (log / split).iterdir()]
        return [user for column in files for user in column.to_pylist() if user is not None]

    def rows(ids: list[int]) -> list[int]:
        return hash_rows(pa.array(ids), num_rows=1003).tolist()

    known = set(rows(users("train")))
    tested = rows(users("test"))
    [found, _] = run_ranks(train_and_evaluate, world_size=2, arguments={"recipe": recipe})
    click = found["click"]
    assert click["examples_user_warm"] == sum(row in known for row in tested)
    assert click["examples_user_cold"] == sum(row not in known for row in tested) > 0
    assert 0 < click["auc_user_warm"] < 1
    assert summary(tmp_path / "run")["tasks"] == found
    [again] = run_ranks(evaluate_there, world_size=1, arguments={"run": str(tmp_path / "run")})
    assert_close(again, found, tolerance=1e-6)


def test_the_ids_that_a_checkpoint_knows_are_those_of_its_own_steps(tmp_path: Path) -> None:
    """Where the best one is not the newest, as many as an evaluation of it alone finds."""
    run = {"num_steps": 6, "eval_interval_steps": 2, "slices": ["user"]}
    folder, log = tmp_path / "run", write_toy_log(tmp_path / "log")
    recipe = make_recipe(log, folder, run=run, checkpoint={"keep": 9})
    train_on(recipe, world_size=1)
    newest = summary(folder)
    manifest = folder / "checkpoints" / "step-00000002" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"score": 2.0}))
    train_on(recipe, world_size=1)
    best = summary(folder)
    assert best["checkpoint"] == str(manifest.parent)
    numbers = [item["tasks"]["click"]["examples_user_warm"] for item in (best, newest)]
    assert 0 < numbers[0] < numbers[1]
    [alone] = run_ranks(evaluate_there, world_size=1, arguments={"run": str(manifest.parent)})
    assert alone == best["tasks"]


def test_without_a_missing_row_row_0_is_an_id() -> None:
    """Encoded directly; by hash it is that of the missing."""
    for encoding, num_given in (("direct", 4), ("hash", 3)):
        found = metrics_of({"user": {"kind": "id", "encoding": encoding}}, slices=["user"])
        output, _, _ = make_step(np.random.default_rng(0))
        rows = torch.tensor([0, 1, 2, 2])
        output = replace(
            output,
            outputs_BK=output.outputs_BK[:4],
            labels_BT=torch.ones(4, 2),
            weights_B=torch.ones(4),
        )
        ids = KeyedJaggedTensor(keys=["user"], values=rows, lengths=torch.ones(4).int())
        found.update(output, ids=ids)
        assert found.reduce_and_reset()["click"]["examples_user_cold"] == num_given


def test_tables_cut_by_columns_are_refused_for_ids_without_a_vocabulary(tmp_path: Path) -> None:
    """Their state can be read on as many ranks only, so the run could not be evaluated later."""
    run = {"slices": ["user"]}
    with pytest.raises(InputError, match=r"run\.slices: user has no vocabulary, .*column_wise"):
        make_recipe(tmp_path, tmp_path / "run", run=run, sharding="column_wise")


def test_they_are_printed_in_a_table_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line per task and feature, whatever the feature's name; none where there is none."""
    text = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=text, width=120))
    result = {
        "examples": 1200.0,
        "auc": 0.75,
        "normalized_entropy": 0.9,
        "calibration": 1.0,
        "auc_item_id_warm": 0.8125,
        "examples_item_id_warm": 1000.0,
        "auc_item_id_cold": None,
        "examples_item_id_cold": 0.0,
    }
    display.print_tasks({"click": result}, title="evaluation")
    [line] = [line for line in text.getvalue().splitlines() if "item_id" in line]
    assert line.split() == ["click", "item_id", "1,000", "0.8125", "0", "-"]
    text.truncate(0)
    display.print_tasks({"click": {k: v for k, v in result.items() if "item" not in k}}, title="")
    assert "rare" not in text.getvalue()
