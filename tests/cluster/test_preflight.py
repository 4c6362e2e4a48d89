"""What is refused, and what is said, before ranks start."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.preflight import check_log, say_where_it_goes_on
from data_loaders.dataset import begin_dataset
from data_loaders.errors import InputError, SchemaError
from data_loaders.storage import locate
from tests.helpers.logs import toy_recipe, write_toy_log
from trainer.config import Recipe


def recipe_of(log: Path, *, run: Path) -> Recipe:
    recipe = Recipe.model_validate(toy_recipe(log))
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"uri": str(run)})})


@pytest.mark.parametrize(
    ("run", "where"),
    [("log", "is"), ("log/runs/1", "lies in"), ("log/", "is"), (".", "contains")],
)
def test_a_run_s_folder_and_the_data_set_lie_apart(tmp_path: Path, run: str, where: str) -> None:
    """A run in the data set, or around it, is refused in one line."""
    write_toy_log(tmp_path / "log")
    with pytest.raises(InputError, match=f"^run.uri: .* {where} the data set's folder") as caught:
        check_log(recipe_of(tmp_path / "log", run=tmp_path / run))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run", ["link/runs/1", "nearby/../log/runs/1"])
def test_a_link_to_the_data_set_is_the_data_set(tmp_path: Path, run: str) -> None:
    """Nor may the data set be a link to the run's folder."""
    write_toy_log(tmp_path / "log")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(InputError, match=r"^run.uri: .* lies in the data set's folder"):
        check_log(recipe_of(tmp_path / "log", run=tmp_path / run))
    with pytest.raises(InputError, match=r"^run.uri: .* is the data set's folder"):
        check_log(recipe_of(tmp_path / "link", run=tmp_path / "log"))


def test_a_run_s_folder_may_share_the_beginning_of_its_name(tmp_path: Path) -> None:
    """log-run is not in log."""
    write_toy_log(tmp_path / "log")
    check_log(recipe_of(tmp_path / "log", run=tmp_path / "log-run"))


def test_an_incomplete_data_set_is_called_so_whatever_it_lacks(tmp_path: Path) -> None:
    """Before a missing file or split is."""
    begin_dataset(locate(str(tmp_path / "log")), name="toy")
    with pytest.raises(SchemaError, match="log: this data set is incomplete"):
        check_log(recipe_of(tmp_path / "log", run=tmp_path / "run"))


def test_a_run_that_was_begun_before_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its newest whole checkpoint; that it will be accepted is not promised."""
    run = locate(str(tmp_path))
    say_where_it_goes_on(run)
    assert capsys.readouterr().out == ""
    run.child("checkpoints/step-00000010/manifest.json").parent_folder()
    run.child("checkpoints/step-00000010/manifest.json").write_text("{}")
    run.child("checkpoints/step-00000020/shard").parent_folder()
    run.child("checkpoints/step-00000020/shard").write_text("")
    say_where_it_goes_on(run)
    assert "its newest checkpoint is step-00000010" in capsys.readouterr().out
    run.child("summary.json").write_text("{}")
    say_where_it_goes_on(run)
    assert "this run was complete at step-00000010" in capsys.readouterr().out
