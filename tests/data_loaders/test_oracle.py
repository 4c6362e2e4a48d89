"""The best possible is measured as the metrics of a run are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from data_loaders.oracle import BinaryBest, RegressionBest, SplitBest


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


def test_new_ids_and_known_ones_are_measured_apart() -> None:
    """Against scikit-learn on either part, over several tables, where the label is observed; a
    split without new ids has no AUC over them."""
    rng = np.random.default_rng(1)
    truth, spend = rng.random(6_000), rng.random(6_000)
    is_new, observed = rng.random((2, 6_000)) < 0.3
    labels = (rng.random(6_000) < truth).astype(np.int8)
    table = pa.table(
        {
            "item_id_is_new": is_new.astype(np.int8),
            "click": pa.array(labels, mask=~observed),
            "spend": spend,
            "truth_click": truth,
            "truth_spend": spend,
        }
    )
    best = SplitBest({"click": "binary", "spend": "regression"})
    for start in range(0, 6_000, 1_500):
        best.add(table.slice(start, 1_500))
    metrics = best.metrics()
    assert metrics["spend"] == {"mse": 0.0}
    assert list(metrics["click"]) == [
        *("auc", "normalized_entropy", "auc_item_id_cold", "auc_item_id_warm")
    ]
    for metric, part in (
        ("auc", observed),
        ("auc_item_id_cold", observed & is_new),
        ("auc_item_id_warm", observed & ~is_new),
    ):
        exact = roc_auc_score(labels[part], truth[part])
        assert metrics["click"][metric] == pytest.approx(exact, abs=1e-4)

    all_known = SplitBest({"click": "binary"})
    all_known.add(table.filter(pa.array(~is_new)))
    assert "auc_item_id_cold" not in all_known.metrics()["click"]
    assert "auc_item_id_warm" in all_known.metrics()["click"]
