"""Metrics of each kind against scikit-learn, or the definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from tests.helpers.tasks import data_config, step_output
from trainer.evaluate import quality, selection_score
from trainer.losses import LOSSES
from trainer.metrics import METRICS, TaskMetrics


def metrics_of(
    task: dict[str, Any],
    outputs_BK: np.ndarray,
    labels: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    **step: Any,
) -> dict[str, Any]:
    """Of one task, in three steps."""
    columns = [labels]
    if weights is not None:
        task, columns = task | {"example_weight": "w"}, [labels, weights]
    found = TaskMetrics(data_config({"task": task}), device=torch.device("cpu"))
    parts = zip(
        np.array_split(outputs_BK, 3), np.array_split(np.stack(columns, axis=1), 3), strict=True
    )
    for outputs, labels_BT in parts:
        found.update(step_output(outputs, labels_BT, **step))
    return found.reduce_and_reset()["task"]


def hidden(labels: np.ndarray) -> np.ndarray:
    """Some not observed."""
    return np.where(np.arange(len(labels)) % 5 == 0, np.nan, labels)


def test_every_loss_has_its_metrics() -> None:
    """And the other way round."""
    assert sorted(METRICS) == sorted(LOSSES)


@pytest.mark.parametrize("num_classes", [2, 3, 9, 70])
def test_metrics_of_classes_are_scikit_learns(num_classes: int) -> None:
    """With weights; the AUC up to 64 classes, top 5 of more than 5."""
    random = np.random.default_rng(num_classes)
    labels = random.integers(0, num_classes, 3000)
    logits = random.normal(size=(3000, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    logits = logits.astype(np.float32).astype(np.float64)
    weights = random.integers(0, 4, 3000).astype(float)
    is_seen = ~np.isnan(hidden(labels))
    found = metrics_of(
        {"kind": "multiclass", "num_classes": num_classes}, logits, hidden(labels), weights=weights
    )
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    seen = {"y_true": labels[is_seen], "sample_weight": weights[is_seen]}
    known, chances, logits = np.arange(num_classes), chances[is_seen], logits[is_seen]
    loss = sklearn.log_loss(
        seen["y_true"], chances, labels=known, sample_weight=seen["sample_weight"]
    )
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    assert found["accuracy"] == pytest.approx(
        sklearn.accuracy_score(y_pred=logits.argmax(1), **seen)
    )
    assert ("top_5_accuracy" in found) == (num_classes > 5)
    if num_classes > 5:
        top = sklearn.top_k_accuracy_score(y_score=logits, k=5, labels=known, **seen)
        assert found["top_5_accuracy"] == pytest.approx(top)
    assert ("macro_auc" in found) == (num_classes <= 64)
    if num_classes == 2:
        auc = sklearn.roc_auc_score(y_score=chances[:, 1], **seen)
        assert found["macro_auc"] == pytest.approx(auc, abs=1e-3)
    elif num_classes <= 64:
        auc = sklearn.roc_auc_score(y_score=chances, multi_class="ovr", average="macro", **seen)
        assert found["macro_auc"] == pytest.approx(auc, abs=1e-3)
    assert found["examples"] == is_seen.sum()


def test_equal_logits_do_not_make_a_right_prediction_of_everything() -> None:
    """The first class is predicted, as argmax does."""
    labels = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 0, 1])
    task = {"kind": "multiclass", "num_classes": 8, "top_k": 2}
    found = metrics_of(task, np.zeros((10, 8)), labels)
    assert found["accuracy"] == pytest.approx(0.2)
    assert found["top_2_accuracy"] == pytest.approx(0.4)
    assert found["macro_auc"] == 0.5


def test_binary_metrics_count_weighted_labels() -> None:
    """As scikit-learn does, but for the number of examples; whatever the loss, the entropy is."""
    random = np.random.default_rng(0)
    logits = random.normal(size=4000).astype(np.float32).astype(np.float64)
    labels = (random.random(4000) < 1 / (1 + np.exp(-logits))).astype(float)
    weights = random.exponential(size=4000).astype(np.float32).astype(np.float64)
    task = {"kind": "binary", "positive_weight": 3.0, "focal_gamma": 1.0}
    found = metrics_of(task, logits[:, None], labels, weights=weights)
    chances = 1 / (1 + np.exp(-logits))
    seen = {"y_true": labels, "sample_weight": weights}
    assert found["auc"] == pytest.approx(sklearn.roc_auc_score(y_score=logits, **seen), abs=1e-4)
    assert found["accuracy"] == pytest.approx(
        sklearn.accuracy_score(y_pred=logits >= 0, **seen), rel=1e-6
    )
    rate = float(np.average(labels, weights=weights))
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    loss = sklearn.log_loss(labels, chances, sample_weight=weights)
    assert found["normalized_entropy"] == pytest.approx(loss / entropy, rel=1e-6)
    of_yes, of_no = -(1 - chances) * np.log(chances), -chances * np.log(1 - chances)
    trained = np.average(np.where(labels == 1, 3 * of_yes, of_no), weights=weights)
    assert found["loss"] == pytest.approx(trained, rel=1e-6)
    assert found["examples"] == 4000


def gini(labels: np.ndarray, scores: np.ndarray) -> float:
    """Twice the area between the Lorenz curve, in the order of the scores, and the diagonal."""
    order = np.argsort(scores, kind="stable")
    shares = np.concatenate([[0], np.cumsum(labels[order]) / labels.sum()])
    return 1 - 2 * float(np.trapezoid(shares, np.linspace(0, 1, len(shares))))


def test_metrics_of_amounts_are_their_definitions() -> None:
    """Errors and R² by scikit-learn, in the labels' units; Gini by Lorenz curves."""
    random = np.random.default_rng(5)
    outputs = random.normal(size=(6000, 3)).astype(np.float32).astype(np.float64)
    chances = 1 / (1 + np.exp(-outputs[:, 0]))
    amounts = random.lognormal(outputs[:, 1], 0.7) * (random.random(6000) < chances)
    amounts = amounts.astype(np.float32).astype(np.float64)
    task = {"kind": "regression", "loss": "ziln", "std": 2.5}
    found = metrics_of(task, outputs, hidden(amounts))
    is_seen = ~np.isnan(hidden(amounts))
    sigma = np.log1p(np.exp(outputs[:, 2])) + 1e-3
    means = chances * np.exp(outputs[:, 1] + sigma**2 / 2)
    labels, predictions = 2.5 * amounts[is_seen], 2.5 * means[is_seen]
    mse = sklearn.mean_squared_error(labels, predictions)
    assert found["mse"] == pytest.approx(mse, rel=1e-6)
    mae = sklearn.mean_absolute_error(labels, predictions)
    assert found["mae"] == pytest.approx(mae, rel=1e-6)
    assert found["r2"] == pytest.approx(sklearn.r2_score(labels, predictions), rel=1e-6)
    wanted = gini(labels, predictions) / gini(labels, labels)
    assert found["gini"] == pytest.approx(wanted, abs=1e-3)
    auc = sklearn.roc_auc_score(labels > 0, chances[is_seen])
    assert found["nonzero_auc"] == pytest.approx(auc, abs=1e-4)
    assert found["examples"] == is_seen.sum()


