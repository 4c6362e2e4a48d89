"""Checkpoints of a run: everything that a step changes, moved together or not at all.

    RUN/checkpoints/step-00000100/__0_0.distcp, __1_0.distcp, .metadata     written by DCP
    RUN/checkpoints/step-00000100/manifest.json                             written last

Without its manifest a checkpoint does not exist.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any, Literal

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pydantic import ValidationError
from torch.distributed.checkpoint.api import CheckpointException
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import KeyedOptimizer

from data_loaders.config import Section
from data_loaders.errors import InputError, StorageError, counted
from data_loaders.storage import Location, first_line
from data_loaders.streams import Cursor
from trainer.checkpoint_storage import LocationReader, LocationWriter
from trainer.config import Recipe
from trainer.state import TrainState

MANIFEST = "manifest.json"

# Keys of a recipe that may differ between a checkpoint and the run that takes it up. A table's
# sharding is no property of its values: rows find their new place when they are read.
_MAY_CHANGE = (
    *("run.", "checkpoint.", "prepare.", "optimizer."),
    *("data.root", "data.on_error", "data.prefetch_bytes", "data.negatives.catalogue"),
)
# A vocabulary is known by its digest, wherever it lies.
_MAY_CHANGE_BELOW = (".sharding", ".weight", ".vocabulary")


class IncompleteCheckpointError(InputError):
    """There is no complete checkpoint where one is needed."""


class CheckpointMismatchError(InputError):
    """A checkpoint does not fit the recipe or the log."""


class Manifest(Section):
    """The content of `manifest.json`.

    Attributes:
        step: optimizer updates behind it.
        examples: trained on, over all ranks.
        seconds: spent training.
        data_wait_seconds: of them, waiting for data on rank 0.
        cursor: the position in the log, as (epoch, step).
        log_fingerprint: of the files, the order and the batch size that the cursor counts in.
        world_size: ranks that wrote it.
        score: on valid, the higher the better; None where it was not evaluated.
        recipe: resolved.
        skipped: examples left out so far, over all ranks.
        uncounted_files: files left out, their examples unknown.
    """

    format: Literal[1] = 1
    step: int
    examples: int
    seconds: float
    data_wait_seconds: float
    cursor: tuple[int, int]
    log_fingerprint: str
    world_size: int
    score: float | None
    recipe: dict[str, Any]
    skipped: int = 0
    uncounted_files: int = 0


class Checkpoints:
    """The checkpoints below a run's folder.

    Args:
        run: the run's folder.
        keep: newest ones that stay, beside the best.
        group: ranks that save together, able to move CPU tensors; None for the whole world.
    """

    def __init__(self, run: Location, *, keep: int, group: dist.ProcessGroup | None = None) -> None:
        self._folder = run.child("checkpoints")
        self._keep = keep
        self._group = group

    def save(
        self, *, model: DistributedModelParallel, optimizer: KeyedOptimizer, manifest: Manifest
    ) -> Location:
        """Writes a checkpoint; every rank must call. Older ones beyond `keep` are deleted."""
        location = self._folder.child(f"step-{manifest.step:08d}")
        is_first = dist.get_rank() == 0
        if is_first:
            location.delete()  # what an interrupted save left
        dist.barrier(group=self._group)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        dcp.save(state, storage_writer=LocationWriter(location), process_group=self._group)
        if is_first:
            location.child(MANIFEST).write_text(json.dumps(manifest.model_dump(), indent=2) + "\n")
            self._delete_old(newest=location)
        dist.barrier(group=self._group)
        return location

    def complete(self) -> list[tuple[Location, Manifest]]:
        """All complete checkpoints, the oldest first."""
        found = [item for item in self._folder.children() if item.child(MANIFEST).exists()]
        return [(item, read_manifest(item)) for item in found]

    def newest(self) -> tuple[Location, Manifest] | None:
        """The newest complete checkpoint."""
        complete = self.complete()
        return complete[-1] if complete else None

    def best(self) -> tuple[Location, Manifest] | None:
        """The checkpoint with the best score on valid, the earlier one of equals."""
        scored = [item for item in self.complete() if item[1].score is not None]
        return max(scored, key=lambda item: item[1].score or 0.0, default=None)

    def _delete_old(self, *, newest: Location) -> None:
        for location in self._folder.children():
            # without a manifest: left by a run that was killed while it saved or deleted
            if location.name < newest.name and not location.child(MANIFEST).exists():
                location.delete()
        best = self.best()
        for location, manifest in self.complete()[: -self._keep]:
            if best is None or manifest.step != best[1].step:
                location.child(MANIFEST).delete()  # first: from here on it does not exist
                location.delete()


def restore(
    location: Location,
    *,
    model: DistributedModelParallel,
    optimizer: KeyedOptimizer | None = None,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Reads a checkpoint into a model, and its optimizer if one is given, at any number of ranks;
    every rank must call.

    Raises:
        CheckpointMismatchError: it lacks what the model needs, or holds it in another shape.
        StorageError: its files are damaged or out of reach.
    """
    if optimizer is not None:
        # DCP loads into what is there, and Adam makes its state in the first step
        optimizer.init_state()
    state: dict[str, Any] = {"model": model.state_dict()}
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    reader = LocationReader(location)
    try:
        reader.read_metadata()  # before DCP, which logs a traceback for an index it cannot read
        dcp.load(state, storage_reader=reader, process_group=group)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise _unreadable(location, error) from error
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        if not any(sign in str(cause) for sign in ("Size mismatch", "Missing key")):
            raise _unreadable(location, cause) from None
        raise CheckpointMismatchError(
            f"{location.uri}: does not fit this model or its sharding plan ({first_line(cause)}); "
            "restore with the recipe and the sharding that wrote it, or start another run.uri"
        ) from error
    model.load_state_dict(state["model"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])


