"""Schedules, clipping, regularisation, averages, early stopping and bfloat16 in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from tests.helpers.checkpoints import assert_equal
from tests.helpers.logs import TRAIN, toy_table, write_groups, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import (
    assert_close,
    batches_of_rank,
    interrupt_after,
    losses,
    make_recipe,
    newest_tensors,
    reports,
    summary,
    train_each,
    train_on,
)
from trainer.averaging import DenseAverage
from trainer.build import build_sharded_model
from trainer.config import Recipe
from trainer.evaluate import chosen_checkpoint, evaluate_checkpoint, selection_score
from trainer.optimizer import build_optimizer
from trainer.run_folder import add_importance
from trainer.runtime import joined_ranks

OPTIMIZER: dict[str, Any] = {
    "tables": {"l2": 0.05},
    "dense": {"weight_decay": 0.01, "max_gradient_norm": 0.3, "learning_rate": 0.02},
    "schedule": {"warmup_steps": 3, "decay": "cosine", "final_fraction": 0.1},
    "ema_decay": 0.8,
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy log, read only."""
    return write_toy_log(tmp_path_factory.mktemp("log"))


@pytest.mark.slow
def test_two_ranks_train_as_one_with_every_option(log: Path, tmp_path: Path) -> None:
    """Every step's losses and the evaluated average, with tables cut by rows and copied."""
    shardings = ("row_wise", "data_parallel")
    for world_size in (1, 2):
        recipes = [
            make_recipe(
                log,
                tmp_path / f"{sharding}-{world_size}",
                "run.num_steps=12",
                sharding=sharding,
                optimizer=OPTIMIZER,
            )
            for sharding in shardings
        ]
        run_ranks(train_each, world_size=world_size, arguments={"recipes": recipes})
    for sharding in shardings:
        one, two = (tmp_path / f"{sharding}-{size}" for size in (1, 2))
        np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5, atol=1e-5)
        assert_close(summary(two)["tasks"], summary(one)["tasks"], tolerance=1e-4)


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal_with_every_option(log: Path, tmp_path: Path) -> None:
    """On 2 ranks: weights, states, averages, reports, and the count of validations."""
    runs = whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipes = [
        make_recipe(
            log,
            run,
            *("run.num_steps=12", "run.eval_interval_steps=2", "run.patience=9"),
            *("run.precision=bfloat16", "model.dropout=0.3"),
            optimizer=OPTIMIZER,
            checkpoint={"interval_steps": 7, "keep": 9},
        )
        for run in runs
    ]
    run_ranks(train_each, world_size=2, arguments={"recipes": recipes})
    interrupt_after(broken, step=7)
    train_on(recipes[1], world_size=2)
    tensors = newest_tensors(whole)
    assert any(key.startswith("/average/values/") and item.any() for key, item in tensors.items())
    assert_equal(newest_tensors(broken), tensors)
    np.testing.assert_array_equal(losses(broken), losses(whole))
    for split in ("train", "valid"):
        tasks = [[line["tasks"] for line in reports(run, split=split)] for run in runs]
        assert tasks[0] == tasks[1]
    assert summary(broken)["tasks"] == summary(whole)["tasks"]
    manifests = [
        json.loads((run / "checkpoints" / "step-00000012" / "manifest.json").read_text())
        for run in runs
    ]
    assert manifests[0]["best_score"] is not None
    for key in ("best_score", "num_stale", "score"):
        assert manifests[0][key] == manifests[1][key]


@pytest.mark.slow
def test_bfloat16_stays_near_float32(log: Path, tmp_path: Path) -> None:
    """It computes otherwise, and learns the same; what is stored is float32."""
    precisions = ("float32", "bfloat16")
    options = ["run.num_epochs=6", "model.architecture=mmoe", "model.expert_tower=[16]"]
    recipes = [
        make_recipe(
            log,
            tmp_path / precision,
            *options,
            f"run.precision={precision}",
            optimizer={"dense": {"learning_rate": 0.01}},
        )
        for precision in precisions
    ]
    run_ranks(train_each, world_size=1, arguments={"recipes": recipes})
    exact, rough = (losses(tmp_path / precision) for precision in precisions)
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0.02, atol=0.02)
    tensors = newest_tensors(tmp_path / "bfloat16")
    assert {item.dtype for item in tensors.values()} <= {torch.float32, torch.float64, torch.int64}
    found, expected = (summary(tmp_path / precision)["tasks"] for precision in precisions)
    for task in expected:
        assert found[task]["loss"] == pytest.approx(expected[task]["loss"], rel=0.02)


def overfitting_recipe(log: Path, run: Path, *overrides: str) -> Recipe:
    """So fast that the score on valid falls again."""
    fast = {"tables": {"learning_rate": 0.5}, "dense": {"learning_rate": 0.3}}
    options = ["run.num_steps=12", "run.eval_interval_steps=1", *overrides]
    return make_recipe(log, run, *options, optimizer=fast)


