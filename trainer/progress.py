"""What a running training tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        phase: what is being done.
        step: steps done; of the evaluation while evaluating.
        num_steps: steps in all.
        examples_per_second: over all ranks, since the last report.
        losses: mean loss of each task in the last step, nats or squared standard deviations.
    """

    phase: Literal["train", "evaluate"]
    step: int
    num_steps: int
    examples_per_second: float
    losses: dict[str, float]


Listener = Callable[[Progress], None]
