"""Which task follows which.

Shape legend: B examples on this rank, S steps of a chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def chains(tasks: Sequence[str], after: Mapping[str, str]) -> list[tuple[int, ...]]:
    """For each task, its chain: the indices of those before it, the first one first, and its own.

    Args:
        tasks: in the order of the model's outputs.
        after: a task, and the one before it; without cycles.
    """
    index_of = {name: index for index, name in enumerate(tasks)}

    def chain(name: str) -> tuple[int, ...]:
        before = chain(after[name]) if name in after else ()
        return (*before, index_of[name])

    return [chain(name) for name in tasks]


def logit_of_product(logits_BS: Tensor) -> Tensor:
    """The logit of the product of probabilities, from their logits: float (B, 1).

    That a chain breaks off is the sum over its steps of the probability that all steps before
    happen and this one does not; so no logarithm is that of a difference, and the result is finite
    wherever the logits are.
    """
    # where layers compute in bfloat16, logarithms do not
    logits_BS = logits_BS.to(torch.promote_types(logits_BS.dtype, torch.float32))
    happens_BS = functional.logsigmoid(logits_BS)
    ends_BS = functional.logsigmoid(-logits_BS)
    through_BS = happens_BS.cumsum(1)
    # a step is reached if all before it happened
    reached_BS = functional.pad(through_BS[:, :-1], (1, 0))
    breaks_B1 = torch.logsumexp(reached_BS + ends_BS, dim=1, keepdim=True)
    return through_BS[:, -1:] - breaks_B1
