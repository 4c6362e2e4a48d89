"""A penalty on the vectors that examples look up.

FBGEMM's row-wise Adagrad has a weight decay of its own, which its CPU kernel ignores in silence.
This one reaches a table through its gradient, so it works on every device and however the table is
cut; a row decays only in steps that look it up.

Shape legend: B examples on this rank.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def vector_penalty(
    squares_B: Tensor, *, weights_B: Tensor, l2: float, rows_per_batch: int
) -> Tensor:
    """Half of `l2` times the squared norm of an example's vectors, as a mean over a batch.

    Args:
        squares_B: float32, the squared norm of each example's vectors.
        weights_B: float32, 0 for padding.
        l2: of the recipe.
        rows_per_batch: examples of a full batch over all ranks, which those of a short one are
            divided by too.
    """
    # DistributedDataParallel and TorchRec divide gradients by the number of ranks
    num_ranks = dist.get_world_size() if dist.is_initialized() else 1
    return (squares_B * weights_B).sum() * (l2 / 2 * num_ranks / rows_per_batch)
