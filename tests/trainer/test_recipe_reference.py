"""docs/recipe.md knows every key."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import get_args

import pytest
from pydantic import BaseModel

from data_loaders.config import (
    BinaryTask,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
    MulticlassTask,
    RankingTask,
    RegressionTask,
)
from embeddings.config import TableConfig
from trainer.config import Recipe
from trainer.history_config import AnyHistory
from trainer.recipe_errors import CHOICES, choices

REFERENCE = Path(__file__).parents[2] / "docs" / "recipe.md"
NAMED = {
    "data.features.NAME.": (IdFeature, IdListFeature, DenseFeature, DenseVectorFeature),
    "data.tasks.NAME.": (BinaryTask, MulticlassTask, RegressionTask, RankingTask),
    "embeddings.tables.NAME.": (TableConfig,),
    "model.histories.LIST.": tuple(choices(AnyHistory).values()),
}


CHOSEN = {f"{section}.": tuple(choices(union).values()) for section, (_, union) in CHOICES.items()}


def keys(section: type[BaseModel], prefix: str) -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, UnionType):  # of an optional section and None
            kind = get_args(kind)[0]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += keys(kind, f"{prefix}{name}.")
        elif name not in ("kind", "features", "tasks", "tables", *CHOICES):
            found.append(prefix + name)
    return found


@pytest.mark.parametrize(
    "key",
    sorted(
        {
            *keys(Recipe, ""),
            *(
                key
                for prefix, kinds in (NAMED | CHOSEN).items()
                for kind in kinds
                for key in keys(kind, prefix)
            ),
        }
    ),
)
def test_every_key_of_a_recipe_is_in_the_reference(key: str) -> None:
    """A key that nobody can look up might as well not be there."""
    assert f"| `{key}` |" in REFERENCE.read_text()
