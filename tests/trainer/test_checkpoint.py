"""Checkpoints: complete or not there, kept as asked, and restored at any number of ranks."""

from __future__ import annotations

import enum
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import KeyedOptimizer

from data_loaders.errors import StorageError
from data_loaders.storage import Location, locate
from data_loaders.streams import Cursor
from tests.helpers.checkpoints import assert_equal, read_tensors
from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import batches_of_rank
from trainer.build import build_sharded_model
from trainer.checkpoint import CheckpointMismatchError, Checkpoints, check_fits, restore
from trainer.checkpoint_storage import LocationReader
from trainer.config import Recipe
from trainer.evaluate import evaluate_checkpoint
from trainer.manifest import IncompleteCheckpointError, Manifest, read_manifest, state_of
from trainer.optimizer import build_optimizer
from trainer.recipe_file import build_recipe
from trainer.runtime import joined_ranks


def make_recipe(root: Path | str = "log", **changes: Any) -> Recipe:
    return build_recipe(toy_recipe(root, **changes), overrides=(), source="toy")


def manifest(recipe: Recipe, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "step": 1,
        "examples": 32,
        "seconds": 0.5,
        "data_wait_seconds": 0.25,
        "cursor": (0, 1),
        "log_fingerprint": "print",
        "world_size": 1,
        "score": None,
        "recipe": recipe.model_dump(mode="json"),
    }
    return Manifest(**(values | changes))


def build(recipe: Recipe) -> tuple[DistributedModelParallel, KeyedOptimizer]:
    with joined_ranks() as runtime:
        model, _ = build_sharded_model(recipe, runtime=runtime)
    return model, build_optimizer(model, config=recipe.optimizer)


def train_steps(
    recipe: Recipe, model: DistributedModelParallel, optimizer: KeyedOptimizer, *, num_steps: int
) -> None:
    """A plain loop over the first steps of the log, so that every state has a value."""
    for batch in batches_of_rank(recipe, num_steps=num_steps):
        optimizer.zero_grad()
        loss, _ = model(batch)
        loss.backward()
        optimizer.step()


def train_and_save(recipe: Recipe, run: str) -> None:
    model, optimizer = build(recipe)
    train_steps(recipe, model, optimizer, num_steps=2)
    Checkpoints(locate(run), keep=5).save(
        model=model, optimizer=optimizer, manifest=manifest(recipe, step=1)
    )


def restore_and_save(recipe: Recipe, run: str) -> None:
    """Writes the next step with what was read from the newest."""
    checkpoints = Checkpoints(locate(run), keep=5)
    newest = checkpoints.newest()
    assert newest is not None
    model, optimizer = build(recipe)
    restore(newest[0], model=model, optimizer=optimizer)
    step = newest[1].step + 1
    checkpoints.save(model=model, optimizer=optimizer, manifest=manifest(recipe, step=step))


@pytest.mark.parametrize(
    "chain",
    [
        [(2, "table_wise"), (1, "table_wise"), (2, "row_wise"), (3, "row_wise"), (1, "auto")],
        [(2, "column_wise"), (2, "column_wise")],
        [(1, "data_parallel"), (2, "data_parallel")],
    ],
    ids=["table and row", "column", "replicated"],
)
def test_a_checkpoint_restores_bit_by_bit_onto_other_ranks_and_cuts(
    tmp_path: Path, chain: list[tuple[int, str]]
) -> None:
    """Weights, row-wise momenta and AdamW's states: what is saved anew is what was read."""
    log, run = write_toy_log(tmp_path / "log"), str(tmp_path / "run")
    function = train_and_save
    for world_size, sharding in chain:
        arguments = {"recipe": make_recipe(log, sharding=sharding), "run": run}
        run_ranks(function, world_size=world_size, arguments=arguments)
        function = restore_and_save
    complete = Checkpoints(locate(run), keep=5).complete()
    assert len(complete) == len(chain)
    saved = read_tensors(complete[0][0])
    assert any("exp_avg_sq" in key for key in saved)
    momenta = [tensor for key, tensor in saved.items() if key.endswith(("momentum1", "sum"))]
    assert len(momenta) >= 4
    assert all(tensor.any() for tensor in momenta)
    for location, _ in complete[1:]:
        assert_equal(read_tensors(location), saved)


