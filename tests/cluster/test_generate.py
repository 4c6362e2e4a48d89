"""`polytower generate`, as a person meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from data_loaders import synthetic
from data_loaders.errors import InputError


def test_the_fewest_examples_of_the_help_are_those_that_are_accepted(tmp_path: Path) -> None:
    """One fewer is refused by the command line itself."""
    command = ["generate", "ecommerce", "--out", str(tmp_path / "log"), "--examples"]
    refused = CliRunner().invoke(app, [*command, str(synthetic.MIN_EXAMPLES - 1)])
    assert refused.exit_code == 2
    assert isinstance(refused.exception, SystemExit)
    assert CliRunner().invoke(app, [*command, str(synthetic.MIN_EXAMPLES)]).exit_code == 0


def test_a_misspelt_scenario_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    """Neither a bar nor a folder."""
    result = CliRunner().invoke(app, ["generate", "newss", "--out", str(tmp_path / "log")])
    assert isinstance(result.exception, InputError)
    assert result.output == ""
    assert not (tmp_path / "log").exists()


def test_an_interrupted_call_says_what_to_do_and_the_same_command_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the first split."""
    command = ["generate", "ecommerce", "--out", str(tmp_path / "log"), "--examples", "1000"]
    write_split = synthetic.write_split

    def write_and_stop(*arguments: object, **options: object) -> int:
        write_split(*arguments, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_split", write_and_stop)
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == "interrupted; the same command starts over"
    assert CliRunner().invoke(app, command).exit_code == 0
