"""Two levels of normalised experts: of all tasks, of groups of related tasks, and of each task.

    level 1    x -> shared experts, experts of group 1 .. G -> gates -> meta 1 .. G, shared meta
    level 2    shared meta -> shared experts, meta g -> experts of group g | fan-out |
               meta of the task's group -> experts of task t -> gate t -> tower t

Shape legend: B examples on this rank, I width of the input, N experts, H width of an expert's last
layer, M width of a meta.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import experts, mixed, repeated, task_towers
from trainer.model_config import HomeConfig


class Home(Architecture):
    """Hierarchy of multi-gate experts.

    Experts are normalised over each example's activations, where the paper normalises over the
    batch: examples must not see each other. The feature gates are one pair of thin layers each,
    where the paper adds up several of different rank.

    Source: Wang et al., "HoME: hierarchy of multi-gate experts for multi-task learning at
        Kuaishou", KDD 2025, section 3.
    """

    def __init__(self, config: HomeConfig, *, sizes: Sizes) -> None:
        super().__init__()
        groups = [list(group) for group in config.groups.values()] or [list(sizes.tasks)]
        self._group_of_task = [
            next(index for index, group in enumerate(groups) if task in group)
            for task in sizes.tasks
        ]
        self._num_task_experts = config.num_task_experts
        meta_width = config.expert_tower[-1]
        self.metas = _Metas(config, width=sizes.input_width, num_groups=len(groups))
        self._counts = self.metas.counts
        self.experts = experts(
            sum(self._counts), width=meta_width, config=config, is_normalised=True
        )
        self.feature_gates = nn.ModuleList(
            _FeatureGate(meta_width, rank=config.gate_rank) for _ in sizes.tasks
        )
        self.task_experts = experts(
            sizes.num_tasks * config.num_task_experts,
            width=meta_width,
            config=config,
            is_normalised=True,
        )
        num_read = config.num_task_experts + config.num_group_experts + config.num_shared_experts
        self.gates = nn.ModuleList(nn.Linear(2 * meta_width, num_read) for _ in sizes.tasks)
        self.self_gates = nn.ModuleList(
            _SelfGate(meta_width, num_experts=config.num_task_experts) for _ in sizes.tasks
        )
        self.towers = task_towers(meta_width, config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        metas = self.metas(inputs.shared_BI)
        experts = self.experts(repeated(metas, self._counts)).split(self._counts)
        return *metas, *experts

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        num_parts = len(self._counts)
        # what all tasks share comes first, then the groups
        metas = [copy[1 + group] for group, copy in zip(self._group_of_task, copies, strict=True)]
        gated = [gate(meta_BM) for gate, meta_BM in zip(self.feature_gates, metas, strict=True)]
        own_NBH = self.task_experts(repeated(gated, [self._num_task_experts] * len(copies)))
        gates = [
            gate(torch.cat([meta_BM, copy[0]], dim=1)).softmax(dim=1)
            for gate, meta_BM, copy in zip(self.gates, metas, copies, strict=True)
        ]
        self.observe_gates(gates)
        outputs = []
        for task, own in enumerate(own_NBH.split(self._num_task_experts)):
            of_all, of_groups = copies[task][num_parts], copies[task][num_parts + 1 :]
            read_NBH = torch.cat([own, of_groups[self._group_of_task[task]], of_all])
            mixed_BH = mixed(read_NBH, gates[task]) + self.self_gates[task](metas[task], own)
            outputs.append(self.towers[task](mixed_BH))
        return outputs


class _Metas(nn.Module):
    """Level 1: a representation for all tasks, and one for each group.

    Attributes:
        counts: experts for all tasks, and of each group.
    """

    def __init__(self, config: HomeConfig, *, width: int, num_groups: int) -> None:
        super().__init__()
        self.counts = [config.num_shared_experts, *[config.num_group_experts] * num_groups]
        self.feature_gates = nn.ModuleList(
            _FeatureGate(width, rank=config.gate_rank) for _ in self.counts
        )
        self.experts = experts(sum(self.counts), width=width, config=config, is_normalised=True)
        num_read = [sum(self.counts), *[sum(self.counts[:2])] * num_groups]
        self.gates = nn.ModuleList(nn.Linear(width, num) for num in num_read)
        self.self_gates = nn.ModuleList(
            _SelfGate(width, num_experts=count) for count in self.counts
        )

    def forward(self, input_BI: Tensor) -> list[Tensor]:
        """float32 (B, M): for all tasks, and for each group."""
        gated = [gate(input_BI) for gate in self.feature_gates]
        experts_NBH = self.experts(repeated(gated, self.counts))
        parts = experts_NBH.split(self.counts)
        read = [experts_NBH, *(torch.cat([part, parts[0]]) for part in parts[1:])]
        return [
            mixed(read_NBH, gate(input_BI).softmax(dim=1)) + self_gate(input_BI, part)
            for read_NBH, gate, self_gate, part in zip(
                read, self.gates, self.self_gates, parts, strict=True
            )
        ]


class _FeatureGate(nn.Module):
    """How much each feature counts for one reader, from 0 to 2."""

    def __init__(self, width: int, *, rank: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        )

    def forward(self, input_BI: Tensor) -> Tensor:
        gate_BI: Tensor = 2 * self.layers(input_BI).sigmoid()
        return input_BI * gate_BI


class _SelfGate(nn.Module):
    """A way past the gate for a reader's own experts, so that they learn even where it ignores
    them.
    """

    def __init__(self, width: int, *, num_experts: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, num_experts)

    def forward(self, input_BI: Tensor, experts_NBH: Tensor) -> Tensor:
        gate_BN = self.layer(input_BI)
        # one expert is let through or not, several are weighed against each other
        gate_BN = gate_BN.sigmoid() if len(experts_NBH) == 1 else gate_BN.softmax(dim=1)
        return mixed(experts_NBH, gate_BN)
