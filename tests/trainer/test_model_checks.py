"""What a recipe's section `model` may say about features, tables and tasks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.logs import toy_recipe
from trainer.recipe_file import RecipeError, build_recipe


def tree_of(model: dict[str, Any], *overrides: str) -> Any:
    """The toy recipe without `where: click` of purchases, which chains do not take."""
    overrides = ("data.tasks.purchase.where=null", *overrides)
    return build_recipe(toy_recipe("log", model=model), overrides=overrides, source="toy")


def refusal(model: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        tree_of(model, *overrides)
    return str(caught.value).removeprefix("toy: ").removeprefix("command line: ")


CHAINED = ["aitm", "esmm", "escm2"]


@pytest.mark.parametrize("word", CHAINED)
@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"purchase": "clik"}, "model.after: no task clik; did you mean click?"),
        ({"purchas": "click"}, "model.after: no task purchas; did you mean purchase?"),
        (
            {"purchase": "click", "click": "purchase"},
            "model.after: a task cannot depend on itself: purchase -> click -> purchase",
        ),
        ({"click": "click"}, "model.after: a task cannot depend on itself: click -> click"),
        (
            {"watch": "click"},
            "model.after: expected tasks of kind binary, found watch: regression",
        ),
        ({}, "model.after: is empty; expected at least one"),
    ],
)
def test_a_chain_is_of_known_binary_tasks_without_cycle(
    word: str, after: dict[str, str], message: str
) -> None:
    """Found before anything starts."""
    assert refusal({"architecture": word, "after": after}) == message
    assert tree_of({"architecture": word, "after": {"purchase": "click"}})


@pytest.mark.parametrize("word", CHAINED)
def test_a_task_of_a_chain_is_not_observed_only_behind_the_one_before(word: str) -> None:
    """Its labels are those of all examples; another condition may stand, and another column."""
    model = {"architecture": word, "after": {"purchase": "click"}}
    message = refusal(model, "data.tasks.purchase.where=click")
    assert message.startswith("data.tasks.purchase.where: expected none, because model.after says")
    assert "0 where there was no click" in message
    renamed = ["data.tasks.purchase.where=clicks", "data.tasks.click.column=clicks"]
    assert "found clicks" in refusal(model, *renamed)
    assert tree_of(model, "data.tasks.purchase.where=is_old_enough")


def test_a_later_task_of_a_chain_is_not_observed_only_behind_an_earlier_one() -> None:
    """However far that one is."""
    tree = toy_recipe("log", model={"architecture": "esmm"})
    tree["data"]["tasks"]["cart"] = {"kind": "binary"}
    tree["model"]["after"] = {"cart": "click", "purchase": "cart"}
    with pytest.raises(RecipeError, match=r"data.tasks.purchase.where: expected none"):
        build_recipe(tree, overrides=[], source="toy")


@pytest.mark.parametrize(
    ("depends_on", "message"),
    [
        ({"purchase": ["clik"]}, "model.depends_on: no task clik; did you mean click?"),
        (
            {"purchase": ["click"], "click": ["watch"], "watch": ["purchase"]},
            "model.depends_on: a task cannot depend on itself: "
            "purchase -> click -> watch -> purchase",
        ),
        (
            {"purchase": ["click", "click"]},
            "model.depends_on.purchase: a task stands twice",
        ),
    ],
)
def test_dependencies_are_of_known_tasks_without_cycle(
    depends_on: dict[str, list[str]], message: str
) -> None:
    """Tasks may be of any kind, and observed anywhere."""
    assert refusal({"architecture": "dbmtl", "depends_on": depends_on}) == message
    everything = {"watch": ["purchase", "click"], "purchase": ["click"]}
    assert tree_of({"architecture": "dbmtl", "depends_on": everything})


@pytest.mark.parametrize("word", ["pepnet", "poso"])
def test_gates_read_features_of_the_recipe(word: str) -> None:
    """Of any kind, each once."""
    model = {"architecture": word, "gate_features": ["user", "pric"]}
    assert refusal(model) == "model.gate_features: no feature pric; did you mean price?"
    model["gate_features"] = ["user", "price", "user"]
    assert refusal(model) == "model.gate_features: user stands twice"
    assert refusal({"architecture": word}) == "model.gate_features: is missing"
    assert tree_of({"architecture": word, "gate_features": ["user", "tags", "price"]})


@pytest.mark.parametrize("word", ["dot", "fm"])
def test_vectors_that_are_multiplied_have_one_width(word: str) -> None:
    """The message names two features whose tables differ."""
    assert refusal({"interaction": word}) == (
        f"model.interaction: {word} needs tables of one dim, found 8 for user and 4 for item; "
        "give them one, or use concat or dcn"
    )
    same = [f"embeddings.tables.{name}.dim=8" for name in ("item", "country")]
    assert tree_of({"interaction": word}, *same)


def test_keys_of_cross_layers_are_refused_without_them() -> None:
    """They would say nothing."""
    for key, value in (("num_cross_layers", 3), ("cross_rank", 4)):
        message = f"model.{key}: needs interaction: dcn, found concat"
        assert refusal({key: value}) == message
        assert tree_of({key: value, "interaction": "dcn"})


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["click", "purchas"], "b": ["watch"]}, ": no task purchas; did you mean purchase?"),
        (
            {"a": ["click", "watch"], "b": ["watch"]},
            ": watch stands twice; expected it in one group",
        ),
        ({"a": ["click", "watch"]}, ": purchase is in no group; add it to one"),
        (
            {"a": ["click", "purchase", "watch"], "b": []},
            ".b: is empty; expected at least one task",
        ),
    ],
)
def test_groups_hold_each_task_once(groups: dict[str, list[str]], message: str) -> None:
    """And none is empty: its experts would learn from nobody."""
    assert refusal({"architecture": "home", "groups": groups}) == f"model.groups{message}"
    groups = {"a": ["click", "purchase"], "b": ["watch"]}
    assert tree_of({"architecture": "home", "groups": groups})
    assert tree_of({"architecture": "home"})
