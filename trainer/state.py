"""How far a run is, and how it spends its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from data_loaders.streams import Cursor

if TYPE_CHECKING:
    from trainer.skip_report import SkipReport

Item = TypeVar("Item")


@dataclass(frozen=True)
class Selection:
    """How the scores on valid went so far.

    Attributes:
        best_score: None before the first validation.
        num_stale: validations since then that brought nothing better.
    """

    best_score: float | None = None
    num_stale: int = 0

    def after(self, score: float | None) -> Selection:
        if score is None:
            return self
        if self.best_score is None or score > self.best_score:
            return Selection(best_score=score)
        return Selection(best_score=self.best_score, num_stale=self.num_stale + 1)


@dataclass(frozen=True)
class TrainState:
    """How far a run is.

    Attributes:
        step: optimizer updates done.
        examples: trained on, over all ranks.
        seconds: spent in steps, waiting for data included, evaluation and checkpoints not.
        data_wait_seconds: of them, waiting for data on this rank.
        cursor: the position in the log behind the last batch trained.
        skipped: examples left out so far, over all ranks and epochs, as of the last report.
        uncounted_files: files left out of which nobody knows how many examples they held.
        selection: what is needed to stop early.
    """

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    cursor: Cursor = Cursor()
    skipped: int = 0
    uncounted_files: int = 0
    selection: Selection = Selection()

    def with_skipped(self, skips: SkipReport, *, since: TrainState) -> TrainState:
        """Examples as they were given and left out since then, not as planned."""
        return replace(
            self,
            examples=since.examples + skips.num_given,
            skipped=self.skipped + skips.num_skipped,
            uncounted_files=self.uncounted_files + skips.num_uncounted_files,
        )

    @property
    def has_skipped(self) -> bool:
        return self.skipped + self.uncounted_files > 0


class Stopwatch:
    """Adds up the time that an iterator's consumer waits for it, from `seconds` on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items."""
        while True:
            started = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds += time.monotonic() - started
            yield item


@dataclass(frozen=True)
class Window:
    """The steps since the last report."""

    start: TrainState

    def examples_per_second(self, state: TrainState) -> float:
        seconds = state.seconds - self.start.seconds
        return round((state.examples - self.start.examples) / seconds, 1) if seconds else 0.0
