"""A method that weighs the tasks' losses, by the lengths of their gradients.

Shape legend: T tasks, P of them that have a gradient in this step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.balance_config import GradnormConfig
from trainer.balancing.balancer import GradientBalancer
from trainer.balancing.loss_weights import LEAST_LOSS
from trainer.losses import TaskLoss


class Gradnorm(GradientBalancer):
    """Gradient normalization.

    The paper leaves the weights' optimizer open: here a plain step on their logarithms, which keeps
    them positive, with the paper's gradient over the gradients' mean length, which makes it the
    same in all units. The lengths are those of the gradients at what the tasks share, where the
    paper takes those at the last shared layer's weights.

    Source: Chen et al., "GradNorm: gradient normalization for adaptive loss balancing in deep
        multitask networks", ICML 2018, equations 1 and 2, algorithm 1.
    """

    log_weights_T: Tensor
    first_losses_T: Tensor

    def __init__(self, config: GradnormConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self._asymmetry = config.asymmetry
        self._learning_rate = config.learning_rate
        self.add_state("log_weights_T", torch.zeros(len(tasks)))
        self.add_state("first_losses_T", torch.zeros(len(tasks)))

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        if self.training:
            is_first_T = self.first_losses_T == 0
            self.first_losses_T.copy_(
                torch.where(is_first_T, means_T.double(), self.first_losses_T)
            )
        return (losses_T * self.log_weights_T.exp().to(losses_T)).sum()

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        if self.training:
            first_P = np.maximum(self.first_losses_T.cpu().numpy()[tasks_P], LEAST_LOSS)
            logs_T = self.log_weights_T.cpu().numpy().copy()
            slopes_P = self._slopes(gram_PP, progress_P=means_P / first_P)
            logs_T[tasks_P] -= self._learning_rate * slopes_P
            # the weights sum to T
            logs_T += np.log(self.num_tasks / np.exp(logs_T).sum())
            self.log_weights_T.copy_(torch.from_numpy(logs_T))
        return np.ones(len(tasks_P))

    def _slopes(self, gram_PP: np.ndarray, *, progress_P: np.ndarray) -> np.ndarray:
        """Of the paper's loss by the weights' logarithms, over the gradients' mean length."""
        norms_P = np.sqrt(gram_PP.diagonal())
        norms_P = norms_P / norms_P.mean()
        progress_P = np.maximum(progress_P, LEAST_LOSS)
        targets_P = (progress_P / progress_P.mean()) ** self._asymmetry
        slopes_P: np.ndarray = np.sign(norms_P - targets_P) * norms_P
        return slopes_P
