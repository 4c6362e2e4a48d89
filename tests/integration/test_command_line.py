"""The command line as a person meets it: by what it prints and the status it exits with.

What is refused before anything heavy starts is called in this process, the rest in its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from cluster.cli import app, main
from tests.helpers.logs import toy_recipe, write_toy_log

ROOT = Path(__file__).parents[2]
Refusal = Callable[..., str]


def polytower(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refusal:
    """Gives the one line with which a call in a working directory is refused."""

    def call(*arguments: str, cwd: Path) -> str:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["polytower", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return the_error(capfd.readouterr().err, status=ended.value.code, cwd=cwd)

    return call


def the_error(stderr: str, *, status: object, cwd: Path) -> str:
    """The only line of a call that refused bad input."""
    assert status == 2, stderr
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert not (cwd / "runs").exists(), "nothing is half-written"
    return lines[0]


def generated(out: str, *, num_examples: int) -> Result:
    """What `polytower generate ecommerce` prints, in this process."""
    command = ["generate", "ecommerce", "--out", out, "--examples", str(num_examples)]
    return CliRunner().invoke(app, command)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder with a toy log and its recipe."""
    root = write_toy_log(tmp_path / "log")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_recipe(root), sort_keys=False))
    return tmp_path


def test_help_shows_every_command_with_an_example() -> None:
    """A newcomer finds the next command in the help."""
    text = CliRunner().invoke(app, ["--help"]).output
    for command in ("train", "evaluate", "submit", "prepare", "generate", "bench"):
        assert command in text
    for command in ("train", "evaluate", "submit", "prepare", "generate"):
        assert "Example" in CliRunner().invoke(app, [command, "--help"]).output


