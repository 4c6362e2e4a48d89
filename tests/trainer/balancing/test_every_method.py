"""What holds for every method of balancing, whatever it balances by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.nn import functional
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.loader import InteractionLoader
from data_loaders.streams import Cursor
from embeddings.planner import is_table
from embeddings.tables import build_tables
from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.trainer.balancing.methods import BY_GRADIENTS, drawn, factors_of, make
from trainer.balance_config import AnyBalance
from trainer.balancing import BALANCERS
from trainer.balancing.fan_out import FanOut
from trainer.build import build_model, build_sharded_model
from trainer.config import Recipe
from trainer.loop import train
from trainer.model import Towers
from trainer.optimizer import build_optimizer
from trainer.recipe_errors import choices
from trainer.recipe_file import build_recipe
from trainer.runtime import joined_ranks

WORDS = sorted(BALANCERS)

# short windows and large steps, so that state matters within a few steps
OPTIONS: dict[str, dict[str, Any]] = {
    "dwa": {"window_steps": 1},
    "famo": {"learning_rate": 0.5},
    "gradnorm": {"learning_rate": 0.3},
    "gradvac": {"momentum": 0.5},
}
# methods, and what ties the towers, by name
RUNS: dict[str, dict[str, Any]] = {
    **{word: {"method": word, **OPTIONS.get(word, {})} for word in WORDS},
    "l2": {"relation": {"kind": "l2", "strength": 0.1}},
    "relationship": {"relation": {"kind": "relationship", "strength": 0.1}},
}


def recipe_of(log: str, name: str, *overrides: str) -> Recipe:
    tree = toy_recipe(log, balance=RUNS[name], data={"batch_size": 64})
    return build_recipe(tree, overrides=overrides, source="toy")


def test_every_word_of_a_recipe_has_its_method() -> None:
    """And none is out of reach."""
    assert sorted(choices(AnyBalance)) == WORDS


def hard_gradients() -> Iterator[tuple[str, Tensor]]:
    plain_TD = drawn(3)
    yield "one task", plain_TD[:1]
    yield "in general position", plain_TD
    yield "no labels for one", plain_TD * torch.tensor([[1.0], [0.0], [1.0]])
    yield "no labels at all", plain_TD * 0
    yield "identical", plain_TD[:1].expand(3, -1)
    yield "opposed", torch.stack([plain_TD[0], -plain_TD[0]])
    yield "opposed and unequal", torch.stack([plain_TD[0], -1e-6 * plain_TD[0]])
    yield "dependent", torch.stack([*plain_TD[:2], plain_TD[0] + plain_TD[1]])
    yield "a balance of three", torch.stack([*plain_TD[:2], -plain_TD[0] - plain_TD[1]])
    yield "tiny and huge", plain_TD * torch.tensor([[1e-12], [1.0], [1e12]])
    # what rounding makes of dependent ones
    yield "nearly dependent", torch.stack([*plain_TD[:2], plain_TD[0] + 1e-9 * plain_TD[2]])


@pytest.mark.parametrize("word", WORDS)
def test_no_gradients_break_it(word: str) -> None:
    """Loss and factors stay finite over several steps, and so does the direction they make."""
    for name, gradients_TD in hard_gradients():
        balancer = make(word, num_tasks=len(gradients_TD), **OPTIONS.get(word, {}))
        lengths_T = gradients_TD.norm(dim=1)
        for _ in range(4):
            losses_T = lengths_T.float().requires_grad_()
            balancer.total_loss(losses_T, means_T=losses_T.detach()).backward()
            assert losses_T.grad is not None
            assert torch.isfinite(losses_T.grad).all(), name
            factors_T = factors_of(balancer, gradients_TD, means_T=lengths_T)
            assert torch.isfinite(factors_T).all(), name
            direction_D = (factors_T * lengths_T.clamp(min=1e-30)) @ functional.normalize(
                gradients_TD, dim=1
            )
            longest = lengths_T.max().clamp(min=1)
            assert direction_D.norm() <= 10 * longest * len(gradients_TD), name
        assert all(torch.isfinite(item).all() for item in balancer.state_dict().values()), name


@pytest.mark.parametrize("word", WORDS)
def test_rounding_does_not_break_it(word: str) -> None:
    """Inner products of float32, by whose rounding dependent gradients come to be indefinite."""
    generator = torch.Generator().manual_seed(0)
    for gradients_TD in (drawn(4, width=2), drawn(1).expand(4, -1)):
        noise_TT = 1 + 1e-7 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
        gram_TT = gradients_TD @ gradients_TD.T * (noise_TT + noise_TT.T) / 2
        factors_T = make(word, num_tasks=4).factors(gram_TT, means_T=torch.ones(4).double())
        assert torch.isfinite(factors_T).all()
        assert (factors_T @ gradients_TD).norm() <= 100 * gradients_TD.norm()


@pytest.mark.parametrize("word", BY_GRADIENTS)
def test_a_task_without_labels_takes_no_part(word: str) -> None:
    """The others get the factors that they would get without it."""
    gradients_TD = drawn(3)
    with_gap_TD = torch.stack([gradients_TD[0], torch.zeros(12), *gradients_TD[1:]]).double()
    alone_T = factors_of(make(word, num_tasks=3), gradients_TD)
    found_T = factors_of(make(word, num_tasks=4), with_gap_TD)
    torch.testing.assert_close(found_T[[0, 2, 3]], alone_T)


def test_where_nothing_is_shared_each_task_gets_nothing() -> None:
    """Methods that weigh losses have no need of it; the others are refused in the recipe."""
    assert FanOut(make("dwa", num_tasks=2), group=None)(()) == [(), ()]


@pytest.mark.parametrize("word", sorted(set(WORDS) - {"gradnorm"}))
def test_a_task_without_labels_changes_no_state_of_its_own(word: str) -> None:
    """Nothing that is learned of it moves while it is not observed."""
    balancer = make(word, num_tasks=2, **OPTIONS.get(word, {}))
    means_T = torch.tensor([0.8, 0.0])
    for _ in range(3):
        losses_T = means_T.clone().requires_grad_()
        balancer.total_loss(losses_T, means_T=means_T).backward()
    for name, item in balancer.named_parameters():
        assert item.grad is not None
        assert item.grad[1] == 0, name
    if word == "famo":
        assert balancer.logits_T[1] == balancer.last_losses_T[1] == 0


@pytest.mark.parametrize("word", WORDS)
def test_buffers_change_only_in_training(word: str) -> None:
    """An evaluation between two steps leaves no trace."""
    balancer = make(word, num_tasks=3).eval()
    before = {name: item.clone() for name, item in balancer.state_dict().items()}
    for step in range(3):
        means_T = drawn(3, seed=step, width=1).flatten().abs() + 0.1
        balancer.total_loss(means_T.float(), means_T=means_T.float())
        factors_of(balancer, drawn(3, seed=step), means_T=means_T)
    after = balancer.state_dict()
    assert all(torch.equal(item, after[name]) for name, item in before.items())


@pytest.mark.parametrize("word", WORDS)
def test_a_method_goes_on_from_its_saved_state(word: str) -> None:
    """Bit-equal to one that was never saved."""
    options = OPTIONS.get(word, {})
    balancer, resumed = make(word, num_tasks=3, **options), make(word, num_tasks=3, **options)
    for step in range(7):
        if step == 4:
            resumed.load_state_dict(balancer.state_dict())
        means_T = drawn(3, seed=step, width=1).flatten().abs() + 0.1
        for one in (balancer, resumed)[: 1 if step < 4 else 2]:
            one.total_loss(means_T.float(), means_T=means_T.float())
            factors_T = factors_of(one, drawn(3, seed=step), means_T=means_T)
            if one is balancer:
                expected_T = factors_T
        assert torch.equal(factors_T, expected_T)
    for name, item in balancer.state_dict().items():
        assert torch.equal(item, resumed.state_dict()[name])


class NaiveTables:
    """Dense tables with row-wise Adagrad, each row stepped once a step."""

    def __init__(self, recipe: Recipe, weights: dict[str, Tensor]) -> None:
        self.module = build_tables(
            recipe.embeddings.tables,
            keys=id_feature_names(recipe.data),
            table_of_feature=recipe.table_of_feature(),
            is_weighted=recipe.data.has_id_weights,
        ).to_empty(device="cpu")
        self.parameters = {f"tables.{name}": item for name, item in self.module.named_parameters()}
        with torch.no_grad():
            for name, item in self.parameters.items():
                item.copy_(weights[name])
        self._sums = {name: torch.zeros(len(item)) for name, item in self.parameters.items()}
        self._config = recipe.optimizer.tables

    @torch.no_grad()
    def step(self) -> None:
        for name, item in self.parameters.items():
            assert item.grad is not None
            self._sums[name] += item.grad.square().mean(1)
            roots = self._sums[name].sqrt() + self._config.eps
            item -= self._config.learning_rate * item.grad / roots.unsqueeze(1)
            item.grad = None


def naive_step(
    towers: Towers, tables: NaiveTables, batch: InteractionBatch, *, recipe: Recipe
) -> None:
    """A gradient for each task by itself, then the factors, then one gradient for the rest."""
    inputs = towers.input_layer(tables.module(batch.ids), batch.dense_BD)
    shared = towers.architecture.shared(inputs)
    copies = [tuple(item.detach().requires_grad_() for item in shared) for _ in recipe.data.tasks]
    outputs = towers.architecture.outputs(copies, inputs=inputs)
    losses = []
    for index, task in enumerate(recipe.data.tasks.values()):
        seen_B = ~batch.labels_BT[:, index].isnan()
        compare: Any = functional.mse_loss
        if task.kind == "binary":
            compare = functional.binary_cross_entropy_with_logits
        losses.append(
            task.weight * compare(outputs[index][seen_B, 0], batch.labels_BT[seen_B, index])
        )
    losses_T = torch.stack(losses)
    balancer = towers.fan_out.balancer
    total = balancer.total_loss(losses_T, means_T=losses_T.detach())
    if towers.relation is not None:
        total = total + towers.relation(towers.architecture.task_towers())
    gradients = [torch.autograd.grad(total, copy, retain_graph=True) for copy in copies]
    flat_TD = torch.stack(
        [torch.cat([item.flatten() for item in parts]) for parts in gradients]
    ).double()
    factors_T = balancer.factors(flat_TD @ flat_TD.T, means_T=losses_T.detach().double())
    total.backward()
    combined = [
        sum(factor * item for factor, item in zip(factors_T.tolist(), parts, strict=True))
        for parts in zip(*gradients, strict=True)
    ]
    torch.autograd.backward(shared, combined)


def three_steps(recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All weights after three steps of the sharded model, and of the naive one."""
    with joined_ranks() as runtime:
        model, _ = build_sharded_model(recipe, runtime=runtime)
        optimizer = build_optimizer(model, config=recipe.optimizer)
        batches = list(
            InteractionLoader(
                recipe.data,
                split="train",
                num_rows=recipe.num_rows_of_feature(),
                seed=recipe.run.seed,
                rank=0,
                world_size=1,
            ).batches(start=Cursor(), num_steps=3)
        )
        naive = build_model(recipe).towers
        tables = NaiveTables(recipe, weights_of(model))
        adam = torch.optim.AdamW(
            naive.parameters(), lr=recipe.optimizer.dense.learning_rate, weight_decay=0
        )
        pipeline = TrainPipelineSparseDist(model, optimizer, torch.device("cpu"))
        stream = iter(batches)
        for batch in batches:
            pipeline.progress(stream)
            adam.zero_grad()
            naive_step(naive, tables, batch, recipe=recipe)
            adam.step()
            tables.step()
        expected = {f"towers.{name}": item for name, item in naive.state_dict().items()}
        return weights_of(model), expected | tables.parameters


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """On a single rank."""
    return {
        name: item.local_shards()[0].tensor.clone() if is_table(name) else item.clone()
        for name, item in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_toy_log(tmp_path_factory.mktemp("log")))


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_fused_step_is_one_update_of_each_row(log: str, name: str) -> None:
    """Equal to a gradient per task by autograd, the same factors, and one row-wise Adagrad step."""
    found, expected = three_steps(recipe_of(log, name))
    assert found.keys() == expected.keys()
    for key, item in expected.items():
        torch.testing.assert_close(found[key], item.detach(), rtol=1e-4, atol=2e-5, msg=key)


