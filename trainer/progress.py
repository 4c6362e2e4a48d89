"""What a running training tells whoever watches it."""

from __future__ import annotations

import time
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
        losses: mean loss of each task in the last step, in the units of its loss.
        note: a line to show once.
    """

    phase: Literal["train", "evaluate"]
    step: int
    num_steps: int
    examples_per_second: float
    losses: dict[str, float]
    note: str = ""


Listener = Callable[[Progress], None]


# A person sees no more, and each is a message to another process.
INTERVAL_SECONDS = 0.2


def throttled(listener: Listener) -> Listener:
    """The same listener, told of each new phase and note, and else at most every
    `INTERVAL_SECONDS`.
    """
    told_at, phase = 0.0, ""

    def tell(progress: Progress) -> None:
        nonlocal told_at, phase
        is_new = progress.phase != phase or progress.note
        if is_new or time.monotonic() - told_at >= INTERVAL_SECONDS:
            told_at, phase = time.monotonic(), progress.phase
            listener(progress)

    return tell
