"""Recipes: what is refused, with the key and the remedy in one line, and what overrides do."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_loaders.errors import InputError
from tests.helpers.logs import toy_recipe
from trainer.config import Recipe
from trainer.recipe_file import RecipeError, build_recipe, dump_recipe, load_recipe, shipped_recipes


def tree_with(path: str, value: Any) -> dict[str, Any]:
    """The toy recipe with one key set."""
    tree = copy.deepcopy(toy_recipe("log"))
    node = tree
    *sections, last = path.split(".")
    for section in sections:
        node = node.setdefault(section, {})
    node[last] = value
    return tree


def tree_without(path: str) -> dict[str, Any]:
    tree = copy.deepcopy(toy_recipe("log"))
    node = tree
    *sections, last = path.split(".")
    for section in sections:
        node = node[section]
    del node[last]
    return tree


def refusal(tree: Any, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        build_recipe(tree, overrides=overrides, source="recipe.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert isinstance(caught.value, InputError)
    return message


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("modle", "model"),
        ("run.num_step", "num_steps"),
        ("data.batchsize", "batch_size"),
        ("model.dropuot", "dropout"),
        ("optimizer.table", "tables"),
        ("optimizer.dense.learning_rat", "learning_rate"),
        ("checkpoint.intervall_steps", "interval_steps"),
        ("embeddings.table", "tables"),
        ("embeddings.tables.user.num_row", "num_rows"),
        ("data.features.user.encodin", "encoding"),
        ("data.features.history.max_len", "max_length"),
        ("data.features.age.meen", "mean"),
        ("data.tasks.purchase.were", "where"),
        ("data.tasks.watch.sdt", "std"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(key: str, nearest: str) -> None:
    """At every depth, in the file and in an override alike; the key is given in full."""
    expected = f"{key}: unknown key; did you mean {nearest}?"
    assert refusal(tree_with(key, 1)) == f"recipe.yaml: {expected}"
    if "." in key:
        assert expected in refusal(toy_recipe("log"), f"{key}=1")


def test_keys_of_negatives_are_checked_where_they_are_given() -> None:
    """The section is left out by default."""
    tree = toy_recipe("log", data={"negatives": {"catalogue": "x", "per_exampel": 2}})
    expected = "data.negatives.per_exampel: unknown key; did you mean per_example?"
    assert refusal(tree) == f"recipe.yaml: {expected}"
    tree = toy_recipe("log", data={"negatives": {"per_example": 2}})
    assert refusal(tree) == "recipe.yaml: data.negatives.catalogue: is missing"
    tree = toy_recipe("log", data={"negatives": {"catalogue": "x"}})
    assert "data.negatives.per_example: expected" in refusal(tree, "data.negatives.per_example=0")
    assert build_recipe(toy_recipe("log"), overrides=[], source="toy").data.negatives is None


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("zzz", "data, embeddings, model, balance, optimizer, checkpoint, prepare, init_from, run"),
        ("data.features.age.zzz", "kind, column, log, clip, mean, std, fill"),
        ("embeddings.tables.user.zzz", "num_rows, dim, pooling, sharding"),
    ],
)
def test_an_unknown_key_like_no_other_is_refused_with_all_names(key: str, known: str) -> None:
    """There is no nearest one to give."""
    assert refusal(tree_with(key, 1)) == f"recipe.yaml: {key}: unknown key; there are: {known}"


@pytest.mark.parametrize("name", ["id", "dense", "binary", "regression", "id_list"])
def test_a_feature_or_task_may_have_the_name_of_a_kind(name: str) -> None:
    """Its key is still given in full."""
    feature = tree_with(f"data.features.{name}", {"kind": "dense", "meen": 1})
    assert f"data.features.{name}.meen: unknown key; did you mean mean?" in refusal(feature)
    task = tree_with(f"data.tasks.{name}", {"kind": "binary", "wher": "x"})
    assert f"data.tasks.{name}.wher: unknown key; did you mean where?" in refusal(task)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.batch_size", 0),
        ("data.batch_size", "many"),
        ("data.features.user.kind", "idd"),
        ("data.features.user.encoding", "md5"),
        ("data.features.history.max_length", 0),
        ("data.features.age.std", 0),
        ("data.tasks.click.weight", -1),
        ("embeddings.tables.user.num_rows", 1),
        ("embeddings.tables.user.dim", 6),
        ("embeddings.tables.user.sharding", "diagonal"),
        ("model.dropout", 1.0),
        ("model.shared_tower", [16, "wide"]),
        ("model.shared_tower", [0]),
        ("optimizer.tables.learning_rate", 0),
        ("checkpoint.keep", 0),
        ("run.num_steps", -1),
        ("run.seed", "x"),
        ("run.seed", -1),
        ("run.seed", 2**64),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(key: str, value: Any) -> None:
    """Out of range, of another type, or not among the choices."""
    message = refusal(tree_with(key, value))
    assert message.startswith("recipe.yaml: ")
    assert key.removesuffix(".kind") in message


@pytest.mark.parametrize("key", ["data", "run", "data.features", "data.tasks"])
def test_a_missing_section_is_named(key: str) -> None:
    """Only what has no default is missed."""
    assert refusal(tree_without(key)).startswith(f"recipe.yaml: {key}: is missing")


def test_a_feature_without_a_table_is_refused_with_the_nearest() -> None:
    """By its own name, or by the name that the recipe gives."""
    assert "data.features.user: no table user in embeddings.tables" in refusal(
        tree_without("embeddings.tables.user")
    )
    message = refusal(tree_with("data.features.history.table", "itme"))
    assert (
        "data.features.history: no table itme in embeddings.tables; did you mean item?" in message
    )


def test_a_table_without_a_feature_is_refused() -> None:
    """It would take memory and learn nothing."""
    tree = tree_with("embeddings.tables.spare", {"num_rows": 10, "dim": 4})
    assert "embeddings.tables.spare: no feature uses this table" in refusal(tree)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"kind": "id", "dropout": 0.1}, "x.dropout: needs encoding: vocabulary, found hash"),
        (
            {"kind": "id_list", "min_count": 2},
            "x.min_count: needs encoding: vocabulary, found hash",
        ),
        (
            {"kind": "id", "encoding": "direct", "vocabulary": "v.parquet"},
            "x.vocabulary: needs encoding: vocabulary, found direct",
        ),
        (
            {"kind": "id", "encoding": "vocabulary", "vocabulary_digest": "0"},
            "x.vocabulary_digest: of which vocabulary?",
        ),
        ({"kind": "id", "boundaries": [1]}, "x.boundaries: needs encoding: quantiles, found hash"),
        (
            {"kind": "id", "encoding": "quantiles", "boundaries": [1, 3, 3]},
            "x.boundaries: expected rising numbers",
        ),
        (
            {"kind": "id", "encoding": "quantiles", "boundaries": list(range(99))},
            "x.boundaries: expected at most 98, because the table x has 100 rows, found 99",
        ),
        ({"kind": "id", "encoding": "quantiles", "fill": "a"}, "x.fill: expected a number"),
        ({"kind": "id", "encoding": "direct", "fill": 1.5}, "x.fill: expected an integer"),
        ({"kind": "id", "dropout": 1.0}, "x.dropout: expected a value less than 1, found 1.0"),
        ({"kind": "dense", "clip": [3, 3]}, "x.clip: expected [low, high] with low < high"),
        ({"kind": "dense", "clip": [3]}, "x.clip.1: is missing"),
        ({"kind": "dense", "log": True, "fill": -1}, "x.fill: -1 has no logarithm (log: true)"),
        ({"kind": "dense", "mean": "fitt"}, "(or the word fit), found 'fitt'"),
        ({"kind": "dense", "std": 0}, "x.std: expected a value greater than 0 (or the word fit)"),
        ({"kind": "dense_vector"}, "x.length: is missing"),
        ({"kind": "dense_vector", "lenght": 3}, "x.lenght: unknown key; did you mean length?"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(feature: dict[str, Any], message: str) -> None:
    """In one line, with the feature's key and what is expected."""
    tree = tree_with("data.features.x", feature)
    if feature["kind"].startswith("id"):
        tree["embeddings"]["tables"]["x"] = {"num_rows": 100, "dim": 4}
    if "lenght" in feature:
        feature["length"] = 3
    found = refusal(tree)
    assert found.startswith("recipe.yaml: data.features.x.")
    assert message in found


