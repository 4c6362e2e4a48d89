"""Calibration curves: what is predicted against what happens, in parts of the examples.

Shape legend: P parts, Q bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.metrics.histogram import MAX_SCORE

NUM_PARTS = 15
_DIGITS = 6

# `prediction`, `rate` and `examples` of each part
Curve = dict[str, list[float]]


def calibration_curve(histogram_2Q: Tensor, *, num_parts: int = NUM_PARTS) -> Curve | None:
    """Parts of as many examples each, by rising prediction, as far as ties allow.

    Args:
        histogram_2Q: of logits, as of `trainer.metrics.histogram`; what is labelled no, and yes.
        num_parts: at most.

    Returns:
        Of each part the mean `prediction`, to a ten-thousandth, the `rate` of yes, and the number
        of `examples`, by their weights. None without labels.
    """
    counts_Q = histogram_2Q.sum(0)
    total = float(counts_Q.sum())
    if not total:
        return None
    num_bins = histogram_2Q.shape[1]
    # a bin belongs where the middle of its examples does
    middles_Q = (counts_Q.cumsum(0) - counts_Q / 2) / total
    parts_Q = (middles_Q * num_parts).long().clamp(0, num_parts - 1)
    logits_Q = (torch.arange(num_bins, dtype=torch.float64) + 0.5) / num_bins * 2 - 1
    predictions_Q = torch.sigmoid(logits_Q * MAX_SCORE).to(counts_Q)
    sums_3P = torch.zeros(3, num_parts, dtype=torch.float64, device=counts_Q.device)
    for sums_P, terms_Q in zip(
        sums_3P, (counts_Q, counts_Q * predictions_Q, histogram_2Q[1]), strict=True
    ):
        sums_P.scatter_add_(0, parts_Q, terms_Q)
    counts_P, predicted_P, yes_P = sums_3P[:, sums_3P[0] > 0]
    return {
        "prediction": _short(predicted_P / counts_P),
        "rate": _short(yes_P / counts_P),
        "examples": _short(counts_P),
    }


def _short(values_P: Tensor) -> list[float]:
    return [round(value, _DIGITS) for value in values_P.tolist()]
