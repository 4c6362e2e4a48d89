"""Entire space models against products of probabilities, and risks an example at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.trainer.architectures.drawn import NUM_EXAMPLES, copies_and_outputs, draw, layers
from trainer.architectures.esmm import Escm2, Esmm

TASKS = ("purchase", "click", "share", "cart")
# click -> cart -> purchase, and share by itself
AFTER = {"cart": "click", "purchase": "cart"}
CHAINS = {"purchase": (1, 3, 0), "click": (1,), "share": (2,), "cart": (1, 3)}


@torch.no_grad()
def test_the_output_is_the_logit_of_the_probability_of_the_whole_chain() -> None:
    """Each factor is that of a task's own tower, for all examples."""
    model, inputs = draw("esmm", tasks=TASKS, after=AFTER, shared_tower=[4], task_tower=[3])
    assert isinstance(model, Esmm)
    _, outputs = copies_and_outputs(model, inputs, num_tasks=4)
    for example in range(NUM_EXAMPLES):
        hidden = layers(model.body.bottom, inputs.shared_BI[example])
        steps = [layers(tower, hidden).sigmoid() for tower in model.body.towers]
        for index, name in enumerate(TASKS):
            expected = math.prod(float(steps[step]) for step in CHAINS[name])
            assert float(outputs[index][example].sigmoid()) == pytest.approx(expected, rel=1e-9)


def labels() -> Tensor:
    """Of a click all is known but once, of the cart all but once."""
    nan = math.nan
    return torch.tensor(
        [[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0], [0, nan, 1, 0], [0, 1, 0, nan]]
    ).double()


@pytest.mark.parametrize("estimator", ["ips", "dr"])
@torch.no_grad()
def test_the_counterfactual_risk_is_that_of_the_paper(estimator: str) -> None:
    """For each example of which it is known whether the step before happened, else 0."""
    model, inputs = draw(
        "escm2",
        tasks=TASKS,
        after=AFTER,
        estimator=estimator,
        counterfactual_weight=0.2,
        min_propensity=0.1,
        shared_tower=[4],
        task_tower=[3],
    )
    assert isinstance(model, Escm2)
    copies, outputs = copies_and_outputs(model, inputs, num_tasks=4)
    labels_BT = labels()
    found_BT = model.extra_losses(outputs, copies=copies, labels_BT=labels_BT)
    propensities = outputs[1].sigmoid(), outputs[3].sigmoid()
    assert (torch.cat(propensities) < 0.1).any()
    assert (torch.cat(propensities) > 0.1).any()
    for example, labels_T in enumerate(labels_BT.tolist()):
        hidden = layers(model.esmm.body.bottom, inputs.shared_BI[example])
        for task, before in ((3, 1), (0, 3)):
            if math.isnan(labels_T[before]):
                assert found_BT[example, task] == 0
                continue
            chance = float(layers(model.esmm.body.towers[task], hidden).sigmoid())
            label = 0.0 if math.isnan(labels_T[task]) else labels_T[task]
            error = -math.log(chance if label else 1 - chance)
            weight = labels_T[before] / max(0.1, float(outputs[before][example].sigmoid()))
            if estimator == "ips":
                risk = weight * error
            else:
                imputed = math.log1p(math.exp(layers(model.imputations[str(task)], hidden)))
                risk = imputed + weight * (error - imputed) + weight * (error - imputed) ** 2
            assert float(found_BT[example, task]) == pytest.approx(0.2 * risk, rel=1e-9)
    assert (found_BT[:, 1:3] == 0).all()


def test_no_gradient_goes_through_the_propensity() -> None:
    """A step's own loss would make the step before likelier, to weigh less."""
    model, inputs = draw("escm2", tasks=TASKS, after=AFTER)
    copies, outputs = copies_and_outputs(model, inputs, num_tasks=4)
    extra_BT = model.extra_losses(outputs, copies=copies, labels_BT=labels())
    extra_BT[:, 3].sum().backward()
    has_gradient = [
        any(item.grad is not None and bool(item.grad.any()) for item in tower.parameters())
        for tower in model.esmm.body.towers
    ]
    assert has_gradient == [False, False, False, True]
