"""The run's scalars as TensorBoard event files.

RUN/tensorboard/train/events.*    what training reports
RUN/tensorboard/valid/events.*    validations, so that TensorBoard draws both in one chart

Each attempt at a run writes files of its own; TensorBoard reads all of a folder, one after another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_loaders.storage import Location

# of a report, what says how the run goes
_OF_THE_RUN = ("examples", "seconds", "examples_per_second", "skipped")


class EventFiles:
    """Writes them; made on one rank only.

    Args:
        location: of the folder `tensorboard`. On object storage files are written to a temporary
            folder, and copied whole at every flush.
        resumed_step: what earlier attempts reported behind this step is not shown.
    """

    def __init__(self, location: Location, *, resumed_step: int) -> None:
        self._location, self._resumed_step = location, resumed_step
        self._folder = location.path if location.is_local else tempfile.mkdtemp()
        self._remove = None
        if not location.is_local:
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._writers: dict[str, Any] = {}

    def add(self, line: dict[str, Any]) -> None:
        """The scalars of a line of `metrics.jsonl`."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [summary.scalar(tag, value).value[0] for tag, value in scalars(line)]
        event = Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values))
        self._writer(line["split"]).write_event(event)

    def flush(self) -> None:
        """Everything is on storage."""
        for writer in self._writers.values():
            writer.flush()
        if self._remove is not None:
            folder = Path(self._folder)
            for path in sorted(folder.rglob("events.*")):
                target = self._location.child(path.relative_to(folder).as_posix())
                target.write_bytes(path.read_bytes())

    def close(self) -> None:
        """Flushes; nothing may be added any more."""
        self.flush()
        for writer in self._writers.values():
            writer.close()
        if self._remove is not None:
            self._remove()

    def _writer(self, split: str) -> Any:
        if split not in self._writers:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            folder = self._folder
            os.makedirs(f"{folder}/{split}", exist_ok=True)
            # `SummaryWriter` writes from a thread, and does not wait for it in `flush`
            writer = EventsWriter(
                f"{folder}/{split}/events", filename_suffix=f".{uuid.uuid4().hex[:8]}"
            )
            start = SessionLog(status=SessionLog.START)
            writer.write_event(
                Event(wall_time=time.time(), step=self._resumed_step + 1, session_log=start)
            )
            self._writers[split] = writer
        return self._writers[split]


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Tags and values of a line of `metrics.jsonl`; those of one chapter begin alike."""
    for name in _OF_THE_RUN:
        if name in line:
            yield f"run/{name}", line[name]
    for task, result in line["tasks"].items():
        for metric, value in result.items():
            if value is not None:
                yield f"{metric}/{task}", value
    gradients = line.get("gradients", {})
    for task, norm in gradients.get("norms", {}).items():
        yield f"gradient_norm/{task}", norm
    for one, cosines in gradients.get("cosines", {}).items():
        for two, cosine in cosines.items():
            if cosine is not None:
                yield f"gradient_cosine/{one}-{two}", cosine
    for task, weight in line.get("loss_weights", {}).items():
        yield f"loss_weight/{task}", weight
    for task, gate in line.get("gates", {}).items():
        yield f"gate_entropy/{task}", gate["entropy"]
        for index, weight in enumerate(gate["weights"]):
            yield f"gate_weight_{task}/expert_{index}", weight
