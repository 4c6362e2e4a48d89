"""Whole runs: 2 ranks against 1, resumed against uninterrupted, and what they leave behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from data_loaders.dataset import DatasetInfo, SplitInfo, write_dataset_info
from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from tests.helpers.checkpoints import assert_equal
from tests.helpers.logs import TRAIN, toy_table, write_groups, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import (
    assert_close,
    interrupt_after,
    losses,
    make_recipe,
    newest_tensors,
    notes_of,
    reports,
    summary,
    train_on,
)
from trainer.build import build_sharded_model
from trainer.checkpoint import CheckpointMismatchError
from trainer.config import Recipe
from trainer.evaluate import selection_score
from trainer.loop import train
from trainer.losses import NonFiniteLossError
from trainer.optimizer import build_optimizer
from trainer.progress import Progress
from trainer.runtime import joined_ranks

NUM_EXAMPLES = sum(map(sum, TRAIN))  # 300: an epoch of nine full steps of 32 and one of 12


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy log, read only."""
    return write_toy_log(tmp_path_factory.mktemp("log"))


@pytest.mark.parametrize("sharding", ["auto", "row_wise", "data_parallel"])
def test_two_ranks_train_as_one(log: Path, tmp_path: Path, sharding: str) -> None:
    """Every step's losses, over the end of the epoch, and the metrics of the final model."""
    for world_size in (1, 2):
        recipe = make_recipe(log, tmp_path / str(world_size), "run.num_steps=13", sharding=sharding)
        train_on(recipe, world_size=world_size)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert one.shape == (13, 3)
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5)
    assert len(np.unique(one[:, 0])) == 13
    first, second = (summary(tmp_path / name)["tasks"] for name in ("1", "2"))
    assert_close(second, first, tolerance=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    log: Path, tmp_path: Path, dropout: float
) -> None:
    """On 2 ranks, taken up mid-epoch, over its end, with validations between; reports too."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        recipe = make_recipe(
            log,
            run,
            "run.num_steps=12",
            "run.eval_interval_steps=5",
            f"model.dropout={dropout}",
            checkpoint={"interval_steps": 7, "keep": 9},
        )
        train_on(recipe, world_size=2)
    interrupt_after(broken, step=7)
    train_on(recipe, world_size=2)
    assert_equal(newest_tensors(broken), newest_tensors(whole))
    np.testing.assert_array_equal(losses(broken), losses(whole))
    assert [line["step"] for line in reports(broken)] == list(range(1, 13))
    assert [line["step"] for line in reports(broken, split="valid")] == [5, 10, 12]
    assert summary(broken)["tasks"] == summary(whole)["tasks"]
    assert summary(broken)["examples"] == summary(whole)["examples"]


def test_a_run_goes_on_at_another_number_of_ranks(log: Path, tmp_path: Path) -> None:
    """Five steps on 2 ranks and the rest on 1 are the run on 1, to rounding."""
    whole, changed = tmp_path / "whole", tmp_path / "changed"
    train_on(make_recipe(log, whole, "run.num_steps=12"), world_size=1)
    train_on(make_recipe(log, changed, "run.num_steps=5"), world_size=2)
    train_on(make_recipe(log, changed, "run.num_steps=12"), world_size=1)
    np.testing.assert_allclose(losses(changed), losses(whole), rtol=1e-5, atol=1e-5)
    assert summary(changed)["examples"] == summary(whole)["examples"] == NUM_EXAMPLES + 64


def test_evaluating_and_saving_in_between_change_nothing(log: Path, tmp_path: Path) -> None:
    """A run that validates and saves often ends where one that does neither ends."""
    often, never = tmp_path / "often", tmp_path / "never"
    options = ["run.num_steps=7", "model.dropout=0.3"]
    rare = make_recipe(log, never, *options, "run.eval_interval_steps=100")
    train_on(rare, world_size=1)
    frequent = make_recipe(
        log, often, *options, "run.eval_interval_steps=2", checkpoint={"interval_steps": 1}
    )
    train_on(frequent, world_size=1)
    assert_equal(newest_tensors(often), newest_tensors(never))


def test_the_summary_says_what_was_done_and_reached(tmp_path: Path) -> None:
    """Every key, beside each metric the best possible, and the checkpoint that was evaluated."""
    log, run = write_toy_log(tmp_path / "log"), tmp_path / "run"
    best = {"click": {"auc": 0.75, "loss": 0.5}, "watch": {"mse": 0.25}}
    splits = {
        "train": SplitInfo(examples=NUM_EXAMPLES),
        "test": SplitInfo(examples=91, best=best),
    }
    write_dataset_info(locate(str(log)), DatasetInfo(name="toy", splits=splits))
    train_on(make_recipe(log, run, run={"num_epochs": 2}), world_size=2)
    found = summary(run)
    assert found["examples"] == 2 * NUM_EXAMPLES
    assert found["steps"] == 20
    assert found["world_size"] == 2
    assert found["seconds"] > 0
    assert found["examples_per_second"] == pytest.approx(600 / found["seconds"], rel=0.01)
    assert 0 <= found["data_wait_fraction"] <= 1
    assert found["evaluated_on"] == "test"
    tasks = found["tasks"]
    assert list(tasks) == ["click", "purchase", "watch"]
    assert 0 < tasks["click"]["auc"] < 1
    assert (tasks["click"]["best_auc"], tasks["click"]["best_loss"]) == (0.75, 0.5)
    assert tasks["purchase"]["best_auc"] is None
    assert tasks["watch"]["best_mse"] == 0.25
    assert tasks["click"]["examples"] == 91
    assert tasks["purchase"]["examples"] < 91
    assert (Path(found["checkpoint"]) / "manifest.json").exists()
    assert {item["table"] for item in found["plan"]} == {"user", "item", "country", "tags"}
    assert (run / "recipe.yaml").exists()
    assert [line["step"] for line in reports(run, split="valid")] == [10, 20]
    assert [line["step"] for line in reports(run)] == list(range(1, 21))


def test_a_finished_run_is_only_evaluated_again(log: Path, tmp_path: Path) -> None:
    """No step, no new checkpoint, the same results."""
    recipe = make_recipe(log, tmp_path, "run.eval_interval_steps=2")
    train_on(recipe, world_size=1)
    first, lines = summary(tmp_path), (tmp_path / "metrics.jsonl").read_text()
    saved = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")}
    (tmp_path / "summary.json").unlink()
    train_on(recipe, world_size=1)
    again = summary(tmp_path)
    for name in ("tasks", "checkpoint", "examples", "steps", "seconds"):
        assert again[name] == first[name]
    assert (tmp_path / "metrics.jsonl").read_text() == lines
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")}
    assert after == saved


def test_a_run_is_not_taken_up_to_be_shorter(log: Path, tmp_path: Path) -> None:
    """Its checkpoint has more steps than are asked for."""
    train_on(make_recipe(log, tmp_path, "run.num_steps=3"), world_size=1)
    with pytest.raises(InputError, match="3 steps long already, more than the 2 asked for"):
        train_on(make_recipe(log, tmp_path, "run.num_steps=2"), world_size=1)


def test_a_changed_log_is_refused_when_a_run_is_taken_up(tmp_path: Path) -> None:
    """A file more, or another seed: the cursor would point at other rows."""
    log, run = write_toy_log(tmp_path / "log"), tmp_path / "run"
    train_on(make_recipe(log, run, "run.num_steps=2"), world_size=1)
    with pytest.raises(CheckpointMismatchError, match=r"run\.seed, has changed"):
        train_on(make_recipe(log, run, "run.num_steps=4", "run.seed=2"), world_size=1)
    write_groups(log, split="train", files=[[toy_table(9, seed=99)]])
    with pytest.raises(CheckpointMismatchError, match="has changed"):
        train_on(make_recipe(log, run, "run.num_steps=4"), world_size=1)


def test_a_changed_recipe_is_refused_when_a_run_is_taken_up(log: Path, tmp_path: Path) -> None:
    """The message names the key."""
    train_on(make_recipe(log, tmp_path, "run.num_steps=2"), world_size=1)
    changed = make_recipe(log, tmp_path, "run.num_steps=4", "model.task_tower=[4]")
    with pytest.raises(CheckpointMismatchError, match=r"model\.task_tower is \[8\] there"):
        train_on(changed, world_size=1)


def test_only_tasks_that_are_named_choose_a_checkpoint(log: Path, tmp_path: Path) -> None:
    """Their score stands in the manifest; other tasks would give another one, so they may not be
    named later.
    """
    options = ["run.num_steps=2", "run.select_by=[purchase]"]
    train_on(make_recipe(log, tmp_path, *options), world_size=1)
    [validation] = reports(tmp_path, split="valid")
    manifest = tmp_path / "checkpoints" / "step-00000002" / "manifest.json"
    score = json.loads(manifest.read_text())["score"]
    assert score == validation["tasks"]["purchase"]["auc"] != selection_score(validation["tasks"])
    with pytest.raises(CheckpointMismatchError, match=r"run\.select_by is \['purchase'\] there"):
        train_on(make_recipe(log, tmp_path, "run.num_steps=4"), world_size=1)
    with pytest.raises(InputError, match=r"run\.select_by: no task buy; there are: click, "):
        make_recipe(log, tmp_path, "run.select_by=[buy]")
    twice = make_recipe(log, tmp_path, "run.select_by=[purchase, click, purchase]")
    assert twice == make_recipe(log, tmp_path, "run.select_by=[click, purchase]")


def unlabelled_on_valid(log: Path, *tasks: str) -> Path:
    """A toy log."""
    table = toy_table(80, seed=50)
    for name in tasks:
        column = table.schema.get_field_index(name)
        table = table.set_column(column, name, pa.nulls(len(table), table[name].type))
    write_toy_log(log, splits={"train": TRAIN})
    write_groups(log, split="valid", files=[[table]])
    return log


@pytest.mark.parametrize(
    ("option", "tasks", "said"),
    [
        ("run.select_by=[purchase]", ["purchase"], "purchase.*; run.select_by: name others"),
        ("run.patience=2", ["click", "purchase", "watch"], "any task.*; leave run.patience out"),
    ],
)
def test_a_task_without_labels_on_valid_chooses_no_checkpoint(
    tmp_path: Path, option: str, tasks: list[str], said: str
) -> None:
    """Where a key asks it to."""
    log = unlabelled_on_valid(tmp_path / "log", *tasks)
    recipe = make_recipe(log, tmp_path / "run", "run.num_steps=4", option)
    with pytest.raises(InputError, match=f"valid/: no label of {said}"):
        train_on(recipe, world_size=1)


def test_without_any_label_on_valid_the_last_checkpoint_is_taken(tmp_path: Path) -> None:
    """And it is told."""
    log = unlabelled_on_valid(tmp_path / "log", "click", "purchase", "watch")
    options = ["run.num_steps=4", "run.eval_interval_steps=2"]
    recipe = make_recipe(log, tmp_path / "run", *options)
    notes, _ = run_ranks(notes_of, world_size=2, arguments={"recipe": recipe})
    assert notes == ["no label on valid: no checkpoint is the best one"] * 2
    assert summary(tmp_path / "run")["checkpoint"].endswith("step-00000004")


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_selected_checkpoint_is_the_one_that_is_evaluated(tmp_path: Path, select: str) -> None:
    """`best` takes the weights with the best score on valid, `last` the last ones.

    Both splits are the same rows here, so the final metrics are those of that validation.
    """
    log, run = tmp_path / "log", tmp_path / "run"
    write_toy_log(log, splits={"train": TRAIN})
    for split in ("valid", "test"):
        write_groups(log, split=split, files=[[toy_table(80, seed=50)]])
    options = ["run.num_steps=12", "run.eval_interval_steps=1", f"run.select={select}"]
    # so fast that the score falls again
    fast = {"tables": {"learning_rate": 0.5}, "dense": {"learning_rate": 0.3}}
    train_on(make_recipe(log, run, *options, optimizer=fast), world_size=2)
    validations = reports(run, split="valid")
    scores = [selection_score(line["tasks"]) for line in validations]
    chosen = int(np.argmax(scores)) if select == "best" else len(scores) - 1
    assert np.argmax(scores) != len(scores) - 1  # else the two were the same
    assert summary(run)["checkpoint"].endswith(f"step-{chosen + 1:08d}")
    assert_close(summary(run)["tasks"], validations[chosen]["tasks"], tolerance=1e-6)


@pytest.mark.parametrize("num_rows", [1, 33, 65])
def test_a_last_step_that_leaves_ranks_without_examples_does_not_hang(
    tmp_path: Path, num_rows: int
) -> None:
    """One row in the last step, and none on the other ranks; in evaluation too."""
    log, run = tmp_path / "log", tmp_path / "run"
    write_toy_log(log, splits={"train": ((num_rows,),), "valid": ((1,),), "test": ((2, 0),)})
    train_on(make_recipe(log, run, run={"num_epochs": 2}), world_size=4)
    found = summary(run)
    assert found["examples"] == 2 * num_rows
    assert found["steps"] == 2 * -(-num_rows // 32)
    assert found["tasks"]["click"]["examples"] == 2


def test_a_log_without_valid_or_test_is_judged_on_train(tmp_path: Path) -> None:
    """There is nothing else, and the summary says so."""
    log, run = write_toy_log(tmp_path / "log", splits={"train": TRAIN}), tmp_path / "run"
    train_on(make_recipe(log, run, "run.num_steps=2"), world_size=1)
    assert summary(run)["evaluated_on"] == "train"
    assert summary(run)["tasks"]["click"]["examples"] == NUM_EXAMPLES


def spoil(log: Path) -> None:
    """One observed `watch` beyond what a squared error can hold in float32."""
    table = toy_table(33, seed=77)
    watch = np.full(33, 1.0)
    watch[5] = 1e30
    for name, values in (("click", np.ones(33, np.int8)), ("watch", watch)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    groups = [[toy_table(200, seed=1)], [table], [toy_table(200, seed=2)]]
    write_groups(log, split="train", files=groups)


def plain_watch(log: Path, folder: Path, *, sharding: str = "auto") -> Recipe:
    """`watch` without its logarithm."""
    options = ["data.tasks.watch.log=false", "run.num_epochs=1"]
    return make_recipe(log, folder, *options, sharding=sharding)


def refusal_to_train(recipe: Recipe) -> str:
    with pytest.raises(NonFiniteLossError) as caught:
        train(recipe)
    return str(caught.value)


def test_a_loss_that_is_not_finite_ends_the_run_on_all_ranks(tmp_path: Path) -> None:
    """Naming step and task, also on the ranks that did not see the row."""
    spoil(tmp_path / "log")
    recipe = plain_watch(tmp_path / "log", tmp_path / "run")
    messages = run_ranks(refusal_to_train, world_size=2, arguments={"recipe": recipe})
    assert len(set(messages)) == 1
    assert messages[0].startswith("step ")
    assert "the loss of task watch is inf" in messages[0]
    assert "learning_rate" in messages[0]
    assert "\n" not in messages[0]


def clones(state: dict[str, Any]) -> dict[str, list[torch.Tensor]]:
    """This rank's part of a state dict, copied."""
    parts = {}
    for key, item in state.items():
        if isinstance(item, ShardedTensor):
            parts[key] = [shard.tensor.clone() for shard in item.local_shards()]
        elif isinstance(item, torch.Tensor):
            parts[key] = [item.clone()]
    return parts