def train_all(log: str, folder: str, steps: tuple[int, ...]) -> None:
    """Each run as often as there are numbers of steps, the later ones going on."""
    for name in RUNS:
        for num_steps in steps:
            uri, length = f"run.uri={folder}/{name}", f"run.num_steps={num_steps}"
            train(recipe_of(log, name, uri, length, "run.select=last"))


def losses(folder: Path, name: str) -> list[float]:
    lines = [
        json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()
    ]
    return [task["loss"] for line in lines for task in line["tasks"].values()]


@pytest.mark.slow
def test_four_ranks_train_as_one_and_a_resumed_run_as_one_that_never_stopped(
    log: str, tmp_path: Path
) -> None:
    """Every method, from the log to the final model: close on four ranks, bit-equal if resumed."""
    for world_size, folder, steps in ((1, "one", (5,)), (1, "resumed", (3, 5)), (4, "four", (5,))):
        run_ranks(
            train_all,
            world_size=world_size,
            arguments={"log": log, "folder": str(tmp_path / folder), "steps": steps},
            timeout_seconds=400,
        )
    for name in RUNS:
        one, four = (losses(tmp_path / folder, name) for folder in ("one", "four"))
        np.testing.assert_allclose(four, one, rtol=1e-4, err_msg=name)
        states = []
        for folder in ("one", "resumed"):
            torch_file = tmp_path / f"{name}-{folder}.pt"
            checkpoint = tmp_path / folder / name / "checkpoints" / "step-00000005"
            dcp_to_torch_save(checkpoint, torch_file)
            states.append(torch.load(torch_file, weights_only=False)["model"])
        first, second = states
        assert first.keys() == second.keys()
        assert all(torch.equal(item, second[key]) for key, item in first.items()), name
