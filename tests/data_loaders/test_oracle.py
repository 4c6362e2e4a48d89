"""The best possible is measured as the metrics of a run are."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_loaders.oracle import BinaryBest, RegressionBest


def test_the_auc_counts_ties_as_one_half() -> None:
    """Against scikit-learn, on 5 different probabilities, two of them beyond the outer bins."""
    rng = np.random.default_rng(0)
    truth = rng.choice([1e-9, 0.1, 0.3, 0.7, 1 - 1e-9], size=5_000)
    labels = (rng.random(5_000) < truth).astype(np.int8)
    best = BinaryBest()
    for part in np.array_split(np.arange(5_000), 7):
        best.add(truth=truth[part], labels=labels[part])
    assert best.metrics()["auc"] == pytest.approx(roc_auc_score(labels, truth), abs=1e-12)


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    """No AUC without both kinds of labels, no mse without labels: dataset.json holds no NaN."""
    binary, regression = BinaryBest(), RegressionBest(log=True)
    binary.add(truth=np.array([0.2, 0.4]), labels=np.array([0, 0]))
    assert binary.metrics() == {}
    assert regression.metrics() == {}