def stale_counts(run: Path) -> list[int]:
    """Of each validation, in a plain loop: how many in a row were no better than the best."""
    counts: list[int] = []
    best = -float("inf")
    for line in reports(run, split="valid"):
        score = selection_score(line["tasks"])
        counts.append(0 if score > best else counts[-1] + 1)
        best = max(best, score)
    return counts


@pytest.mark.slow
def test_a_run_without_progress_on_valid_stops_early(tmp_path: Path) -> None:
    """On both ranks at once, evaluated at its best checkpoint; taken up, it counts on."""
    log, run = tmp_path / "log", tmp_path / "run"
    write_toy_log(log, splits={"train": TRAIN})
    for split in ("valid", "test"):
        write_groups(log, split=split, files=[[toy_table(80, seed=50)]])
    whole = tmp_path / "whole"
    run_ranks(
        train_each,
        world_size=2,
        arguments={
            "recipes": [
                overfitting_recipe(log, whole),
                overfitting_recipe(log, run, "run.patience=2", "checkpoint.keep=20"),
            ]
        },
    )
    assert not summary(whole)["stopped_early"]
    stop = stale_counts(whole).index(2) + 1
    assert stop < 12
    found = summary(run)
    assert (found["steps"], found["stopped_early"]) == (stop, True)
    assert found["checkpoint"].endswith(f"step-{stop - 2:08d}")

    interrupt_after(run, step=stop - 1)  # one stale validation is counted there
    again = overfitting_recipe(log, run, "run.patience=2", "checkpoint.keep=20")
    longer = overfitting_recipe(log, run, "run.patience=3", "checkpoint.keep=20")
    train_on(again, world_size=2)
    assert summary(run)["steps"] == stop
    assert summary(run)["tasks"] == found["tasks"]

    importance = {"checkpoint": f"moved/since/step-{stop - 2:08d}", "tasks": {}}
    measured = {"split": "valid", "step": stop - 2, "importance": importance}
    last = overfitting_recipe(log, run, "run.patience=2", "checkpoint.keep=20", "run.select=last")
    for recipe in (last, longer):
        add_importance(locate(str(run)), measured)
        train_on(again, world_size=2)  # evaluated once more, it is still of this model
        assert reports(run, split="valid")[-1] == measured
        train_on(recipe, world_size=2)
        assert measured not in reports(run, split="valid")
    assert summary(run)["steps"] == (stale_counts(whole).index(3) + 1)


@pytest.mark.slow
def test_options_may_change_when_a_run_goes_on(log: Path, tmp_path: Path) -> None:
    """Without any, with all, and without again; the average begins where it is asked for."""
    recipes = [
        make_recipe(log, tmp_path, f"run.num_steps={num_steps}", *precision, optimizer=optimizer)
        for num_steps, precision, optimizer in (
            (2, [], {}),
            (5, ["run.precision=bfloat16"], OPTIMIZER),
            (8, [], {}),
            (9, [], OPTIMIZER),
        )
    ]
    weights = []
    for recipe in recipes:
        train_on(recipe, world_size=1)
        weights.append(newest_tensors(tmp_path).get("/average/weight"))
    assert [line["step"] for line in reports(tmp_path)] == list(range(1, 10))
    assert [None if item is None else float(item) for item in weights] == [
        None,
        pytest.approx(1 - 0.8**3),
        None,
        pytest.approx(1 - 0.8),
    ]


@pytest.mark.parametrize(
    ("option", "said"),
    [("run.patience=2", r"run\.patience: 2"), ("run.select_by=[click]", r"select_by: \['click'\]")],
)
def test_without_valid_nothing_is_chosen_by(tmp_path: Path, option: str, said: str) -> None:
    """There would be nothing to lose patience over, or to compare."""
    log = write_toy_log(tmp_path / "log", splits={"train": TRAIN})
    with pytest.raises(InputError, match=f"{said}, but the data set has no valid/ to judge by"):
        train_on(make_recipe(log, tmp_path / "run", option), world_size=1)


def test_what_is_evaluated_again_is_the_average(log: Path, tmp_path: Path) -> None:
    """`evaluate` finds the run's own final metrics in its checkpoint."""
    train_on(make_recipe(log, tmp_path, optimizer={"ema_decay": 0.9}), world_size=1)
    location = chosen_checkpoint(locate(str(tmp_path)))
    result = evaluate_checkpoint(location, data_root=None, listener=None)
    assert_close(result.tasks, summary(tmp_path)["tasks"], tolerance=1e-6)


