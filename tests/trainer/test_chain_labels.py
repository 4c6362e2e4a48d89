"""Labels of tasks that follow one another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from data_loaders.errors import SchemaError
from tests.helpers.logs import toy_recipe
from tests.helpers.tasks import step_output
from trainer.chain_labels import ENOUGH, ChainLabels
from trainer.recipe_file import build_recipe

CHAIN = {"architecture": "esmm", "after": {"purchase": "click"}}


def checked(model: dict[str, Any], *steps: torch.Tensor, weights_B: Any = None) -> None:
    overrides = ["data.tasks.purchase.where=null"]
    recipe = build_recipe(toy_recipe("log", model=model), overrides=overrides, source="toy")
    assert list(recipe.data.tasks)[:2] == ["click", "purchase"]
    labels = ChainLabels(recipe, device=torch.device("cpu"))
    for labels_BT in steps:
        outputs_BK = torch.zeros(len(labels_BT), 3)
        labels.update(step_output(outputs_BK, labels_BT, weights_B))
        labels.check()


def labels_of(num: int, *, without_click: float) -> torch.Tensor:
    """Half the examples with a click, and a purchase; the others with this label of purchase."""
    click_B = torch.arange(num) % 2 == 0
    purchase_B = torch.where(click_B, 1.0, without_click)
    return torch.stack([click_B.float(), purchase_B, torch.zeros(num)], dim=1)


@pytest.mark.parametrize("word", ["aitm", "esmm", "escm2"])
def test_labels_that_are_null_without_the_step_before_are_refused(word: str) -> None:
    """As soon as there are enough examples, in one line that says what to do."""
    model = CHAIN | {"architecture": word}
    few = labels_of(ENOUGH, without_click=math.nan)
    checked(model, few)
    with pytest.raises(SchemaError) as caught:
        checked(model, few, few)
    message = str(caught.value)
    assert "data.tasks.purchase: expected 0 where click is 0" in message
    assert f"found null in all {ENOUGH} such examples; fill the column with 0" in message
    assert "\n" not in message


def test_labels_of_all_examples_are_taken() -> None:
    """Some may be unknown; one that is known tells that the column has them."""
    known, unknown = (labels_of(2 * ENOUGH, without_click=y) for y in (0.0, math.nan))
    checked(CHAIN, known)
    checked(CHAIN, known[:2], unknown)


def test_padding_and_other_architectures_are_left_alone() -> None:
    """Padding has no labels; where no task follows another, null means not observed."""
    unknown = labels_of(2 * ENOUGH, without_click=math.nan)
    checked(CHAIN, unknown, weights_B=torch.zeros(2 * ENOUGH))
    checked({"architecture": "shared_bottom"}, unknown)