def _unreadable(location: Location, cause: BaseException) -> StorageError:
    return StorageError(
        f"{location.uri}: this checkpoint cannot be read ({first_line(cause)}); its files are "
        "damaged or out of reach; delete it to go on from an older one"
    )


def read_manifest(location: Location) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        IncompleteCheckpointError: there is none, or it is not one.
    """
    manifest = location.child(MANIFEST)
    if not manifest.exists():
        raise IncompleteCheckpointError(
            f"{location.uri}: no complete checkpoint there ({MANIFEST} is missing); "
            "give a run's folder or one of its checkpoints"
        )
    try:
        return Manifest.model_validate_json(manifest.read_text())
    except ValidationError as error:
        raise IncompleteCheckpointError(
            f"{manifest.uri}: not a checkpoint's manifest ({error.errors()[0]['msg']})"
        ) from error


def check_fits(
    location: Location,
    manifest: Manifest,
    *,
    recipe: Recipe,
    log_fingerprint: str,
    file_changes: Sequence[str] = (),
) -> None:
    """A run goes on only with the model and the log that it began with.

    Args:
        file_changes: what differs between the files of the log then and now, in words.

    Raises:
        CheckpointMismatchError: naming the first key that differs, or the log.
    """
    theirs, ours = _flat(manifest.recipe), _flat(recipe.model_dump(mode="json"))
    for key in dict.fromkeys([*theirs, *ours]):
        if key.startswith(_MAY_CHANGE) or key.endswith(_MAY_CHANGE_BELOW):
            continue
        if theirs.get(key) != ours.get(key):
            raise CheckpointMismatchError(
                f"{location.uri}: does not fit the recipe: {key} is {theirs.get(key)!r:.60} there "
                f"and {ours.get(key)!r:.60} here; "
                "go on with the old value, or start another run.uri"
            )
    for kind in ("features", "tasks"):
        # their order is that of the model's columns
        names = list(manifest.recipe["data"][kind])
        if names != list(recipe.data.model_dump()[kind]):
            raise CheckpointMismatchError(
                f"{location.uri}: does not fit the recipe: the order of data.{kind} is "
                f"{', '.join(names)} there; keep it, or start another run.uri"
            )
    if manifest.log_fingerprint != log_fingerprint:
        what = "the log under data.root, its catalogue, or run.seed, has changed"
        if file_changes:
            more = f" and {counted(len(file_changes) - 1, 'file')} more" if file_changes[1:] else ""
            what = f"of the log under data.root, {file_changes[0]}{more}"
        raise CheckpointMismatchError(
            f"{location.uri}: {what} since this run began, so its place in the log is lost; "
            "restore the files, or start another run.uri"
        )


def state_of(manifest: Manifest) -> TrainState:
    """Where to go on."""
    epoch, step = manifest.cursor
    return TrainState(
        step=manifest.step,
        examples=manifest.examples,
        seconds=manifest.seconds,
        data_wait_seconds=manifest.data_wait_seconds,
        cursor=Cursor(epoch=epoch, step=step),
        skipped=manifest.skipped,
        uncounted_files=manifest.uncounted_files,
    )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    return {
        key: value
        for name, node in tree.items()
        for key, value in _flat(node, f"{prefix}{name}.").items()
    }
