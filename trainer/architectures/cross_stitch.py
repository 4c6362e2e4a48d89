"""A tower for each task, and between their layers as much exchange as training finds good.

Shape legend: B examples on this rank, H width of a layer, T tasks; S tasks that read, T that are
read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import Experts, tower
from trainer.model_config import CrossStitchConfig

# how much a task begins with of its own tower; the rest comes from the others in equal parts
OWN_SHARE = 0.9


class CrossStitch(Architecture):
    """Cross-stitch networks.

    A unit stands after every layer and has one weight for each pair of tasks, not one for each
    channel. What the last unit reads is shared, what it gives to a task is the task's own.

    Source: Misra et al., "Cross-stitch networks for multi-task learning", CVPR 2016, equation 1,
        for T tasks instead of two.
    """

    def __init__(self, config: CrossStitchConfig, *, sizes: Sizes) -> None:
        super().__init__()
        widths = (sizes.input_width, *config.stitched_tower)
        self.layers = nn.ModuleList(
            Experts(sizes.num_tasks, width=width, widths=[out], dropout=config.dropout)
            for width, out in itertools.pairwise(widths)
        )
        self.units = nn.ParameterList(_first_unit(sizes.num_tasks) for _ in config.stitched_tower)
        self.towers = nn.ModuleList(
            tower(widths[-1], config.task_tower, dropout=config.dropout, num_outputs=num_outputs)
            for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        hidden_TBH = self.layers[0](inputs.shared_BI)
        for layer, unit_ST in zip(self.layers[1:], self.units, strict=False):
            hidden_TBH = layer(torch.einsum("st,tbh->sbh", unit_ST, hidden_TBH))
        return (hidden_TBH,)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            tower(torch.einsum("t,tbh->bh", unit_T, hidden_TBH))
            for tower, unit_T, (hidden_TBH,) in zip(
                self.towers, self.units[-1], copies, strict=True
            )
        ]


def _first_unit(num_tasks: int) -> Tensor:
    if num_tasks == 1:
        return torch.ones(1, 1)
    others = (1 - OWN_SHARE) / (num_tasks - 1)
    return torch.full((num_tasks, num_tasks), others).fill_diagonal_(OWN_SHARE)
