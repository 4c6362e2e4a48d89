"""What the dense optimizer does to which parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embeddings.planner import is_table
from tests.helpers.logs import toy_recipe
from tests.helpers.ranks import run_ranks
from trainer.balance_config import BALANCE_STATE
from trainer.build import build_sharded_model
from trainer.config import Recipe
from trainer.optimizer import build_optimizer
from trainer.recipe_file import build_recipe
from trainer.runtime import joined_ranks

RATE, DECAY = 0.5, 0.25


def decayed(recipe: Recipe) -> dict[str, float]:
    """What a step without any gradient leaves of dense parameters that are all 3."""
    with joined_ranks() as runtime:
        model, _ = build_sharded_model(recipe, runtime=runtime)
        optimizer = build_optimizer(model, config=recipe.optimizer)
        dense = {name: item for name, item in model.named_parameters() if not is_table(name)}
        with torch.no_grad():
            for item in dense.values():
                item.fill_(3.0)
                item.grad = torch.zeros_like(item)
        optimizer.step()
        return {name: float(item.detach().mean()) for name, item in dense.items()}


@pytest.mark.parametrize("method", ["uncertainty", "imtl", "static"])
def test_weight_decay_leaves_what_a_method_learns_alone(method: str, tmp_path: Path) -> None:
    """It draws all other dense parameters towards 0."""
    tree = toy_recipe(
        tmp_path,
        balance={"method": method},
        optimizer={"dense": {"learning_rate": RATE, "weight_decay": DECAY}},
    )
    recipe = build_recipe(tree, overrides=[], source="toy")
    [found] = run_ranks(decayed, world_size=1, arguments={"recipe": recipe})
    is_of_method = {name: name.startswith(BALANCE_STATE) for name in found}
    assert sum(is_of_method.values()) == (method != "static")
    for name, value in found.items():
        expected = 3.0 if is_of_method[name] else 3.0 * (1 - RATE * DECAY)
        assert value == pytest.approx(expected), name