def refusal_to_restore(recipe: Recipe, run: str) -> str:
    newest = Checkpoints(locate(run), keep=5).newest()
    assert newest is not None
    model, optimizer = build(recipe)
    with pytest.raises(CheckpointMismatchError) as caught:
        restore(newest[0], model=model, optimizer=optimizer)
    return str(caught.value)


def test_a_checkpoint_of_another_shape_is_refused_on_every_rank(tmp_path: Path) -> None:
    """Another number of column shards, or a table that is not there; in one line that names it."""
    log, run = write_toy_log(tmp_path / "log"), str(tmp_path / "run")
    recipe = make_recipe(log, sharding="column_wise")
    run_ranks(train_and_save, world_size=1, arguments={"recipe": recipe, "run": run})
    for sharding in ("column_wise", "data_parallel"):
        recipe = make_recipe(log, sharding=sharding)
        for message in run_ranks(
            refusal_to_restore, world_size=2, arguments={"recipe": recipe, "run": run}
        ):
            assert message.startswith(f"{run}/checkpoints/step-00000001: does not fit this model")
            assert "\n" not in message


def save_scores(recipe: Recipe, run: str, scores: list[float | None], keep: int) -> list[list[int]]:
    """Saves a checkpoint for each score; returns the steps that are there after each."""
    model, optimizer = build(recipe)
    checkpoints, there = Checkpoints(locate(run), keep=keep), []
    for step, score in enumerate(scores, start=1):
        checkpoints.save(
            model=model, optimizer=optimizer, manifest=manifest(recipe, step=step, score=score)
        )
        there.append([found.step for _, found in checkpoints.complete()])
    return there


def test_the_newest_and_the_best_checkpoints_stay(tmp_path: Path) -> None:
    """`keep` newest, and the best by score wherever it is; the folders of the others are gone."""
    scores = [0.5, 0.7, None, 0.6, 0.8, None, None]
    arguments = {"recipe": make_recipe(), "run": str(tmp_path), "scores": scores, "keep": 2}
    [there] = run_ranks(save_scores, world_size=1, arguments=arguments)
    assert there == [[1], [1, 2], [2, 3], [2, 3, 4], [4, 5], [5, 6], [5, 6, 7]]
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step-00000005", "step-00000006", "step-00000007"]
    checkpoints = Checkpoints(locate(str(tmp_path)), keep=2)
    newest, best = checkpoints.newest(), checkpoints.best()
    assert newest is not None
    assert best is not None
    assert (newest[1].step, best[1].step) == (7, 5)


def write_manifest(run: Path, found: Manifest) -> Location:
    location = locate(str(run)).child(f"checkpoints/step-{found.step:08d}")
    location.child("manifest.json").write_text(found.model_dump_json())
    return location


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.5, 0.7, 0.7, 0.6], 2),
        ([-0.4, -0.2, -0.3], 2),
        ([None, -0.5, None], 2),
        ([0.0, -0.1], 1),
        ([-0.1, 0.0], 2),
        ([None, None], None),
    ],
)
def test_the_best_is_the_first_with_the_highest_score(
    tmp_path: Path, scores: list[float | None], best: int | None
) -> None:
    """Scores may be negative (minus a loss), and some checkpoints have none."""
    for step, score in enumerate(scores, start=1):
        write_manifest(tmp_path, manifest(make_recipe(), step=step, score=score))
    found = Checkpoints(locate(str(tmp_path)), keep=2).best()
    assert (found[1].step if found else None) == best


def test_a_checkpoint_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    """Whatever else lies in its folder: it was interrupted."""
    checkpoints = Checkpoints(locate(str(tmp_path)), keep=2)
    assert checkpoints.newest() is checkpoints.best() is None
    write_manifest(tmp_path, manifest(make_recipe(), step=3, score=0.5))
    torn = write_manifest(tmp_path, manifest(make_recipe(), step=4, score=0.9))
    torn.child("__0_0.distcp").write_text("x")
    torn.child("manifest.json").delete()
    assert [found.step for _, found in checkpoints.complete()] == [3]
    with pytest.raises(IncompleteCheckpointError, match="no complete checkpoint there"):
        read_manifest(torn)


