"""Calibration curves against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve as sklearn_curve

from tests.helpers.tasks import data_config, step_output
from trainer.metrics import TaskMetrics
from trainer.metrics.calibration import NUM_PARTS, Curve


def curve_of(logits: np.ndarray, labels: np.ndarray) -> Curve | None:
    config = data_config({"watch": {"kind": "regression"}, "click": {"kind": "binary"}})
    found = TaskMetrics(config, device=torch.device("cpu"))
    both = [np.stack([item, item], axis=1) for item in (logits, labels)]
    for part in np.array_split(np.arange(len(logits)), 3):
        found.update(step_output(both[0][part], both[1][part]))
    found.reduce_and_reset()
    assert "watch" not in found.curves
    return found.curves.get("click")


@pytest.mark.parametrize("seed", range(3))
def test_a_curve_is_scikit_learns(seed: int) -> None:
    """As many examples in each part; an example at an edge may fall to either side."""
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 1.5, 15_000)
    labels = (random.random(15_000) < 1 / (1 + np.exp(-0.7 * logits))).astype(float)
    found = curve_of(logits, labels)
    assert found is not None
    rates, predictions = sklearn_curve(
        labels, 1 / (1 + np.exp(-logits)), n_bins=NUM_PARTS, strategy="quantile"
    )
    np.testing.assert_allclose(found["prediction"], predictions, atol=2e-3)
    np.testing.assert_allclose(found["rate"], rates, atol=5e-3)
    assert sum(found["examples"]) == 15_000
    assert max(found["examples"]) - min(found["examples"]) < 50


def test_parts_are_the_examples_themselves_where_they_are_few() -> None:
    """One part for each distinct score; nothing that is not observed counts."""
    logits = np.array([-1.0, 2.0, -1.0, 0.5, 3.0])
    found = curve_of(logits, np.array([0.0, 1.0, 1.0, 0.0, np.nan]))
    assert found is not None
    np.testing.assert_allclose(
        found["prediction"], 1 / (1 + np.exp(-np.array([-1.0, 0.5, 2.0]))), atol=2e-4
    )
    assert found["rate"] == [0.5, 0.0, 1.0]
    assert found["examples"] == [2, 1, 1]


def test_without_labels_there_is_no_curve() -> None:
    """And nothing of an earlier reduction stays."""
    assert curve_of(np.zeros(3), np.full(3, np.nan)) is None
