"""Methods that seek a direction along which no task's loss rises.

Shape legend: P tasks that have a gradient in this step.
"""

from __future__ import annotations

import numpy as np

from trainer.balance_config import CagradConfig
from trainer.balancing.balancer import GradientBalancer, norms_and_cosines
from trainer.balancing.nonnegative import nonnegative_minimum
from trainer.losses import TaskLoss

# of the radius, how near the direction must come to it
RADIUS_TOLERANCE = 1e-8
MAX_ITERATIONS = 60


class Mgda(GradientBalancer):
    """Multiple gradient descent: the shortest of all weighted means of the gradients.

    Exact for any number of tasks, where the paper has a closed form for two and iterates
    (Frank-Wolfe) for more: up to a scale, the weights are where x'Gx / 2 - sum(x) is least, x >= 0.
    The gradients are those at what the tasks share, as in the paper's MGDA-UB.

    Source: Sener and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018,
        equation 3.
    """

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        norms_P, cosines_PP = norms_and_cosines(gram_PP)
        # relative to the shortest, so that the extreme ones neither overflow nor vanish
        scales_P = norms_P / norms_P.min()
        x_P = nonnegative_minimum(cosines_PP, 1 / scales_P) / scales_P
        weights_P: np.ndarray = x_P / x_P.sum()
        return weights_P


class Cagrad(GradientBalancer):
    """Conflict-averse gradient descent.

    The direction d within `radius` * |g0| of the mean gradient g0 whose least inner product with a
    task's gradient, m, is the largest. d - g0 is a combination v >= 0 of the gradients, and for a
    given m the least v'Gv / 2 - sum((m - gi'g0) vi): that m is sought whose v reaches the radius.
    The paper minimises the dual over weights that sum to 1, by a general solver: the same d.

    Source: Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent for multi-task
        learning", NeurIPS 2021, equation 3, algorithm 1.
    """

    def __init__(self, config: CagradConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> None:
        super().__init__(config, tasks=tasks, seed=seed)
        self._radius = config.radius

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        norms_P, cosines_PP = norms_and_cosines(gram_PP)
        weights_P = np.full(len(norms_P), 1 / len(norms_P))
        steps_P = weights_P * norms_P
        # inner products of the mean gradient with each gradient's direction
        mean_P = cosines_PP @ steps_P
        radius = self._radius * float(np.sqrt(steps_P @ mean_P))
        more_P = _reaching(cosines_PP, mean_P=mean_P, norms_P=norms_P, radius=radius)
        factors_P: np.ndarray = weights_P + more_P / norms_P
        return factors_P


def _reaching(
    cosines_PP: np.ndarray, *, mean_P: np.ndarray, norms_P: np.ndarray, radius: float
) -> np.ndarray:
    """v of `Cagrad`, times the gradients' lengths.

    The length of v's combination grows with m, and on a set of positive entries v is linear in m:
    so m is found from that set, or by halving where the set changes in between.
    """
    inner_P = mean_P * norms_P
    low, high = inner_P.min(), (inner_P + radius * norms_P).min()
    v_P, level = np.zeros_like(mean_P), high
    for _ in range(MAX_ITERATIONS):
        v_P = nonnegative_minimum(cosines_PP, level / norms_P - mean_P)
        length = float(np.sqrt(v_P @ cosines_PP @ v_P))
        if abs(length - radius) <= RADIUS_TOLERANCE * radius:
            break
        low, high = (level, high) if length < radius else (low, level)
        level = _level_on(v_P > 0, cosines_PP, mean_P=mean_P, norms_P=norms_P, radius=radius)
        if not low < level < high:
            level = (low + high) / 2
    return v_P


def _level_on(
    is_free_P: np.ndarray,
    cosines_PP: np.ndarray,
    *,
    mean_P: np.ndarray,
    norms_P: np.ndarray,
    radius: float,
) -> float:
    """The m at which v has the length `radius`, if these are its positive entries; NaN if none."""
    if not is_free_P.any():
        return np.nan
    sides = np.stack([1 / norms_P[is_free_P], mean_P[is_free_P]], axis=1)
    solved = np.linalg.solve(cosines_PP[np.ix_(is_free_P, is_free_P)], sides)
    (a, b), (_, c) = sides.T @ solved
    # length ** 2 = a m ** 2 - 2 b m + c
    return float((b + np.sqrt(max(b**2 - a * (c - radius**2), 0))) / a)
