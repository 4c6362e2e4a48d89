"""What a recipe's section `balance` may say about tasks and model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.logs import toy_recipe
from trainer.recipe_file import RecipeError, build_recipe

AMOUNT = "data.tasks.watch={kind: regression, loss: ziln}"


def build(balance: dict[str, Any], *overrides: str) -> Any:
    return build_recipe(toy_recipe("log", balance=balance), overrides=overrides, source="toy")


@pytest.mark.parametrize("word", ["uncertainty", "dwa", "famo", "gradnorm", "imtl"])
def test_methods_that_need_positive_losses_refuse_densities(word: str) -> None:
    """The line names both keys, and what to use instead."""
    build({"method": word})
    with pytest.raises(RecipeError) as caught:
        build({"method": word}, AMOUNT)
    message = str(caught.value)
    assert f"balance.method: {word} needs losses that are never negative" in message
    assert "found data.tasks.watch.loss: ziln" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "balance",
    [{"method": "static"}, {"method": "pcgrad"}, {"method": "imtl", "scale_losses": False}],
)
def test_methods_that_look_at_gradients_alone_take_densities(balance: dict[str, Any]) -> None:
    """So does `imtl` without its scales."""
    build(balance, AMOUNT)


@pytest.mark.parametrize("word", ["pcgrad", "imtl", "gradnorm"])
def test_methods_that_weigh_gradients_want_something_shared(word: str) -> None:
    """Where tasks share nothing, the line says which method does."""
    with pytest.raises(RecipeError) as caught:
        build({"method": word}, "model.architecture=single_task")
    message = str(caught.value)
    assert f"balance.method: {word} weighs the tasks' gradients" in message
    assert "\n" not in message
    build({"method": "static"}, "model.architecture=single_task")