def test_an_interrupted_save_is_overwritten(tmp_path: Path) -> None:
    """A retry reaches the same step again; nothing of the torn one is left."""
    run, recipe = tmp_path / "run", make_recipe(write_toy_log(tmp_path / "log"))
    torn = run / "checkpoints/step-00000001"
    torn.mkdir(parents=True)
    for name in ("__0_0.distcp", "__7_0.distcp", ".metadata"):
        (torn / name).write_text("torn")
    arguments = {"recipe": recipe, "run": str(run)}
    run_ranks(train_and_save, world_size=1, arguments=arguments)
    [(location, _)] = Checkpoints(locate(str(run)), keep=5).complete()
    assert read_tensors(location)
    assert not (torn / "__7_0.distcp").exists()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"format": 2}'])
def test_a_manifest_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    """Torn by hand, or of a later version."""
    location = locate(str(tmp_path))
    location.child("manifest.json").write_text(text)
    with pytest.raises(IncompleteCheckpointError, match="not a checkpoint's manifest") as caught:
        read_manifest(location)
    assert str(caught.value).startswith(f"{tmp_path}/manifest.json")
    assert "\n" not in str(caught.value)


def test_a_manifest_is_read_back_as_written(tmp_path: Path) -> None:
    """Numbers, cursor and recipe."""
    written = manifest(make_recipe(), step=7, cursor=(2, 5), score=-0.25)
    found = read_manifest(write_manifest(tmp_path, written))
    assert found == written
    assert state_of(found).cursor == Cursor(2, 5)
    assert build_recipe(found.recipe, overrides=(), source="x") == make_recipe()


def with_key(recipe: Recipe, override: str) -> Recipe:
    tree = recipe.model_dump(mode="json")
    return build_recipe(tree, overrides=[override], source="toy")


@pytest.mark.parametrize(
    "override",
    [
        "run.num_steps=99",
        "run.num_epochs=9",
        "run.uri=s3://elsewhere/run",
        "checkpoint.interval_steps=5",
        "optimizer.dense.learning_rate=0.5",
        "data.root=s3://elsewhere/log",
        "data.prefetch_bytes=3",
        "data.tasks.click.weight=0.5",
        "embeddings.tables.user.sharding=row_wise",
    ],
)
def test_a_run_may_go_on_with_another(override: str) -> None:
    """Length, place, learning rate, cut: none of it changes what a weight means."""
    recipe = make_recipe()
    location = locate("run")
    found = manifest(recipe)
    check_fits(location, found, recipe=with_key(recipe, override), log_fingerprint="print")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.shared_tower=[32]", "model.shared_tower"),
        ("model.dropout=0.5", "model.dropout"),
        ("data.batch_size=64", "data.batch_size"),
        ("data.num_streams=16", "data.num_streams"),
        ("data.features.age.mean=1", "data.features.age.mean"),
        ("data.features.user.column=other", "data.features.user.column"),
        ("data.tasks.click.where=seen", "data.tasks.click.where"),
        ("embeddings.tables.user.num_rows=1004", "embeddings.tables.user.num_rows"),
        ("embeddings.tables.tags.pooling=sum", "embeddings.tables.tags.pooling"),
        ("data.tasks.more={kind: binary}", "data.tasks.more.kind"),
    ],
)
def test_a_run_does_not_go_on_with_another(override: str, key: str) -> None:
    """The message names the checkpoint, the key, and both values; a task more or less counts."""
    recipe = make_recipe()
    changed, location = with_key(recipe, override), locate("run")
    for theirs, ours in ((recipe, changed), (changed, recipe)):
        with pytest.raises(CheckpointMismatchError) as caught:
            check_fits(location, manifest(theirs), recipe=ours, log_fingerprint="print")
        message = str(caught.value)
        assert message.startswith(f"{location.uri}: does not fit the recipe: {key} is ")
        assert "\n" not in message


def test_a_run_does_not_go_on_with_another_log() -> None:
    """Its cursor would point at other rows."""
    recipe = make_recipe()
    with pytest.raises(CheckpointMismatchError, match=r"log under data\.root.* has changed"):
        check_fits(locate("run"), manifest(recipe), recipe=recipe, log_fingerprint="other")