def changes_of_a_failing_step(recipe: Recipe) -> tuple[int, list[str]]:
    """On a rank: steps done before the failing one, and the weights that it changed."""
    with joined_ranks() as runtime:
        model, _ = build_sharded_model(recipe, runtime=runtime)
    optimizer = build_optimizer(model, config=recipe.optimizer)
    loader = InteractionLoader(
        recipe.data,
        split="train",
        num_rows=recipe.num_rows_of_feature(),
        seed=recipe.run.seed,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )
    pipeline = TrainPipelineSparseDist(model, optimizer, torch.device("cpu"))
    batches = loader.batches(start=Cursor(), num_steps=loader.steps_per_epoch)
    fused = model.fused_optimizer
    num_done = 0
    while True:
        before = clones(model.state_dict()) | clones(fused.state_dict()["state"])
        try:
            pipeline.progress(batches)
        except NonFiniteLossError:
            break
        num_done += 1
    after = clones(model.state_dict()) | clones(fused.state_dict()["state"])
    changed = [key for key, parts in before.items() if not all(map(torch.equal, parts, after[key]))]
    return num_done, changed


@pytest.mark.parametrize("sharding", ["row_wise", "data_parallel"])
def test_a_loss_that_is_not_finite_changes_no_weight(tmp_path: Path, sharding: str) -> None:
    """Neither towers nor tables, on no rank, although the fused optimizers step in backward."""
    spoil(tmp_path / "log")
    recipe = plain_watch(tmp_path / "log", tmp_path / "run", sharding=sharding)
    results = run_ranks(changes_of_a_failing_step, world_size=2, arguments={"recipe": recipe})
    (num_done, changed), second = results
    assert second == (num_done, changed)
    assert num_done > 0  # so that there is something to compare with the step before
    assert changed == []


