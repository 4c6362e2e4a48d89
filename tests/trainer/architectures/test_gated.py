"""Gates by features, an example and a layer at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.trainer.architectures.drawn import NUM_EXAMPLES, copies_and_outputs, draw, layers
from trainer.architectures.gated import Gate, GatedTower, Pepnet, Poso

TASKS = ("click", "purchase")
OPTIONS = {"gate_features": ["any"], "gate_layer": 3}


def scale(gate: Gate, features_C: Tensor) -> Tensor:
    return torch.stack([2 / (1 + (-item).exp()) for item in layers(gate.layers, features_C)])


def scaled(tower: GatedTower, hidden: Tensor, features_C: Tensor) -> Tensor:
    for layer, gate in zip(tower.layers, tower.gates, strict=True):
        hidden = (layer.weight @ hidden + layer.bias).clamp(min=0) * scale(gate, features_C)
    return hidden


@torch.no_grad()
def test_poso_scales_every_layer_by_the_gate_features() -> None:
    """Shared layers and each task's own."""
    model, inputs = draw("poso", tasks=TASKS, **OPTIONS, shared_tower=[5, 4], task_tower=[4])
    assert isinstance(model, Poso)
    _, outputs = copies_and_outputs(model, inputs, num_tasks=2)
    for example in range(NUM_EXAMPLES):
        features_G = inputs.gate_BG[example]
        hidden = scaled(model.bottom, inputs.shared_BI[example], features_G)
        for task, head in enumerate(model.heads):
            found = scaled(model.towers[task], hidden, features_G)
            torch.testing.assert_close(outputs[task][example], head.weight @ found + head.bias)


@torch.no_grad()
def test_pepnet_scales_the_input_and_every_layer_of_a_task() -> None:
    """Gates read the gate features, and beside them what the tower reads."""
    model, inputs = draw("pepnet", tasks=TASKS, **OPTIONS, task_tower=[4, 3])
    assert isinstance(model, Pepnet)
    _, outputs = copies_and_outputs(model, inputs, num_tasks=2)
    for example in range(NUM_EXAMPLES):
        input_I, features_G = inputs.shared_BI[example], inputs.gate_BG[example]
        input_I = input_I * scale(model.gate, torch.cat([features_G, input_I]))
        features_C = torch.cat([features_G, input_I])
        for task, head in enumerate(model.heads):
            found = scaled(model.towers[task], input_I, features_C)
            torch.testing.assert_close(outputs[task][example], head.weight @ found + head.bias)


def test_gates_of_pepnet_leave_the_input_without_gradient() -> None:
    """It gets the one that it would have if all gates were constants; the gate features get one."""
    model, inputs = draw("pepnet", tasks=TASKS, **OPTIONS, task_tower=[4])
    assert isinstance(model, Pepnet)
    inputs.shared_BI.requires_grad_()
    inputs.gate_BG.requires_grad_()
    _, outputs = copies_and_outputs(model, inputs, num_tasks=2)
    sum(output.sum() for output in outputs).backward()
    assert inputs.gate_BG.grad.any()
    for example in range(NUM_EXAMPLES):
        features_G = inputs.gate_BG[example].detach()
        input_I = inputs.shared_BI[example].detach().requires_grad_()
        factors_I = scale(model.gate, torch.cat([features_G, input_I])).detach()
        features_C = torch.cat([features_G, input_I * factors_I]).detach()
        loss = sum(
            head.weight[0]
            @ (
                (tower.layers[0].weight @ (input_I * factors_I) + tower.layers[0].bias).clamp(min=0)
                * scale(tower.gates[0], features_C).detach()
            )
            for head, tower in zip(model.heads, model.towers, strict=True)
        )
        (expected_I,) = torch.autograd.grad(loss, input_I)
        torch.testing.assert_close(inputs.shared_BI.grad[example], expected_I)


def test_a_gate_that_knows_nothing_leaves_the_scale_alone() -> None:
    """Half open, it multiplies by 1."""
    gate = Gate(3, hidden=4, num_scaled=2)
    for item in gate.parameters():
        torch.nn.init.zeros_(item)
    assert gate(torch.full((1, 3), math.pi)).tolist() == [[1.0, 1.0]]
