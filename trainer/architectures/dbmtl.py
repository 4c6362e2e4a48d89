"""Tasks that depend on others read what was found for those.

Shape legend: B examples on this rank, H width of a task's tower.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import last_width, tower
from trainer.model_config import DbmtlConfig


class Dbmtl(Architecture):
    """Deep Bayesian multi-target learning.

    The tasks form a Bayesian network. Behind its own tower a task has another, which also reads
    what those of its parents gave, and a linear layer makes its output of it. Which tasks depend on
    which the recipe says; the paper finds it by model selection.

    Source: Wang et al., "Deep Bayesian multi-target learning for recommender systems",
        arXiv 1902.09154, 2019.
    """

    def __init__(self, config: DbmtlConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.bottom = tower(sizes.input_width, config.shared_tower, dropout=config.dropout)
        width = last_width(sizes.input_width, config.shared_tower)
        self.towers = nn.ModuleList(
            tower(width, config.task_tower, dropout=config.dropout) for _ in sizes.tasks
        )
        self._parents = [
            [sizes.tasks.index(name) for name in config.depends_on.get(task, ())]
            for task in sizes.tasks
        ]
        own_width, related_width = last_width(width, config.task_tower), config.relation_tower[-1]
        self.relations = nn.ModuleList(
            tower(
                own_width + len(parents) * related_width,
                config.relation_tower,
                dropout=config.dropout,
            )
            for parents in self._parents
        )
        self.heads = nn.ModuleList(
            nn.Linear(related_width, num_outputs) for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        return (self.bottom(inputs.shared_BI),)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            head(self._related(task, hidden_BH, known={}))
            for task, (head, (hidden_BH,)) in enumerate(zip(self.heads, copies, strict=True))
        ]

    def _related(self, task: int, hidden_BH: Tensor, *, known: dict[int, Tensor]) -> Tensor:
        """What the network finds for a task; `known` keeps what it found for others on the way."""
        if task not in known:
            parents = [self._related(item, hidden_BH, known=known) for item in self._parents[task]]
            own_BH = self.towers[task](hidden_BH)
            known[task] = self.relations[task](torch.cat([own_BH, *parents], dim=1))
        return known[task]
