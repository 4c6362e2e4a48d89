"""Metrics against scikit-learn, and several ranks against one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn import metrics as sklearn

from tests.helpers.ranks import run_ranks
from tests.helpers.tasks import data_config, step_output
from trainer.metrics import TaskMetrics
from trainer.model import StepOutput

TASKS: dict[str, dict[str, Any]] = {
    "click": {"kind": "binary"},
    "watch": {"kind": "regression", "mean": 3.0, "std": 2.5},
}


def metrics_of(*names: str) -> TaskMetrics:
    config = data_config({name: TASKS[name] for name in names})
    return TaskMetrics(config, device=torch.device("cpu"))


def binary_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    found = metrics_of("click")
    found.update(step_output(logits[:, None], labels[:, None]))
    return found.reduce_and_reset()["click"]


def drawn(*, seed: int, size: int = 20_000, scale: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits in float32, and labels that follow them somewhat."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, scale, size).astype(np.float32)
    labels = random.random(size) < 1 / (1 + np.exp(-logits / 2))
    return logits, labels.astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.5, 4.0])
def test_auc_is_scikit_learns_to_a_ten_thousandth(scale: float) -> None:
    """For models that hardly tell examples apart, and for very certain ones."""
    for seed in range(3):
        logits, labels = drawn(seed=seed, scale=scale)
        expected = sklearn.roc_auc_score(labels, logits)
        assert binary_metrics(logits, labels)["auc"] == pytest.approx(expected, abs=1e-4)


def test_tied_scores_count_half() -> None:
    """As scikit-learn counts them: few distinct scores, or one."""
    random = np.random.default_rng(0)
    labels = (random.random(5000) < 0.2).astype(np.float32)
    few = random.choice(np.array([-3.0, -0.5, 0.0, 0.25], np.float32), 5000) + labels * 0.25
    expected = sklearn.roc_auc_score(labels, few)
    assert binary_metrics(few, labels)["auc"] == pytest.approx(expected, abs=1e-9)
    assert binary_metrics(np.full(5000, 0.7, np.float32), labels)["auc"] == 0.5


@pytest.mark.parametrize("extreme", [17.0, 1e4, 1e18, 1e30, 3e38])
def test_extreme_logits_keep_their_side(extreme: float) -> None:
    """However large: a sure yes is a yes and above every no."""
    logits = np.array([-extreme, -1.0, 1.0, extreme])
    right = binary_metrics(logits, np.array([0.0, 0.0, 1.0, 1.0]))
    assert (right["auc"], right["accuracy"], right["f1"]) == (1.0, 1.0, 1.0)
    wrong = binary_metrics(logits, np.array([1.0, 1.0, 0.0, 0.0]))
    assert (wrong["auc"], wrong["accuracy"], wrong["f1"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_thresholded_metrics_are_scikit_learns(seed: int) -> None:
    """At a probability of 0.5, which counts as yes."""
    logits, labels = drawn(seed=seed)
    logits[::100] = 0.0
    found, predicted = binary_metrics(logits, labels), logits >= 0
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert found["precision"] == pytest.approx(sklearn.precision_score(labels, predicted))
    assert found["recall"] == pytest.approx(sklearn.recall_score(labels, predicted))
    assert found["f1"] == pytest.approx(sklearn.f1_score(labels, predicted))


def test_loss_entropy_and_calibration_are_their_definitions() -> None:
    """Log loss; over the entropy of the base rate (He et al., 2014); predicted over observed."""
    logits, labels = drawn(seed=7)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found, rate = binary_metrics(logits, labels), labels.mean(dtype=np.float64)
    loss = sklearn.log_loss(labels, probabilities)
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    assert found["normalized_entropy"] == pytest.approx(loss / entropy, rel=1e-6)
    assert found["calibration"] == pytest.approx(probabilities.mean() / rate, rel=1e-6)
    assert found["examples"] == len(labels)
    base = binary_metrics(np.full(len(labels), np.log(rate / (1 - rate))), labels)
    assert base["normalized_entropy"] == pytest.approx(1, rel=1e-5)
    assert base["calibration"] == pytest.approx(1, rel=1e-5)


def test_soft_labels_count_as_a_part_of_each_class() -> None:
    """A label of 0.3 is three yes and seven no."""
    random = np.random.default_rng(3)
    logits, tenths = random.normal(size=300), random.integers(0, 11, 300)
    found = binary_metrics(logits, tenths / 10)
    many = np.repeat(logits, 10)
    hard = np.concatenate([[1.0] * n + [0.0] * (10 - n) for n in tenths])
    expected = binary_metrics(many, hard)
    for name in ("auc", "loss", "calibration", "accuracy", "precision", "recall", "f1"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_regression_metrics_are_in_the_labels_units() -> None:
    """The model sees standardised labels; mse and mae are of what the log holds."""
    random = np.random.default_rng(1)
    labels = random.normal(3.0, 2.5, 500)
    predictions = labels + random.normal(0, 1, 500)
    found = metrics_of("watch")
    found.update(step_output((predictions[:, None] - 3.0) / 2.5, (labels[:, None] - 3.0) / 2.5))
    result = found.reduce_and_reset()["watch"]
    mse = sklearn.mean_squared_error(labels, predictions)
    mae = sklearn.mean_absolute_error(labels, predictions)
    assert result["mse"] == pytest.approx(mse, rel=1e-5)
    assert result["mae"] == pytest.approx(mae, rel=1e-5)
    assert result["r2"] == pytest.approx(sklearn.r2_score(labels, predictions), rel=1e-5)
    assert result["loss"] == pytest.approx(mse / 2.5**2, rel=1e-5)
    assert result["examples"] == 500


def steps(num_steps: int) -> list[StepOutput]:
    """Both tasks, a part of the labels not observed, padding of any content at the end of each."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(num_steps):
        logits, labels = drawn(seed=random.integers(1000), size=100)
        outputs = np.stack([logits, random.normal(size=100)], axis=1)
        targets = np.stack([labels, random.normal(size=100)], axis=1)
        targets[random.random((100, 2)) < 0.3] = np.nan
        found.append(step_output(outputs, targets, np.arange(100) < random.integers(50, 101)))
    return found


