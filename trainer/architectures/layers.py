"""What architectures are made of.

Shape legend: B examples on this rank, N experts, I inputs, O outputs of a layer, H width of an
expert's last layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.architectures.architecture import Sizes
from trainer.model_config import ExpertsConfig, ModelConfig


def tower(
    width: int, widths: Sequence[int], *, dropout: float, num_outputs: int | None = None
) -> nn.Sequential:
    """Fully connected layers with ReLU.

    Args:
        width: of the input.
        widths: of the layers.
        dropout: fraction of each layer's activations dropped in training.
        num_outputs: of a linear layer at the end; None for no such layer.
    """
    layers: list[nn.Module] = []
    for out in widths:
        layers += [nn.Linear(width, out), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = out
    if num_outputs is not None:
        layers.append(nn.Linear(width, num_outputs))
    return nn.Sequential(*layers)


def task_towers(width: int, *, config: ModelConfig, sizes: Sizes) -> nn.ModuleList:
    """A tower for each task, up to its outputs.

    Args:
        width: of what each reads.
    """
    return nn.ModuleList(
        tower(width, config.task_tower, dropout=config.dropout, num_outputs=num_outputs)
        for num_outputs in sizes.num_outputs
    )


def last_width(width: int, widths: Sequence[int]) -> int:
    """Width behind the layers of a tower without outputs."""
    return widths[-1] if widths else width


class Experts(nn.Module):
    """Towers of equal shape, computed together.

    Args:
        num_experts: N.
        width: I.
        widths: of the layers.
        dropout: as of `tower`.
        is_normalised: each layer ends with Swish instead of ReLU, and before the last one each
            expert's activations are brought to mean 0 and variance 1 of each example, then scaled
            and shifted as the expert learns it.
    """

    def __init__(
        self,
        num_experts: int,
        *,
        width: int,
        widths: Sequence[int],
        dropout: float,
        is_normalised: bool = False,
    ) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for out in widths:
            # as nn.Linear draws them
            bound = 1 / math.sqrt(width)
            self.weights.append(torch.empty(num_experts, width, out).uniform_(-bound, bound))
            self.biases.append(torch.empty(num_experts, 1, out).uniform_(-bound, bound))
            width = out
        self.scales = nn.ParameterList()
        self.shifts = nn.ParameterList()
        if is_normalised:
            self.scales.append(torch.ones(num_experts, 1, width))
            self.shifts.append(torch.zeros(num_experts, 1, width))
        self._dropout = dropout

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (N, B, H).

        Args:
            inputs: float32 (B, I), of all experts, or (N, B, I), of each its own.
        """
        hidden = inputs.expand(len(self.weights[0]), -1, -1)
        last = len(self.weights) - 1
        for index, (weight_NIO, bias_N1O) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias_N1O, hidden, weight_NIO)
            if self.scales and index == last:
                normal = functional.layer_norm(hidden, hidden.shape[-1:])
                hidden = normal * self.scales[0] + self.shifts[0]
            hidden = functional.silu(hidden) if self.scales else functional.relu(hidden)
            hidden = functional.dropout(hidden, self._dropout, training=self.training)
        return hidden


def experts(
    num_experts: int, *, width: int, config: ExpertsConfig, is_normalised: bool = False
) -> Experts:
    """As many experts of a recipe's `expert_tower`; the arguments are those of `Experts`."""
    return Experts(
        num_experts,
        width=width,
        widths=config.expert_tower,
        dropout=config.dropout,
        is_normalised=is_normalised,
    )


def repeated(inputs: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Each input as often as it has experts: float32 (N, B, I)."""
    return torch.stack(
        [item for item, count in zip(inputs, counts, strict=True) for _ in range(count)]
    )


def mixed(experts_NBH: Tensor, gate_BN: Tensor) -> Tensor:
    """Each example's own mixture of the experts: float32 (B, H)."""
    return torch.einsum("nbh,bn->bh", experts_NBH, gate_BN)
