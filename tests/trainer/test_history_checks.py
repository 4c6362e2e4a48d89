"""What a recipe's `model.histories` may say, and how it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.logs import toy_recipe
from trainer.config import Recipe
from trainer.recipe_file import RecipeError, build_recipe, dump_recipe

ATTENTION = {"encoder": "target_attention", "target": "item"}
TRANSFORMER = {"encoder": "transformer"}


def build(histories: Any, *overrides: str, **model: Any) -> Recipe:
    tree = toy_recipe("log", model={"histories": histories, **model})
    return build_recipe(tree, overrides=overrides, source="toy")


def refusal(histories: Any, *overrides: str, **model: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        build(histories, *overrides, **model)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("toy: ").removeprefix("command line: ")


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ("history", ": expected a section with keys, found 'history'"),
        ({"history": "transformer"}, ".history: expected a section with keys, found 'transformer'"),
        (
            {"history": {}},
            ".history.encoder: is missing; expected target_attention or transformer",
        ),
        (
            {"history": {"encoder": "transformr"}},
            ".history.encoder: expected target_attention or transformer, found 'transformr'; "
            "did you mean transformer?",
        ),
        (
            {"history": TRANSFORMER | {"target": "item"}},
            ".history.target: unknown key; there are: encoder, num_layers, num_heads, dropout",
        ),
        (
            {"history": TRANSFORMER | {"num_head": 2}},
            ".history.num_head: unknown key; did you mean num_heads?",
        ),
        (
            {"history": TRANSFORMER | {"num_layers": "two"}},
            ".history.num_layers: expected an integer, found 'two'",
        ),
        ({"history": {"encoder": "target_attention"}}, ".history.target: is missing"),
        (
            {"history": ATTENTION | {"hidden": []}},
            ".history.hidden: is empty; expected at least one",
        ),
        ({"histry": ATTENTION}, ": no feature histry; did you mean history?"),
        (
            {"user": TRANSFORMER},
            ".user: expected a feature of kind id_list, found id; there are: history, tags",
        ),
        (
            {"price": TRANSFORMER},
            ".price: expected a feature of kind id_list, found dense; there are: history, tags",
        ),
        (
            {"history": ATTENTION | {"target": "tags"}},
            ".history.target: expected a feature of kind id, found tags; "
            "there are: user, item, country",
        ),
        (
            {"history": ATTENTION | {"target": "itm"}},
            ".history.target: expected a feature of kind id, found itm; did you mean item?",
        ),
        (
            {"history": ATTENTION | {"target": "user"}},
            ".history.target: expected vectors as wide as those of history, 4, found 8 for user; "
            "give their tables one dim",
        ),
        (
            {"history": TRANSFORMER | {"num_heads": 3}},
            ".history.num_heads: expected a divisor of 4, the dim of table item, found 3",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_one_line(histories: Any, message: str) -> None:
    """By its key, whatever the architecture."""
    assert refusal(histories) == f"model.histories{message}"
    assert refusal(histories, architecture="mmoe") == f"model.histories{message}"


@pytest.mark.parametrize("key", ["weights=ages", "weights_sum_to_one=true"])
def test_a_list_with_weights_is_pooled(key: str) -> None:
    """Encoders weigh ids themselves; another list may have weights."""
    sums = "embeddings.tables.tags.pooling=sum"
    message = refusal({"history": ATTENTION}, f"data.features.history.{key}", sums)
    assert message == (
        "model.histories.history: expected a list without weights, because encoders weigh ids "
        f"themselves, found data.features.history.{key.partition('=')[0]}; remove one of them"
    )
    assert build({"history": ATTENTION}, f"data.features.tags.{key}", sums)


def test_a_table_that_is_looked_up_id_by_id_is_not_copied_to_every_rank() -> None:
    """TorchRec cannot; other tables may be."""
    sharding = "embeddings.tables.{}.sharding=data_parallel"
    assert refusal({"history": ATTENTION}, sharding.format("item")) == (
        "embeddings.tables.item.sharding: data_parallel is not possible for the lists of "
        "model.histories; use auto"
    )
    assert build({"history": ATTENTION}, sharding.format("user"))


def test_a_mean_of_nothing_is_refused() -> None:
    """Where a list of the table is not encoded, it says something."""
    tags = {"tags": TRANSFORMER}
    assert refusal(tags) == (
        "embeddings.tables.tags.pooling: mean has nothing to pool, because all lists of this table "
        "are in model.histories; use sum, the default"
    )
    assert build(tags, "embeddings.tables.tags.pooling=sum")
    assert build(tags, "data.features.again={kind: id_list, column: tags, table: tags}")


def test_a_resolved_recipe_is_a_recipe() -> None:
    """With every default written out; the tables of encoded lists are set apart."""
    import yaml

    histories = {"history": ATTENTION, "tags": TRANSFORMER}
    recipe = build(histories, "embeddings.tables.tags.pooling=sum")
    again = build_recipe(yaml.safe_load(dump_recipe(recipe)), overrides=[], source="again")
    assert again == recipe
    assert list(recipe.unpooled_tables()) == ["item", "tags"]
    assert not build({}).unpooled_tables()
    changed = build_recipe(
        yaml.safe_load(dump_recipe(recipe)), overrides=["model.architecture=mmoe"], source="again"
    )
    assert changed.model.histories == recipe.model.histories
