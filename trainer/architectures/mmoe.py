"""Experts that all tasks share, mixed by one gate for all tasks or by one of each task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import experts, mixed, task_towers
from trainer.model_config import MmoeConfig, OmoeConfig


class Omoe(Architecture):
    """One-gate mixture of experts: all towers read the same mixture.

    Source: Ma et al., "Modeling task relationships in multi-task learning with multi-gate
        mixture-of-experts", KDD 2018, equation 5.
    """

    def __init__(self, config: OmoeConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.experts = experts(config.num_experts, width=sizes.input_width, config=config)
        self.gate = nn.Linear(sizes.input_width, config.num_experts, bias=False)
        self.towers = task_towers(config.expert_tower[-1], config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        gate_BN = self.gate(inputs.shared_BI).softmax(dim=1)
        self.observe_gates([gate_BN] * len(self.towers))
        return (mixed(self.experts(inputs.shared_BI), gate_BN),)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [tower(mixed_BH) for tower, (mixed_BH,) in zip(self.towers, copies, strict=True)]


class Mmoe(Architecture):
    """Multi-gate mixture of experts.

    Source: as of `Omoe`, equations 6 and 7.
    """

    def __init__(self, config: MmoeConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.experts = experts(config.num_experts, width=sizes.input_width, config=config)
        self.gates = nn.ModuleList(
            nn.Linear(sizes.input_width, config.num_experts, bias=False) for _ in sizes.tasks
        )
        self.towers = task_towers(config.expert_tower[-1], config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        return self.experts(inputs.shared_BI), inputs.shared_BI

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        gates = [
            gate(input_BI).softmax(dim=1)
            for gate, (_, input_BI) in zip(self.gates, copies, strict=True)
        ]
        self.observe_gates(gates)
        return [
            tower(mixed(experts_NBH, gate_BN))
            for tower, gate_BN, (experts_NBH, _) in zip(self.towers, gates, copies, strict=True)
        ]
