"""What ties the tasks' towers to each other."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from data_loaders.errors import InputError
from tests.helpers.logs import toy_recipe
from tests.trainer.architectures.test_every_architecture import TASKS
from tests.trainer.architectures.test_every_architecture import make as make_architecture
from trainer.architectures import ARCHITECTURES
from trainer.balance_config import RelationConfig
from trainer.balancing.relation import TaskRelation, covariance
from trainer.build import build_model
from trainer.config import Recipe
from trainer.recipe_file import RecipeError, build_recipe

STRENGTH = 0.7


def make_towers(num_tasks: int, *, outputs: tuple[int, ...] | None = None) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, size))
        for size in outputs or (1,) * num_tasks
    ).double()


def make_relation(towers: nn.ModuleList, *, kind: str) -> TaskRelation:
    config = RelationConfig.model_validate({"kind": kind, "strength": STRENGTH})
    return TaskRelation(config, towers=list(towers), architecture="toy").train()


def test_l2_is_the_distance_from_the_mean_tower() -> None:
    """Of every weight and bias, one by one."""
    towers = make_towers(3)
    expected = 0.0
    for items in zip(*(tower.parameters() for tower in towers), strict=True):
        rows = torch.stack([item.flatten() for item in items]).T.tolist()
        expected += sum((value - sum(row) / 3) ** 2 for row in rows for value in row)
    found = make_relation(towers, kind="l2")(list(towers))
    torch.testing.assert_close(found.item(), STRENGTH / 2 * expected)


def test_l2_ties_hidden_layers_where_outputs_differ() -> None:
    """A task with more outputs than another has a last layer of its own."""
    towers = make_towers(2, outputs=(1, 3))
    make_relation(towers, kind="l2")(list(towers)).backward()
    for tower in towers:
        assert all(item.grad is not None and item.grad.any() for item in tower[0].parameters())
        assert all(item.grad is None for item in tower[2].parameters())


def weights_of(towers: nn.ModuleList) -> Tensor:
    return torch.stack([tower[2].weight.detach().flatten() for tower in towers], dim=1)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_the_covariance_is_the_best_of_its_trace(seed: int, num_tasks: int) -> None:
    """tr(W C^-1 W') is the squared sum of W's singular values, and no other C has less."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: int) -> Tensor:
        return torch.randn(rows, num_tasks, generator=generator, dtype=torch.float64)

    weights_DT, root = drawn(7), drawn(num_tasks + 1)
    found_TT = covariance(weights_DT)
    torch.testing.assert_close(found_TT.trace().item(), 1.0)

    def penalty(candidate_TT: Tensor) -> float:
        return float((weights_DT @ torch.linalg.inv(candidate_TT) @ weights_DT.T).trace())

    singular = torch.linalg.svdvals(weights_DT).sum().item()
    torch.testing.assert_close(penalty(found_TT), singular**2, rtol=1e-6, atol=1e-6)
    other_TT = root.T @ root
    assert penalty(other_TT / other_TT.trace()) >= penalty(found_TT) * (1 - 1e-9)


def test_the_relationship_penalty_is_of_the_last_layers_weights() -> None:
    """With the covariance taken for a constant; other layers have no part in it."""
    towers = make_towers(3)
    relation = make_relation(towers, kind="relationship")
    weights_DT = weights_of(towers)
    inverse_TT = torch.linalg.inv(covariance(weights_DT))
    penalty = relation(list(towers))
    expected = STRENGTH / 2 * (weights_DT @ inverse_TT @ weights_DT.T).trace()
    torch.testing.assert_close(penalty.detach(), expected)
    penalty.backward()
    slopes_DT = torch.stack([tower[2].weight.grad.flatten() for tower in towers], dim=1)
    torch.testing.assert_close(slopes_DT, STRENGTH * weights_DT @ inverse_TT)
    assert all(tower[0].weight.grad is None for tower in towers)


def test_equal_and_opposed_tasks_are_seen_as_such() -> None:
    """Two towers alike and one their opposite, with no way to invert their covariance."""
    towers = make_towers(3)
    with torch.no_grad():
        towers[1][2].weight.copy_(towers[0][2].weight)
        towers[2][2].weight.copy_(-towers[0][2].weight)
    relation = make_relation(towers, kind="relationship")
    assert torch.isfinite(relation(list(towers)))
    signs = torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    torch.testing.assert_close(relation.covariance_TT, signs.double() / 3, atol=1e-3, rtol=0)


def test_the_covariance_changes_only_in_training() -> None:
    """And it is saved with the model."""
    towers = make_towers(3)
    relation = make_relation(towers, kind="relationship").eval()
    before = relation.covariance_TT.clone()
    relation(list(towers))
    assert torch.equal(relation.covariance_TT, before)
    assert "covariance_TT" in relation.state_dict()


@pytest.mark.parametrize(
    ("towers", "kind", "message"),
    [
        ([], "l2", "balance.relation: expected two towers or more"),
        (list(make_towers(1)), "l2", "balance.relation: expected two towers or more"),
        (list(make_towers(2, outputs=(1, 2))), "relationship", "needs a last layer of the same"),
        ([nn.Identity(), nn.Identity()], "l2", "needs a layer of the same shape"),
        ([nn.Identity(), nn.Identity()], "relationship", "needs a last layer of the same shape"),
    ],
)
def test_where_nothing_can_be_tied_it_is_refused(
    towers: list[nn.Module], kind: str, message: str
) -> None:
    """In one line that names key, architecture and remedy."""
    config = RelationConfig.model_validate({"kind": kind, "strength": 1})
    with pytest.raises(InputError, match=message) as caught:
        TaskRelation(config, towers=towers, architecture="toy")
    assert "model.architecture: toy" in str(caught.value)
    assert "remove" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["l2", "relationship"])
@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_every_architecture_has_towers_to_tie_or_is_refused(word: str, kind: str) -> None:
    """One of each task, and parameters of all of them are drawn to each other."""
    architecture, _ = make_architecture(word)
    towers = architecture.task_towers()
    config = RelationConfig.model_validate({"kind": kind, "strength": 1})
    try:
        relation = TaskRelation(config, towers=towers, architecture=word)
    except InputError:  # another test reads the message
        assert kind == "relationship"  # its last layers differ: a task has two outputs
        return
    assert len(towers) == len(TASKS)
    relation(towers).backward()
    for tower in towers:
        assert any(item.grad is not None and item.grad.any() for item in tower.parameters())


def recipe_with(**relation: object) -> Recipe:
    return build_recipe(
        toy_recipe("log"),
        overrides=[f"balance.relation.{key}={value}" for key, value in relation.items()],
        source="toy",
    )


def test_a_recipe_of_one_task_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """By the model's construction, which a dry run does too."""
    tree = toy_recipe(tmp_path, balance={"relation": {"strength": 1}})
    tree["data"]["tasks"] = {"click": {"kind": "binary"}}
    with pytest.raises(InputError, match=r"found 1 in model\.architecture: shared_bottom"):
        build_model(build_recipe(tree, overrides=[], source="toy"))


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        ({"kind": "l2"}, "balance.relation.strength: is missing"),
        ({"strength": -1}, "balance.relation.strength: "),
        ({"strength": 1, "kind": "l1"}, "balance.relation.kind: expected l2 or relationship"),
        ({"strength": 1, "knid": "l2"}, "balance.relation.knid: unknown key; did you mean kind"),
    ],
)
def test_a_wrong_section_is_told_by_key(relation: dict[str, object], message: str) -> None:
    """Below a section whose class a word chooses."""
    with pytest.raises(RecipeError, match=message):
        recipe_with(**relation)
