"""One tower that all tasks share, and a tower for each task on top."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import last_width, task_towers, tower
from trainer.model_config import BottomConfig


class SharedBottom(Architecture):
    """Shared bottom.

    Source: Caruana, "Multitask Learning", Machine Learning 28, 1997.
    """

    def __init__(self, config: BottomConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.bottom = tower(sizes.input_width, config.shared_tower, dropout=config.dropout)
        width = last_width(sizes.input_width, config.shared_tower)
        self.towers = task_towers(width, config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        return (self.bottom(inputs.shared_BI),)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [tower(copy[0]) for tower, copy in zip(self.towers, copies, strict=True)]
