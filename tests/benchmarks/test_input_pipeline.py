"""The input benchmark: its contenders read the same, and it reports what it measured."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.input_contenders import ContendersDisagreeError, Contents, check_agreement
from benchmarks.input_encoding import Columns, RowCollate, check_hand_written, encode_table
from benchmarks.input_pipeline import (
    InputSettings,
    ratios,
    run_input_benchmark,
)
from benchmarks.loader_memory import GROWTH, measure_growth
from benchmarks.report import print_input_report, write_report
from cluster.cli import app
from data_loaders.dataset import parquet_files
from data_loaders.errors import InputError
from data_loaders.storage import locate
from tests.helpers.logs import TRAIN, toy_recipe, toy_table, write_toy_log
from trainer.config import Recipe
from trainer.recipe_file import build_recipe, load_recipe

NUM_EXAMPLES = sum(map(sum, TRAIN))
CONTENDERS = ("scan", "loader", "dataloader", "dataloader_batched", "ray_data")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_log(tmp_path_factory.mktemp("log"))


def recipe_of(log: Path) -> Recipe:
    return build_recipe(toy_recipe(log), overrides=[], source="toy")


@pytest.fixture(scope="module")
def report(log: Path) -> dict[str, Any]:
    """A run over the toy log, whose smallest log for memory is its first file."""
    settings = InputSettings(num_rounds=3, num_workers=2, smallest_memory_log_max_examples=1)
    return run_input_benchmark(recipe_of(log), scenario="toy", settings=settings)


@pytest.mark.ray
@pytest.mark.slow
def test_every_contender_is_timed_in_every_round(report: dict[str, Any]) -> None:
    """All have read the whole log, or the run had ended; rates follow from times and examples."""
    assert report["log"]["examples"] == NUM_EXAMPLES
    assert report["log"]["files"] == len(TRAIN)
    assert report["log"]["row_groups"] == sum(map(len, TRAIN))
    assert [row["contender"] for row in report["results"]] == list(CONTENDERS)
    for row in report["results"]:
        assert len(row["samples_ms"]) == 3
        assert all(math.isfinite(value) and value > 0 for value in row["samples_ms"])
        assert row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        expected = NUM_EXAMPLES / (np.median(row["samples_ms"]) / 1e3)
        assert row["examples_per_second"] == pytest.approx(expected, rel=0.01)


@pytest.mark.ray
@pytest.mark.slow
def test_ratios_are_of_median_rates(report: dict[str, Any]) -> None:
    """The loader's over each rival's, as counted anew from the samples."""
    medians = {row["contender"]: np.median(row["samples_ms"]) for row in report["results"]}
    expected = {
        f"loader_over_{name}": medians[name] / medians["loader"]
        for name in CONTENDERS
        if name != "loader"
    }
    assert report["ratios"] == pytest.approx(expected, rel=0.01)
    assert {"loader_over_scan", "loader_over_dataloader", "loader_over_ray_data"} <= set(expected)


@pytest.mark.ray
@pytest.mark.slow
def test_a_report_survives_json_and_names_no_path(
    report: dict[str, Any], log: Path, tmp_path: Path
) -> None:
    """What was written is what was measured; nothing in it says where the log lay."""
    write_report(report, tmp_path / "results" / "input.json")
    read = json.loads((tmp_path / "results" / "input.json").read_text())
    assert read == report
    assert {"cpu_model", "cores", "torch", "pyarrow", "ray", "git_commit"} <= set(
        read["environment"]
    )
    assert str(log) not in json.dumps(read)
    assert str(Path.cwd()) not in json.dumps(read)


@pytest.mark.ray
@pytest.mark.slow
def test_the_tables_fit_a_terminal_of_80_columns(report: dict[str, Any]) -> None:
    """No name or number is cut off."""
    written = io.StringIO()
    print_input_report(report, Console(file=written, width=80))
    assert "…" not in written.getvalue()
    assert "DataLoader, batches" in written.getvalue()


@pytest.mark.ray
@pytest.mark.slow
def test_memory_is_that_of_processes_that_read_the_log_1_10_and_100_times(
    report: dict[str, Any],
) -> None:
    """More than the imports and less than this machine has; the files grow as GROWTH says."""
    first = sum(TRAIN[0])
    assert [row["examples"] for row in report["memory"]] == [first * times for times in GROWTH]
    assert [row["files"] for row in report["memory"]] == list(GROWTH)
    assert [row["times"] for row in report["memory"]] == list(GROWTH)
    for row in report["memory"]:
        assert 2**26 < row["imported_bytes"] < row["peak_bytes"] < 2**33


def test_a_peak_does_not_contain_what_the_measuring_process_holds(log: Path) -> None:
    """The parent holds 1 GiB while its child is measured, which has far less."""
    ballast = np.ones(2**30, np.uint8)
    config = recipe_of(log).data
    files = parquet_files(locate(str(log)), split="train")
    [smallest] = measure_growth(
        config,
        files=files,
        num_rows=recipe_of(log).num_rows_of_feature(),
        seed=0,
        max_examples=NUM_EXAMPLES,
        growth=[1],
    )
    assert smallest["examples"] == NUM_EXAMPLES
    assert smallest["peak_bytes"] < ballast.nbytes


def test_rivals_encode_rows_and_tables_alike() -> None:
    """Labels, dense features and list lengths; ids too, but for the two ways to hash a string."""
    recipe = recipe_of(Path("unused"))
    num_rows = recipe.num_rows_of_feature()
    columns = Columns.of(recipe.data, num_rows=num_rows)
    table = toy_table(200, seed=3)
    rows = {name: tensor.numpy() for name, tensor in RowCollate(columns)(table.to_pylist()).items()}
    encoded = encode_table(table, columns=columns)
    assert rows.keys() == encoded.keys()
    for name in ("dense", "labels"):
        np.testing.assert_allclose(rows[name], encoded[name], rtol=1e-5, atol=1e-6)
        assert rows[name].dtype == encoded[name].dtype == np.float32
    is_integer = [name != "item" for name in columns.ids]
    assert np.array_equal(rows["ids"][:, is_integer], encoded["ids"][:, is_integer])
    for ids in (rows["ids"], encoded["ids"]):
        assert (ids < [num_rows[name] for name in columns.ids]).all()
        assert np.array_equal(ids[:, 1] == 0, table["item"].is_null().to_numpy())
    for name, feature in columns.lists.items():
        kept = [(ids or [])[-feature.max_length :] for ids in table[name].to_pylist()]
        for made in (rows, encoded):
            assert made[f"lengths/{name}"].tolist() == [len(ids) for ids in kept]
            is_id = np.arange(made[f"list/{name}"].shape[1]) < made[f"lengths/{name}"][:, None]
            assert not made[f"list/{name}"][~is_id].any()
            is_null = [value is None for ids in kept for value in ids]
            assert (made[f"list/{name}"][is_id] == 0).tolist() == is_null
    longest = rows["list/tags"].shape[1]
    assert np.array_equal(rows["list/tags"], encoded["list/tags"][:, :longest])


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"num_examples": 9}, "dataloader read 9 examples of 10"),
        ({"num_list_ids": 31}, "num_list_ids: dataloader has 31, the loader 30"),
        ({"num_labels": 19}, "num_labels"),
        ({"label_sum": 5.1}, "label_sum"),
        ({"dense_sum": -0.4}, "dense_sum"),
    ],
)
def test_contenders_that_read_something_else_are_caught(
    change: dict[str, float], wrong: str
) -> None:
    """One example, one id, one label, or a sum off by more than rounding."""
    read = Contents(num_examples=10, num_list_ids=30, num_labels=20, label_sum=5.0, dense_sum=-0.5)
    agreeing = {"scan": Contents(num_examples=10), "loader": read, "ray_data": read}
    check_agreement(agreeing, num_examples=10)
    with pytest.raises(ContendersDisagreeError, match=wrong):
        check_agreement(
            agreeing | {"dataloader": dataclasses.replace(read, **change)}, num_examples=10
        )


def test_a_ratio_is_the_loader_s_rate_over_the_rival_s() -> None:
    """Twice as fast is 2."""
    rows = [
        {"contender": "loader", "examples_per_second": 200.0},
        {"contender": "scan", "examples_per_second": 1000.0},
        {"contender": "ray_data", "examples_per_second": 100.0},
    ]
    assert ratios(rows) == {"loader_over_scan": 0.2, "loader_over_ray_data": 2.0}


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["census-income"], "data.root: is not set, and no log can be generated for census-income"),
        (["ecommerce", "--examples", "10"], "examples: 10 are too few"),
        (["data.root=nowhere/log"], "nowhere/log: does not exist"),
        (["data.root=nowhere/log", "--examples", "10"], "leave out one of the two"),
        (["e-commerce"], "did you mean ecommerce"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: list[str], wrong: str) -> None:
    """Before anything is measured; the message says what is wrong."""
    result = CliRunner().invoke(app, ["bench", "input", *arguments])
    assert isinstance(result.exception, InputError)
    assert wrong in str(result.exception)
    assert "\n" not in str(result.exception)


def test_what_rivals_cannot_do_is_refused_by_name() -> None:
    """A shipped recipe passes; a key that is not written by hand for the rivals does not."""
    data = load_recipe("ecommerce").data
    check_hand_written(data)
    for key, value in (("encoding", "vocabulary"), ("fill", 7)):
        user = data.features["user_id"].model_copy(update={key: value})
        changed = data.model_copy(update={"features": {**data.features, "user_id": user}})
        with pytest.raises(InputError, match=rf"data\.features\.user_id\.{key}: {value}"):
            check_hand_written(changed)


@pytest.mark.parametrize("name", ["num_rounds", "num_workers", "smallest_memory_log_max_examples"])
def test_settings_that_cannot_be_are_refused_by_name(log: Path, name: str) -> None:
    """The message names the setting."""
    settings = InputSettings(**{name: 0})
    with pytest.raises(InputError, match=name):
        run_input_benchmark(recipe_of(log), scenario="toy", settings=settings)
