"""Metrics of scores that are to put some examples before others.

Shape legend: B examples on this rank, T ranking tasks, Q bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.losses import TaskBatch
from trainer.metrics.histogram import NUM_BINS, add_scores, area
from trainer.metrics.kind_metrics import KindMetrics, Result, ratio

# Scores have no scale of their own: bins of the histogram are a thousandth of the score wide, above
# a ten-thousandth.
FINEST_SCORE = 1e-4

_LOSS, _PAIRS, _RIGHT, _COUNT = range(4)


class RankingMetrics(KindMetrics):
    """`loss`; `auc` over all examples; and `group_auc`: how often the higher one of the pairs that
    the loss compares has the higher score, ties as half. Pairs lie within a step, so `loss` and
    `group_auc` of all pairs depend a little on what a step holds: the batch size, and in an
    evaluation, which reads the log in order, the number of ranks.
    """

    def shapes(self) -> list[tuple[int, ...]]:
        return [(4, len(self.tasks)), (len(self.tasks), 2, NUM_BINS)]

    def update(self, batches: Sequence[TaskBatch], *, sums_3T: Tensor) -> None:
        sums_4T, histogram_T2Q = self.sums(self.state)
        seen = [batch.masked(placeholder=0.0) for batch in batches]
        labels_BT = torch.stack([batch.labels_B for batch in seen], dim=1)
        weights_BT = torch.stack([batch.weights_B for batch in seen], dim=1)
        sums_4T[:_COUNT] += sums_3T
        sums_4T[_COUNT] += torch.stack([batch.given_B.sum() for batch in seen])
        scores_BT = torch.cat([batch.outputs_BK for batch in seen], dim=1)
        add_scores(
            histogram_T2Q,
            scores_BT.sign() * torch.log1p(scores_BT.abs() / FINEST_SCORE),
            low_BH=(1 - labels_BT) * weights_BT,
            high_BH=labels_BT * weights_BT,
        )

    def results(self, state: Tensor) -> list[Result]:
        sums_4T, histogram_T2Q = self.sums(state)
        return [
            {
                "loss": ratio(sums[_LOSS], sums[_PAIRS]),
                "auc": area(histogram_2Q),
                "group_auc": ratio(sums[_RIGHT], sums[_PAIRS]),
                "examples": float(sums[_COUNT]),
            }
            for sums, histogram_2Q in zip(sums_4T.T, histogram_T2Q, strict=True)
        ]