def told(recipe: Recipe) -> list[dict[str, Any]]:
    heard: list[Progress] = []
    train(recipe, listener=heard.append)
    return [dataclasses.asdict(progress) for progress in heard]


def test_the_listener_hears_the_first_rank_only(log: Path, tmp_path: Path) -> None:
    """Training and evaluation, with losses by task; the other ranks are silent."""
    recipe = make_recipe(log, tmp_path)
    first, second = run_ranks(told, world_size=2, arguments={"recipe": recipe})
    assert second == []
    assert {progress["phase"] for progress in first} == {"train", "evaluate"}
    training = next(progress for progress in first if progress["phase"] == "train")
    assert training["num_steps"] == 6
    assert list(training["losses"]) == ["click", "purchase", "watch"]


def test_a_task_without_labels_is_told_once(tmp_path: Path) -> None:
    """By its column, on rank 0; else it would be a loss of null, and no fault."""
    table = toy_table(200, seed=1)
    nothing = pa.nulls(len(table), pa.float64())
    index = table.schema.get_field_index("watch")
    write_groups(
        tmp_path / "log", split="train", files=[[table.set_column(index, "watch", nothing)]] * 2
    )
    recipe = make_recipe(tmp_path / "log", tmp_path / "run", "run.log_interval_steps=2")
    [[note], []] = run_ranks(notes_of, world_size=2, arguments={"recipe": recipe})
    assert note == (
        "task watch: no label in the first 64 examples (column watch, where click is 1); "
        "is it rare, or is this the wrong column?"
    )