VOCABULARY = {"kind": "id", "encoding": "vocabulary", "table": "item"}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"item": VOCABULARY},
            "item.encoding: vocabulary, and data.features.history has hash in the same table item",
        ),
        (
            {
                "item": {**VOCABULARY, "vocabulary": "a.parquet"},
                "history": {**VOCABULARY, "vocabulary": "b.parquet"},
            },
            "item.vocabulary: a.parquet, and data.features.history has b.parquet in the same table",
        ),
    ],
)
def test_a_row_is_not_two_ids(features: dict[str, Any], message: str) -> None:
    """Features that share a table share its vocabulary, if one of them has one."""
    tree = toy_recipe("log")
    tree["data"]["features"] |= features
    assert f"recipe.yaml: data.features.{message}" in refusal(tree)
    tree["data"]["features"] |= {"item": VOCABULARY, "history": VOCABULARY}
    build_recipe(tree, overrides=[], source="recipe.yaml")


def test_a_vocabulary_needs_rows_beside_those_for_missing_and_rare_ids() -> None:
    """Two rows know no id."""
    tree = tree_with("data.features.country", {"kind": "id", "encoding": "vocabulary"})
    tree["embeddings"]["tables"]["country"]["num_rows"] = 2
    assert "embeddings.tables.country.num_rows: expected 3 or more" in refusal(tree)


