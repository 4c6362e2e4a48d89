"""What a balancing method is.

A method acts at two places of a step, on numbers that are the same on all ranks:

    forward    losses_T -> total_loss() -> the loss to differentiate
    backward   Gram matrix of the tasks' gradients -> factors() -> their sum with these factors

The first reaches all parameters, the second those that the tasks share (`fan_out`). A method's
state lies in its buffers and parameters, so it is saved and restored with the model.

Shape legend: T tasks.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.balance_config import BalanceConfig


class Balancer(nn.Module):
    """Static weights, and the base of all methods.

    Args:
        config: of the method.
        num_tasks: T.
    """

    # whether `factors` is to be asked in every step
    needs_gradients: ClassVar[bool] = False

    def __init__(self, config: BalanceConfig, *, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        """The loss to differentiate; state may change while `training`.

        Args:
            losses_T: float32 with gradient, this rank's share of the tasks' mean losses, times
                their weights.
            means_T: float32 without gradient, their means over all ranks, times their weights.
        """
        return losses_T.sum()

    def factors(self, gram_TT: Tensor, *, means_T: Tensor) -> Tensor:
        """How much each task's gradient counts in the sum that goes on; state may change.

        Args:
            gram_TT: float64 on the CPU, inner products over all ranks of the tasks' gradients with
                respect to what they share; 0 for a task without labels in this step.
            means_T: of the forward.

        Returns:
            float64 (T,).
        """
        return torch.ones(self.num_tasks, dtype=torch.float64)
