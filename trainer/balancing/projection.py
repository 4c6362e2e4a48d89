"""Methods that take from a task's gradient what goes against another's.

Shape legend: T tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.balancing.balancer import Balancer


class Pcgrad(Balancer):
    """Projecting conflicting gradients.

    A projected gradient is a combination of the tasks' gradients, so its inner products follow from
    the Gram matrix. The paper goes through the other tasks in random order, this in the recipe's.

    Source: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1.
    """

    needs_gradients = True

    def factors(self, gram_TT: Tensor, *, means_T: Tensor) -> Tensor:
        parts_TT = torch.eye(self.num_tasks, dtype=torch.float64)
        for task, part_T in enumerate(parts_TT):
            for other in range(self.num_tasks):
                product = part_T @ gram_TT[:, other]
                if other != task and product < 0:
                    part_T[other] -= product / gram_TT[other, other]
        return parts_TT.sum(0)
