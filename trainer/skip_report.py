"""What `data.on_error: skip` left out: gathered over the ranks, and told in few lines.

Shape legend: B examples on this rank.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from data_loaders.config import DataConfig
from data_loaders.errors import counted
from data_loaders.skipping import Skipped
from trainer.model import StepOutput

# A million bad rows are not a million lines.
MOST_ENTRIES = 20


@dataclass(frozen=True)
class SkipReport:
    """What some steps used and left out, on all ranks together.

    Attributes:
        num_given: examples used; of no meaning where nothing may be skipped.
        skipped: at most one for each file and reason, the most examples first.
    """

    num_given: int = 0
    skipped: tuple[Skipped, ...] = ()

    @property
    def num_skipped(self) -> int:
        """Examples left out, of the files whose examples could be counted."""
        return sum(item.num_rows or 0 for item in self.skipped)

    @property
    def num_uncounted_files(self) -> int:
        """Files left out of which nobody knows how many examples they held."""
        return sum(item.num_rows is None for item in self.skipped)

    def of_evaluation(self) -> dict[str, Any]:
        """For a run's summary."""
        counts = {
            "evaluation_skipped": self.num_skipped,
            "evaluation_skipped_uncounted_files": self.num_uncounted_files,
        }
        return counts | {f"evaluation_{key}": item for key, item in self.entries().items()}

    def lines(self) -> list[str]:
        """For a person."""
        lines = [in_words(item) for item in self.skipped[:MOST_ENTRIES]]
        num_more = len(self.skipped) - len(lines)
        return [*lines, f"and {num_more:,} more"] if num_more else lines

    def entries(self) -> dict[str, Any]:
        """For a JSON record; empty if nothing was skipped."""
        if not self.skipped:
            return {}
        named = [
            {"file": item.uri, "examples": item.num_rows, "reason": item.reason}
            for item in self.skipped[:MOST_ENTRIES]
        ]
        num_more = len(self.skipped) - len(named)
        return {"skipped_of": named} | ({"skipped_of_more": num_more} if num_more else {})


class Skips:
    """Adds up what is skipped; it costs nothing where the recipe says `on_error: fail`.

    Args:
        config: the recipe's section `data`.
        device: of the outputs.
    """

    def __init__(self, config: DataConfig, *, device: torch.device) -> None:
        self.is_on = config.on_error == "skip"
        self._rows_per_example = config.rows_per_example
        self._num_rows = torch.zeros((), dtype=torch.float64, device=device)
        self._skipped: list[Skipped] = []

    def update(self, output: StepOutput) -> None:
        """Adds one step; waits for nothing."""
        if self.is_on:
            self._num_rows += output.weights_B.sum(dtype=torch.float64)
            if output.skipped:
                self._skipped = summed([*self._skipped, *output.skipped])

    def reduce_and_reset(self) -> SkipReport:
        """What was added on all ranks since the last call; every rank must call."""
        if not self.is_on:
            return SkipReport()
        by_rank: list[list[Skipped]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(by_rank, self._skipped)
        dist.all_reduce(self._num_rows)
        report = SkipReport(
            num_given=round(float(self._num_rows) / self._rows_per_example),
            skipped=tuple(summed(item for items in by_rank for item in items)),
        )
        self._num_rows.zero_()
        self._skipped = []
        return report


def summed(items: Iterable[Skipped]) -> list[Skipped]:
    """One for each file and reason, the most examples first; behind them what was not counted."""
    counts: dict[tuple[str, str, bool], int] = collections.defaultdict(int)
    for item in items:
        counts[item.uri, item.reason, item.num_rows is not None] += item.num_rows or 0
    total = [
        Skipped(uri=uri, num_rows=count if is_counted else None, reason=reason)
        for (uri, reason, is_counted), count in counts.items()
    ]
    return sorted(total, key=lambda item: (-(item.num_rows or 0), item.uri, item.reason))


def in_words(item: Skipped) -> str:
    """For a person, in one line."""
    what = f"{counted(item.num_rows, 'example')} of " if item.num_rows is not None else ""
    return f"skipped {what}{item.uri}: {item.reason}"
