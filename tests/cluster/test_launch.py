"""Ranks on a real Ray cluster: they train, they are killed and go on, their errors arrive."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, WorkerGroupError
from ray.util.state import list_actors

from cluster.failures import explained, root_cause
from cluster.launch import LaunchError, launch
from data_loaders.errors import InputError, StorageError
from data_loaders.storage import locate
from tests.cluster.conftest import Head
from tests.helpers.logs import toy_recipe, write_toy_log
from trainer.config import Recipe
from trainer.progress import Progress
from trainer.recipe_file import build_recipe
from trainer.run_folder import read_summary

NUM_STEPS = 240


def recipe_of(log: Path, *, run: Path) -> Recipe:
    keys = {"num_steps": NUM_STEPS, "eval_interval_steps": 80, "log_interval_steps": 20}
    sections = {"checkpoint": {"interval_steps": 20}}
    tree = toy_recipe(log, run={**keys, "uri": str(run)}, **sections)
    return build_recipe(tree, overrides=[], source="toy")


def results_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = read_summary(locate(str(run)))
    return {key: summary[key] for key in ("steps", "examples", "evaluated_on", "tasks")}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def uninterrupted(log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks reach on a cluster that the launch starts, seen through its listener too."""
    run = tmp_path_factory.mktemp("run") / "run"
    heard: list[Progress] = []
    started = time.monotonic()
    launch(recipe_of(log, run=run), num_workers=2, address=None, listener=heard.append)
    return {"results": results_of(run), "heard": heard, "seconds": time.monotonic() - started}


@pytest.mark.ray
@pytest.mark.slow
def test_two_ranks_train_on_a_cluster_of_their_own(uninterrupted: dict[str, Any]) -> None:
    """The run's folder is complete, and the listener heard of the steps in order."""
    assert uninterrupted["results"]["steps"] == NUM_STEPS
    steps = [progress.step for progress in uninterrupted["heard"] if progress.phase == "train"]
    assert steps
    assert steps == sorted(steps)
    assert uninterrupted["heard"][0].num_steps == NUM_STEPS


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_rank_goes_on_to_the_same_result(
    head: Head,
    log: Path,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Ranks start again from the newest checkpoint; nothing but one line of ours says so."""
    pids: list[int] = []
    steps_after: list[int] = []

    def kill_once(progress: Progress) -> None:
        if not pids:
            filters = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
            workers = list_actors(head.dashboard, filters=filters, detail=True)
            pids.append(workers[-1].pid)
        elif len(pids) == 1 and progress.step > 20:
            os.kill(pids[0], signal.SIGKILL)
            pids.append(0)
        elif len(pids) == 2 and progress.phase == "train":
            steps_after.append(progress.step)

    recipe = recipe_of(log, run=tmp_path / "run")
    launch(recipe, num_workers=2, address=head.address, listener=kill_once)
    assert steps_after, "no rank was killed in time"
    assert steps_after[-1] > 20
    assert results_of(tmp_path / "run") == uninterrupted["results"]
    output = capfd.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert "its process was killed" in line
    assert "restarting from the newest checkpoint" in line


@pytest.mark.ray
@pytest.mark.slow
def test_an_error_of_the_log_ends_the_run_at_once(
    head: Head, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a person must put right is not tried again, and is raised as the rank raised it."""
    broken = tmp_path / "log"
    shutil.copytree(log, broken)
    for path in (broken / "train").iterdir():
        table = pq.read_table(path)
        position = table.schema.get_field_index("click")
        labels = pa.array([3] * len(table), table.schema.types[position])
        pq.write_table(table.set_column(position, "click", labels), path)
    recipe = recipe_of(broken, run=tmp_path / "run")
    with pytest.raises(InputError, match=r"part-0000\d\.parquet: column click: label 3") as caught:
        launch(recipe, num_workers=2, address=head.address, listener=None)
    assert "\n" not in str(caught.value)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


@pytest.mark.ray
@pytest.mark.slow
def test_an_error_of_storage_is_tried_once_more(
    head: Head, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may have passed; the same error again, here of a damaged file, ends the run."""
    broken = tmp_path / "log"
    shutil.copytree(log, broken)
    for path in (broken / "train").iterdir():  # the footers stay whole: only reading rows fails
        content = bytearray(path.read_bytes())
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        path.write_bytes(content)
    recipe = recipe_of(broken, run=tmp_path / "run")
    with pytest.raises(InputError, match=r"part-0000\d\.parquet") as caught:
        launch(recipe, num_workers=2, address=head.address, listener=None)
    assert "\n" not in str(caught.value)
    output = capfd.readouterr()
    assert output.out == ""
    assert 1 <= len(output.err.splitlines()) <= 2  # the two ranks may name different files first
    assert "restarting from the newest checkpoint" in output.err


@pytest.mark.ray
@pytest.mark.slow
def test_more_ranks_than_cpus_are_refused(head: Head, log: Path, tmp_path: Path) -> None:
    """Ray Train would wait for them."""
    recipe = recipe_of(log, run=tmp_path / "run")
    with pytest.raises(InputError, match=r"--workers 8: expected 8 CPUs.*found .* 2 CPUs"):
        launch(recipe, num_workers=8, address=head.address, listener=None)
    with pytest.raises(InputError, match=r"--workers 1: expected 1 GPUs.*found 0 GPUs"):
        launch(recipe, num_workers=1, address=head.address, use_gpu=True, listener=None)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://head:10001", "http://head:8265", "head"])
def test_an_address_without_a_cluster_is_refused(address: str, log: Path, tmp_path: Path) -> None:
    """One line with the remedy, within seconds."""
    recipe = recipe_of(log, run=tmp_path / "run")
    with pytest.raises(InputError, match="--address") as caught:
        launch(recipe, num_workers=1, address=address, listener=None)
    assert "\n" not in str(caught.value)


def test_the_rank_that_failed_first_is_named() -> None:
    """A dead process before a raised error, that before the loss of a peer."""
    lost_peer = RuntimeError("Connection closed by peer\nmore")
    assert root_cause({0: lost_peer, 1: KeyError("x")}) == (1, "KeyError: 'x'")
    assert root_cause({0: lost_peer, 1: lost_peer}) == (
        0,
        "RuntimeError: Connection closed by peer",
    )
    died = root_cause({0: lost_peer, 1: KeyError("x"), 2: ActorDiedError()})
    assert died == (2, "its process was killed or its node was lost")


def test_a_failure_says_where_its_trace_is(tmp_path: Path) -> None:
    """One line that names rank, exception and the file, which holds Ray's whole text."""
    failure = WorkerGroupError("the trace\nof rank 1", {1: KeyError("x")})
    error = explained(failure, run_uri=str(tmp_path), log_folder="logs")
    assert isinstance(error, LaunchError)
    assert str(error) == (
        f"rank 1 failed: KeyError: 'x'; full trace: {tmp_path}/failure.txt, logs: logs"
    )
    assert "the trace\nof rank 1" in (tmp_path / "failure.txt").read_text()


def test_an_input_error_is_passed_on_as_it_is() -> None:
    """Whether the controller or a rank reports it."""
    cause = StorageError("x: cannot be read")
    for failure in (ControllerError(cause), WorkerGroupError("", {0: RuntimeError(), 1: cause})):
        assert explained(failure, run_uri="unused", log_folder="unused") is cause
