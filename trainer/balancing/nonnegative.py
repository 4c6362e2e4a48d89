"""A small quadratic program, to which methods come down.

Shape legend: P unknowns.
"""

from __future__ import annotations

import numpy as np

# of the largest slope, what counts as 0
TOLERANCE = 1e-13


def nonnegative_minimum(matrix_PP: np.ndarray, linear_P: np.ndarray) -> np.ndarray:
    """Where x'Mx / 2 - l'x is least among all x >= 0; exact, after finitely many steps.

    Args:
        matrix_PP: M, float64, positive definite.
        linear_P: l, float64.

    Returns:
        float64 (P,).

    Source: Lawson and Hanson, "Solving least squares problems", 1974, chapter 23, algorithm NNLS,
        here by the normal equations.
    """
    x_P = np.zeros(len(linear_P))
    is_free_P = np.zeros(len(linear_P), dtype=bool)
    tolerance = TOLERANCE * np.abs(linear_P).max()
    for _ in range(10 * len(linear_P)):  # a bound against cycles of rounding
        slopes_P = np.where(is_free_P, -np.inf, linear_P - matrix_PP @ x_P)
        entering = int(slopes_P.argmax())
        if slopes_P[entering] <= tolerance:
            break
        is_free_P[entering] = True
        while True:
            target_P = np.zeros_like(x_P)
            target_P[is_free_P] = np.linalg.solve(
                matrix_PP[np.ix_(is_free_P, is_free_P)], linear_P[is_free_P]
            )
            is_beyond_P = is_free_P & (target_P <= 0)
            if not is_beyond_P.any():
                x_P = target_P
                break
            fractions_P = np.full_like(x_P, np.inf)
            fractions_P[is_beyond_P] = x_P[is_beyond_P] / (x_P - target_P)[is_beyond_P]
            leaving = int(np.nan_to_num(fractions_P, nan=0.0, posinf=np.inf).argmin())
            x_P = x_P + min(fractions_P[leaving], 1.0) * (target_P - x_P)
            is_free_P[leaving] = False
            x_P[~is_free_P] = 0
            if not is_free_P.any():
                break
    return np.maximum(x_P, 0)
