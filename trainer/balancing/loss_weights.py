"""Methods that weigh the tasks' losses, by the losses alone.

Shape legend: T tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.balance_config import DwaConfig, FamoConfig, RlwConfig, UncertaintyConfig
from trainer.balancing.balancer import Balancer, Draws
from trainer.losses import TaskLoss
from trainer.losses.regression import SquaredLoss

# smaller losses count as this, where they are divided by or their logarithm is taken
LEAST_LOSS = 1e-8
# in place of a sum of no terms
_LEAST = torch.finfo(torch.float64).tiny


class Uncertainty(Balancer):
    """Homoscedastic uncertainty: a variance of each task, learned by the run's dense optimizer.

    A squared error L adds L / (2 v) + log(v) / 2. Any other loss adds L / v + log(v) / 2, as the
    paper's classification, and as Huber's, which is half a square already. log(v) is the parameter.
    A task without labels in a step adds nothing.

    Source: Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses for
        scene geometry and semantics", CVPR 2018, equations 7 and 10.
    """

    scales_T: Tensor

    def __init__(
        self, config: UncertaintyConfig, *, tasks: tuple[TaskLoss, ...], seed: int
    ) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self.log_variances_T = nn.Parameter(torch.zeros(len(tasks)))
        # a squared error is the log-likelihood of a normal twice over
        is_squared_T = [type(task) is SquaredLoss for task in tasks]
        scales_T = torch.tensor([0.5 if is_squared else 1.0 for is_squared in is_squared_T])
        self.register_buffer("scales_T", scales_T, persistent=False)

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        weighted_T = losses_T * self.scales_T * torch.exp(-self.log_variances_T)
        return (weighted_T + (means_T != 0) * self.log_variances_T / 2).sum()


class Rlw(Balancer):
    """Random loss weighting: the softmax of a normal draw at each step.

    The paper's weights sum to 1, these to T, as static ones do.

    Source: Lin, Ye, Zhang and Tsang, "Reasonable effectiveness of random weighting: a litmus test
        for multi-task learning", TMLR 2022, algorithm 1.
    """

    def __init__(self, config: RlwConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self.draws = Draws(seed)

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        if not self.training:
            return losses_T.sum()
        drawn_T = torch.randn(self.num_tasks, generator=self.draws.next(), dtype=torch.float64)
        return (losses_T * (self.num_tasks * drawn_T.softmax(0)).to(losses_T)).sum()


class Dwa(Balancer):
    """Dynamic weight average: by the ratio of a task's last two mean losses.

    The paper's means are over epochs, these over windows of steps, because a recommender may see
    its log once; in the first two windows, and for a task without labels in one of the last two,
    the ratio is 1.

    Source: Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR 2019,
        equation 7.
    """

    sums_T: Tensor
    counts_T: Tensor
    older_T: Tensor
    newer_T: Tensor
    num_steps: Tensor

    def __init__(self, config: DwaConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self._temperature = config.temperature
        self._window_steps = config.window_steps
        self.add_state("num_steps", torch.zeros(()))
        for name in ("sums_T", "counts_T", "older_T", "newer_T"):
            self.add_state(name, torch.zeros(len(tasks)))

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        are_known_T = (self.older_T > 0) & (self.newer_T > 0)
        ratios_T = torch.where(are_known_T, self.newer_T / self.older_T.clamp(min=LEAST_LOSS), 1.0)
        weights_T = self.num_tasks * (ratios_T / self._temperature).softmax(0)
        if self.training:
            self._remember(means_T.double())
        return (losses_T * weights_T.to(losses_T)).sum()

    @torch.no_grad()
    def _remember(self, means_T: Tensor) -> None:
        self.sums_T += means_T
        self.counts_T += means_T != 0
        self.num_steps += 1
        if int(self.num_steps) % self._window_steps == 0:
            self.older_T.copy_(self.newer_T)
            self.newer_T.copy_(self.sums_T / self.counts_T.clamp(min=1))
            self.sums_T.zero_()
            self.counts_T.zero_()


class Famo(Balancer):
    """Fast adaptive multitask optimization.

    The paper looks at the losses of the same batch again, after the update; here the losses of the
    next step's batch stand for them, which costs no second forward, and adds the noise of the
    batches. A task without labels in a step is drawn by the decay alone.

    Source: Liu, Feng, Stone and Liu, "FAMO: fast adaptive multitask optimization", NeurIPS 2023,
        algorithm 1.
    """

    logits_T: Tensor
    last_losses_T: Tensor

    def __init__(self, config: FamoConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self._learning_rate = config.learning_rate
        self._decay = config.decay
        self.add_state("logits_T", torch.zeros(len(tasks)))
        self.add_state("last_losses_T", torch.zeros(len(tasks)))

    def total_loss(self, losses_T: Tensor, *, means_T: Tensor) -> Tensor:
        are_observed_T = means_T != 0
        positive_T = means_T.double().clamp(min=LEAST_LOSS)
        if self.training:
            self._learn(positive_T, are_observed_T=are_observed_T)
        shares_T = self.logits_T.softmax(0) / positive_T * are_observed_T
        weights_T = shares_T / shares_T.sum().clamp(min=_LEAST)
        return (losses_T * weights_T.to(losses_T)).sum()

    @torch.no_grad()
    def _learn(self, losses_T: Tensor, *, are_observed_T: Tensor) -> None:
        are_known_T = are_observed_T & (self.last_losses_T > 0)
        shares_T = self.logits_T.softmax(0) * are_known_T
        gains_T = self.last_losses_T.clamp(min=LEAST_LOSS).log() - losses_T.log()
        mean = (shares_T * gains_T).sum() / shares_T.sum().clamp(min=_LEAST)
        slopes_T = shares_T * (gains_T - mean)
        self.logits_T -= self._learning_rate * (slopes_T + self._decay * self.logits_T)
        self.last_losses_T.copy_(torch.where(are_observed_T, losses_T, self.last_losses_T))
