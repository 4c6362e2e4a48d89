"""A run's own copies of the vocabularies that it was fitted with.

    RUN/vocabularies/TABLE-DIGEST.parquet

With them a run's folder, wherever it is moved, is all that its checkpoints need: the data set that
it was trained on may be deleted or written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data_loaders.config import AnyFeature, IdFeature, IdListFeature
from data_loaders.id_vocabulary import read_checked
from data_loaders.storage import Location, locate
from trainer.config import Recipe
from trainer.recipe_file import load_recipe

if TYPE_CHECKING:
    import torch.distributed as dist


def keep_vocabularies(
    recipe: Recipe, *, run: Location, is_writer: bool, group: dist.ProcessGroup | None
) -> Recipe:
    """Copies a recipe's vocabularies into a run's folder, unless they are there; every rank must
    call.

    Args:
        recipe: fitted.
        run: the run's folder.
        is_writer: whether this is the rank that copies; the others wait for it.
        group: of the ranks.

    Returns:
        The recipe with the copies.

    Raises:
        SchemaError: a vocabulary is another one than the recipe was fitted with.
        StorageError: it cannot be read or written.
    """
    if is_writer:
        for name, feature in _with_vocabularies(recipe).items():
            copy = _copy_of(feature, name=name, run=run)
            if not copy.exists():
                copy.write_bytes(
                    read_checked(str(feature.vocabulary), digest=str(feature.vocabulary_digest))
                )
    import torch.distributed as dist  # takes a second, and a recipe can be fitted without it

    dist.barrier(group=group)
    return with_kept_vocabularies(recipe, run=run)


def with_kept_vocabularies(recipe: Recipe, *, run: Location) -> Recipe:
    """The recipe with those of its vocabularies that a run's folder has."""
    copies = {
        name: _copy_of(feature, name=name, run=run)
        for name, feature in _with_vocabularies(recipe).items()
    }
    features = recipe.data.features
    return _with_features(
        recipe,
        {
            name: features[name].model_copy(update={"vocabulary": copy.uri})
            for name, copy in copies.items()
            if copy.exists()
        },
    )


def begun_with(recipe: Recipe) -> Recipe:
    """A recipe that its data set cannot fit, with the vocabularies that its run has begun with; as
    it is where there are none.
    """
    run = None if recipe.run.uri is None else locate(recipe.run.uri)
    if run is None or not run.child("recipe.yaml").exists():
        return recipe
    stored = with_kept_vocabularies(load_recipe(run.child("recipe.yaml").uri), run=run)
    known = _with_vocabularies(stored)
    return _with_features(
        recipe,
        {
            name: feature.model_copy(
                update={
                    "vocabulary": known[name].vocabulary,
                    "vocabulary_digest": known[name].vocabulary_digest,
                }
            )
            for name, feature in recipe.data.features.items()
            if isinstance(feature, IdFeature | IdListFeature)
            and feature.encoding == "vocabulary"
            and feature.vocabulary_digest is None
            and name in known
        },
    )


def _with_vocabularies(recipe: Recipe) -> dict[str, IdFeature | IdListFeature]:
    """The features whose vocabulary is known."""
    return {
        name: feature
        for name, feature in recipe.data.features.items()
        if isinstance(feature, IdFeature | IdListFeature) and feature.vocabulary_digest is not None
    }


def _with_features(recipe: Recipe, changed: Mapping[str, AnyFeature]) -> Recipe:
    features = {**recipe.data.features, **changed}
    data = recipe.data.model_copy(update={"features": features})
    return recipe.model_copy(update={"data": data}) if changed else recipe


def _copy_of(feature: IdFeature | IdListFeature, *, name: str, run: Location) -> Location:
    # the digest in its name: another vocabulary, of an attempt that was refused, replaces nothing
    table = feature.table or name
    return run.child(f"vocabularies/{table}-{feature.vocabulary_digest}.parquet")
