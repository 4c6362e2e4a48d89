"""Towers whose layers are scaled for each example, by features that say what kind it is of.

Shape legend: B examples on this rank, I width of the input, G width of the gate features, C width
of what a gate reads, H width of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import last_width
from trainer.model_config import PepnetConfig, PosoConfig

# so that a gate that knows nothing yet, at sigmoid(0), leaves the scale alone
GATE_SCALE = 2.0


class Gate(nn.Module):
    """Two layers, from features to a scale between 0 and 2 for each number that they scale.

    Args:
        width: C.
        hidden: width of the layer between.
        num_scaled: H.
    """

    def __init__(self, width: int, *, hidden: int, num_scaled: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, num_scaled)
        )

    def forward(self, features_BC: Tensor) -> Tensor:
        """float32 (B, H)."""
        return GATE_SCALE * torch.sigmoid(self.layers(features_BC))


class GatedTower(nn.Module):
    """As `trainer.architectures.layers.tower`, a gate behind every layer.

    Args:
        width: of the input.
        widths: of the layers.
        gate_input: C.
        gate_layer: width of the gates' hidden layer.
        dropout: fraction of each layer's activations dropped in training.
    """

    def __init__(
        self,
        width: int,
        widths: Sequence[int],
        *,
        gate_input: int,
        gate_layer: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.gates = nn.ModuleList()
        for out in widths:
            self.layers.append(nn.Linear(width, out))
            self.gates.append(Gate(gate_input, hidden=gate_layer, num_scaled=out))
            width = out
        self._dropout = dropout

    def forward(self, hidden: Tensor, *, features_BC: Tensor) -> Tensor:
        """float32 (B, H)."""
        for layer, gate in zip(self.layers, self.gates, strict=True):
            hidden = functional.relu(layer(hidden)) * gate(features_BC)
            hidden = functional.dropout(hidden, self._dropout, training=self.training)
        return hidden


class Poso(Architecture):
    """Personalised cold start modules, in towers: a shared bottom with a gate behind every layer.

    The gates read the recipe's `gate_features`, which say of what group a user is, e.g. for how
    long one has been there, and nothing else. The paper's form for fully connected layers: one
    gate for each number that a layer gives.

    Source: Dai et al., "POSO: personalized cold start modules for large-scale recommender systems",
        arXiv 2108.04690, 2021: POSO of multi-layer perceptrons.
    """

    def __init__(self, config: PosoConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.bottom = GatedTower(
            sizes.input_width,
            config.shared_tower,
            gate_input=sizes.gate_width,
            gate_layer=config.gate_layer,
            dropout=config.dropout,
        )
        width = last_width(sizes.input_width, config.shared_tower)
        self.towers = nn.ModuleList(
            GatedTower(
                width,
                config.task_tower,
                gate_input=sizes.gate_width,
                gate_layer=config.gate_layer,
                dropout=config.dropout,
            )
            for _ in sizes.tasks
        )
        self.heads = nn.ModuleList(
            nn.Linear(last_width(width, config.task_tower), num_outputs)
            for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        assert inputs.gate_BG is not None, "a recipe of this architecture has gate_features"
        return self.bottom(inputs.shared_BI, features_BC=inputs.gate_BG), inputs.gate_BG

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            head(tower(hidden_BH, features_BC=gate_BG))
            for head, tower, (hidden_BH, gate_BG) in zip(
                self.heads, self.towers, copies, strict=True
            )
        ]


class Pepnet(Architecture):
    """Parameter and embedding personalised network.

    A first gate scales the input (EPNet), others what each layer of a task's tower gives (PPNet).
    Gates read the recipe's `gate_features`, and beside them, without gradient, what the tower
    reads. The paper has features of the domain for the first gate and of user, item and author for
    the others, here all read the same ones; and each layer has a gate unit of its own.

    Source: Chang et al., "PEPNet: parameter and embedding personalized network for infusing with
        personalized prior information", KDD 2023: Gate NU, EPNet and PPNet.
    """

    def __init__(self, config: PepnetConfig, *, sizes: Sizes) -> None:
        super().__init__()
        gate_input = sizes.gate_width + sizes.input_width
        self.gate = Gate(gate_input, hidden=config.gate_layer, num_scaled=sizes.input_width)
        self.towers = nn.ModuleList(
            GatedTower(
                sizes.input_width,
                config.task_tower,
                gate_input=gate_input,
                gate_layer=config.gate_layer,
                dropout=config.dropout,
            )
            for _ in sizes.tasks
        )
        self.heads = nn.ModuleList(
            nn.Linear(config.task_tower[-1], num_outputs) for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        assert inputs.gate_BG is not None, "a recipe of this architecture has gate_features"
        input_BI, gate_BG = inputs.shared_BI, inputs.gate_BG
        return input_BI * self.gate(torch.cat([gate_BG, input_BI.detach()], dim=1)), gate_BG

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            head(tower(input_BI, features_BC=torch.cat([gate_BG, input_BI.detach()], dim=1)))
            for head, tower, (input_BI, gate_BG) in zip(
                self.heads, self.towers, copies, strict=True
            )
        ]
