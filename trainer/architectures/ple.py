"""Experts that all tasks share beside experts of each task's own, on one level or several.

level 1    x -> experts of task 1 .. T, shared experts -> gates -> stream 1 .. T, shared stream
level 2    each reads its stream -> ...
last       shared experts | fan-out | experts and gate of task t -> tower t
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import experts, mixed, repeated, task_towers
from trainer.model_config import CgcConfig, PleConfig


class Ple(Architecture):
    """Customized gate control and, with several levels, progressive layered extraction.

    What lies below the last level is shared, the experts and gates of single tasks too: through the
    shared stream every task's loss reaches them. On the last level only the shared experts are.

    Source: Tang et al., "Progressive layered extraction (PLE): a novel multi-task learning model
        for personalized recommendations", RecSys 2020, equations 2 to 7.
    """

    def __init__(self, config: CgcConfig | PleConfig, *, sizes: Sizes) -> None:
        super().__init__()
        width, num_tasks = config.expert_tower[-1], sizes.num_tasks
        widths = [sizes.input_width] + [width] * (config.num_levels - 1)
        self.below = nn.ModuleList(
            _Level(config, width=item, num_tasks=num_tasks, is_last=False) for item in widths[:-1]
        )
        self.last = _Level(config, width=widths[-1], num_tasks=num_tasks, is_last=True)
        self.towers = task_towers(width, config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        input_BI = inputs.shared_BI
        if not self.below:
            # one tensor that all tasks read: their gradients there are not those of T streams
            return self.last.shared_experts(input_BI), input_BI
        streams, shared_BI = [input_BI] * len(self.towers), input_BI
        for level in self.below:
            streams, shared_BI = level(streams, shared_BI)
        return self.last.shared_experts(shared_BI), *streams

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        streams = [copy[min(1 + task, len(copy) - 1)] for task, copy in enumerate(copies)]
        mixtures, gates = self.last.mixtures(streams, [copy[0] for copy in copies])
        self.observe_gates(gates)
        return [tower(mixed_BH) for tower, mixed_BH in zip(self.towers, mixtures, strict=True)]


class _Level(nn.Module):
    def __init__(
        self, config: CgcConfig | PleConfig, *, width: int, num_tasks: int, is_last: bool
    ) -> None:
        super().__init__()
        self._num_task_experts = config.num_task_experts
        num_own = num_tasks * config.num_task_experts
        self.task_experts = experts(num_own, width=width, config=config)
        self.shared_experts = experts(config.num_shared_experts, width=width, config=config)
        self.gates = nn.ModuleList(
            nn.Linear(width, config.num_task_experts + config.num_shared_experts, bias=False)
            for _ in range(num_tasks)
        )
        if not is_last:
            self.shared_gate = nn.Linear(width, num_own + config.num_shared_experts, bias=False)

    def forward(self, streams: Sequence[Tensor], shared_BI: Tensor) -> tuple[list[Tensor], Tensor]:
        """The streams of the next level."""
        shared_NBH = self.shared_experts(shared_BI)
        own_NBH = self._task_experts(streams)
        mixtures, _ = self._mixtures(streams, own_NBH, [shared_NBH] * len(streams))
        gate_BN = self.shared_gate(shared_BI).softmax(dim=1)
        return mixtures, mixed(torch.cat([own_NBH, shared_NBH]), gate_BN)

    def mixtures(
        self, streams: Sequence[Tensor], shared: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each task's mixture, float32 (B, H), and gate, float32 (B, N).

        Args:
            streams: of each task.
            shared: outputs of the shared experts, as each task sees them.
        """
        return self._mixtures(streams, self._task_experts(streams), shared)

    def _task_experts(self, streams: Sequence[Tensor]) -> Tensor:
        own_NBH: Tensor = self.task_experts(
            repeated(streams, [self._num_task_experts] * len(streams))
        )
        return own_NBH

    def _mixtures(
        self, streams: Sequence[Tensor], own_NBH: Tensor, shared: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        gates = [
            gate(stream_BI).softmax(dim=1)
            for gate, stream_BI in zip(self.gates, streams, strict=True)
        ]
        return [
            mixed(torch.cat([own, shared_NBH]), gate_BN)
            for own, shared_NBH, gate_BN in zip(
                own_NBH.split(self._num_task_experts), shared, gates, strict=True
            )
        ], gates
