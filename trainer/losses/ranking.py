"""A score that puts some examples before others: one output.

Shape legend: B examples on this rank, K = 1 output, N examples of all ranks, H examples on this
rank that are above some other, L of all ranks that are below, G log rows, S = 1 + `per_example`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from data_loaders.config import AnyTask, DataConfig, IdFeature
from data_loaders.id_encoding import MISSING_ROW
from data_loaders.id_vocabulary import FIRST_ROW
from data_loaders.task_config import RankingTask
from trainer.losses.task_loss import TaskBatch, TaskLoss, TaskSums

# compared at once: bounds the memory, not the time
PAIRS_AT_ONCE = 2**20


class PairwiseLoss(TaskLoss):
    """Logistic loss, in nats, of the difference of two scores: the higher label's is to be higher.

    Pairs are of examples of the step, whatever their ranks, with different labels and, with
    `group`, the same id; an example whose id is missing or rare belongs to no group. The loss is a
    mean over pairs, each counting by the product of both examples' weights. Labels matter by their
    order only (RankNet with target probability 1).

    Each rank takes the pairs whose higher example is its own. What they say of all other scores is
    summed over ranks in forward already: no collective runs in backward, beside those of the
    tables.

    Source: Burges et al., "Learning to rank using gradient descent", ICML 2005, equation 3; Rendle
        et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009, section 4.1,
        where pairs are sampled; here all of a step are taken.
    """

    def __init__(self, config: AnyTask, *, name: str, data: DataConfig) -> None:
        super().__init__(config, name=name, data=data)
        assert isinstance(config, RankingTask)
        self._group = config.group
        self._first_row = 0
        if config.group is not None:
            feature = data.features[config.group]
            assert isinstance(feature, IdFeature)
            # a row of direct encoding is an id, that of missing ones included
            self._first_row = {"direct": MISSING_ROW, "vocabulary": FIRST_ROW}.get(
                feature.encoding, MISSING_ROW + 1
            )

    @property
    def group(self) -> str | None:
        return self._group

    def summed(self, batch: TaskBatch) -> TaskSums:
        outputs_B = batch.outputs_BK[:, 0]
        takes_part_B = batch.observed_B
        groups_B = torch.zeros_like(outputs_B) if batch.groups_B is None else batch.groups_B
        takes_part_B = takes_part_B & (groups_B >= self._first_row)
        # float64 holds the rows of any table
        columns = [
            torch.where(takes_part_B, column.double(), 0.0)
            for column in (outputs_B.detach(), batch.labels_B, batch.weights_B, groups_B)
        ]
        own_4B = torch.stack(columns)
        all_4N, first = _gathered(own_4B)
        pairs = _Pairs.of(own_4B, all_4N)
        total = pairs.total.to(outputs_B.dtype)
        if torch.is_grad_enabled() and outputs_B.requires_grad:
            gradient_N = pairs.gradient_N
            gradient_N[first : first + len(outputs_B)] += pairs.gradient_B
            if dist.is_initialized():
                dist.all_reduce(gradient_N)
            gradient_B = gradient_N[first : first + len(outputs_B)].to(outputs_B.dtype)
            total = _WithGradient.apply(outputs_B, total, gradient_B)
        return TaskSums(
            total=total,
            count=pairs.count.to(outputs_B.dtype),
            num_right=pairs.num_right.to(outputs_B.dtype),
        )

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The score."""
        return outputs_BK[:, 0]


