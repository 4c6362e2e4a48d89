"""`polytower report`, as a person meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from data_loaders.errors import InputError
from data_loaders.storage import locate
from tests.helpers.event_files import events_of
from tests.helpers.logs import write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import interrupt_after, make_recipe
from trainer.config import Recipe
from trainer.loop import train
from trainer.report.page import SECTIONS
from trainer.run_folder import RunFolder


def train_in(recipe: Recipe, env: dict[str, str]) -> None:
    """With the environment of object storage, which ranks of a test do not inherit."""
    os.environ.update(env)
    train(recipe)


def page_of_run(run: str, log: Path, *, env: dict[str, str] | None = None) -> str:
    """Trains, reports, and gives back the page."""
    recipe = make_recipe(log, Path("unused"), f"run.uri={run}", "run.eval_interval_steps=3")
    run_ranks(train_in, world_size=1, arguments={"recipe": recipe, "env": env or {}})
    result = CliRunner().invoke(app, ["report", run])
    assert result.exception is None
    assert result.output.splitlines()[-1] == f"wrote {run}/report.html"
    return locate(f"{run}/report.html").read_text()


def reports(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tags(folder: Path) -> set[str]:
    return {value.tag for event in events_of(locate(str(folder))) for value in event.summary.value}


def importance_of(run: str) -> str:
    result = CliRunner().invoke(app, ["report", run, "--importance", "--out", f"{run}/other.html"])
    assert result.exception is None, result.output
    return result.output


def test_a_run_is_reported_with_and_without_importance(tmp_path: Path) -> None:
    """Every section that its run has something for. Importance stays in the folder of a finished
    run, once however often it is measured, and stays out of that of a run that may go on.
    """
    run = tmp_path / "run"
    page = page_of_run(str(run), write_toy_log(tmp_path / "log"))
    without = {"gates", "slices", "importance"}
    assert {name for name in SECTIONS if f'id="{name}"' in page} == set(SECTIONS) - without
    before = reports(run)
    for _ in range(2):
        run_ranks(importance_of, world_size=1, arguments={"run": str(run)})
    assert 'id="importance"' in (run / "other.html").read_text()
    *others, found = reports(run)
    assert others == before
    assert set(found["importance"]["tasks"]) == {"click", "purchase", "watch"}
    assert "importance/click" in tags(run / "tensorboard" / "valid")
    RunFolder(locate(str(run)), is_writer=True, resumed_step=6).reopen()
    assert not (run / "summary.json").exists()
    recipe = make_recipe(tmp_path / "log", run, "run.eval_interval_steps=3", "run.num_steps=9")
    run_ranks(train, world_size=1, arguments={"recipe": recipe})
    assert [line["step"] for line in reports(run) if line["split"] == "valid"] == [3, 6, 9]
    assert not any("importance" in line for line in reports(run))  # it was of another model
    interrupt_after(run, step=6)
    before = reports(run)
    run_ranks(importance_of, world_size=1, arguments={"run": str(run)})
    page = (run / "other.html").read_text()
    assert "not finished" in page
    assert 'id="importance"' in page
    assert reports(run) == before


@pytest.mark.s3
def test_a_run_on_object_storage_is_reported_there(
    tmp_path: Path, s3_root: str, s3_env: dict[str, str]
) -> None:
    """The page lies beside the run's other files."""
    page = page_of_run(f"{s3_root}/run", write_toy_log(tmp_path / "log"), env=s3_env)
    assert 'id="learning"' in page
    assert [item.name for item in locate(f"{s3_root}/run/tensorboard").children()] == [
        *("train", "valid")
    ]


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    """And nothing is written."""
    for name in (str(tmp_path), str(tmp_path / "nowhere")):
        result = CliRunner().invoke(app, ["report", name])
        assert isinstance(result.exception, InputError)
        assert "\n" not in str(result.exception)
        assert str(result.exception).startswith(f"{name}: no run: ")
    assert list(tmp_path.iterdir()) == []
