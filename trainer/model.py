"""The model: pooled embeddings and dense features into a shared tower, and a tower per task.

    ids -> tables -> pooled_BE --+
                                 +-> shared tower -> shared_BH -> task tower 1 -> outputs_BT[:, 0]
    dense_BD --------------------+                             -> task tower 2 -> outputs_BT[:, 1]

Shape legend: B examples on this rank, E summed embedding width, D dense features, H shared width, T
    tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from data_loaders.batch import InteractionBatch
from data_loaders.skipping import Skipped
from data_loaders.streams import Cursor
from embeddings.lookup import pooled_in_order
from trainer.losses import TaskLoss, normalised_loss, summed_task_losses


@dataclass(frozen=True)
class StepOutput:
    """What a forward leaves for metrics and checkpoints, without gradient.

    Attributes:
        outputs_BT: float32; a logit for a binary task, a standardised prediction for a regression.
        labels_BT: float32, NaN where not observed.
        weights_B: float32, 0 for padding.
        losses_T: float32, mean over all ranks.
        cursor: the position in the log behind this batch.
        skipped: what the batch says was left out of the log.
    """

    outputs_BT: Tensor
    labels_BT: Tensor
    weights_B: Tensor
    losses_T: Tensor
    cursor: Cursor
    skipped: tuple[Skipped, ...] = ()


class MultiTaskModel(nn.Module):
    """Shared-bottom multi-task model.

    Traced by torch.fx in TorchRec's pipelines: `forward` has no branches on data.

    Source: Caruana, "Multitask Learning", Machine Learning 28, 1997.

    Args:
        tables: the embedding tables, on the meta device.
        keys: id features, in the order in which the shared tower reads their vectors.
        num_dense_features: D.
        shared_tower: widths of the shared layers.
        task_tower: widths of each task's layers, before its output of 1.
        tasks: T tasks in the order of the batch's columns.
        dropout: fraction of activations dropped in training.
    """

    def __init__(
        self,
        *,
        tables: EmbeddingBagCollection,
        keys: Sequence[str],
        num_dense_features: int,
        shared_tower: Sequence[int],
        task_tower: Sequence[int],
        tasks: tuple[TaskLoss, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        self.tables = tables
        width = num_dense_features + sum(
            table.embedding_dim * len(table.feature_names)
            for table in tables.embedding_bag_configs()
        )
        self.shared_tower = nn.Sequential(*_layers(width, shared_tower, dropout=dropout))
        shared_width = shared_tower[-1] if shared_tower else width
        self.task_towers = nn.ModuleList(
            nn.Sequential(
                *_layers(shared_width, task_tower, dropout=dropout),
                nn.Linear(task_tower[-1] if task_tower else shared_width, 1),
            )
            for _ in tasks
        )
        self._keys = list(keys)
        self._tasks = tasks

    def forward(self, batch: InteractionBatch) -> tuple[Tensor, StepOutput]:
        """The loss to differentiate, and what the step leaves behind."""
        pooled_BE = pooled_in_order(self.tables(batch.ids), self._keys)
        shared_BH = self.shared_tower(torch.cat([pooled_BE, batch.dense_BD], dim=1))
        outputs_BT = torch.cat([tower(shared_BH) for tower in self.task_towers], dim=1)
        return multi_task_loss(outputs_BT, batch, self._tasks)


def multi_task_loss(
    outputs_BT: Tensor, batch: InteractionBatch, tasks: tuple[TaskLoss, ...]
) -> tuple[Tensor, StepOutput]:
    """Loss over all ranks, and the step's output; one node to torch.fx."""
    sums_T, counts_T = summed_task_losses(
        outputs_BT=outputs_BT, labels_BT=batch.labels_BT, weights_B=batch.weights_B, tasks=tasks
    )
    loss, losses_T = normalised_loss(sums_T=sums_T, counts_T=counts_T, tasks=tasks)
    output = StepOutput(
        outputs_BT=outputs_BT.detach(),
        labels_BT=batch.labels_BT,
        weights_B=batch.weights_B,
        losses_T=losses_T,
        cursor=batch.cursor,
        skipped=batch.skipped,
    )
    return loss, output


# fx finds wrapped functions by the globals of the module that calls them
torch.fx.wrap("multi_task_loss")
torch.fx.wrap("pooled_in_order")


def _layers(width: int, widths: Sequence[int], *, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for out in widths:
        layers += [nn.Linear(width, out), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = out
    return layers
