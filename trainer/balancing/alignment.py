"""Methods that give every task the same say.

Shape legend: T tasks, P of them that have a gradient in this step, R rank of the gradients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainer.balance_config import ImtlConfig
from trainer.balancing.balancer import LEAST_EIGENVALUE, GradientBalancer, norms_and_cosines
from trainer.losses import TaskLoss


class Imtl(GradientBalancer):
    """Impartial multi-task learning: its gradients, and with `scale_losses` its losses too.

    Gradients: the direction has the same projection on every task's gradient, a closed form. The
    paper's factors sum to 1; here their absolute values do, which is the same where none is
    negative, and elsewhere, where the paper's sum of negative and positive ones may come near 0 or
    change its sign, keeps the step bounded and downhill.

    Losses: exp(s) L - s for each task, with s learned by the run's dense optimizer; a task without
    labels in a step adds nothing.

    Source: Liu et al., "Towards impartial multi-task learning", ICLR 2021, equations 2 and 6.
    """

    def __init__(self, config: ImtlConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self.log_scales_T: nn.Parameter | None = None
        if config.scale_losses:
            self.log_scales_T = nn.Parameter(torch.zeros(len(tasks)))

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        if self.log_scales_T is None:
            return losses_T.sum()
        scaled_T = losses_T * torch.exp(self.log_scales_T)
        return (scaled_T - (means_T != 0) * self.log_scales_T).sum()

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        norms_P, cosines_PP = norms_and_cosines(gram_PP)
        # of unit gradients, the combination whose inner product with each of them is 1
        factors_P = np.linalg.solve(cosines_PP, np.ones_like(norms_P)) / norms_P
        return factors_P / np.abs(factors_P).sum()


class AlignedMtl(GradientBalancer):
    """Aligned-MTL: the nearest matrix of gradients whose singular values are all equal, to the
    smallest of theirs; all tasks count alike in it.

    Directions in which the gradients differ by no more than rounding have no singular value of
    their own and are left out.

    Source: Senushkin, Patakin, Kuznetsov and Konushin, "Independent component alignment for
        multi-task learning", CVPR 2023, equations 4 and 5, algorithm 1.
    """

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        norms_P = np.sqrt(gram_PP.diagonal())
        values_P, vectors_PP = np.linalg.eigh(gram_PP / np.outer(norms_P, norms_P))
        is_real_P = values_P > LEAST_EIGENVALUE
        # a matrix of as many rows with the gradients' inner products: its singular values are
        # theirs, without the digits that those of the Gram matrix, their squares, have lost
        root_RP = np.sqrt(values_P[is_real_P])[:, None] * vectors_PP[:, is_real_P].T * norms_P
        _, singular_R, right_RP = np.linalg.svd(root_RP, full_matrices=False)
        singular_R = np.maximum(singular_R, np.finfo(np.float64).eps * singular_R[0])
        factors_P: np.ndarray = (singular_R[-1] / singular_R * right_RP.sum(axis=1)) @ right_RP
        return factors_P
