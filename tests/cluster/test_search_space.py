"""Search spaces: what is drawn, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cluster.search_space import SearchSpace, overrides_of, read_space
from cluster.trials import Score, SearchFolder, ranked
from data_loaders.errors import InputError
from data_loaders.storage import locate
from tests.helpers.logs import toy_recipe
from trainer.recipe_file import build_recipe

KEYS: dict[str, Any] = {
    "optimizer.dense.learning_rate": {"loguniform": [1e-4, 1e-2]},
    "model.dropout": {"uniform": [0, 0.5]},
    "model.num_experts": {"int": [2, 5]},
    "model.task_tower": {"choice": [[16], [32, 16], []]},
}
NUM_DRAWN = 2000


def test_values_are_drawn_as_their_kinds_say() -> None:
    """In range, ends of integers included, and evenly: in the logarithm where it says so."""
    drawn = [SearchSpace(KEYS, source="s").draw(seed=3, trial=i) for i in range(NUM_DRAWN)]
    rates, dropouts, experts, towers = zip(*(item.values() for item in drawn), strict=True)
    for values, low, high in ((np.log10(rates), -4, -2), (dropouts, 0, 0.5)):
        found = np.sort((np.asarray(values) - low) / (high - low))
        expected = (np.arange(NUM_DRAWN) + 0.5) / NUM_DRAWN
        # Kolmogorov and Smirnov: 1.63 / sqrt(n) is passed once in a hundred seeds
        assert np.abs(found - expected).max() < 1.63 / np.sqrt(NUM_DRAWN)
    for values, kinds in ((experts, [2, 3, 4, 5]), (towers, KEYS["model.task_tower"]["choice"])):
        counts = [sum(value == kind for value in values) for kind in kinds]
        assert sum(counts) == NUM_DRAWN
        assert min(counts) > 0.8 * NUM_DRAWN / len(kinds)


def test_what_is_drawn_depends_on_seed_trial_and_key_alone() -> None:
    """So an interrupted search goes on alike, and a new key leaves the others' values."""
    space, fewer = SearchSpace(KEYS, source="s"), dict(list(KEYS.items())[2:])
    for trial in range(5):
        drawn = space.draw(seed=1, trial=trial)
        assert drawn == SearchSpace(KEYS, source="s").draw(seed=1, trial=trial)
        part = SearchSpace(fewer, source="s").draw(seed=1, trial=trial)
        assert part == {key: drawn[key] for key in fewer}
    assert space.draw(seed=1, trial=0) != space.draw(seed=2, trial=0)
    assert space.draw(seed=1, trial=0) != space.draw(seed=1, trial=1)


def test_drawn_values_are_overrides_of_a_recipe() -> None:
    """Numbers, lists and words arrive as they were drawn."""
    tree = toy_recipe("log")
    values = SearchSpace(KEYS, source="s").draw(seed=0, trial=0)
    overrides = ["model.architecture=mmoe", *overrides_of(values), *overrides_of({"run.name": "x"})]
    recipe = build_recipe(tree, overrides=overrides, source="toy")
    assert recipe.optimizer.dense.learning_rate == values["optimizer.dense.learning_rate"]
    assert recipe.model.task_tower == values["model.task_tower"]
    assert recipe.run.name == "x"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a", "expected keys of a recipe"),
        ("a.b: 3", "a.b: expected one of choice, loguniform, uniform, int"),
        ("a.b: {normal: [0, 1]}", "a.b: expected one of"),
        ("a.b: {choice: []}", "a.b.choice: expected a list of values"),
        ("a.b: {uniform: [0]}", r"a.b.uniform: expected \[low, high\]"),
        ("a.b: {uniform: [1e-4, 1.0]}", r"write 1\.0e-4"),
        ("a.b: {int: [0.5, 2]}", "two integers"),
        ("a.b: {loguniform: [0, 1]}", "low <= high above 0"),
        ("a.b: {uniform: [2, 1]}", "low <= high, found"),
        ("a.b: {uniform: [2, 1", "not YAML"),
    ],
)
def test_what_is_no_search_space_is_refused_by_key(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """In one line."""
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        read_space(str(file))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_space_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By the option's name."""
    with pytest.raises(InputError, match=r"--space .*nowhere\.yaml: no such file"):
        read_space(str(tmp_path / "nowhere.yaml"))


def test_a_search_is_not_mixed_with_another(tmp_path: Path) -> None:
    """The folder knows what it was begun with; more trials are the same search."""
    folder = SearchFolder(locate(str(tmp_path)))
    search = {"recipe": "toy", "space": yaml.safe_load("a: {uniform: [0, 1]}"), "seed": 0}
    folder.begin(search)
    folder.begin(search)
    with pytest.raises(InputError, match="another search lies there: its seed is 0, not 1"):
        folder.begin(search | {"seed": 1})


def test_trials_are_ranked_by_their_best_score(tmp_path: Path) -> None:
    """Those without one come last."""
    folder = SearchFolder(locate(str(tmp_path)))
    folder.write_scores(0, [Score(5, 50.0, 0.6), Score(10, 100.0, 0.5)])
    folder.write_scores(2, [Score(5, 50.0, 0.7)])
    folder.end(0, values={"a": 1}, state="complete")
    folder.end(1, values={"a": 2}, state="diverged", why="inf")
    folder.end(2, values={"a": 3}, state="stopped")
    trials = [trial for index in range(4) if (trial := folder.ended(index)) is not None]
    assert [(item.index, item.score, item.step) for item in ranked(trials)] == [
        (2, 0.7, 5),
        (0, 0.6, 10),
        (1, None, 0),
    ]
