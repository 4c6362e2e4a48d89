"""Metrics by whether an id is known, against scikit-learn on the examples of each part."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn import metrics as sklearn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cluster import display
from data_loaders.config import DataConfig
from data_loaders.streams import Cursor
from trainer.cold_start import ColdStartMetrics
from trainer.model import StepOutput

CONFIG = DataConfig.model_validate(
    {
        "features": {
            "user": {"kind": "id"},
            "item_id": {"kind": "id", "encoding": "vocabulary"},
            "history": {"kind": "id_list", "encoding": "vocabulary"},
            "ad": {"kind": "id", "encoding": "vocabulary"},
        },
        "tasks": {"click": {"kind": "binary"}, "watch": {"kind": "regression", "std": 2.0}},
    }
)
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
    found = ColdStartMetrics(CONFIG, device=torch.device("cpu"))
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


def test_without_a_vocabulary_there_is_nothing_to_tell_apart() -> None:
    """Hashed ids share rows, and nothing says which were seen."""
    tree = CONFIG.model_dump() | {"features": {"user": {"kind": "id"}}}
    found = ColdStartMetrics(DataConfig.model_validate(tree), device=torch.device("cpu"))
    output, ids, _ = make_step(np.random.default_rng(0))
    found.update(output, ids=ids)
    assert found.reduce_and_reset() == {}


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
