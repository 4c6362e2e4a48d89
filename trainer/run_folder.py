"""What a run leaves for people and scripts in its folder, on any URI.

RUN/recipe.yaml      resolved
RUN/log_files.json   what the log was when the run began
RUN/metrics.jsonl    a line per report
RUN/tensorboard/     the same as TensorBoard's event files
RUN/summary.json     at the end
"""

from __future__ import annotations

import json
import time
from typing import Any

from data_loaders.storage import Location
from trainer.event_files import EventFiles
from trainer.log_files import LogFiles, write_log_files

RECIPE, METRICS, SUMMARY = "recipe.yaml", "metrics.jsonl", "summary.json"

# An object store cannot append: the file is written whole, so not at every report.
_FLUSH_INTERVAL_SECONDS = 5.0


class RunFolder:
    """Writes the run's files; only rank 0 does, the others' calls do nothing.

    Args:
        location: of the folder.
        is_writer: whether this is rank 0.
        resumed_step: reports behind this step, of an attempt that went on further, are dropped.
    """

    def __init__(self, location: Location, *, is_writer: bool, resumed_step: int) -> None:
        self.location = location
        self._is_writer = is_writer
        self._metrics = location.child(METRICS)
        self._lines: list[str] = []
        self._flushed_at = time.monotonic()
        self._events: EventFiles | None = None
        if is_writer:
            self._events = EventFiles(location.child("tensorboard"), resumed_step=resumed_step)
        if is_writer and resumed_step and self._metrics.exists():
            lines = self._metrics.read_text().splitlines()
            self._lines = [line for line in lines if json.loads(line)["step"] <= resumed_step]

    def write_recipe(self, text: str) -> None:
        """Writes `recipe.yaml`."""
        if self._is_writer:
            self.location.child(RECIPE).write_text(text)

    def write_log_files(self, files: LogFiles) -> None:
        """Writes `log_files.json`, which a run is held to when it is taken up."""
        if self._is_writer:
            write_log_files(self.location, files)

    def report(self, line: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`; on storage within seconds, or at the next `flush`."""
        if self._events is None:
            return
        self._lines.append(json.dumps(line))
        self._events.add(line)
        if time.monotonic() - self._flushed_at > _FLUSH_INTERVAL_SECONDS:
            self.flush()

    def reopen(self) -> None:
        """Before more steps: what was told and measured of the run's end is of another model."""
        if self._is_writer:
            self.drop_importance()
            self.location.child(SUMMARY).delete()

    def drop_importance(self, *, unless_of: str | None = None) -> None:
        """Takes the line that `add_importance` added out of `metrics.jsonl`.

        Args:
            unless_of: URI of the checkpoint whose line stays, wherever the run lies by now.
        """
        lines = [(line, json.loads(line).get("importance")) for line in self._lines]
        self._lines = [
            line
            for line, found in lines
            if found is None or (unless_of and _name(found["checkpoint"]) == _name(unless_of))
        ]

    def flush(self) -> None:
        """Writes all reports."""
        if self._events is not None and self._lines:
            self._metrics.write_text("\n".join(self._lines) + "\n")
            self._events.flush()
            self._flushed_at = time.monotonic()

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`, the last file of a run."""
        self.drop_importance(unless_of=summary["checkpoint"])
        self.flush()
        if self._is_writer:
            self.location.child(SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def add_importance(run: Location, line: dict[str, Any]) -> None:
    """Adds to a finished run what `measure_importance` found: to `metrics.jsonl` in the place of
    what it did before, and to TensorBoard.

    Raises:
        StorageError: the run has not finished, or the folder cannot be written.
    """
    folder = RunFolder(run, is_writer=True, resumed_step=read_summary(run)["steps"])
    folder.drop_importance()
    folder.report(line)
    folder.flush()


def read_summary(run: Location) -> dict[str, Any]:
    """The run's `summary.json`.

    Raises:
        StorageError: the run has none (yet).
    """
    summary: dict[str, Any] = json.loads(run.child(SUMMARY).read_text())
    return summary