class SampledSoftmaxLoss(TaskLoss):
    """Cross entropy, in nats, of the choice of a log row's item among itself and its drawn ones.

    What is drawn often is no worse for that: of each score the logarithm of how often its item is
    drawn is subtracted, in the loss alone. The label, in [0, 1], is how often the log row counts.

    Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
        recommendations", RecSys 2019, section 3; there negatives are the other items of the batch,
        here those of `data.negatives`, and their frequencies are known.
    """

    def __init__(self, config: AnyTask, *, name: str, data: DataConfig) -> None:
        super().__init__(config, name=name, data=data)
        self._size = data.rows_per_example

    def summed(self, batch: TaskBatch) -> TaskSums:
        scores_GS = batch.outputs_BK.reshape(-1, self._size)
        observed_B = batch.observed_B
        label_G = torch.where(observed_B, batch.labels_B, 0.0).reshape(-1, self._size)[:, 0]
        weight_G = label_G * batch.weights_B.reshape(-1, self._size)[:, 0]
        scores_GS = torch.where((weight_G > 0).unsqueeze(1), scores_GS, 0.0)
        margin_GS = scores_GS.detach()[:, :1] - scores_GS.detach()[:, 1:]
        if batch.log_q_B is not None:
            log_q_GS = torch.where(batch.given_B > 0, batch.log_q_B, 0.0).reshape(-1, self._size)
            scores_GS = scores_GS - log_q_GS
        losses_G = -scores_GS.log_softmax(dim=1)[:, 0]
        right_G = ((margin_GS.sign() + 1) / 2).mean(dim=1)
        return TaskSums(
            total=(losses_G * weight_G).sum(),
            count=weight_G.sum(),
            num_right=(right_G * weight_G).sum(),
        )

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The score."""
        return outputs_BK[:, 0]


@dataclass(frozen=True)
class _Pairs:
    """What this rank's examples make of all that they are to be above.

    Attributes:
        total: float64, weighted sum of the losses.
        count: float64, sum of the pairs' weights.
        num_right: float64, weighted number of pairs in the right order, ties as half.
        gradient_B: float64, of `total`, by the scores of this rank as the higher ones.
        gradient_N: float64, of `total`, by the scores of all as the lower ones.
    """

    total: Tensor
    count: Tensor
    num_right: Tensor
    gradient_B: Tensor
    gradient_N: Tensor

    @classmethod
    def of(cls, own_4B: Tensor, all_4N: Tensor) -> _Pairs:
        """
        Args:
            own_4B: float64; score, label, weight (0 for what takes no part) and group.
            all_4N: of all ranks.
        """
        taking_part_N = all_4N[2] > 0
        labels_N = all_4N[1][taking_part_N]
        result = cls(
            total=own_4B.new_zeros(()),
            count=own_4B.new_zeros(()),
            num_right=own_4B.new_zeros(()),
            gradient_B=torch.zeros_like(own_4B[0]),
            gradient_N=torch.zeros_like(all_4N[0]),
        )
        if not len(labels_N):
            return result
        # few are above or below any other, where labels are 0 and 1
        high_H = torch.nonzero((own_4B[2] > 0) & (own_4B[1] > labels_N.min()))[:, 0]
        low_L = torch.nonzero(taking_part_N & (all_4N[1] < labels_N.max()))[:, 0]
        if not len(low_L):
            return result
        low_4L = all_4N[:, low_L]
        for part in high_H.split(max(1, PAIRS_AT_ONCE // len(low_L))):
            result._add(own_4B[:, part], low_4L, high=part, low=low_L)
        return result

    def _add(self, high_4H: Tensor, low_4L: Tensor, *, high: Tensor, low: Tensor) -> None:
        score, label, weight, group = range(4)
        is_pair_HL = high_4H[label, :, None] > low_4L[label]
        is_pair_HL &= high_4H[group, :, None] == low_4L[group]
        weights_HL = (high_4H[weight, :, None] * low_4L[weight]) * is_pair_HL
        margins_HL = high_4H[score, :, None] - low_4L[score]
        self.total.add_((functional.softplus(-margins_HL) * weights_HL).sum())
        self.count.add_(weights_HL.sum())
        self.num_right.add_(((margins_HL.sign() + 1) / 2 * weights_HL).sum())
        slopes_HL = torch.sigmoid(-margins_HL) * weights_HL
        self.gradient_B.index_add_(0, high, -slopes_HL.sum(1))
        self.gradient_N.index_add_(0, low, slopes_HL.sum(0))


class _WithGradient(torch.autograd.Function):
    """A number whose gradient is known: no collective has to run in backward."""

    @staticmethod
    def forward(ctx: Any, outputs_B: Tensor, total: Tensor, gradient_B: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_B)
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient_B,) = ctx.saved_tensors
        return gradient_B * gradients[0], None, None


def _gathered(own_4B: Tensor) -> tuple[Tensor, int]:
    """What all ranks have, (4, N), and where this rank's begins; as many on each rank."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own_4B, 0
    parts = [torch.empty_like(own_4B) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own_4B)
    return torch.cat(parts, dim=1), dist.get_rank() * own_4B.shape[1]
