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
        interaction: of them all, with the vectors of what the tasks share; None where they share no
            tables.
        own_interactions: those of each task that has tables of its own.
        keys: what the tables call their vectors, as many for each owner, what the tasks share
            first; the id features by default.
        gate_features: names of those that gates read, as they are before the interaction.

    Attributes:
        input_width: of the interactions' results.
        gate_width: summed width of `gate_features`.
    """

    def __init__(
        self,
        *,
        id_widths: Mapping[str, int],
        dense_widths: Mapping[str, int],
        interaction: Interaction | None,
        own_interactions: Sequence[Interaction] = (),
        keys: Sequence[str] | None = None,
        gate_features: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.interaction = interaction
        self.own_interactions = nn.ModuleList(own_interactions)
        self.input_width = (interaction or own_interactions[0]).output_width
        self._keys = list(id_widths if keys is None else keys)
        self._id_widths = dict(id_widths)
        self._dense_widths = dict(dense_widths)
        self._gate_features = list(gate_features)
        self.gate_width = sum(
            (self._id_widths | self._dense_widths)[name] for name in gate_features
        )

    def forward(self, pooled: KeyedTensor, dense_BD: Tensor) -> Inputs:
        widths, num_owners = list(self._id_widths.values()), len(self._keys) // len(self._id_widths)
        vectors = pooled_in_order(pooled, self._keys).split(widths * num_owners, dim=1)
        by_owner = [vectors[at : at + len(widths)] for at in range(0, len(vectors), len(widths))]
        num_shared = num_owners - len(self.own_interactions)
        own_BI = tuple(
            interaction(of_task, dense_BD)
            for interaction, of_task in zip(
                self.own_interactions, by_owner[num_shared:], strict=True
            )
        )
        shared_BI = dense_BD
        if self.interaction is not None:
            shared_BI = self.interaction(by_owner[0], dense_BD)
        return Inputs(shared_BI=shared_BI, gate_BG=self._gate(by_owner[0], dense_BD), own_BI=own_BI)

    def _gate(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor | None:
        if not self._gate_features:
            return None
        columns = dense_BD.split(list(self._dense_widths.values()), dim=1)
        names = [*self._id_widths, *self._dense_widths]
        features = dict(zip(names, [*vectors, *columns], strict=True))
        return torch.cat([features[name] for name in self._gate_features], dim=1)
