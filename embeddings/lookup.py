"""The lookup: ids in, pooled vectors out, in an order that the sharding plan has no say in."""

from __future__ import annotations

from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedTensor


def pooled_in_order(pooled: KeyedTensor, keys: list[str]) -> Tensor:
    """The pooled vectors side by side in the order of `keys`.

    A sharded EmbeddingBagCollection returns them by sharding type and rank: under another plan the
    columns would feed other weights of the tower.

    Args:
        pooled: what the tables return.
        keys: id features.

    Returns:
        float32 (B, E), E the summed width of the features.
    """
    if pooled.keys() == keys:
        return pooled.values()
    (ordered_BE,) = KeyedTensor.regroup([pooled], [keys])
    return ordered_BE
