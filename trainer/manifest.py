"""What a checkpoint says of itself: `manifest.json`, without which it does not exist."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import ValidationError

from data_loaders.config import Section
from data_loaders.errors import InputError
from data_loaders.storage import Location
from data_loaders.streams import Cursor
from trainer.config import Recipe
from trainer.state import Selection, TrainState

MANIFEST = "manifest.json"


class IncompleteCheckpointError(InputError):
    """There is no complete checkpoint where one is needed."""


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
        best_score: on valid so far.
        num_stale: validations since then.
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
    best_score: float | None = None
    num_stale: int = 0


def manifest_of(
    state: TrainState,
    *,
    recipe: Recipe,
    log_fingerprint: str,
    world_size: int,
    score: float | None,
) -> Manifest:
    """The manifest of a checkpoint that is written now."""
    return Manifest(
        step=state.step,
        examples=state.examples,
        seconds=state.seconds,
        data_wait_seconds=state.data_wait_seconds,
        skipped=state.skipped,
        uncounted_files=state.uncounted_files,
        best_score=state.selection.best_score,
        num_stale=state.selection.num_stale,
        cursor=dataclasses.astuple(state.cursor),
        log_fingerprint=log_fingerprint,
        world_size=world_size,
        score=score,
        recipe=recipe.model_dump(mode="json"),
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
        selection=Selection(best_score=manifest.best_score, num_stale=manifest.num_stale),
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
