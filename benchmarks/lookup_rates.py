"""From a variant's seconds to what the lookup benchmark reports: lookups and bytes per second."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import in_milliseconds
from benchmarks.lookup_variants import Variant

_ID_BYTES = 8
_FLOAT_BYTES = 4


def rates(
    seconds: np.ndarray,
    *,
    variant: Variant,
    mode: str,
    num_ids: int,
    num_distinct_rows: float,
    peak: float,
) -> dict[str, Any]:
    """A variant's entry in the report.

    Args:
        seconds: of each round.
        num_ids: looked up in a step.
        num_distinct_rows: among them.
        peak: bandwidth that the machine reached in streams, GB/s.
    """
    moved = bytes_moved(
        num_ids=num_ids,
        num_distinct_rows=num_distinct_rows,
        dim=variant.weights()[0].size(1),
        momentum_width=variant.momentum_width,
        update=mode == "train",
    )
    median = float(np.median(seconds))
    return {
        "variant": variant.name,
        "mode": mode,
        **in_milliseconds(seconds),
        "lookups_per_second": num_ids / median,
        "bytes_per_step": moved,
        "gb_per_second": moved / median / 1e9,
        "fraction_of_peak": moved / median / 1e9 / peak,
    }


def bytes_moved(
    *, num_ids: int, num_distinct_rows: float, dim: int, momentum_width: int, update: bool
) -> float:
    """Bytes that a step cannot avoid moving, float32 weights and int64 ids.

        forward:  num_ids * (8 + 4 * dim)
        train:    forward + num_distinct_rows * 2 * 4 * (dim + momentum_width)

    that is, ids and their rows read; then each distinct row and its momentum read and written.
    A row wanted twice is read twice, from a cache if it is still there, so the rate may exceed the
    memory's. Pooled vectors, gradients, offsets and the sorting of ids are left out.
    """
    moved: float = num_ids * (_ID_BYTES + _FLOAT_BYTES * dim)
    if update:
        moved += num_distinct_rows * 2 * _FLOAT_BYTES * (dim + momentum_width)
    return moved
