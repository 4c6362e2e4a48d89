"""Tasks that follow one another, each told by the one before what it found.

Shape legend: B examples on this rank, H width of a task's tower, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.chains import chains
from trainer.architectures.layers import tower
from trainer.model_config import AitmConfig


class Aitm(Architecture):
    """Adaptive information transfer along chains of tasks.

    What the tasks share is the input. A task's tower is read by all tasks behind it, too: each
    computes it anew from its own copy, as it does the transfers. The expectation calibrator, which
    punishes a step that is likelier than the one before, is given to both tasks of a step, to each
    with the other's prediction held fixed: the same gradient, but normalised by each task's own
    number of labels.

    Source: Xi et al., "Modeling the sequential dependence among audience multi-step conversions
        with multi-task learning in targeted display advertising", KDD 2021: AIT module and
        behavioral expectation calibrator.
    """

    def __init__(self, config: AitmConfig, *, sizes: Sizes) -> None:
        super().__init__()
        width = config.task_tower[-1]
        self._chains = chains(sizes.tasks, config.after)
        self._weight = config.calibration_weight
        self.towers = nn.ModuleList(
            tower(sizes.input_width, config.task_tower, dropout=config.dropout) for _ in sizes.tasks
        )
        self.transfers = nn.ModuleDict(
            {str(chain[-1]): Transfer(width) for chain in self._chains if len(chain) > 1}
        )
        self.heads = nn.ModuleList(
            nn.Linear(width, num_outputs) for num_outputs in sizes.num_outputs
        )

    def shared(self, inputs: Inputs) -> Copy:
        return (inputs.shared_BI,)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            head(self._hidden(chain, input_BI))
            for head, chain, (input_BI,) in zip(self.heads, self._chains, copies, strict=True)
        ]

    def _hidden(self, chain: tuple[int, ...], input_BI: Tensor) -> Tensor:
        first, *others = chain
        hidden_BH: Tensor = self.towers[first](input_BI)
        for step in others:
            own_BH = self.towers[step](input_BI)
            hidden_BH = self.transfers[str(step)](own_BH, before_BH=hidden_BH)
        return hidden_BH

    def extra_losses(
        self, outputs: Sequence[Tensor], *, copies: Sequence[Copy], labels_BT: Tensor
    ) -> Tensor:
        """By how much a step is likelier than the one before, for both of them."""
        extra_BT = [torch.zeros_like(labels_B) for labels_B in labels_BT.unbind(1)]
        for *_, before, task in (chain for chain in self._chains if len(chain) > 1):
            earlier_B, later_B = (outputs[t].squeeze(1).sigmoid() for t in (before, task))
            extra_BT[task] = extra_BT[task] + functional.relu(later_B - earlier_B.detach())
            extra_BT[before] = extra_BT[before] + functional.relu(later_B.detach() - earlier_B)
        return self._weight * torch.stack(extra_BT, dim=1)


class Transfer(nn.Module):
    """What a task takes of its own tower, and what of the task before, by attention over the two.

    Args:
        width: H.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Linear(width, width)
        self.value, self.key, self.query = (nn.Linear(width, width) for _ in range(3))

    def forward(self, own_BH: Tensor, *, before_BH: Tensor) -> Tensor:
        """float32 (B, H)."""
        both_B2H = torch.stack([functional.relu(self.before(before_BH)), own_BH], dim=1)
        scores_B2 = (self.key(both_B2H) * self.query(both_B2H)).sum(2) / math.sqrt(own_BH.shape[1])
        return torch.einsum("bu,buh->bh", scores_B2.softmax(1), self.value(both_B2H))
