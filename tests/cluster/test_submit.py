"""Jobs on a real Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.submit import submit
from data_loaders.errors import InputError
from tests.cluster.conftest import Head
from tests.helpers.logs import toy_recipe, write_toy_log


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_trains_a_recipe_file_and_its_log_arrives(head: Head, tmp_path: Path) -> None:
    """The file travels with the job; status 0, and the run's folder is written."""
    log = write_toy_log(tmp_path / "log")
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(yaml.safe_dump(toy_recipe(log)))
    lines: list[str] = []
    status = submit(
        [str(recipe), f"run.uri={tmp_path / 'run'}"],
        address=head.dashboard,
        recipe_file=recipe,
        workers=2,
        follow=lines.append,
    )
    assert status == 0, "\n".join(lines)
    assert (tmp_path / "run" / "summary.json").exists()
    assert any(str(tmp_path / "run") in line for line in lines[1:])
    assert not any("\n" in line for line in lines)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_that_fails_passes_on_its_exit_status(head: Head, tmp_path: Path) -> None:
    """And the line that says why."""
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(yaml.safe_dump(toy_recipe(tmp_path / "nothing")))
    lines: list[str] = []
    status = submit(
        [str(recipe)], address=head.dashboard, recipe_file=recipe, workers=1, follow=lines.append
    )
    assert status == 2, "\n".join(lines)
    assert any("nothing" in line and "error" in line for line in lines[1:])


@pytest.mark.ray
@pytest.mark.slow
def test_a_wrong_token_is_refused(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says where the token goes; never the token itself."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong-token")
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH") as caught:
        submit(["toy"], address=head.dashboard, recipe_file=None, workers=1, follow=print)
    assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "head:8265", "ray://head:10001"])
def test_an_address_without_a_dashboard_is_refused(address: str) -> None:
    """One line with the remedy, within seconds."""
    with pytest.raises(InputError, match="--address") as caught:
        submit(["toy"], address=address, recipe_file=None, workers=None, follow=print)
    assert "\n" not in str(caught.value)
