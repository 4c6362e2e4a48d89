"""The loss of several classes, against its definition in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.helpers.tasks import data_config, losses_of
from trainer.losses import TaskSet


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_the_observed(smoothing: float) -> None:
    """Beside another task, whose outputs and labels it does not touch."""
    config = {"kind": "multiclass", "num_classes": 4, "label_smoothing": smoothing}
    tasks = TaskSet(data_config({"click": {"kind": "binary"}, "next": config}))
    assert tasks.num_outputs == (1, 4)
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(30, 4)), random.integers(0, 4, 30).astype(float)
    labels[::7] = math.nan
    expected = []
    for row, label in zip(logits, labels, strict=True):
        if not math.isnan(label):
            log_p = row - math.log(sum(math.exp(value) for value in row))
            target = np.full(4, smoothing / 4)
            target[int(label)] += 1 - smoothing
            expected.append(-float(target @ log_p))
    outputs = torch.from_numpy(np.hstack([random.normal(size=(30, 1)), logits]))
    labels_BT = torch.from_numpy(np.stack([np.zeros(30), labels], axis=1))
    _, means_T, sums_3T = losses_of(tasks, outputs_BK=outputs, labels_BT=labels_BT)
    assert float(means_T[1]) == pytest.approx(np.mean(expected), rel=1e-9)
    assert sums_3T[1].tolist() == [30, len(expected)]
