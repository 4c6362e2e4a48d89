"""What a training step reads.

Shape legend: B examples on this rank, D dense features, T tasks, N ids in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.rows import EncodedRows
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
        labels_BT: float32, in the recipe's task order; NaN where not observed, and in padding.
        weights_B: float32; 1 for an example, 0 for padding.
        cursor: the position in the log behind this batch.
    """

    ids: KeyedJaggedTensor
    dense_BD: Tensor
    labels_BT: Tensor
    weights_B: Tensor
    cursor: Cursor

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


def collate(
    rows: EncodedRows, *, keys: Sequence[str], padded_size: int, cursor: Cursor
) -> InteractionBatch:
    """Makes a batch of `padded_size` rows, the first `len(rows)` of them examples.

    Args:
        rows: at most `padded_size`.
        keys: as `id_feature_names` gives them.
        padded_size: B of the batch.
        cursor: the position behind the batch.
    """
    num_padding = padded_size - len(rows)
    lengths_FB = np.zeros((len(keys), padded_size), np.int32)
    num_single = len(rows.ids_FR)
    lengths_FB[:num_single, : len(rows)] = 1
    for index, ragged in enumerate(rows.lists, start=num_single):
        lengths_FB[index, : len(rows)] = ragged.lengths_R
    values = np.concatenate([rows.ids_FR.reshape(-1), *(ragged.values_N for ragged in rows.lists)])
    weights_B = np.ones(padded_size, np.float32)
    weights_B[len(rows) :] = 0
    return InteractionBatch(
        ids=KeyedJaggedTensor(
            keys=list(keys),
            values=torch.from_numpy(values),
            lengths=torch.from_numpy(lengths_FB.reshape(-1)),
            weights=_id_weights(rows),
            stride=padded_size,
        ),
        dense_BD=torch.from_numpy(_padded(rows.dense_DR.T, num_padding, fill=0.0)),
        labels_BT=torch.from_numpy(_padded(rows.labels_TR.T, num_padding, fill=np.nan)),
        weights_B=torch.from_numpy(weights_B),
        cursor=cursor,
    )


def _id_weights(rows: EncodedRows) -> Tensor | None:
    """float32 (N,), as the values; None if no list has weights."""
    if all(ragged.weights_N is None for ragged in rows.lists):
        return None
    parts: list[np.ndarray] = [np.ones(rows.ids_FR.size, np.float32)]
    for ragged in rows.lists:
        weights_N = ragged.weights_N
        parts.append(np.ones(len(ragged.values_N), np.float32) if weights_N is None else weights_N)
    return torch.from_numpy(np.concatenate(parts))


def _padded(array: np.ndarray, num_padding: int, *, fill: float) -> np.ndarray:
    if not num_padding:
        return np.ascontiguousarray(array)
    return np.pad(array, ((0, num_padding), (0, 0)), constant_values=fill)
