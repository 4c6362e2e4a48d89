"""Checkpoints of a run: everything that a step changes, moved together or not at all.

    RUN/checkpoints/step-00000100/__0_0.distcp, __1_0.distcp, .metadata     written by DCP
    RUN/checkpoints/step-00000100/manifest.json                             written last

Without its manifest a checkpoint does not exist.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import KeyedOptimizer

from data_loaders.errors import InputError, StorageError, counted
from data_loaders.storage import Location, first_line
from trainer.averaging import DenseAverage
from trainer.checkpoint_storage import LocationReader, LocationWriter
from trainer.config import Recipe
from trainer.manifest import MANIFEST, Manifest, read_manifest
from trainer.recipe_file import differing_keys, flat_keys

# Keys of a recipe that may differ between a checkpoint and the run that takes it up. A table's
# sharding is no property of its values: rows find their new place when they are read.
_MAY_CHANGE = (
    *("run.", "checkpoint.", "prepare.", "optimizer."),
    *("data.root", "data.on_error", "data.prefetch_bytes", "data.negatives.catalogue"),
)
# Scores by other tasks cannot be compared.
_MAY_NOT_CHANGE = "run.select_by"
# A vocabulary is known by its digest, wherever it lies.
_MAY_CHANGE_BELOW = (".sharding", ".weight", ".vocabulary")


class CheckpointMismatchError(InputError):
    """A checkpoint does not fit the recipe or the log."""


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
        self,
        *,
        model: DistributedModelParallel,
        optimizer: KeyedOptimizer,
        manifest: Manifest,
        average: DenseAverage | None = None,
    ) -> Location:
        """Writes a checkpoint; every rank must call. Older ones beyond `keep` are deleted."""
        location = self._folder.child(f"step-{manifest.step:08d}")
        is_first = dist.get_rank() == 0
        if is_first:
            location.delete()  # what an interrupted save left
        dist.barrier(group=self._group)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        if average is not None:
            state["average"] = average.state_dict()
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
    average: DenseAverage | None = None,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Reads a checkpoint into a model, and its optimizer and average if they are given, at any
    number of ranks; every rank must call.

    Args:
        average: begins anew where the checkpoint has none.

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
    if average is not None:
        average.reset()
        if any(key.startswith("average.") for key in read_sizes(location)):
            state["average"] = average.state_dict()
    read_into(state, location=location, group=group)
    model.load_state_dict(state["model"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])


def read_sizes(location: Location) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint by their paths, `model.NAME` and so on.

    Raises:
        StorageError: its index is damaged or out of reach.
    """
    try:
        index = LocationReader(location).read_metadata().state_dict_metadata
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise _unreadable(location, error) from error
    return {key: tuple(item.size) for key, item in index.items()}  # type: ignore[union-attr]


def read_into(
    state: dict[str, Any], *, location: Location, group: dist.ProcessGroup | None
) -> None:
    """Reads what `state` names of a checkpoint into its tensors; every rank must call.

    Raises:
        CheckpointMismatchError: it lacks something, or holds it in another shape.
        StorageError: its files are damaged or out of reach.
    """
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


def _unreadable(location: Location, cause: BaseException) -> StorageError:
    return StorageError(
        f"{location.uri}: this checkpoint cannot be read ({first_line(cause)}); its files are "
        "damaged or out of reach; delete it to go on from an older one"
    )


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
    theirs, ours = flat_keys(manifest.recipe), flat_keys(recipe.model_dump(mode="json"))
    for key in differing_keys(theirs, ours):
        may_change = key.startswith(_MAY_CHANGE) or key.endswith(_MAY_CHANGE_BELOW)
        if not may_change or key == _MAY_NOT_CHANGE:
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


def newest_that_fits(
    checkpoints: Checkpoints,
    *,
    recipe: Recipe,
    num_steps: int,
    log_fingerprint: str,
    file_changes: Sequence[str],
) -> tuple[Location, Manifest] | None:
    """Where a run goes on, if it has been begun before.

    Args:
        num_steps: that it shall have.
        log_fingerprint: as of `check_fits`.
        file_changes: as of `check_fits`.

    Raises:
        CheckpointMismatchError: as `check_fits`.
        InputError: it is longer already.
    """
    newest = checkpoints.newest()
    if newest is None:
        return None
    location, manifest = newest
    check_fits(
        location,
        manifest,
        recipe=recipe,
        log_fingerprint=log_fingerprint,
        file_changes=file_changes,
    )
    if manifest.step > num_steps:
        raise InputError(
            f"{location.uri}: this run is {manifest.step} steps long already, more than "
            f"the {num_steps} asked for; "
            "raise run.num_steps (or num_epochs), or start another run.uri"
        )
    return newest
