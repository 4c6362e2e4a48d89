"""Nothing is shared: the tasks are trained side by side, each as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import tower
from trainer.model_config import SingleTaskConfig


class SingleTask(Architecture):
    """The baseline that sharing is measured against: tables, layers and tower of each task's own.

    As many models in one run as there are tasks, each of them `shared_bottom` with a single task.
    """

    def __init__(self, config: SingleTaskConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            tower(
                sizes.input_width,
                [*config.shared_tower, *config.task_tower],
                dropout=config.dropout,
                num_outputs=num_outputs,
            )
            for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        return ()

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [tower(own_BI) for tower, own_BI in zip(self.towers, inputs.own_BI, strict=True)]
