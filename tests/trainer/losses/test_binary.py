"""Losses of a yes or no, against their definition in double precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.helpers.tasks import data_config, losses_of
from trainer.losses import TaskSet


def mean_loss(logits: list[float], labels: list[float], **options: Any) -> torch.Tensor:
    tasks = TaskSet(data_config({"click": {"kind": "binary", **options}}))
    losses_T, _, _ = losses_of(
        tasks,
        outputs_BK=torch.tensor(logits, dtype=torch.float64).unsqueeze(1),
        labels_BT=torch.tensor(labels, dtype=torch.float64).unsqueeze(1),
    )
    return losses_T[0]


def naive(logit: float, label: float, *, weight: float, gamma: float, smoothing: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    label = (1 - smoothing) * label + smoothing / 2
    of_yes = -weight * label * (1 - p) ** gamma * math.log(p)
    return of_yes - (1 - label) * p**gamma * math.log(1 - p)


@pytest.mark.parametrize("weight", [1.0, 7.5])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_its_definition(weight: float, gamma: float, smoothing: float) -> None:
    """All options in any mixture, for hard labels and soft ones."""
    logits = [-4.0, -0.3, 0.0, 1.2, 6.0, 0.7]
    labels = [0.0, 1.0, 1.0, 0.0, 1.0, 0.25]
    options = {"positive_weight": weight, "focal_gamma": gamma, "label_smoothing": smoothing}
    expected = [
        naive(logit, label, weight=weight, gamma=gamma, smoothing=smoothing)
        for logit, label in zip(logits, labels, strict=True)
    ]
    found = mean_loss(logits, labels, **options)
    assert float(found) == pytest.approx(sum(expected) / len(expected), rel=1e-9)


@pytest.mark.parametrize("logit", [-1e4, -50.0, 50.0, 1e4])
def test_the_focal_loss_of_extreme_logits_is_finite(logit: float) -> None:
    """It is the cross entropy where the prediction is wrong, and nothing where it is right."""
    for label in (0.0, 1.0):
        is_wrong = (logit > 0) != (label == 1)
        found = float(mean_loss([logit], [label], focal_gamma=2.0))
        assert found == pytest.approx(abs(logit) if is_wrong else 0.0, abs=1e-9)


def test_the_focal_gradient_is_that_of_its_definition() -> None:
    """By differences."""
    tasks = TaskSet(data_config({"click": {"kind": "binary", "focal_gamma": 1.5}}))
    labels_BT = torch.tensor([[0.0], [1.0], [0.3]], dtype=torch.float64)
    outputs_BK = torch.tensor([[0.4], [-1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda outputs: losses_of(tasks, outputs_BK=outputs, labels_BT=labels_BT)[0], outputs_BK
    )
