"""Losses of numbers and amounts, against their definitions in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.helpers.tasks import data_config, losses_of
from trainer.losses import TaskSet
from trainer.losses.regression import MIN_SIGMA


def tasks_with(**options: Any) -> TaskSet:
    return TaskSet(data_config({"spent": {"kind": "regression", **options}}))


def mean_loss(tasks: TaskSet, outputs: np.ndarray, labels: np.ndarray) -> float:
    labels_BT = torch.from_numpy(labels).unsqueeze(1)
    _, means_T, _ = losses_of(tasks, outputs_BK=torch.from_numpy(outputs), labels_BT=labels_BT)
    return float(means_T[0])


def drawn(num_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs, and amounts of which many are 0."""
    random = np.random.default_rng(3)
    amounts = random.lognormal(0.5, 1.5, 200) * (random.random(200) < 0.4)
    return random.normal(size=(200, num_outputs)), amounts


def sigma_of(raw: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(raw)) + MIN_SIGMA


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_the_huber_loss_is_squared_inside_and_linear_outside(delta: float) -> None:
    """Of the standardised difference."""
    outputs, labels = drawn(1)
    error = np.abs(outputs[:, 0] - labels)
    expected = np.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean()
    found = mean_loss(tasks_with(loss="huber", huber_delta=delta), outputs, labels)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_lognormal_loss_is_scipys_log_likelihood() -> None:
    """And the prediction the distribution's mean."""
    outputs, labels = drawn(2)
    outputs, labels = outputs[labels > 0], labels[labels > 0]
    tasks = tasks_with(loss="lognormal")
    distribution = stats.lognorm(s=sigma_of(outputs[:, 1]), scale=np.exp(outputs[:, 0]))
    expected = -distribution.logpdf(labels).mean()
    assert mean_loss(tasks, outputs, labels) == pytest.approx(expected, rel=1e-9)
    found = tasks.losses[0].prediction(torch.from_numpy(outputs))
    np.testing.assert_allclose(found, distribution.mean(), rtol=1e-9)


def test_the_zero_inflated_loss_is_that_of_buying_and_of_what_is_spent() -> None:
    """Example by example; the prediction is the mean of the mixture."""
    outputs, labels = drawn(3)
    tasks = tasks_with(loss="ziln")
    expected = 0.0
    for (logit, mu, raw), label in zip(outputs, labels, strict=True):
        chance = 1 / (1 + math.exp(-logit))
        if label == 0:
            expected -= math.log(1 - chance)
        else:
            density = stats.lognorm(s=sigma_of(raw), scale=math.exp(mu)).logpdf(label)
            expected -= math.log(chance) + density
    assert mean_loss(tasks, outputs, labels) == pytest.approx(expected / len(labels), rel=1e-9)
    amounts = stats.lognorm(s=sigma_of(outputs[:, 2]), scale=np.exp(outputs[:, 1]))
    means = amounts.mean() / (1 + np.exp(-outputs[:, 0]))
    found = tasks.losses[0].prediction(torch.from_numpy(outputs))
    np.testing.assert_allclose(found, means, rtol=1e-9)


@pytest.mark.parametrize(("loss", "num_outputs"), [("huber", 1), ("lognormal", 2), ("ziln", 3)])
@pytest.mark.parametrize("extreme", [1e30, -1e30, math.inf, math.nan])
def test_what_is_not_observed_cannot_spoil_a_loss(
    loss: str, num_outputs: int, extreme: float
) -> None:
    """Neither its value nor its gradient, however extreme the outputs there are."""
    tasks = tasks_with(loss=loss)
    outputs_BK = torch.tensor([[0.5] * num_outputs, [extreme] * num_outputs], requires_grad=True)
    labels_BT = torch.tensor([[2.0], [math.nan]])
    losses_T, _, _ = losses_of(tasks, outputs_BK=outputs_BK, labels_BT=labels_BT)
    losses_T.sum().backward()
    assert torch.isfinite(losses_T).all()
    assert (outputs_BK.grad[0] != 0).any()
    assert (outputs_BK.grad[1] == 0).all()


@pytest.mark.parametrize(("loss", "num_outputs"), [("lognormal", 2), ("ziln", 3)])
def test_the_gradient_is_that_of_the_definition(loss: str, num_outputs: int) -> None:
    """By differences; for zeros too."""
    tasks = tasks_with(loss=loss)
    labels = [0.3, 2.0, 40.0] if loss == "lognormal" else [0.0, 2.0, 0.0]
    labels_BT = torch.tensor(labels, dtype=torch.float64).unsqueeze(1)
    generator = torch.Generator().manual_seed(1)
    outputs_BK = torch.randn(3, num_outputs, generator=generator, dtype=torch.float64)

    def loss_of(outputs_BK: Tensor) -> Tensor:
        return losses_of(tasks, outputs_BK=outputs_BK, labels_BT=labels_BT)[0]

    assert torch.autograd.gradcheck(loss_of, outputs_BK.requires_grad_())
