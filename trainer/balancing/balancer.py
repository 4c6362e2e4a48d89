"""What a balancing method is.

A method acts at two places of a step, on numbers that are the same on all ranks:

    forward    losses_T -> total_loss() -> the loss to differentiate
    backward   Gram matrix of the tasks' gradients -> factors() -> their sum with these factors

The first reaches all parameters, the second those that the tasks share (`fan_out`). The gradients
are those with respect to what the tasks share of a batch, its hidden states, not the parameters: so
a step has one backward. A method's state lies in its buffers and parameters, so it is saved and
restored with the model; buffers change only in training.

Shape legend: T tasks, P of them that have a gradient in this step.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from trainer.balance_config import BalanceConfig
from trainer.losses import TaskLoss

# Of the cosines' eigenvalues. Inner products are float32's, whose rounding can make a matrix of
# gradients that depend on each other slightly indefinite.
LEAST_EIGENVALUE = 1e-6


class Balancer(nn.Module):
    """Static weights, and the base of all methods.

    Args:
        config: of the method.
        tasks: T.
        seed: of what a method draws.
    """

    def __init__(self, config: BalanceConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__()
        self.num_tasks = len(tasks)
        # whether `factors` is to be asked in every step
        self.needs_gradients = config.weighs_gradients

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        """The loss to differentiate; state may change while `training`.

        Args:
            losses_T: float32 with gradient, this rank's share of the tasks' mean losses, times
                their weights.
            means_T: float32 without gradient, their means over all ranks, times their weights; 0
                for a task without labels in this step.
        """
        return losses_T.sum()

    def factors(self, gram_TT: Tensor, *, means_T: Tensor) -> Tensor:
        """How much each task's gradient counts in the sum that goes on; state may change while
        `training`.

        Args:
            gram_TT: float64 on the CPU, inner products over all ranks of the tasks' gradients with
                respect to what they share; 0 for a task without labels in this step.
            means_T: of the forward, float64 on the CPU.

        Returns:
            float64 (T,).
        """
        return torch.ones(self.num_tasks, dtype=torch.float64)

    def add_state(self, name: str, value: Tensor) -> None:
        """A buffer of float64, saved and restored with the model."""
        self.register_buffer(name, value.double())


class GradientBalancer(Balancer):
    """Base of the methods that choose the factors by the gradients."""

    def factors(self, gram_TT: Tensor, *, means_T: Tensor) -> Tensor:
        grams_TT = gram_TT.numpy()
        tasks_P = grams_TT.diagonal().nonzero()[0]
        factors_T = np.ones(self.num_tasks)
        if len(tasks_P):
            factors_T[tasks_P] = self.present_factors(
                grams_TT[np.ix_(tasks_P, tasks_P)],
                tasks_P=tasks_P,
                means_P=means_T.numpy()[tasks_P],
            )
        return torch.from_numpy(factors_T)

    @abstractmethod
    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        """As `factors`, of the tasks that have a gradient in this step; in numpy, whose calls on
        matrices this small take a fraction of PyTorch's time.

        Args:
            gram_PP: its diagonal is positive.
            tasks_P: int64, which of the T tasks they are.
            means_P: their losses.

        Returns:
            float64 (P,).
        """


class Draws(nn.Module):
    """What a method draws depends on the seed and the training step alone: the same on all ranks,
    and in a resumed run.

    Args:
        seed: of the run.
    """

    num_steps: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    def next(self) -> torch.Generator:
        """The generator of this step; to be called once a step."""
        seed = self._seed * 1_000_003 + int(self.num_steps)
        if self.training:
            self.num_steps += 1
        return torch.Generator().manual_seed(seed % 2**63)


def norms_and_cosines(gram_PP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the gradients, and the cosines between them.

    Returns:
        float64 (P,), and float64 (P, P) that is positive definite.
    """
    norms_P = np.sqrt(gram_PP.diagonal())
    cosines_PP = gram_PP / np.outer(norms_P, norms_P)
    values_P, vectors_PP = np.linalg.eigh(cosines_PP)
    if values_P[0] < LEAST_EIGENVALUE:
        cosines_PP = (vectors_PP * np.maximum(values_P, LEAST_EIGENVALUE)) @ vectors_PP.T
    return norms_P, cosines_PP
