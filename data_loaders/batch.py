"""What a training step reads.

Shape legend: B examples on this rank, D dense features, T tasks, N ids in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.skipping import Skipped
from data_loaders.streams import Cursor


@dataclass
class InteractionBatch(Pipelineable):
    """The same number of rows on every rank; where the log ends, rows are filled up with padding.

    The cursor rides in the batch because pipelines run ahead of training: what a checkpoint stores
    is the cursor of the last batch trained.

    Attributes:
        ids: table rows of all id features, feature-major; padding has no ids. With weights, if any
            id list has them: float32, 1 for the ids of all others.
        dense_BD: float32, standardised; 0 in padding.
        labels_BT: float32, columns as in `LabelColumns`, the tasks' first; NaN where not observed,
            and in padding.
        weights_B: float32; 1 for an example, 0 for padding.
        cursor: the position in the log behind this batch.
        skipped: what `data.on_error: skip` left out of the windows of rows that begin here.
    """

    ids: KeyedJaggedTensor
    dense_BD: Tensor
    labels_BT: Tensor
    weights_B: Tensor
    cursor: Cursor
    skipped: tuple[Skipped, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors."""
        ids = (self.ids.values(), self.ids.lengths(), self.ids.weights_or_none())
        tensors = (*ids, self.dense_BD, self.labels_BT, self.weights_B)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def to(self, device: torch.device, non_blocking: bool = False) -> InteractionBatch:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            ids=self.ids.to(device, non_blocking=non_blocking),
            dense_BD=moved(self.dense_BD),
            labels_BT=moved(self.labels_BT),
            weights_B=moved(self.weights_B),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        self.ids.record_stream(stream)
        for tensor in (self.dense_BD, self.labels_BT, self.weights_B):
            tensor.record_stream(stream)

    def pin_memory(self) -> InteractionBatch:
        return replace(
            self,
            ids=self.ids.pin_memory(),
            dense_BD=self.dense_BD.pin_memory(),
            labels_BT=self.labels_BT.pin_memory(),
            weights_B=self.weights_B.pin_memory(),
        )


def id_feature_names(config: DataConfig) -> list[str]:
    """The keys of `InteractionBatch.ids`: single ids first, then id lists, each in the recipe's
    order.
    """
    ids = [name for name, feature in config.features.items() if isinstance(feature, IdFeature)]
    lists = [
        name for name, feature in config.features.items() if isinstance(feature, IdListFeature)
    ]
    return ids + lists


def single_ids(ids: KeyedJaggedTensor, *, feature: str, num_examples: int) -> Tensor:
    """int64 (B,): the table row of each example's only id; -1 in padding.

    Args:
        ids: of a batch.
        feature: of kind `id`.
        num_examples: B, padding included.
    """
    rows = ids[feature].values()  # of the examples; padding, behind them, has none
    rows_B = rows.new_full((num_examples,), -1)
    rows_B[: len(rows)] = rows
    return rows_B
