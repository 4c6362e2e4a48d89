"""The model: pooled embeddings and dense features through the architecture to each task's output.

    ids -+-> tables -----------------+
         +-> sequences -> histories -+-> input layer -> architecture.shared -> fan-out -+
    dense_BD ------------------------+                                                  |
                                                  loss <- architecture.outputs <--------+

Shape legend: B examples on this rank, D dense features, K outputs of all tasks, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from data_loaders.batch import InteractionBatch, single_ids
from data_loaders.skipping import Skipped
from data_loaders.streams import Cursor
from trainer.architectures.architecture import Architecture
from trainer.balancing.fan_out import FanOut
from trainer.balancing.relation import TaskRelation
from trainer.histories import Histories
from trainer.inputs import InputLayer
from trainer.losses import TaskSet, normalised_losses
from trainer.regularisation import vector_penalty


@dataclass(frozen=True)
class StepOutput:
    """What a forward leaves for metrics and checkpoints, without gradient.

    Attributes:
        outputs_BK: float32, the tasks' outputs side by side, as many of each as its loss reads.
        labels_BT: as in the batch.
        weights_B: float32, 0 for padding.
        losses_T: float32, mean over all ranks, an architecture's extra losses included.
        sums_3T: float32, `TaskSums` of this rank, without extra losses; 0 for what a task has not.
        cursor: the position in the log behind this batch.
        skipped: what the batch says was left out of the log.
    """

    outputs_BK: Tensor
    labels_BT: Tensor
    weights_B: Tensor
    losses_T: Tensor
    sums_3T: Tensor
    cursor: Cursor
    skipped: tuple[Skipped, ...] = ()


class MultiTaskModel(nn.Module):
    """The whole model: sharded tables, and everything behind them.

    TorchRec's pipelines trace this forward with torch.fx, and no module without tables below it:
    what `Towers` does is free.

    Args:
        tables: the embedding tables whose lookup pools, on the meta device; None if there are none.
        towers: everything behind them.
        sequences: tables whose ids are looked up one by one.
    """

    def __init__(
        self,
        *,
        tables: EmbeddingBagCollection | None,
        towers: Towers,
        sequences: Sequence[EmbeddingCollection] = (),
    ) -> None:
        super().__init__()
        self.tables = tables
        self.towers = towers
        self.sequences = nn.ModuleList(sequences)

    def forward(self, batch: InteractionBatch) -> tuple[Tensor, StepOutput]:
        """The loss to differentiate, and what the step leaves behind."""
        pooled = None if self.tables is None else self.tables(batch.ids)
        sequences = [lookup(batch.ids) for lookup in self.sequences]
        loss: Tensor
        output: StepOutput
        loss, output = self.towers(pooled, batch, sequences)
        return loss, output


class Towers(nn.Module):
    """From embeddings to the loss.

    Args:
        input_layer: from embeddings to what the architecture reads.
        architecture: shared parts, and those of each task.
        fan_out: between the two.
        tasks: in the order of the batch's columns.
        relation: ties the tasks' towers to each other, in training.
        histories: makes a vector of each list that the tables do not pool; None if they pool all.
        l2: of the vectors that are looked up, for each example.
        rows_per_batch: examples of a full batch, over all ranks.
        is_bfloat16: whether all behind the lookup computes in bfloat16, where PyTorch's
            autocast does.
    """

    def __init__(
        self,
        *,
        input_layer: InputLayer,
        architecture: Architecture,
        fan_out: FanOut,
        tasks: TaskSet,
        relation: TaskRelation | None = None,
        histories: Histories | None = None,
        l2: float = 0.0,
        rows_per_batch: int = 1,
        is_bfloat16: bool = False,
    ) -> None:
        super().__init__()
        self.input_layer = input_layer
        self.architecture = architecture
        self.fan_out = fan_out
        self.relation = relation
        self.histories = histories
        self._tasks = tasks
        self._l2 = l2
        self._rows_per_batch = rows_per_batch
        self._is_bfloat16 = is_bfloat16

    def forward(
        self,
        pooled: KeyedTensor | None,
        batch: InteractionBatch,
        sequences: Sequence[Mapping[str, JaggedTensor]] = (),
    ) -> tuple[Tensor, StepOutput]:
        """The loss over all ranks, and what the step leaves behind."""
        vectors = self._vectors(pooled, batch.ids, sequences)
        with torch.autocast(batch.dense_BD.device.type, torch.bfloat16, enabled=self._is_bfloat16):
            inputs = self.input_layer(vectors, batch.dense_BD)
            shared = self.architecture.shared(inputs)
            # float32, so that the tasks' gradients meet in float32
            copies = self.fan_out(tuple(item.float() for item in shared))
            outputs = self.architecture.outputs(copies, inputs=inputs)
        outputs = [item.float() for item in outputs]
        outputs_BK = torch.cat(outputs, dim=1)
        seen = self._tasks.batches(
            outputs_BK=outputs_BK,
            labels_BT=batch.labels_BT,
            weights_B=batch.weights_B,
            groups={
                name: single_ids(batch.ids, feature=name, num_examples=len(outputs_BK))
                for name in self._tasks.groups
            },
        )
        sums_3T = self._tasks.summed(seen)
        extra_BT = self.architecture.extra_losses(
            outputs, copies=copies, labels_BT=batch.labels_BT[:, : len(seen)]
        )
        losses_T, means_T = normalised_losses(
            sums_T=sums_3T[0],
            counts_T=sums_3T[1],
            names=self._tasks.names,
            extra_2T=None if extra_BT is None else self._tasks.summed_extra(extra_BT, batches=seen),
        )
        loss = self._balanced(losses_T, means_T=means_T)
        loss = loss + self._penalties(vectors, sequences, weights_B=batch.weights_B)
        output = StepOutput(
            outputs_BK=outputs_BK.detach(),
            labels_BT=batch.labels_BT,
            weights_B=batch.weights_B,
            losses_T=means_T,
            sums_3T=sums_3T.detach(),
            cursor=batch.cursor,
            skipped=batch.skipped,
        )
        return loss, output

    def _vectors(
        self,
        pooled: KeyedTensor | None,
        ids: KeyedJaggedTensor,
        sequences: Sequence[Mapping[str, JaggedTensor]],
    ) -> KeyedTensor:
        """One vector of each feature and example.

        Args:
            pooled: of the tables that pool, None if there are none.
            ids: of the batch.
            sequences: of all other tables, the vectors of each id.
        """
        if self.histories is None:
            assert pooled is not None, "without histories all tables pool"
            return pooled
        with torch.autocast(ids.device().type, torch.bfloat16, enabled=self._is_bfloat16):
            vectors: KeyedTensor = self.histories(pooled, sequences, ids)
        return vectors

    def _balanced(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        """What the balancing method makes of the tasks' weighted losses."""
        weights_T = means_T.new_tensor([task.weight for task in self._tasks.losses])
        self.fan_out.means_T = means_T * weights_T
        weighted_T = losses_T * weights_T
        self.fan_out.observe_loss(weighted_T)
        return self.fan_out.balancer.total_loss(weighted_T, means_T=self.fan_out.means_T)

    def _penalties(
        self,
        vectors: KeyedTensor,
        sequences: Sequence[Mapping[str, JaggedTensor]],
        *,
        weights_B: Tensor,
    ) -> Tensor | float:
        """What is added whatever the tasks' losses are."""
        penalty: Tensor | float = 0.0
        if self.relation is not None and self.training:
            penalty = self.relation(self.architecture.task_towers())
        if self._l2:
            penalty = penalty + vector_penalty(
                vectors.values().square().sum(dim=1)
                if self.histories is None
                else self.histories.squared_norms(vectors, sequences),
                weights_B=weights_B,
                l2=self._l2,
                rows_per_batch=self._rows_per_batch,
            )
        return penalty