@pytest.mark.parametrize("key", ["weights", "weights_sum_to_one"])
def test_weighted_lists_and_a_table_that_pools_by_mean_are_refused(key: str) -> None:
    """What TorchRec makes of the two depends on the sharding; the remedy does not."""
    history = {"kind": "id_list", "table": "item", key: "w" if key == "weights" else True}
    tree = tree_with("data.features.history", history)
    message = refusal(tree)
    assert message.startswith("recipe.yaml: embeddings.tables.tags.pooling: mean is not possible")
    assert message.endswith("use sum, and weights_sum_to_one: true for its id lists")
    tree["embeddings"]["tables"]["tags"]["pooling"] = "sum"
    assert build_recipe(tree, overrides=[], source="recipe.yaml").data.has_id_weights


def test_a_gate_selects_no_more_experts_than_there_are() -> None:
    """The rest of its selectors would be idle."""
    model = {"architecture": "dselect_k", "num_experts": 4, "num_selected": 5}
    assert refusal(toy_recipe("log", model=model)) == (
        "recipe.yaml: model.num_selected: expected at most num_experts, 4, found 5"
    )


def test_a_vector_counts_by_its_length() -> None:
    """Dense inputs of the model: age, price, and the vector's numbers."""
    tree = tree_with("data.features.look", {"kind": "dense_vector", "length": 5})
    assert build_recipe(tree, overrides=[], source="recipe.yaml").data.num_dense_inputs == 7


@pytest.mark.parametrize(
    ("text", "column"), [("a: [1, 2", 9), ("a: b: c", 5), ("\tx: 1", 1), ("{", 2)]
)
def test_a_file_that_is_not_yaml_is_named(tmp_path: Path, text: str, column: int) -> None:
    """In one line, with the place of the fault, and not with the text around it."""
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=rf"not YAML: line 1, column {column}: ") as caught:
        load_recipe(str(file))
    assert str(caught.value).startswith(str(file))
    assert "<unicode string>" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "42"])
def test_a_file_of_another_shape_is_named(tmp_path: Path, text: str) -> None:
    """YAML, and no recipe."""
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="expected sections"):
        load_recipe(str(file))