def test_what_is_not_observed_adds_nothing() -> None:
    """Unobserved labels and padding, over several steps: as if the rows were not there."""
    whole = metrics_of(*TASKS)
    for output in steps(4):
        whole.update(output)
    found = whole.reduce_and_reset()
    for index, name in enumerate(TASKS):
        alone = metrics_of(name)
        for output in steps(4):
            keep = ~output.labels_BT[:, index].isnan() & (output.weights_B > 0)
            outputs, labels = (
                tensor[keep][:, index : index + 1].numpy()
                for tensor in (output.outputs_BK, output.labels_BT)
            )
            alone.update(step_output(outputs, labels))
        for key, value in alone.reduce_and_reset()[name].items():
            assert found[name][key] == pytest.approx(value, rel=1e-9)


def reduced_over_ranks() -> list[dict[str, Any]]:
    """Every other step is this rank's; twice, so that the second reduction starts from nothing."""
    found, results = metrics_of(*TASKS), []
    for part in (steps(7)[:4], steps(7)[4:]):
        for output in part[dist.get_rank() :: dist.get_world_size()]:
            found.update(output)
        results.append(found.reduce_and_reset())
    return results


def test_two_ranks_equal_one() -> None:
    """All metrics, on every rank, and each reduction counts only what came after the last."""
    expected = metrics_of(*TASKS)
    results = run_ranks(reduced_over_ranks, world_size=2)
    for index, part in enumerate((steps(7)[:4], steps(7)[4:])):
        for output in part:
            expected.update(output)
        for name, wanted in expected.reduce_and_reset().items():
            for result in results:
                assert result[index][name] == pytest.approx(wanted, rel=1e-9)


def test_what_is_not_defined_is_none() -> None:
    """No label, one class only, nothing predicted as yes: never NaN, never a division by zero."""
    unseen = binary_metrics(np.zeros(3), np.full(3, math.nan))
    assert unseen.pop("examples") == 0
    assert set(unseen.values()) == {None}
    only_no = binary_metrics(np.array([-1.0, -2.0]), np.zeros(2))
    for name in ("auc", "normalized_entropy", "calibration", "precision", "recall", "f1"):
        assert only_no[name] is None
    assert only_no["accuracy"] == 1
    assert only_no["loss"] == pytest.approx(np.log1p(np.exp([-1.0, -2.0])).mean())
    only_yes = binary_metrics(np.array([-1.0, 2.0]), np.ones(2))
    assert only_yes["auc"] is None
    assert (only_yes["recall"], only_yes["precision"]) == (0.5, 1.0)
    nothing = metrics_of("watch")
    assert nothing.reduce_and_reset()["watch"] == {
        "loss": None,
        "mse": None,
        "mae": None,
        "r2": None,
        "examples": 0,
    }
