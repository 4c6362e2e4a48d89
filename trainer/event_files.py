"""What a run reports as TensorBoard event files: numbers, and diagrams as pictures.

RUN/tensorboard/train/events.*    what training reports
RUN/tensorboard/valid/events.*    validations, so that TensorBoard draws both in one chart
RUN/tensorboard/test/events.*     importance, of a run without valid/ that was judged by test/

Each attempt at a run writes files of its own; TensorBoard reads all of a folder, one after another,
and never returns to one once there is a later one.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from data_loaders.storage import Location

# an object is written whole at every flush: behind so many bytes another one is begun
_MAX_OBJECT_BYTES = 1 << 20

# of a report, what says how the run goes
_OF_THE_RUN = ("examples", "seconds", "examples_per_second", "skipped")


class EventFiles:
    """Writes them; made on one rank only. Between flushes no file is open.

    Args:
        location: of the folder `tensorboard`.
        resumed_step: what earlier attempts reported behind this step is not shown.
    """

    def __init__(self, location: Location, *, resumed_step: int) -> None:
        self._location, self._resumed_step = location, resumed_step
        self._files: dict[str, _EventFile] = {}

    def add(self, line: dict[str, Any]) -> None:
        """What TensorBoard shows of a line of `metrics.jsonl`; on storage at the next `flush`."""
        from tensorboardX.summary import scalar

        if (split := line["split"]) not in self._files:
            folder = self._location.child(split)
            self._files[split] = _EventFile(folder, first_step=self._resumed_step + 1)
        values: list[Any] = [scalar(tag, value).value[0] for tag, value in scalars(line)]
        values += pictures(line)
        self._files[split].add(step=line["step"], summary={"value": values})

    def flush(self) -> None:
        """Writes all that was added.

        Raises:
            StorageError: it cannot be written.
        """
        for file in self._files.values():
            file.flush()


class _EventFile:
    """Of one split. A local file is appended to; on object storage there are several, each of which
    is written whole.

    Source: https://www.tensorflow.org/tutorials/load_data/tfrecord, the format's details.
    """

    def __init__(self, folder: Location, *, first_step: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder = folder
        self._begin()
        # drops what files before this one say of later steps
        self.add(step=first_step, session_log={"status": SessionLog.START})

    def _begin(self) -> None:
        # TensorBoard reads files in the order of their names
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._file = self._folder.child(name)
        self._content = bytearray()
        self.add(file_version="brain.Event:2")
        self._num_written = len(self._content)

    def add(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        content = Event(wall_time=time.time(), **event).SerializeToString()
        size = struct.pack("<Q", len(content))
        for part in (size, content):
            self._content += part + struct.pack("<I", masked_crc32c(part))

    def flush(self) -> None:
        if len(self._content) == self._num_written:
            return
        if self._file.is_local:
            self._file.parent_folder()
            # replaced instead, the file would be lost to a TensorBoard that has it open
            with self._file.reporting("written"), open(self._file.path, "ab") as stream:
                stream.write(self._content)
            self._content.clear()
        else:
            self._file.write_bytes(bytes(self._content))
            if len(self._content) > _MAX_OBJECT_BYTES:
                self._begin()
        self._num_written = len(self._content)


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Tags and values of a line of `metrics.jsonl`; those of one chapter begin alike."""
    for name in _OF_THE_RUN:
        if name in line:
            yield f"run/{name}", line[name]
    for task, result in line.get("tasks", {}).items():
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


def pictures(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Diagrams of a line of `metrics.jsonl`, as values of an event."""
    if not line.keys() & {"calibration_curves", "importance"}:
        return  # most lines have none, and matplotlib is slow to import
    from trainer.charts import Bars, Panel, picture
    from trainer.task_charts import calibration_panel, importance_bars

    # the scalar calibration has a tag already, and TensorBoard shows one kind of a tag
    diagrams: dict[str, Panel | Bars] = {
        f"calibration_curve/{task}": calibration_panel(task, curve)
        for task, curve in line.get("calibration_curves", {}).items()
    }
    for task, found in line.get("importance", {}).get("tasks", {}).items():
        diagrams[f"importance/{task}"] = importance_bars(task, found)
    for tag, diagram in diagrams.items():
        drawn = picture(diagram)
        image = {"encoded_image_string": drawn.png, "width": drawn.width, "height": drawn.height}
        yield {"tag": tag, "image": {**image, "colorspace": 4}}
