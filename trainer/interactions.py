"""How features meet before the towers, `model.interaction`; all architectures read the result.

    vectors of the id features, dense features -> interaction -> the architecture's input

Shape legend: B examples on this rank, W width of an id feature's vector, D dense features, X summed
width of all vectors and dense features, I width of the result, R rank.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.architectures.layers import tower
from trainer.model_config import ModelConfig


class Interaction(nn.Module):
    """Base of all interactions; examples do not see each other.

    Attributes:
        output_width: I.
    """

    output_width: int

    @abstractmethod
    def forward(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor:
        """float32 (B, I).

        Args:
            vectors: float32 (B, W) of each id feature.
            dense_BD: float32.
        """


class Concatenation(Interaction):
    """Side by side: what features have to do with each other is left to the towers."""

    def __init__(self, config: ModelConfig, *, widths: Sequence[int], num_dense: int) -> None:
        super().__init__()
        self.output_width = sum(widths) + num_dense

    def forward(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor:
        return torch.cat([*vectors, dense_BD], dim=1)


class DotProducts(Interaction):
    """The concatenation, and beside it the inner products of all pairs of vectors.

    One more vector is what a layer with ReLU makes of the dense features, if there are any; it
    stands before the products. The paper hands on that vector and the products alone; here the
    input stays in front of them: a narrow vector would lose much of many dense features.

    Source: Naumov et al., "Deep learning recommendation model for personalization and
        recommendation systems", arXiv 1906.00091, 2019, section 2.
    """

    first_P: Tensor
    second_P: Tensor

    def __init__(self, config: ModelConfig, *, widths: Sequence[int], num_dense: int) -> None:
        super().__init__()
        dense_widths = widths[:1] if num_dense else []
        self.dense_tower: nn.Module | None = None
        if num_dense:
            self.dense_tower = tower(num_dense, dense_widths, dropout=config.dropout)
        num_vectors = len(widths) + len(dense_widths)
        first_P, second_P = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("first_P", first_P, persistent=False)
        self.register_buffer("second_P", second_P, persistent=False)
        self.output_width = sum(widths) + num_dense + sum(dense_widths) + len(first_P)

    def forward(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor:
        of_dense = [] if self.dense_tower is None else [self.dense_tower(dense_BD)]
        vectors_BFW = torch.stack([*vectors, *of_dense], dim=1)
        products_BFF = torch.bmm(vectors_BFW, vectors_BFW.transpose(1, 2))
        products_BP = products_BFF[:, self.first_P, self.second_P]
        return torch.cat([*vectors, dense_BD, *of_dense, products_BP], dim=1)


class CrossLayers(Interaction):
    """Layers that multiply what the last one gave with the concatenation once more.

    The towers read the last layer's result: the paper's stacked structure.

    Source: Wang et al., "DCN V2: improved deep & cross network and practical lessons for web-scale
        learning to rank systems", WWW 2021, equation 1, and 2 for low rank.
    """

    def __init__(self, config: ModelConfig, *, widths: Sequence[int], num_dense: int) -> None:
        super().__init__()
        width = self.output_width = sum(widths) + num_dense

        def layer() -> nn.Module:
            if config.cross_rank is None:
                return nn.Linear(width, width)
            down = nn.Linear(width, config.cross_rank, bias=False)
            return nn.Sequential(down, nn.Linear(config.cross_rank, width))

        self.layers = nn.ModuleList(layer() for _ in range(config.num_cross_layers))

    def forward(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor:
        first_BX = crossed_BX = torch.cat([*vectors, dense_BD], dim=1)
        for layer in self.layers:
            crossed_BX = first_BX * layer(crossed_BX) + crossed_BX
        return crossed_BX


class FactorisationMachine(Interaction):
    """The concatenation, and beside it the products of all pairs of id features, summed over pairs.

    The sum over a vector's numbers, which would make it the paper's second-order term, is left to
    the layer that reads it; so is the first-order term. Dense features have no vectors here.

    Source: Rendle, "Factorization machines", ICDM 2010, equation 1 and lemma 3.1.
    """

    def __init__(self, config: ModelConfig, *, widths: Sequence[int], num_dense: int) -> None:
        super().__init__()
        self.output_width = sum(widths) + num_dense + widths[0]

    def forward(self, vectors: Sequence[Tensor], dense_BD: Tensor) -> Tensor:
        vectors_BFW = torch.stack(list(vectors), dim=1)
        pairs_BW = (vectors_BFW.sum(1).square() - vectors_BFW.square().sum(1)) / 2
        return torch.cat([*vectors, dense_BD, pairs_BW], dim=1)


INTERACTIONS: dict[str, type[Interaction]] = {
    "concat": Concatenation,
    "dot": DotProducts,
    "dcn": CrossLayers,
    "fm": FactorisationMachine,
}


def build_interaction(config: ModelConfig, *, widths: Sequence[int], num_dense: int) -> Interaction:
    """The interaction that a recipe's section `model` asks for.

    Args:
        config: the section.
        widths: of the id features' vectors; equal ones for `dot` and `fm`.
        num_dense: D.
    """
    return INTERACTIONS[config.interaction](config, widths=widths, num_dense=num_dense)