@pytest.mark.parametrize("key", ["run", "data", "embeddings", "data.features.user", "model"])
@pytest.mark.parametrize("value", [None, 3, "words", [1]])
def test_a_section_that_is_no_section_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    """From a file too, where `run` gets its name, and with an override below it."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree_with(key, value)))
    for overrides in ([], [f"{key}.x=1"], ["run.num_steps=3"]):
        with pytest.raises(RecipeError) as caught:
            load_recipe(str(file), overrides=overrides)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_with_the_shipped_recipes(tmp_path: Path) -> None:
    """And the nearest of them."""
    shipped = shipped_recipes()
    assert shipped
    expected = f"no recipe that ships with Polytower; did you mean {shipped[0]}?"
    with pytest.raises(RecipeError, match=re.escape(expected)):
        load_recipe(shipped[0] + "x")
    with pytest.raises(RecipeError, match="there are: " + ", ".join(shipped)):
        load_recipe("?")
    with pytest.raises(RecipeError, match="no such file"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """YAML would let the later one win, in silence: a copied feature replaces the first."""
    file = tmp_path / "twice.yaml"
    file.write_text("run: {num_steps: 1}\ndata: {}\nrun: {num_epochs: 2}\n")
    with pytest.raises(RecipeError, match=r"run stands twice: line 3"):
        load_recipe(str(file))


def test_a_recipe_needs_an_id(tmp_path: Path) -> None:
    """Without one there are no tables, and nothing to shard."""
    tree = toy_recipe(tmp_path)
    tree["data"]["features"] = {"age": {"kind": "dense"}}
    tree["embeddings"] = {}
    assert "expected at least one of kind id or id_list" in refusal(tree)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.features.age={column: age}"],
            "data.features.age: expected kind: id, id_list, dense or",
        ),
        (
            ["data.tasks.click={kind: rank}"],
            "data.tasks.click.kind: expected binary, multiclass, regression or ranking, "
            "found 'rank'; did you mean ranking?",
        ),
        (
            ["data.features.item={kind: vector}"],
            "data.features.item.kind: expected id, id_list, dense or dense_vector, "
            "found 'vector'; did you mean dense_vector?",
        ),
        (
            ["data.features.item.encoding=vocabluary"],
            "found 'vocabluary'; did you mean vocabulary?",
        ),
        (
            ["data.features.item.min_count=two"],
            "data.features.item.min_count: expected an integer, found 'two'",
        ),
        (["run.select=all"], "run.select: expected best or last, found 'all'"),
        (["data.features=3"], "data.features: expected a section with keys, found 3"),
        (["data.tasks={}"], "data.tasks: is empty; expected at least one"),
    ],
)
def test_a_section_of_the_wrong_form_is_refused_in_our_words(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    """Not in those of the validation library."""
    with pytest.raises(RecipeError, match=re.escape(message)):
        build_recipe(toy_recipe(tmp_path), overrides=overrides, source="recipe.yaml")


def test_every_shipped_recipe_is_valid() -> None:
    """And survives being written and read."""
    for name in shipped_recipes():
        recipe = load_recipe(name)
        assert recipe.run.name == name
        assert recipe.data.root is None  # where the log lies is not the recipe's to say


def build(*overrides: str, tree: dict[str, Any] | None = None) -> Recipe:
    return build_recipe(tree or toy_recipe("log"), overrides=overrides, source="recipe.yaml")


def test_overrides_set_values_of_every_type_and_the_last_one_wins() -> None:
    """Numbers, words, lists, null; sections that the file leaves out; values with `=` in them."""
    recipe = build(
        "data.batch_size=128",
        "data.batch_size=256",
        "data.root=s3://bucket/log?endpoint_override=here:9000",
        "model.shared_tower=[32, 16]",
        "optimizer.dense.learning_rate=1e-4",
        "checkpoint.interval_steps=7",
        "data.tasks.purchase.where=null",
        "data.features.country.encoding=hash",
    )
    assert recipe.data.batch_size == 256
    assert recipe.data.root == "s3://bucket/log?endpoint_override=here:9000"
    assert recipe.model.shared_tower == [32, 16]
    assert recipe.optimizer.dense.learning_rate == 1e-4
    assert recipe.checkpoint.interval_steps == 7
    assert recipe.data.tasks["purchase"].where is None


def test_an_override_of_the_length_replaces_the_recipes_length() -> None:
    """Steps instead of epochs, epochs instead of steps; both at once are refused."""
    steps, epochs = toy_recipe("log"), toy_recipe("log", run={"num_epochs": 2})
    for tree in (steps, epochs):
        run = build("run.num_steps=9", tree=tree).run
        assert (run.num_steps, run.num_epochs) == (9, None)
        run = build("run.num_epochs=4", tree=tree).run
        assert (run.num_steps, run.num_epochs) == (None, 4)
    assert "num_steps or num_epochs" in refusal(steps, "run.num_steps=9", "run.num_epochs=4")
    assert "num_steps or num_epochs" in refusal(tree_with("run.num_epochs", 3))
    assert "num_steps or num_epochs" in refusal(tree_without("run.num_steps"))


@pytest.mark.parametrize(
    "text", ["num_steps=3", "run.num_steps", "", "=", "run.=3", ".num_steps=3"]
)
def test_an_override_of_another_form_is_refused(text: str) -> None:
    """The message shows the form."""
    message = refusal(toy_recipe("log"), text)
    assert "section.key=value" in message or "unknown key" in message


def test_an_override_below_a_value_or_not_yaml_is_refused() -> None:
    """Each names the override."""
    assert "data.batch_size.x=1: batch_size is a value" in refusal(
        toy_recipe("log"), "data.batch_size.x=1"
    )
    assert "data.root=[: the value is not YAML" in refusal(toy_recipe("log"), "data.root=[")


def test_overrides_leave_the_tree_as_it_was() -> None:
    """The same tree serves several runs."""
    tree = toy_recipe("log")
    before = copy.deepcopy(tree)
    build("data.batch_size=128", "run.num_epochs=1", tree=tree)
    assert tree == before


def test_a_resolved_recipe_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Every default written out, so that a later version's defaults do not change it."""
    file = tmp_path / "recipe.yaml"
    for recipe in (build(), build("run.num_epochs=3"), load_recipe(shipped_recipes()[0])):
        file.write_text(dump_recipe(recipe))
        assert load_recipe(str(file)) == recipe
        tree = yaml.safe_load(file.read_text())
        assert build_recipe(tree, overrides=(), source="x") == recipe
    assert "weight_decay: 0.0" in file.read_text()


