"""Where the gradients of the tasks meet: each task reads its own copy of what all share.

    forward    shared -> T references to it, no copies in memory
    backward   T gradients -> their Gram matrix over all ranks -> the balancer's factors -> one sum

TorchRec's fused optimizers step inside backward, so a backward for each task would update a table's
rows once for each task. Here one backward goes on, with one gradient, and each row is updated once.

Shape legend: B examples on this rank, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.architectures.architecture import Copy
from trainer.balancing.balancer import Balancer
from trainer.losses import NonFiniteLossError


@dataclass(frozen=True)
class TaskGradients:
    """What was seen of the tasks' gradients in one step.

    Attributes:
        gram_TT: float64 on the CPU, their inner products over all ranks.
        factors_T: float64 on the CPU, how much each counted.
    """

    gram_TT: Tensor
    factors_T: Tensor


class FanOut(nn.Module):
    """Gives each task a copy of what all share, and balances the gradients that come back.

    Args:
        balancer: chooses the factors.
        group: the ranks, for the Gram matrix alone: backward runs beside other collectives. None on
            a single rank.

    Attributes:
        is_observed: whether the next backward is to leave `observed` behind, whatever the balancer
            needs; the same on all ranks.
        observed: of the last backward that was observed or that the balancer asked for.
        means_T: the tasks' mean losses over all ranks, from the forward.
        loss_weights_T: of the last backward that was observed, what the balancer made of each
            task's weighted loss in the total.
    """

    def __init__(self, balancer: Balancer, *, group: dist.ProcessGroup | None) -> None:
        super().__init__()
        self.balancer = balancer
        self._group = group
        self.is_observed = False
        self.observed: TaskGradients | None = None
        self.means_T: Tensor | None = None
        self.loss_weights_T: Tensor | None = None

    def forward(self, shared: Copy) -> list[Copy]:
        """A copy for each task.

        Raises:
            InputError: there is nothing to balance.
        """
        num_tasks = self.balancer.num_tasks
        copies = _FanOut.apply(self, num_tasks, *shared)
        return [copies[t * len(shared) : (t + 1) * len(shared)] for t in range(num_tasks)]

    def observe_loss(self, losses_T: Tensor) -> None:
        """Leaves `loss_weights_T` behind: the gradient of the total by the tasks' losses.

        Args:
            losses_T: that the total is made of.
        """

        def keep(gradient_T: Tensor) -> None:
            self.loss_weights_T = gradient_T.detach()

        if self.is_observed and losses_T.requires_grad:
            losses_T.register_hook(keep)

    def combined(self, gradients: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
        """The one gradient that goes on, of each shared tensor.

        Args:
            gradients: for each task, those of its copy.

        Raises:
            NonFiniteLossError: on every rank, before any table is updated.
        """
        if not (self.balancer.needs_gradients or self.is_observed):
            return [_weighted_sum(parts, None) for parts in zip(*gradients, strict=True)]
        gram_TT = self._gram(gradients)
        if not bool(torch.isfinite(gram_TT).all()):
            raise NonFiniteLossError("a task's gradient is not finite")
        assert self.means_T is not None, "the forward leaves it"
        factors_T = self.balancer.factors(gram_TT, means_T=self.means_T.double().cpu())
        self.observed = TaskGradients(gram_TT=gram_TT, factors_T=factors_T)
        factors = factors_T.tolist()
        return [_weighted_sum(parts, factors) for parts in zip(*gradients, strict=True)]

    def _gram(self, gradients: Sequence[Sequence[Tensor | None]]) -> Tensor:
        """float64 (T, T) on the CPU, the same on all ranks and at every number of them."""
        num_tasks = len(gradients)
        device = next(
            (item.device for parts in gradients for item in parts if item is not None), None
        )
        gram_TT = torch.zeros(num_tasks, num_tasks, dtype=torch.float64, device=device)
        for parts in zip(*gradients, strict=True):
            flat = _flattened(parts)
            for one, first in enumerate(flat):
                for two, second in enumerate(flat[: one + 1]):
                    if first is not None and second is not None:
                        gram_TT[one, two] += torch.dot(first, second)
        if self._group is not None:
            dist.all_reduce(gram_TT, group=self._group)
            # the loss is multiplied by the number of ranks, because DistributedDataParallel and
            # TorchRec divide by it
            gram_TT /= dist.get_world_size(self._group) ** 2
        return (gram_TT + gram_TT.tril(-1).T).cpu()


class _FanOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, node: FanOut, num_tasks: int, *shared: Tensor) -> tuple[Tensor, ...]:
        ctx.node, ctx.num_tasks = node, num_tasks
        ctx.set_materialize_grads(False)
        return tuple(item.view_as(item) for _ in range(num_tasks) for item in shared)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        num_shared = len(gradients) // ctx.num_tasks
        by_task = [gradients[t * num_shared : (t + 1) * num_shared] for t in range(ctx.num_tasks)]
        return None, None, *ctx.node.combined(by_task)


def _flattened(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Each as one dimension, in the order in which the first lies in memory: backward leaves some
    transposed, and to copy them costs more than their inner products.
    """
    first = next((item for item in gradients if item is not None), None)
    if first is None:
        return list(gradients)
    strides = first.stride()
    order = sorted(range(first.dim()), key=lambda dim: -strides[dim])
    return [item if item is None else item.permute(order).reshape(-1) for item in gradients]


def _weighted_sum(
    gradients: Sequence[Tensor | None], factors: Sequence[float] | None
) -> Tensor | None:
    total = None
    for index, gradient in enumerate(gradients):
        if gradient is None:
            continue
        factor = 1.0 if factors is None else factors[index]
        if total is None:
            total = gradient * factor if factor != 1 else gradient.clone()
        else:
            total.add_(gradient, alpha=factor)
    return total
