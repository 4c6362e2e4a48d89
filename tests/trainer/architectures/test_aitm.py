"""Adaptive information transfer against the paper's equations, an example at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.trainer.architectures.drawn import NUM_EXAMPLES, copies_and_outputs, draw, layers
from trainer.architectures.aitm import Aitm, Transfer

TASKS = ("purchase", "click", "share", "cart")
# click -> cart -> purchase, and share by itself
AFTER = {"cart": "click", "purchase": "cart"}


def transferred(module: Transfer, own_H: Tensor, before_H: Tensor) -> Tensor:
    def of(layer: nn.Linear, values_H: Tensor) -> Tensor:
        return layer.weight @ values_H + layer.bias

    told_H = of(module.before, before_H).clamp(min=0)
    scores = [
        float(of(module.key, u) @ of(module.query, u)) / math.sqrt(len(u)) for u in (told_H, own_H)
    ]
    total = sum(math.exp(score) for score in scores)
    return sum(
        math.exp(score) / total * of(module.value, u)
        for score, u in zip(scores, (told_H, own_H), strict=True)
    )


@torch.no_grad()
def test_what_is_known_travels_along_the_chain() -> None:
    """A task without one before it reads its own tower alone."""
    model, inputs = draw("aitm", tasks=TASKS, after=AFTER, task_tower=[4, 3])
    assert isinstance(model, Aitm)
    _, outputs = copies_and_outputs(model, inputs, num_tasks=4)
    for example in range(NUM_EXAMPLES):
        own = [layers(tower, inputs.shared_BI[example]) for tower in model.towers]
        found = {"click": own[1], "share": own[2]}
        found["cart"] = transferred(model.transfers["3"], own[3], found["click"])
        found["purchase"] = transferred(model.transfers["0"], own[0], found["cart"])
        for index, name in enumerate(TASKS):
            head = model.heads[index]
            expected = head.weight @ found[name] + head.bias
            torch.testing.assert_close(outputs[index][example], expected)


def test_the_calibrator_has_the_gradient_of_the_paper() -> None:
    """With respect to all predictions; its value is that for each task of a step."""
    model, inputs = draw("aitm", tasks=TASKS, after=AFTER, calibration_weight=0.3)
    copies, outputs = copies_and_outputs(model, inputs, num_tasks=4)
    outputs = [output.detach().requires_grad_() for output in outputs]
    labels_BT = torch.zeros(NUM_EXAMPLES, 4, dtype=torch.float64)
    extra_BT = model.extra_losses(outputs, copies=copies, labels_BT=labels_BT)
    assert extra_BT is not None
    purchase, click, _, cart = (output.sigmoid() for output in outputs)
    wanted = 0.3 * ((cart - click).clamp(min=0) + (purchase - cart).clamp(min=0)).sum()
    assert wanted > 0
    torch.testing.assert_close(extra_BT.sum(), 2 * wanted)
    found = torch.autograd.grad(extra_BT.sum(), outputs, allow_unused=True)
    expected = torch.autograd.grad(wanted, outputs, allow_unused=True)
    for one, two in zip(found, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two)
