"""Areas under curves from histograms of scores.

The state is of fixed size however long the log is, and ranks add theirs up. Scores in one bin count
as tied: with 2^15 bins over scores of -16 to 16, a thousandth wide, an AUC differs from the exact
one by less than 1e-4 once scores spread over more than some tenths (tests/trainer/metrics); of a
model that has learned nothing yet it is coarser.

Shape legend: B examples on this rank, H histograms, Q bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_BINS = 2**15
MAX_SCORE = 16.0


def add_scores(
    histogram_H2Q: Tensor, scores_BH: Tensor, *, low_BH: Tensor, high_BH: Tensor
) -> None:
    """Counts scores in place.

    Args:
        histogram_H2Q: float64.
        scores_BH: float64, for each histogram one of each example; none is NaN.
        low_BH: float64, how much each counts among the low ones, e.g. 1 for a no.
        high_BH: float64, and among the high ones.
    """
    num_histograms, _, num_bins = histogram_H2Q.shape
    offsets_H = torch.arange(num_histograms, device=scores_BH.device) * 2 * num_bins
    scaled_BH = (scores_BH + MAX_SCORE) * (num_bins / (2 * MAX_SCORE))
    bins_BH = scaled_BH.clamp(0, num_bins - 1).long() + offsets_H
    flat = histogram_H2Q.view(-1)
    flat.scatter_add_(0, bins_BH.view(-1), low_BH.reshape(-1))
    flat.scatter_add_(0, bins_BH.view(-1) + num_bins, high_BH.reshape(-1))


def area(histogram_2Q: Tensor) -> float | None:
    """How often a high one has a higher score than a low one, ties as half; None without both."""
    low_Q, high_Q = histogram_2Q
    num_pairs = float(low_Q.sum()) * float(high_Q.sum())
    if not num_pairs:
        return None
    num_below_Q = low_Q.cumsum(0) - low_Q / 2
    return float((high_Q * num_below_Q).sum()) / num_pairs