class Harmful:
    """Unpickles into a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_an_index_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """A checkpoint from elsewhere is data: foreign classes and functions are not called."""
    harm = tmp_path / "harm"
    for content in (Harmful(harm), [Harmful(harm)], eval, Path.unlink, torch.load):
        (tmp_path / ".metadata").write_bytes(pickle.dumps(content))
        with pytest.raises(pickle.UnpicklingError):
            LocationReader(locate(str(tmp_path))).read_metadata()
    assert not harm.exists()


class OlderPythonPickler(pickle._Pickler):
    """Pickles an enum as Python before 3.11.4 does: by getattr of its class."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, enum.Enum):
            return getattr, (type(item), item.name)
        return NotImplemented


def test_an_index_that_an_older_python_wrote_is_read(tmp_path: Path) -> None:
    """It pickles an enum through getattr, which is let in for that enum and nothing else."""
    run, recipe = tmp_path / "run", make_recipe(write_toy_log(tmp_path / "log"))
    run_ranks(train_and_save, world_size=1, arguments={"recipe": recipe, "run": str(run)})
    [(location, _)] = Checkpoints(locate(str(run)), keep=5).complete()
    index = Path(location.path) / ".metadata"
    metadata = LocationReader(location).read_metadata()
    with index.open("wb") as file:
        OlderPythonPickler(file).dump(metadata)
    assert b"getattr" in index.read_bytes()
    assert LocationReader(location).read_metadata().state_dict_metadata.keys() == (
        metadata.state_dict_metadata.keys()
    )
    index.write_bytes(pickle.dumps(Reduced(getattr, (Path, "unlink"))))
    with pytest.raises(pickle.UnpicklingError):
        LocationReader(location).read_metadata()


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_an_index_of_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    """DCP would unpickle the bytes that it calls for."""
    entries = {"model.weight": BytesStorageMetadata()}
    index = Metadata(state_dict_metadata=entries, planner_data=None, storage_data={})
    (tmp_path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(pickle.UnpicklingError, match=r"no place|no tensor"):
        LocationReader(locate(str(tmp_path))).read_metadata()


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_damaged_checkpoint_is_said_to_be_damaged(tmp_path: Path, name: str) -> None:
    """Not to be of another recipe."""
    run, recipe = tmp_path / "run", make_recipe(write_toy_log(tmp_path / "log"))
    run_ranks(train_and_save, world_size=1, arguments={"recipe": recipe, "run": str(run)})
    [(location, _)] = Checkpoints(locate(str(run)), keep=5).complete()
    file = Path(location.path) / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 20])
    with pytest.raises(StorageError, match=r"step-00000001: this checkpoint cannot be read"):
        run_ranks(evaluate_uri, world_size=1, arguments={"uri": location.uri})


def evaluate_uri(uri: str) -> None:
    evaluate_checkpoint(locate(uri), data_root=None, listener=None)


@pytest.mark.parametrize("kind", ["features", "tasks"])
def test_a_run_does_not_go_on_with_another_order(kind: str) -> None:
    """The order of features and tasks is that of the model's columns and towers."""
    recipe = make_recipe()
    tree = recipe.model_dump()
    tree["data"][kind] = dict(reversed(tree["data"][kind].items()))
    other = Recipe.model_validate(tree)
    with pytest.raises(CheckpointMismatchError, match=rf"the order of data\.{kind}"):
        check_fits(locate("run"), manifest(recipe), recipe=other, log_fingerprint="log")


def test_an_index_holds_no_place(tmp_path: Path) -> None:
    """A checkpoint may be moved, and tells nobody where it was written."""
    run, recipe = tmp_path / "a-secret-place", make_recipe(write_toy_log(tmp_path / "log"))
    run_ranks(train_and_save, world_size=1, arguments={"recipe": recipe, "run": str(run)})
    [(location, _)] = Checkpoints(locate(str(run)), keep=5).complete()
    before = read_tensors(location)
    assert b"a-secret-place" not in (Path(location.path) / ".metadata").read_bytes()
    run.rename(tmp_path / "moved")
    assert_equal(read_tensors(locate(str(tmp_path / "moved/checkpoints/step-00000001"))), before)
