"""What a running training tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


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
        score: on valid, the higher the better, when it has just been found and saved.
    """

    phase: Literal["train", "evaluate"]
    step: int
    num_steps: int
    examples_per_second: float
    losses: dict[str, float]
    note: str = ""
    score: float | None = None


Listener = Callable[[Progress], None]


# A person sees no more, and each is a message to another process.
INTERVAL_SECONDS = 0.2


def throttled(listener: Listener) -> Listener:
    """The same listener, told of each new phase, note and score, and else at most every
    `INTERVAL_SECONDS`.
    """
    told_at, phase = 0.0, ""

    def tell(progress: Progress) -> None:
        nonlocal told_at, phase
        is_new = progress.phase != phase or progress.note or progress.score is not None
        if is_new or time.monotonic() - told_at >= INTERVAL_SECONDS:
            told_at, phase = time.monotonic(), progress.phase
            listener(progress)

    return tell


class Teller:
    """Tells a listener, if there is one, where a run stands.

    Args:
        listener: throttled here.
        tasks: names of the tasks.
        num_steps: of the whole run.
    """

    def __init__(self, listener: Listener | None, *, tasks: Iterable[str], num_steps: int) -> None:
        self.listener = throttled(listener) if listener is not None else None
        self._tasks = list(tasks)
        self._num_steps = num_steps

    def after_step(self, step: int, *, losses_T: Tensor, examples_per_second: float) -> None:
        """A step of training."""
        if self.listener is not None:
            losses = dict(zip(self._tasks, losses_T.tolist(), strict=True))
            self.listener(Progress("train", step, self._num_steps, examples_per_second, losses))

    def after_validation(self, step: int, *, score: float, is_stopped: bool) -> None:
        """A validation, its checkpoint being saved."""
        note = f"stopped at step {step}: no better score on valid (run.patience)"
        self._tell(Progress("evaluate", step, self._num_steps, 0.0, {}, score=score))
        if is_stopped and step < self._num_steps:
            self.note(step, note)

    def note(self, step: int, text: str) -> None:
        """A line to show once."""
        self._tell(Progress("train", step, self._num_steps, 0.0, {}, note=text))

    def _tell(self, progress: Progress) -> None:
        if self.listener is not None:
            self.listener(progress)
