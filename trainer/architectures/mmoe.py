"""Experts that all tasks share, mixed for each task by a gate of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import Experts, mixed, tower
from trainer.model_config import MmoeConfig


class Mmoe(Architecture):
    """Multi-gate mixture of experts.

    Source: Ma et al., "Modeling task relationships in multi-task learning with multi-gate
        mixture-of-experts", KDD 2018, equations 6 and 7.
    """

    def __init__(self, config: MmoeConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.experts = Experts(
            config.num_experts,
            width=sizes.input_width,
            widths=config.expert_tower,
            dropout=config.dropout,
        )
        self.gates = nn.ModuleList(
            nn.Linear(sizes.input_width, config.num_experts, bias=False) for _ in sizes.tasks
        )
        self.towers = nn.ModuleList(
            tower(
                config.expert_tower[-1],
                config.task_tower,
                dropout=config.dropout,
                num_outputs=num_outputs,
            )
            for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        return self.experts(inputs.shared_BI), inputs.shared_BI

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            tower(mixed(experts_NBH, gate(input_BI).softmax(dim=1)))
            for tower, gate, (experts_NBH, input_BI) in zip(
                self.towers, self.gates, copies, strict=True
            )
        ]
