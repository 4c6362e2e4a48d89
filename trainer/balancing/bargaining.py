"""A method that takes the tasks for players who bargain.

Shape legend: P tasks that have a gradient in this step.
"""

from __future__ import annotations

import numpy as np

from trainer.balancing.balancer import GradientBalancer, norms_and_cosines

MAX_ITERATIONS = 200
TOLERANCE = 1e-10
# from here on a whole Newton step leads closer, and stays positive
SURE_DECREMENT = 0.25


class NashMtl(GradientBalancer):
    """Nash's bargaining solution: the factors a with G a = 1 / a.

    They are where a'Ga / 2 - sum(log a) is least, a convex and self-concordant function, so damped
    Newton steps find them; the paper solves a sequence of convex approximations, and not at every
    step. The direction has length sqrt(P), whatever the gradients' lengths.

    Source: Navon et al., "Multi-task learning as a bargaining game", ICML 2022, claim 3.1.
        Damped Newton: Nesterov and Nemirovskii, "Interior-point polynomial algorithms in convex
        programming", 1994, chapter 2.
    """

    def present_factors(
        self, gram_PP: np.ndarray, *, tasks_P: np.ndarray, means_P: np.ndarray
    ) -> np.ndarray:
        norms_P, cosines_PP = norms_and_cosines(gram_PP)
        # of the gradients at unit length: a times their lengths; at first the best of equal ones
        a_P = np.full_like(norms_P, np.sqrt(len(norms_P) / cosines_PP.sum()))
        for _ in range(MAX_ITERATIONS):
            slope_P = cosines_PP @ a_P - 1 / a_P
            step_P = np.linalg.solve(cosines_PP + np.diag(a_P**-2), slope_P)
            decrement = np.sqrt(max(slope_P @ step_P, 0))
            a_P -= step_P if decrement < SURE_DECREMENT else step_P / (1 + decrement)
            if decrement < TOLERANCE:
                break
        factors_P: np.ndarray = a_P / norms_P
        return factors_P
