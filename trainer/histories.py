"""Lists of ids whose vectors become one in a way that is learned, `model.histories`.

    tables ------ pooled vectors ----------------------------------+-> a vector of each feature
    sequences -+- vectors of a list's ids, and of a target -> encoder -+
               +- of ids and other lists -> sum or mean ---------------+

A table lies either among the `tables`, whose lookup pools, or among the `sequences`, which look up
ids one by one because some list of the table is encoded. So a row has one update a step.

Shape legend: B examples on this rank, L the list's max_length, N ids of a feature in the batch, W
width of a vector.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from embeddings.lists import VectorLists
from trainer.history_config import AnyHistory, TargetAttentionConfig, TransformerConfig

# of the vectors of places, as of the tables' rows
_POSITION_INIT_STD = 0.02


class HistoryEncoder(nn.Module):
    """Base of all encoders; examples do not see each other, and an empty list gives zeros."""

    @abstractmethod
    def forward(self, lists: VectorLists, target_BW: Tensor | None) -> Tensor:
        """float32 (B, W).

        Args:
            lists: vectors of W numbers.
            target_BW: float32, of each example's target, if the recipe names one.
        """


class TargetAttention(HistoryEncoder):
    """Each vector counts as much as a tower says that reads it beside the target.

    The weights are used as they are: after a softmax over the list, how strongly a history speaks
    for a target would be lost. Of the paper's two activations this is PReLU: Dice standardises over
    the batch, so examples would see each other, and ranks would differ.

    Source: Zhou et al., "Deep interest network for click-through rate prediction", KDD 2018,
        section 4.3 and figure 2; its tower reads an outer product, here as in the authors' code
        the product and the difference, number by number.
    """

    def __init__(self, config: TargetAttentionConfig, *, width: int) -> None:
        super().__init__()
        widths = [4 * width, *config.hidden]
        layers: list[nn.Module] = []
        for num_inputs, num_outputs in itertools.pairwise(widths):
            layers += [nn.Linear(num_inputs, num_outputs), nn.PReLU()]
        self.unit = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, lists: VectorLists, target_BW: Tensor | None) -> Tensor:
        assert target_BW is not None
        ids_NW, target_NW = lists.vectors_NW, target_BW.index_select(0, lists.rows_N)
        pairs = [ids_NW, target_NW, ids_NW * target_NW, ids_NW - target_NW]
        return lists.summed(self.unit(torch.cat(pairs, dim=1)) * ids_NW)


class SelfAttentionLayer(nn.Module):
    """Each vector reads all others of its list, then a tower reads it; both add to what it was.

    Norms stand at the beginning of both. Queries, keys and values have no bias: that of a key
    changes nothing, and that of a value is in what follows.

    Source: Vaswani et al., "Attention is all you need", NIPS 2017; Xiong et al., "On layer
        normalization in the transformer architecture", ICML 2020, for the place of the norms.
    """

    def __init__(self, *, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.attention_norm, self.tower_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.mixture = nn.Linear(width, width)
        self.tower = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states_NW: Tensor, *, lists: VectorLists, max_length: int) -> Tensor:
        """float32 (N, W); only the attention itself is computed over lists of one length.

        Args:
            states_NW: float32.
            lists: which of them belong together.
            max_length: L, of a list.
        """
        projected_NW = self.queries_keys_values(self.attention_norm(states_NW))
        padded_BLW = lists.padded(projected_NW, length=max_length)
        parts = padded_BLW.unflatten(2, (3, self._num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts
        places_L = torch.arange(max_length, device=states_NW.device)
        # an empty list sees its first place, because attention to nothing is not a number
        is_seen_BL = places_L < lists.lengths_B.clamp(min=1).unsqueeze(1)
        heads = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=is_seen_BL[:, None, None, :]
        )
        mixed_NW = self.mixture(lists.unpadded(heads.transpose(1, 2).flatten(2)))
        states_NW = states_NW + self.dropout(mixed_NW)
        return states_NW + self.dropout(self.tower(self.tower_norm(states_NW)))


class HistoryTransformer(HistoryEncoder):
    """The mean of what self-attention makes of a list's vectors and of their places in it.

    Places are counted from the last id, the most recent one, so that lists of any length agree on
    what is recent. No norm follows the last layer: this is the mean of the vectors, to which the
    layers add.

    Source: Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018, for vectors of
        places in histories; theirs ends in the last id's vector, not in the mean.
    """

    def __init__(self, config: TransformerConfig, *, width: int, max_length: int) -> None:
        super().__init__()
        self.positions_LW = nn.Parameter(torch.randn(max_length, width) * _POSITION_INIT_STD)
        self.layers = nn.ModuleList(
            SelfAttentionLayer(width=width, num_heads=config.num_heads, dropout=config.dropout)
            for _ in range(config.num_layers)
        )

    def forward(self, lists: VectorLists, target_BW: Tensor | None) -> Tensor:
        states_NW = lists.vectors_NW + self.positions_LW.index_select(0, lists.places())
        for layer in self.layers:
            states_NW = layer(states_NW, lists=lists, max_length=len(self.positions_LW))
        return lists.mean(states_NW)


class Histories(nn.Module):
    """A vector of each feature, from pooled ones and from those of single ids.

    Features go by their keys, what the lookups call their vectors: one for each owner of tables.

    Args:
        encoders: by the key of the list that they read.
        features: of all keys, in the order in which their vectors are wanted.
        targets: keys of those that an encoder reads, by its list's.
        means: lists that are pooled here by mean, not by sum.
    """

    def __init__(
        self,
        encoders: Mapping[str, HistoryEncoder],
        *,
        features: Mapping[str, str],
        targets: Mapping[str, str],
        means: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders.values())
        self._encoded = list(encoders)
        self._features = dict(features)
        self._targets = dict(targets)
        self._means = set(means)

    def forward(
        self,
        pooled: KeyedTensor | None,
        sequences: Sequence[Mapping[str, JaggedTensor]],
        ids: KeyedJaggedTensor,
    ) -> KeyedTensor:
        """float32 (B, E) by key.

        Args:
            pooled: of the tables that pool, if there are any.
            sequences: of all others, the vectors of their ids.
            ids: of the batch, of which pooled lists may have weights.
        """
        vectors = {} if pooled is None else dict(pooled.to_dict())
        lists = _lists_of(sequences)
        for key, item in lists.items():
            if key not in self._encoded:
                vectors[key] = self._pooled(item, feature=self._features[key], ids=ids)
        for key, encoder in zip(self._encoded, self.encoders, strict=True):
            target = self._targets.get(key)
            vectors[key] = encoder(lists[key], None if target is None else vectors[target])
        keys = list(self._features)
        return KeyedTensor.from_tensor_list(keys, [vectors[key] for key in keys])

    def _pooled(self, lists: VectorLists, *, feature: str, ids: KeyedJaggedTensor) -> Tensor:
        if feature in self._means:
            return lists.mean(lists.vectors_NW)  # a recipe with weights has no means
        weights_N = ids[feature].weights_or_none()
        if weights_N is None:
            return lists.summed(lists.vectors_NW)
        return lists.summed(lists.vectors_NW * weights_N.unsqueeze(1))

    def squared_norms(
        self, vectors: KeyedTensor, sequences: Sequence[Mapping[str, JaggedTensor]]
    ) -> Tensor:
        """float32 (B,), of what each example looks up: vectors as they are pooled, and those of an
        encoded list each by itself.

        Args:
            vectors: what `forward` made of them.
            sequences: as it read them.
        """
        lists, by_key = _lists_of(sequences), vectors.to_dict()
        squares = [item.square().sum(1) for key, item in by_key.items() if key not in self._encoded]
        for key in self._encoded:
            squares.append(lists[key].summed(lists[key].vectors_NW.square().sum(1)))
        return torch.stack(squares).sum(0)


def build_histories(
    configs: Mapping[str, AnyHistory],
    *,
    features: Mapping[str, str],
    widths: Mapping[str, int],
    max_lengths: Mapping[str, int],
    means: Collection[str],
) -> Histories:
    """What a recipe's `model.histories` asks for, once for each owner of tables.

    Args:
        configs: by the list that is encoded.
        features: as of `Histories`; those of the first owner first.
        widths: of each id feature's vectors.
        max_lengths: of each list.
        means: as of `Histories`.
    """
    encoders: dict[str, HistoryEncoder] = {}
    targets: dict[str, str] = {}
    for named in _by_owner(features):
        for name, config in configs.items():
            key, width = named[name], widths[name]
            if isinstance(config, TargetAttentionConfig):
                encoders[key] = TargetAttention(config, width=width)
                targets[key] = named[config.target]
            else:
                max_length = max_lengths[name]
                encoders[key] = HistoryTransformer(config, width=width, max_length=max_length)
    return Histories(encoders, features=features, targets=targets, means=means)


def _by_owner(features: Mapping[str, str]) -> list[dict[str, str]]:
    """The keys of each owner's features, by their names."""
    keys, num_features = list(features), len(set(features.values()))
    return [
        {features[key]: key for key in keys[at : at + num_features]}
        for at in range(0, len(keys), num_features)
    ]


def _lists_of(sequences: Sequence[Mapping[str, JaggedTensor]]) -> dict[str, VectorLists]:
    return {key: VectorLists.of(item) for lookup in sequences for key, item in lookup.items()}