def test_help_loads_no_heavy_library() -> None:
    """`polytower --help` answers within a second because nothing heavy is imported for it."""
    code = (
        "import sys; from cluster import cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'ray', 'torchrec', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_a_dry_run_prints_the_resolved_recipe_and_the_plan_and_trains_nothing(log: Path) -> None:
    """What is printed is a recipe again; no run folder appears."""
    done = polytower("train", "toy.yaml", "run.seed=7", "--dry-run", "--workers", "2", cwd=log)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    recipe, _, plan = done.stdout.partition("sharding plan")
    assert yaml.safe_load(recipe)["run"]["seed"] == 7
    assert "row_wise" in plan or "table_wise" in plan
    assert "nothing was trained" in plan
    assert not (log / "runs").exists()


def test_unknown_keys_are_refused_with_the_nearest_name(log: Path) -> None:
    """A typing error costs a second, not a run."""
    done = polytower("train", "toy.yaml", "data.batchsize=5", cwd=log)
    line = the_error(done.stderr, status=done.returncode, cwd=log)
    assert "data.batchsize" in line
    assert "batch_size" in line


def test_unknown_recipes_are_refused_with_the_nearest_name(log: Path, refusal: Refusal) -> None:
    """The shipped recipes are named."""
    line = refusal("train", "ecomerce", cwd=log)
    assert "did you mean ecommerce?" in line


def test_values_of_a_wrong_type_are_refused(log: Path, refusal: Refusal) -> None:
    """Key and value are named."""
    line = refusal("train", "toy.yaml", "run.num_steps=many", cwd=log)
    assert "run.num_steps" in line
    assert "many" in line


def test_unknown_columns_are_refused_before_training(log: Path, refusal: Refusal) -> None:
    """File, column, and the nearest column."""
    line = refusal("train", "toy.yaml", "data.features.age.column=agee", cwd=log)
    assert "part-00000.parquet" in line
    assert "agee" in line
    assert "did you mean age?" in line


def test_columns_of_a_wrong_type_are_refused_before_training(log: Path, refusal: Refusal) -> None:
    """File, column, expected and found."""
    line = refusal("train", "toy.yaml", "data.features.age.column=item", cwd=log)
    assert "expected a number or a bool, found string" in line


def test_an_empty_log_is_refused(log: Path, refusal: Refusal) -> None:
    """No rows at all."""
    for file in (log / "log" / "train").iterdir():
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    assert "the log is empty" in refusal("train", "toy.yaml", cwd=log)


def test_a_truncated_file_is_refused_by_name(log: Path, refusal: Refusal) -> None:
    """As an interrupted copy leaves it."""
    file = log / "log" / "train" / "part-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    line = refusal("train", "toy.yaml", cwd=log)
    assert str(file) in line
    assert "truncated" in line


def test_a_missing_data_set_is_refused_by_its_uri(log: Path, refusal: Refusal) -> None:
    """And the commands that write one are named."""
    line = refusal("train", "toy.yaml", "data.root=elsewhere", cwd=log)
    assert f"{log}/elsewhere: does not exist" in line
    assert "polytower generate" in line


def test_a_number_of_ranks_that_the_streams_cannot_serve_is_refused(
    log: Path, refusal: Refusal
) -> None:
    """With the numbers that would do."""
    line = refusal("train", "toy.yaml", "data.num_streams=4", "--workers", "3", cwd=log)
    assert "use 1, 2, 4 ranks" in line


def test_evaluating_what_is_no_run_is_refused(log: Path, refusal: Refusal) -> None:
    """By its URI."""
    line = refusal("evaluate", "no-run", cwd=log)
    assert f"{log}/no-run" in line


def test_data_sets_are_never_overwritten(log: Path, refusal: Refusal) -> None:
    """The folder is named, and stays as it is."""
    before = sorted(log.joinpath("log").rglob("*"))
    line = refusal("generate", "ecommerce", "--out", "log", cwd=log)
    assert f"{log}/log: is not empty" in line
    assert sorted(log.joinpath("log").rglob("*")) == before


def test_submitting_to_nowhere_is_refused(log: Path, refusal: Refusal) -> None:
    """An address without a cluster is one line."""
    job = ["submit", "toy.yaml", "run.uri=/shared/run", "--address", "http://127.0.0.1:9"]
    assert "http://127.0.0.1:9" in refusal(*job, cwd=log)


def test_a_job_that_would_write_into_its_working_folder_is_refused(
    log: Path, refusal: Refusal
) -> None:
    """Before anything is sent: the folder goes when the job ends."""
    line = refusal("submit", "toy.yaml", "run.uri=run", "--address", "http://head:8265", cwd=log)
    assert "run.uri: expected a URI or an absolute path" in line


@pytest.mark.ray
@pytest.mark.slow
def test_the_main_job_runs_from_log_to_evaluated_checkpoint(tmp_path: Path) -> None:
    """generate, train on 2 ranks, evaluate: the files that scripts rely on, the same numbers."""
    made = generated(f"{tmp_path}/log", num_examples=8000)
    assert made.exit_code == 0, made.output
    overrides = ["data.root=log", "run.uri=run", "run.num_epochs=1", "run.max_auc_gap=null"]
    done = polytower("train", "ecommerce", *overrides, "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "possible" in done.stdout
    assert "sharding plan" in done.stdout
    assert "examples/s" in done.stdout

    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["examples"] == 6400
    assert summary["world_size"] == 2
    assert set(summary["tasks"]) == {"click", "purchase", "spend", "ad_click", "coupon_click"}
    known = json.loads((tmp_path / "log" / "dataset.json").read_text())["splits"]["test"]["best"]
    for name in ("click", "purchase", "ad_click"):
        assert summary["tasks"][name]["best_auc"] == known[name]["auc"]
        assert 0 < summary["tasks"][name]["auc"] < 1
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "examples", "seconds", "tasks"} <= set(reports[0])
    assert "examples_per_second" in reports[0]
    assert yaml.safe_load((run / "recipe.yaml").read_text())["run"]["num_epochs"] == 1

    again = polytower("evaluate", "run", cwd=tmp_path)  # on one rank, what two ranks trained
    assert again.returncode == 0, again.stderr
    assert f"{summary['tasks']['click']['auc']:.4f}" in again.stdout

    # a label that no schema can exclude is found by a rank: one line all the same
    file = tmp_path / "log" / "train" / "part-00000.parquet"
    table = pq.read_table(file)
    broken = table.set_column(
        table.schema.get_field_index("click"), "click", pa.array([3] * len(table), pa.int8())
    )
    pq.write_table(broken, file)
    line = polytower(
        "train", "ecommerce", "data.root=log", "run.uri=run2", "--workers", "2", cwd=tmp_path
    )
    assert line.returncode == 2, line.stdout + line.stderr
    assert "label 3 of the binary task click" in line.stderr
    assert str(file) in line.stderr
    assert "Traceback" not in line.stderr


@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.slow
def test_the_main_job_runs_on_object_storage(tmp_path: Path, s3_root: str) -> None:
    """Log in, checkpoints out, resumed and evaluated: the same commands with s3:// URIs.

    The second run is asked to be better than it can be, and its status says that it is not.
    """
    log, run = f"{s3_root}/log", f"{s3_root}/run"
    made = generated(log, num_examples=4000)
    assert made.exit_code == 0, made.output
    train = ["train", "ecommerce", "--workers", "2", "data.batch_size=512"]
    train += [f"data.root={log}", f"run.uri={run}"]
    # the second call takes up the first one's checkpoint
    for steps, max_auc_gap, status in ((3, "null", 0), (5, "0.0001", 4)):
        options = [f"run.num_steps={steps}", f"run.max_auc_gap={max_auc_gap}"]
        done = polytower(*train, *options, cwd=tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
        assert f"{run}/checkpoints/step-0000000{steps}" in done.stdout
    assert "did not learn" in done.stderr
    again = polytower("evaluate", run, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in made.output + done.stdout + done.stderr + again.stdout
