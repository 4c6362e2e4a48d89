"""A recipe with what it leaves to its data set."""

from __future__ import annotations

from data_loaders.errors import InputError
from trainer.config import Recipe
from trainer.vocabularies import begun_with


def fitted_recipe(recipe: Recipe) -> Recipe:
    """The recipe with what it leaves to the training split filled in; at no cost where nothing is
    left.

    A run that has begun has vocabularies of its own, should the data set have lost them.

    Raises:
        InputError: the data set does not know it.
    """
    from data_loaders.fitting import fitted  # brings pandas, which takes a third of a second

    num_rows = recipe.num_rows_of_feature()
    try:
        data = fitted(recipe.data, num_rows=num_rows)
    except InputError:
        data = begun_with(recipe).data
        if data is recipe.data:
            raise
        data = fitted(data, num_rows=num_rows)
    return recipe.model_copy(update={"data": data})
