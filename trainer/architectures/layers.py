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


def last_width(width: int, widths: Sequence[int]) -> int:
    """Width behind the layers of a tower without outputs."""
    return widths[-1] if widths else width


class Experts(nn.Module):
    """Towers of equal shape on the same input, computed together.

    Args:
        num_experts: N.
        width: I.
        widths: of the layers.
        dropout: as of `tower`.
    """

    def __init__(
        self, num_experts: int, *, width: int, widths: Sequence[int], dropout: float
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
        self._dropout = dropout

    def forward(self, input_BI: Tensor) -> Tensor:
        """float32 (N, B, H)."""
        hidden = input_BI.expand(len(self.weights[0]), -1, -1)
        for weight_NIO, bias_N1O in zip(self.weights, self.biases, strict=True):
            hidden = functional.relu(torch.baddbmm(bias_N1O, hidden, weight_NIO))
            hidden = functional.dropout(hidden, self._dropout, training=self.training)
        return hidden


def mixed(experts_NBH: Tensor, gate_BN: Tensor) -> Tensor:
    """Each example's own mixture of the experts: float32 (B, H)."""
    return torch.einsum("nbh,bn->bh", experts_NBH, gate_BN)