def test_a_recipe_takes_its_name_from_its_file(tmp_path: Path) -> None:
    """Unless it says one."""
    tree = toy_recipe("log")
    named, unnamed = tmp_path / "a.yaml", tmp_path / "my-shop.yaml"
    named.write_text(yaml.safe_dump(tree))
    del tree["run"]["name"]
    unnamed.write_text(yaml.safe_dump(tree))
    assert load_recipe(str(named)).run.name == "toy"
    assert load_recipe(str(unnamed)).run.name == "my-shop"


def test_features_find_their_tables() -> None:
    """By the name that they give, or else their own."""
    recipe = build()
    assert recipe.table_of_feature() == {
        "user": "user",
        "item": "item",
        "country": "country",
        "history": "item",
        "tags": "tags",
    }
    assert recipe.num_rows_of_feature()["history"] == 101
    assert recipe.data.num_dense_inputs == 2


RANKING = {"kind": "ranking"}
NEGATIVES = {"catalogue": "items.parquet"}


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        (
            RANKING | {"group": "usr"},
            {},
            "data.tasks.it.group: expected a feature of kind id, not of quantiles, found usr; did "
            "you mean user?",
        ),
        (RANKING | {"group": "tags"}, {}, "data.tasks.it.group: expected a feature of kind id"),
        (
            RANKING | {"loss": "sampled_softmax"},
            {},
            "data.tasks.it.loss: sampled_softmax needs drawn items; add data.negatives",
        ),
        (
            RANKING | {"loss": "sampled_softmax"},
            {"negatives": NEGATIVES | {"sampling": "popularity"}},
            "(sampling: popularity), and needs data.negatives.item, the id feature that tells them",
        ),
        (
            RANKING,
            {"negatives": NEGATIVES | {"item": "price"}},
            "data.negatives.item: expected a feature of kind id, not of quantiles, found price",
        ),
        (
            RANKING | {"loss": "sampled_softmax", "group": "user"},
            {"negatives": NEGATIVES},
            "data.tasks.it.group: needs loss: pairwise, found sampled_softmax",
        ),
        (RANKING | {"loss": "pairwize"}, {}, "data.tasks.it.loss: expected pairwise or sampled_"),
        ({"kind": "multiclass"}, {}, "data.tasks.it.num_classes: is missing"),
        ({"kind": "multiclass", "num_classes": 1}, {}, "data.tasks.it.num_classes: expected"),
        ({"kind": "multiclass", "num_classes": 2**25}, {}, "data.tasks.it.num_classes: expected"),
        ({"kind": "binary", "label_smoothing": 1}, {}, "data.tasks.it.label_smoothing: expected"),
        ({"kind": "binary", "positive_weight": 0}, {}, "data.tasks.it.positive_weight: expected"),
        ({"kind": "binary", "focal_gamma": -1}, {}, "data.tasks.it.focal_gamma: expected"),
        (
            {"kind": "regression", "huber_delta": 2.0},
            {},
            "data.tasks.it.huber_delta: needs loss: huber, found squared",
        ),
        (
            {"kind": "regression", "loss": "ziln", "log": True},
            {},
            "data.tasks.it.log: is part of loss: ziln already; leave it out",
        ),
        (
            {"kind": "regression", "loss": "lognormal", "mean": "fit"},
            {},
            "data.tasks.it.mean: expected 0 with loss: lognormal",
        ),
    ],
)
def test_a_task_that_cannot_be_is_refused_with_its_key(
    task: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    """In one line, before anything starts."""
    tree = toy_recipe("log", data=data)
    tree["data"]["tasks"] = {"it": task}
    assert message in refusal(tree)
