"""From the tables' vectors and the dense features to what an architecture reads.

Shape legend: B examples on this rank, D dense features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from embeddings.lookup import pooled_in_order
from trainer.architectures.architecture import Inputs
from trainer.interactions import Interaction


class InputLayer(nn.Module):
    """What lies between the tables and the architecture.

    Args:
        id_widths: of each id feature's vector, in the order in which they are read.
        dense_widths: of each dense feature, in the order of the batch's columns.
        interaction: of them all.
        gate_features: names of those that gates read, as they are before the interaction.

    Attributes:
        gate_width: summed width of `gate_features`.
    """

    def __init__(
        self,
        *,
        id_widths: Mapping[str, int],
        dense_widths: Mapping[str, int],
        interaction: Interaction,
        gate_features: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.interaction = interaction
        self._id_widths = dict(id_widths)
        self._dense_widths = dict(dense_widths)
        self._gate_features = list(gate_features)
        self.gate_width = sum(
            (self._id_widths | self._dense_widths)[name] for name in gate_features
        )

    def forward(self, pooled: KeyedTensor, dense_BD: Tensor) -> Inputs:
        pooled_BE = pooled_in_order(pooled, list(self._id_widths))
        vectors = pooled_BE.split(list(self._id_widths.values()), dim=1)
        return Inputs(
            shared_BI=self.interaction(vectors, dense_BD), gate_BG=self._gate(vectors, dense_BD)
        )

    def _gate(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor | None:
        if not self._gate_features:
            return None
        columns = dense_BD.split(list(self._dense_widths.values()), dim=1)
        names = [*self._id_widths, *self._dense_widths]
        features = dict(zip(names, [*vectors, *columns], strict=True))
        return torch.cat([features[name] for name in self._gate_features], dim=1)
