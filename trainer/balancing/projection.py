"""Methods that change each task's gradient by another's, pair by pair.

A changed gradient is a combination of the tasks' gradients, so its inner products follow from the
Gram matrix.

Shape legend: T tasks, P of them that have a gradient in this step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.balance_config import GradvacConfig, PcgradConfig
from trainer.balancing.balancer import Draws, GradientBalancer, norms_and_cosines
from trainer.losses import TaskLoss

# cosines are kept so far from 1 and -1, where what is to be added has no bound
LEAST_SQUARED_SINE = 1e-6


class Pcgrad(GradientBalancer):
    """Projecting conflicting gradients, the other tasks in an order that is drawn at each step.

    Source: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1.
    """

    def __init__(self, config: PcgradConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self.draws = Draws(seed)

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        parts_PP = np.eye(len(gram_PP))
        for task, other in pairs(len(gram_PP), generator=self.draws.next()):
            product = parts_PP[task] @ gram_PP[:, other]
            if product < 0:
                parts_PP[task, other] -= product / gram_PP[other, other]
        return parts_PP.sum(axis=0)


class Gradvac(GradientBalancer):
    """Gradient vaccine: where two gradients are less alike than they usually are, one is turned.

    For all that is shared at once, where the paper goes layer by layer. The average is that of the
    cosines of the gradients as they come, not of those that another pair has changed, so that it
    does not depend on the order.

    Source: Wang, Tsvetkov, Firat and Cao, "Gradient vaccine: investigating and improving multi-task
        optimization in massively multilingual models", ICLR 2021, equation 2, algorithm 1.
    """

    usual_TT: Tensor

    def __init__(self, config: GradvacConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self._momentum = config.momentum
        self.draws = Draws(seed)
        self.add_state("usual_TT", torch.zeros(len(tasks), len(tasks)))

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        norms_P, cosines_PP = norms_and_cosines(gram_PP)
        usual_PP = self.usual_TT.cpu().numpy()[np.ix_(tasks_P, tasks_P)]
        parts_PP = np.eye(len(gram_PP))
        for task, other in pairs(len(gram_PP), generator=self.draws.next()):
            part_P, usual = parts_PP[task], usual_PP[task, other]
            norm = math.sqrt(max(part_P @ gram_PP @ part_P, 0))
            if norm == 0:
                continue
            cosine = (part_P @ gram_PP[:, other]) / (norm * norms_P[other])
            if cosine < usual:
                sine = math.sqrt(max(1 - cosine**2, 0))
                usual_sine = math.sqrt(max(1 - usual**2, LEAST_SQUARED_SINE))
                part_P[other] += (norm / norms_P[other]) * (usual * sine / usual_sine - cosine)
        if self.training:
            rows_P, columns_P = (torch.from_numpy(index) for index in np.ix_(tasks_P, tasks_P))
            self.usual_TT[rows_P, columns_P] = torch.from_numpy(
                usual_PP + self._momentum * (cosines_PP - usual_PP)
            ).to(self.usual_TT)
        return parts_PP.sum(axis=0)


def pairs(num_tasks: int, *, generator: torch.Generator) -> Iterator[tuple[int, int]]:
    """Each task with each other, the others in an order drawn for it."""
    for task in range(num_tasks):
        for other in torch.randperm(num_tasks, generator=generator).tolist():
            if other != task:
                yield task, other
