"""Tables and experts of all tasks together and of each task; each reads all and teaches its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import experts, mixed, repeated, task_towers
from trainer.model_config import StemConfig


class Stem(Architecture):
    """Shared and task-specific embeddings, with all-forward task-specific-backward gates.

    A task's gate mixes the experts of all tasks and the shared ones, but its gradient reaches, of
    the tasks' experts, its own alone: so a task's tables learn from its labels only. One level, as
    in the paper's experiments; a gate reads the sum of the shared and the task's own embeddings, as
    the authors' code has it.

    Source: Su et al., "STEM: unleashing the power of embeddings for multi-task recommendation",
        AAAI 2024, section "STEM-Net".
    """

    def __init__(self, config: StemConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self._num_task_experts = config.num_task_experts
        num_own = sizes.num_tasks * config.num_task_experts
        width = sizes.input_width
        self.task_experts = experts(num_own, width=width, config=config)
        self.shared_experts = experts(config.num_shared_experts, width=width, config=config)
        self.gates = nn.ModuleList(
            nn.Linear(width, num_own + config.num_shared_experts, bias=False) for _ in sizes.tasks
        )
        self.towers = task_towers(config.expert_tower[-1], config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        return self.shared_experts(inputs.shared_BI), inputs.shared_BI

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        num = self._num_task_experts
        own_NBH = self.task_experts(repeated(inputs.own_BI, [num] * len(copies)))
        frozen = list(own_NBH.detach().split(num))
        gates = [
            gate(own_BI + shared_BI).softmax(dim=1)
            for gate, own_BI, (_, shared_BI) in zip(self.gates, inputs.own_BI, copies, strict=True)
        ]
        self.observe_gates(gates)
        outputs = []
        for task, own in enumerate(own_NBH.split(num)):
            parts = [own, *frozen[:task], *frozen[task + 1 :], copies[task][0]]
            outputs.append(self.towers[task](mixed(torch.cat(parts), gates[task])))
        return outputs
