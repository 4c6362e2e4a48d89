"""TensorBoard's event files, read back by their format."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from data_loaders.storage import Location, locate
from tests.helpers.event_files import events_of
from trainer import event_files
from trainer.event_files import EventFiles
from trainer.run_folder import RunFolder

TASKS = {"click": {"loss": 0.5, "auc": None}, "buy": {"loss": 0.25, "auc": 0.75}}


def line(step: int, *, split: str = "train", **more: Any) -> dict[str, Any]:
    head = {"split": split, "step": step, "examples": 10 * step, "seconds": 1.5}
    return {**head, "tasks": TASKS, **more}


def shown(location: Location) -> dict[tuple[str, int], float]:
    """Tags, steps and values, as TensorBoard shows them."""
    values: dict[tuple[str, int], float] = {}
    for event in events_of(location):
        if event.session_log.status == SessionLog.START:
            values = {key: value for key, value in values.items() if key[1] < event.step}
        for value in event.summary.value:
            if value.HasField("image"):
                continue
            [number] = value.tensor.float_val or [value.simple_value]
            values[value.tag, event.step] = number
    return values


def check_all_scalars(uri: str) -> None:
    run = locate(uri)
    files = EventFiles(run, resumed_step=0)
    gates = {"buy": {"weights": [0.25, 0.75], "entropy": 0.5}}
    gradients = {
        "norms": {"click": 2.0, "buy": 3.0},
        "cosines": {"click": {"buy": -0.5, "other": None}},
        "factors": {"click": 1.0, "buy": 1.0},
    }
    files.add(line(1, gradients=gradients, gates=gates, loss_weights={"click": 1.5}))
    files.add(line(1, split="valid"))
    files.flush()
    assert shown(run.child("valid")) == {
        ("run/examples", 1): 10,
        ("run/seconds", 1): 1.5,
        ("loss/click", 1): 0.5,
        ("loss/buy", 1): 0.25,
        ("auc/buy", 1): 0.75,
    }
    files.add(line(2))
    files.flush()
    found = shown(run.child("train"))
    assert found["gradient_norm/buy", 1] == 3
    assert found["gradient_cosine/click-buy", 1] == -0.5
    assert found["gate_weight_buy/expert_1", 1] == 0.75
    assert found["gate_entropy/buy", 1] == 0.5
    assert found["loss_weight/click", 1] == 1.5
    assert found["loss/buy", 2] == 0.25
    assert not any("other" in tag for tag, _ in found)


def test_diagrams_are_pictures(tmp_path: Any) -> None:
    """PNGs of the size that they say: calibration of a validation, and importance."""
    curve = {"prediction": [0.1, 0.6], "rate": [0.2, 0.5], "examples": [10, 10]}
    tasks = {"buy": {"metric": "auc", "value": 0.7, "features": {"user": 0.2, "age": 0.0}}}
    results = {"click": {"loss": 0.5, "calibration": 1.1}}
    files = EventFiles(locate(str(tmp_path)), resumed_step=0)
    files.add({**line(1, split="valid", calibration_curves={"click": curve}), "tasks": results})
    files.add({"split": "valid", "step": 1, "importance": {"tasks": tasks}})
    files.flush()
    events = events_of(locate(str(tmp_path / "valid")))
    found = [value for event in events for value in event.summary.value if value.HasField("image")]
    tags = [value.tag for value in found]
    assert tags == ["calibration_curve/click", "importance/buy"]
    # TensorBoard shows a tag as what it meets first
    assert not {tag for tag, _ in shown(locate(str(tmp_path / "valid")))} & set(tags)
    for value in found:
        png = value.image.encoded_image_string
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", png[16:24]) == (value.image.width, value.image.height)


def test_every_number_of_a_report_is_a_scalar(tmp_path: Any) -> None:
    """On disk as soon as it is flushed; what is not defined is left out."""
    check_all_scalars(str(tmp_path / "tensorboard"))


@pytest.mark.s3
def test_files_are_copied_to_object_storage(s3_root: str) -> None:
    """At every flush, whole."""
    check_all_scalars(f"{s3_root}/tensorboard")


@pytest.mark.s3
def test_objects_do_not_grow_without_end(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written whole at every flush; all that was added is in one of them."""
    monkeypatch.setattr(event_files, "_MAX_OBJECT_BYTES", 500)
    run = locate(f"{s3_root}/tensorboard")
    files = EventFiles(run, resumed_step=0)
    for step in range(1, 21):
        files.add(line(step))
        files.flush()
    objects = run.child("train").children()
    assert 3 < len(objects) < 10
    assert all(len(item.read_bytes()) < 1000 for item in objects)
    assert {step for _, step in shown(run.child("train"))} == set(range(1, 21))


def test_a_resumed_run_goes_on_where_its_checkpoint_was(tmp_path: Any) -> None:
    """What an earlier attempt reported behind it is shown no more; other ranks write nothing."""
    run = locate(str(tmp_path))
    for resumed_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        for is_writer in (True, False):
            folder = RunFolder(run, is_writer=is_writer, resumed_step=resumed_step)
            for step in steps:
                folder.report(line(step) | {"examples": step + 100 * resumed_step})
            folder.flush()
    events = run.child("tensorboard").child("train")
    assert len(events.children()) == 2
    found = {step: value for (tag, step), value in shown(events).items() if tag == "run/examples"}
    assert found == {1: 1, 2: 2, 3: 203, 4: 204}
