"""An architecture with drawn weights, and a drawn batch for it, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.architectures import build_architecture
from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.model_config import AnyModel
from trainer.recipe_errors import choices

NUM_EXAMPLES, WIDTH, GATE_WIDTH = 5, 7, 3


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def draw(word: str, *, tasks: tuple[str, ...], **options: Any) -> tuple[Architecture, Inputs]:
    """Biases too are far from 0, so that one left out is seen."""
    torch.manual_seed(1)
    config = choices(AnyModel)[word].model_validate({"architecture": word, **options})
    sizes = Sizes(
        input_width=WIDTH, tasks=tasks, num_outputs=(1,) * len(tasks), gate_width=GATE_WIDTH
    )
    architecture = build_architecture(config, sizes=sizes).double()
    for item in architecture.parameters():
        nn.init.normal_(item, std=0.7)
    inputs = Inputs(shared_BI=drawn(NUM_EXAMPLES, WIDTH), gate_BG=drawn(NUM_EXAMPLES, GATE_WIDTH))
    return architecture, inputs


def copies_and_outputs(
    architecture: Architecture, inputs: Inputs, *, num_tasks: int
) -> tuple[list[Copy], list[Tensor]]:
    copies = [architecture.shared(inputs)] * num_tasks
    return copies, architecture.outputs(copies, inputs=inputs)


def layers(sequence: nn.Module, values_I: Tensor) -> Tensor:
    """A tower on one example, layer by layer."""
    for module in sequence:  # type: ignore[attr-defined]
        if isinstance(module, nn.Linear):
            rows = zip(module.weight, module.bias, strict=True)
            values_I = torch.stack([(row * values_I).sum() + bias for row, bias in rows])
        else:
            values_I = values_I.clamp(min=0)
    return values_I
