"""`polytower tune` as a person calls it: trials, an interruption, and the best recipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.trials import SearchFolder
from cluster.tune import TrialWatch
from data_loaders.storage import locate
from tests.cluster.conftest import ROOT
from tests.helpers.logs import toy_recipe, write_toy_log
from trainer.config import Recipe

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# a trial that warms up for so long learns nothing
SPACE = """
optimizer.dense.learning_rate: {loguniform: [0.01, 0.1]}
optimizer.schedule.warmup_steps: {choice: [0, 1000000000]}
model.dropout: {choice: [0.0, 0.3]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a log, a recipe and a search space."""
    write_toy_log(tmp_path / "log")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_recipe("log"), sort_keys=False))
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.cli", "tune", "toy.yaml", *arguments]
    return subprocess.Popen(
        [*command, "--space", "space.yaml", "--out", "search"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def record(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_search_goes_on_after_an_interruption(folder: Path) -> None:
    """Trials that had ended are not run again, one that had begun goes on; those that learn nothing
    are stopped at the first validation past 12 percent; the best by its own validations is written
    as a recipe.
    """
    arguments = ["run.num_steps=10", "run.eval_interval_steps=1", "--trials", "4", "--seed", "5"]
    trials = folder / "search" / "trials"
    first = start(folder, *arguments)
    deadline = time.monotonic() + 400
    while not (trials / "0000.json").exists() and time.monotonic() < deadline:
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    out, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert "interrupted; the same command goes on" in out
    begun = (trials / "0000.json").stat().st_mtime_ns

    out, errors = start(folder, *arguments, "--parallel", "2").communicate(timeout=400)
    assert errors == ""
    assert (trials / "0000.json").stat().st_mtime_ns == begun
    ended = [record(trials / f"{index:04d}.json") for index in range(4)]
    for trial in ended:
        lines = (trials / f"{trial['index']:04d}" / "metrics.jsonl").read_text().splitlines()
        valid = [json.loads(line) for line in lines if json.loads(line)["split"] == "valid"]
        scores = record(trials / f"{trial['index']:04d}-scores.json")
        assert [item["step"] for item in scores] == [line["step"] for line in valid][: len(scores)]
        assert trial["score"] == max(item["score"] for item in scores)
        assert trial["state"] in ("complete", "stopped")
        assert (trials / f"{trial['index']:04d}" / "summary.json").exists() == (
            trial["state"] == "complete"
        )
    assert any(trial["state"] == "complete" for trial in ended)
    hopeless = [bool(trial["values"]["optimizer.schedule.warmup_steps"]) for trial in ended]
    assert hopeless == [False, False, True, True]  # as that seed draws
    assert all(trial["state"] == "stopped" and trial["step"] < 10 for trial in ended[2:])
    best = max(ended, key=lambda trial: (trial["score"], -trial["index"]))
    recipe = Recipe.model_validate(yaml.safe_load((folder / "search" / "best.yaml").read_text()))
    assert recipe.optimizer.dense.learning_rate == best["values"]["optimizer.dense.learning_rate"]
    assert recipe.run.uri is None
    assert "best trials" in out
    assert f"{best['score']:.4f}" in out

    tree = yaml.safe_load((folder / "toy.yaml").read_text())
    tree["data"]["batch_size"] += 1
    (folder / "toy.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    _, errors = start(folder, *arguments).communicate(timeout=120)
    size = tree["data"]["batch_size"]
    assert f"its data.batch_size is {size - 1}, not {size}; give another folder" in errors


def test_an_interruption_whose_exception_was_lost_ends_the_search_at_its_next_step() -> None:
    """On the way through Ray."""
    interrupt = threading.Event()
    folder = SearchFolder(locate("search"))
    watch = TrialWatch([], folder=folder, interrupt=interrupt, on_trial=lambda trial: None)
    watch.on_step_begin(0, [])
    interrupt.set()
    with pytest.raises(KeyboardInterrupt):
        watch.on_step_begin(1, [])


def test_a_wrong_key_is_refused_before_anything_starts(folder: Path) -> None:
    """With the nearest one, in one line."""
    (folder / "space.yaml").write_text("model.dropuot: {uniform: [0, 0.5]}")
    search = start(folder)
    _, errors = search.communicate(timeout=120)
    assert search.returncode == 2
    assert errors.count("\n") == 1
    assert "model.dropuot: unknown key; did you mean dropout?" in errors
    assert not (folder / "search").exists()