def test_the_right_order_has_gini_one_and_no_order_zero() -> None:
    """Whatever the scale of the predictions; one amount for all has none."""
    random = np.random.default_rng(6)
    amounts = random.lognormal(size=900)
    task = {"kind": "regression", "loss": "lognormal"}

    def gini_of(mu: np.ndarray, labels: np.ndarray) -> float | None:
        outputs = np.stack([mu, np.zeros_like(mu)], axis=1)
        found = metrics_of(task, outputs, labels)
        assert "nonzero_auc" not in found
        return found["gini"]

    assert gini_of(2 * np.log(amounts) - 3, amounts) == pytest.approx(1, abs=1e-3)
    assert gini_of(-np.log(amounts), amounts) == pytest.approx(-1, abs=1e-3)
    assert gini_of(np.zeros(900), amounts) == pytest.approx(0, abs=1e-9)
    assert gini_of(np.zeros(900), np.ones(900)) is None


def test_ranking_metrics_are_of_all_examples_and_of_the_pairs_of_the_loss() -> None:
    """The AUC from the scores; loss and order of pairs as the steps summed them."""
    random = np.random.default_rng(7)
    scores = random.normal(size=(900, 1)).astype(np.float32)
    labels = (random.random(900) < 0.3).astype(float)
    found = metrics_of(
        {"kind": "ranking"}, scores, hidden(labels), sums_3T=torch.tensor([[3.0], [4.0], [2.5]])
    )
    is_seen = ~np.isnan(hidden(labels))
    auc = sklearn.roc_auc_score(labels[is_seen], scores[is_seen, 0])
    assert found["auc"] == pytest.approx(auc, abs=1e-3)
    assert (found["loss"], found["group_auc"]) == (0.75, 0.625)
    assert found["examples"] == is_seen.sum()


@pytest.mark.parametrize(
    "task",
    [
        {"kind": "multiclass", "num_classes": 3},
        {"kind": "regression", "loss": "lognormal"},
        {"kind": "regression", "loss": "ziln"},
        {"kind": "ranking"},
    ],
)
def test_without_a_label_nothing_is_defined(task: dict[str, Any]) -> None:
    """None, and no examples; a run without any label has no score."""
    found = metrics_of(
        task, np.zeros((6, LOSS_OUTPUTS[task.get("loss", task["kind"])])), np.full(6, np.nan)
    )
    assert quality(found) is None
    assert selection_score({"task": found}) is None
    assert found.pop("examples") == 0
    assert set(found.values()) == {None}


LOSS_OUTPUTS = {"multiclass": 3, "lognormal": 2, "ziln": 3, "ranking": 1}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"auc": 0.7, "accuracy": 0.9}, 0.7),
        ({"auc": None, "accuracy": 1.0}, None),
        ({"auc": 0.6, "group_auc": 0.8}, 0.8),
        ({"accuracy": 0.4, "macro_auc": 0.75}, 0.75),
        ({"accuracy": 0.4}, 0.4),
        ({"r2": -0.5, "gini": 0.2, "nonzero_auc": 0.9}, 0.6),
        ({"r2": 0.0}, 0.5),
        ({"r2": 1.0}, 1.0),
        ({"r2": -1e9}, 0.0),
        ({"r2": None, "mse": None}, None),
    ],
)
def test_the_quality_of_a_task_lies_between_nothing_and_one(
    result: dict[str, float | None], expected: float | None
) -> None:
    """Half for chance, so that tasks of all kinds count alike."""
    found = quality(result)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-6))