def plain_steps(recipe: Recipe, num_steps: int) -> dict[str, Any]:
    """On a rank: dense parameters after each step of a plain loop that clips and averages by
    PyTorch's functions and by hand, beside ours.
    """
    models, optimizers = [], []
    with joined_ranks() as runtime:
        for config in (recipe, recipe.model_copy(update={"optimizer": clipped(None)})):
            models.append(build_sharded_model(config, runtime=runtime)[0])
            optimizers.append(build_optimizer(models[-1], config=config.optimizer))
    average = DenseAverage(models[0], decay=0.7)
    norms, found, expected, averages = [], [], [], []
    for batch in batches_of_rank(recipe, num_steps=num_steps):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(batch)[0].backward()
        dense = dict(dense_of(models[1]))
        norm = torch.nn.utils.clip_grad_norm_(dense.values(), 0.3)
        norms.append(float(norm))
        for optimizer in optimizers:
            optimizer.step()
        average.update()
        found.append({name: item.detach().clone() for name, item in dense_of(models[0])})
        expected.append({name: item.detach().clone() for name, item in dense.items()})
        with average.in_place():
            averages.append({name: item.detach().clone() for name, item in dense_of(models[0])})
    after = {name: item.detach().clone() for name, item in dense_of(models[0])}
    return {
        "norms": norms,
        "found": found,
        "expected": expected,
        "averages": averages,
        "after": after,
    }


def clipped(norm: float | None) -> Any:
    from trainer.optimizer_config import OptimizerConfig

    return OptimizerConfig.model_validate(
        {"dense": {"max_gradient_norm": norm, "learning_rate": 0.02}}
    )


def dense_of(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [item for item in model.named_parameters() if ".embedding_bags." not in item[0]]


@pytest.mark.parametrize("world_size", [1, 2])
def test_clipping_and_averaging_are_those_of_plain_loops(
    log: Path, tmp_path: Path, world_size: int
) -> None:
    """Against `torch.nn.utils.clip_grad_norm_`, and the sum of all steps with its weights."""
    recipe = make_recipe(log, tmp_path).model_copy(update={"optimizer": clipped(0.3)})
    results = run_ranks(
        plain_steps, world_size=world_size, arguments={"recipe": recipe, "num_steps": 5}
    )
    for result in results:
        assert max(result["norms"]) > 0.3
        assert result["norms"] == results[0]["norms"]
        for found, expected in zip(result["found"], result["expected"], strict=True):
            for name, item in expected.items():
                torch.testing.assert_close(found[name], item, rtol=1e-5, atol=1e-6)
        for step, average in enumerate(result["averages"], start=1):
            weights = [0.7 ** (step - 1 - index) for index in range(step)]
            for name, item in average.items():
                parts = zip(weights, result["found"], strict=False)
                total = sum(weight * values[name].double() for weight, values in parts)
                torch.testing.assert_close(item, (total / sum(weights)).float())
        assert_equal(result["after"], result["found"][-1])


def penalties(recipe: Recipe) -> list[tuple[float, float]]:
    """Of each batch: by how much `l2` raises the loss, and what it says in a plain loop."""
    none = recipe.model_copy(update={"optimizer": clipped(None)})
    with joined_ranks() as runtime:
        with_l2, without = (
            build_sharded_model(item, runtime=runtime)[0] for item in (recipe, none)
        )
    tables = {
        key.split(".")[-2].removeprefix("table_"): item.local_shards()[0].tensor
        for key, item in with_l2.state_dict().items()
        if ".embedding_bags." in key
    }
    loader = InteractionLoader(
        recipe.data, split="train", num_rows=recipe.num_rows_of_feature(), seed=0
    )
    found = []
    for batch in loader.batches(start=Cursor(), num_steps=10):  # the last is a short one
        total = 0.0
        for feature, ids in batch.ids.to_dict().items():
            table = recipe.table_of_feature()[feature]
            for rows, weight in zip(ids.to_dense(), batch.weights_B, strict=True):
                vectors = tables[table][rows].double()
                is_mean = recipe.embeddings.tables[table].pooling == "mean" and len(rows) > 0
                pooled = vectors.mean(0) if is_mean else vectors.sum(0)
                total += float(weight) * float(pooled.square().sum())
        expected = 0.7 / 2 * total / recipe.data.batch_size
        found.append((float(with_l2(batch)[0] - without(batch)[0]), expected))
    return found


def test_l2_is_that_of_the_vectors_that_examples_look_up(log: Path, tmp_path: Path) -> None:
    """Example by example; padding counts nothing."""
    recipe = make_recipe(log, tmp_path, optimizer={"tables": {"l2": 0.7}}, sharding="table_wise")
    [found] = run_ranks(penalties, world_size=1, arguments={"recipe": recipe})
    assert len(found) == 10
    for difference, expected in found:
        assert difference == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert expected > 0
