"""What reports tell of gradients, weights and gates, against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.streams import Cursor
from tests.helpers.checkpoints import assert_equal
from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import make_recipe, newest_tensors, reports, train_each, train_on
from tests.helpers.tasks import step_output
from trainer.build import build_model
from trainer.config import Recipe
from trainer.model import StepOutput, Towers
from trainer.recipe_file import build_recipe
from trainer.telemetry import Telemetry

NUM_EXAMPLES = 24
TASKS = ("click", "purchase", "watch")
MMOE = {"architecture": "mmoe", "num_experts": 3, "expert_tower": [16], "task_tower": [8]}


def toy(**sections: Any) -> Recipe:
    tree = toy_recipe("nowhere", **sections)
    for task, weight in zip(TASKS, (1.0, 0.5, 2.0), strict=True):
        tree["data"]["tasks"][task]["weight"] = weight
    return build_recipe(tree, overrides=[], source="toy")


def drawn(recipe: Recipe) -> tuple[KeyedTensor, InteractionBatch]:
    """Pooled vectors, and a batch without ids whose last rows are padding."""
    generator = torch.Generator().manual_seed(3)
    keys, widths = id_feature_names(recipe.data), recipe.id_widths()
    width = sum(widths[key] for key in keys)
    labels_BT = (torch.rand(NUM_EXAMPLES, 3, generator=generator) < 0.4).float()
    labels_BT[torch.rand(NUM_EXAMPLES, 3, generator=generator) < 0.2] = torch.nan
    labels_BT[-2:] = torch.nan
    batch = InteractionBatch(
        ids=KeyedJaggedTensor(
            keys=keys,
            values=torch.zeros(0, dtype=torch.int64),
            lengths=torch.zeros(len(keys) * NUM_EXAMPLES, dtype=torch.int32),
        ),
        dense_BD=torch.randn(NUM_EXAMPLES, 2, generator=generator),
        labels_BT=labels_BT,
        weights_B=(torch.arange(NUM_EXAMPLES) < NUM_EXAMPLES - 2).float(),
        cursor=Cursor(),
    )
    pooled = KeyedTensor(
        keys=keys,
        length_per_key=[widths[key] for key in keys],
        values=torch.randn(NUM_EXAMPLES, width, generator=generator, requires_grad=True),
    )
    return pooled, batch


def watched(towers: Towers, recipe: Recipe, *, is_on: bool = True) -> dict[str, Any]:
    telemetry = Telemetry(towers, tasks=recipe.data.tasks)
    pooled, batch = drawn(recipe)
    with telemetry.watching(is_on):
        loss, output = towers(pooled, batch)
        loss.backward()
    return telemetry.entries(output)


def naive_gradients(towers: Towers, recipe: Recipe) -> Tensor:
    """Each task's weighted mean loss by what all share, float64 (T, everything)."""
    pooled, batch = drawn(recipe)
    inputs = towers.input_layer(pooled, batch.dense_BD)
    shared = towers.architecture.shared(inputs)
    outputs = towers.architecture.outputs([shared] * len(TASKS), inputs=inputs)
    rows = []
    for index, (output, task) in enumerate(zip(outputs, recipe.data.tasks.values(), strict=True)):
        observed_B = ~batch.labels_BT[:, index].isnan()
        criterion = (
            functional.binary_cross_entropy_with_logits
            if task.kind == "binary"
            else functional.mse_loss
        )
        loss = criterion(output[observed_B, 0], batch.labels_BT[observed_B, index])
        parts = torch.autograd.grad(loss * task.weight, shared, retain_graph=True)
        rows.append(torch.cat([part.reshape(-1) for part in parts]).double())
    return torch.stack(rows)


def test_gradients_are_those_of_a_backward_for_each_task() -> None:
    """Cosines of all pairs, and norms; static weights are the recipe's."""
    recipe = toy()
    towers = build_model(recipe).towers
    found, gradients_TN = watched(towers, recipe), naive_gradients(towers, recipe)
    norms_T = gradients_TN.norm(dim=1)
    assert found["gradients"]["norms"] == pytest.approx(
        dict(zip(TASKS, norms_T.tolist(), strict=True)), rel=1e-4
    )
    for one in range(3):
        for two in range(one + 1, 3):
            cosine = float(gradients_TN[one] @ gradients_TN[two] / (norms_T[one] * norms_T[two]))
            found_cosine = found["gradients"]["cosines"][TASKS[one]][TASKS[two]]
            assert found_cosine == pytest.approx(cosine, abs=1e-4)
    assert found["gradients"]["factors"] == dict.fromkeys(TASKS, 1.0)
    assert found["loss_weights"] == {"click": 1.0, "purchase": 0.5, "watch": 2.0}
    assert "gates" not in found


def test_weights_are_what_a_task_counts_for_in_what_all_share() -> None:
    """Of a method that weighs losses, and of one that weighs gradients."""
    recipe = toy(balance={"method": "uncertainty"})
    towers = build_model(recipe).towers
    logs_T = torch.tensor([0.3, -0.4, 0.9])
    with torch.no_grad():
        towers.fan_out.balancer.log_variances_T.copy_(logs_T)
    found = watched(towers, recipe)["loss_weights"]
    scales_T = torch.tensor([1.0, 0.5, 2.0]) * torch.tensor([1.0, 1.0, 0.5]) * torch.exp(-logs_T)
    assert list(found.values()) == pytest.approx(scales_T.tolist(), rel=1e-5)
    recipe = toy(balance={"method": "imtl", "scale_losses": False})
    towers = build_model(recipe).towers
    found = watched(towers, recipe)
    for task, weight in zip(TASKS, (1.0, 0.5, 2.0), strict=True):
        expected = weight * found["gradients"]["factors"][task]
        assert found["loss_weights"][task] == pytest.approx(expected, rel=1e-5)
    # this method's direction has the same projection on every gradient
    gradients_TN = naive_gradients(towers, recipe)
    factors_T = torch.tensor(list(found["gradients"]["factors"].values())).double()
    projections_T = gradients_TN @ (factors_T @ gradients_TN) / gradients_TN.norm(dim=1)
    assert projections_T.tolist() == pytest.approx([float(projections_T[0])] * 3, rel=1e-3)


def test_a_step_that_is_not_watched_says_nothing() -> None:
    """Nor does it leave anything of the one before."""
    recipe = toy()
    towers = build_model(recipe).towers
    assert watched(towers, recipe)
    assert watched(towers, recipe, is_on=False) == {}
    assert towers.fan_out.observed is None


def gates_of(rank: int) -> tuple[list[Tensor], StepOutput]:
    """Two tasks with other numbers of experts; the examples of each rank, some padding."""
    random = np.random.default_rng(rank)
    gates = [torch.from_numpy(random.dirichlet(np.full(n, 0.4), 20)) for n in (3, 5)]
    gates[0][0] = torch.tensor([1.0, 0.0, 0.0])
    weights = (np.arange(20) < 17 - 4 * rank).astype(np.float32)
    return gates, step_output(np.zeros((20, 2)), np.zeros((20, 2)), weights)


def gates_over_ranks() -> dict[str, Any]:
    recipe = toy()
    towers = build_model(recipe).towers
    tasks = dict(list(recipe.data.tasks.items())[:2])
    telemetry = Telemetry(towers, tasks=tasks)
    gates, output = gates_of(dist.get_rank())
    with telemetry.watching(True):
        towers.architecture.observe_gates(gates)
    found: dict[str, Any] = telemetry.entries(output)["gates"]
    assert not len(towers.architecture.observed_gates)
    return found


def test_gates_are_means_over_the_examples_of_all_ranks() -> None:
    """Padding counts nowhere; a gate that is sure has no entropy."""
    one, two = run_ranks(gates_over_ranks, world_size=2)
    assert one == two
    for index, task in enumerate(TASKS[:2]):
        seen = []
        for rank in range(2):
            gates, output = gates_of(rank)
            seen.append(gates[index][output.weights_B > 0].numpy())
        shares = np.concatenate(seen)
        logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
        assert one[task]["weights"] == pytest.approx(shares.mean(0).tolist(), rel=1e-5)
        assert one[task]["entropy"] == pytest.approx(-(shares * logs).sum(1).mean(), rel=1e-5)


def test_two_ranks_tell_what_one_tells_and_watching_changes_nothing(tmp_path: Path) -> None:
    """At each step of the interval and at the last, not where only a checkpoint asks for a report;
    weights behind it are those of a run that watches its last step alone.
    """
    log = write_toy_log(tmp_path / "log")
    keys = ("run.num_steps=5", "checkpoint.interval_steps=1")
    runs = {
        name: make_recipe(
            log, tmp_path / name, *keys, f"run.log_interval_steps={interval}", model=MMOE
        )
        for name, interval in (("one", 2), ("two", 2), ("seldom", 100))
    }
    run_ranks(train_each, world_size=1, arguments={"recipes": [runs["one"], runs["seldom"]]})
    train_on(runs["two"], world_size=2)
    assert_equal(newest_tensors(tmp_path / "one"), newest_tensors(tmp_path / "seldom"))
    lines = {name: reports(tmp_path / name) for name in runs}
    steps = {
        name: [line["step"] for line in found if {"gradients", "gates"} <= set(line)]
        for name, found in lines.items()
    }
    assert steps == {"one": [2, 4, 5], "two": [2, 4, 5], "seldom": [5]}
    for one, two in zip(lines["one"], lines["two"], strict=True):
        assert one.get("loss_weights") == two.get("loss_weights")
        for task, gate in one.get("gates", {}).items():
            assert sum(gate["weights"]) == pytest.approx(1)
            assert len(gate["weights"]) == 3
            assert two["gates"][task]["weights"] == pytest.approx(gate["weights"], rel=1e-3)
            assert two["gates"][task]["entropy"] == pytest.approx(gate["entropy"], rel=1e-3)
        for part in ("norms", "factors"):
            expected = one.get("gradients", {}).get(part)
            assert two.get("gradients", {}).get(part) == (
                expected and pytest.approx(expected, 1e-3)
            )
        for task, cosines in one.get("gradients", {}).get("cosines", {}).items():
            assert two["gradients"]["cosines"][task] == pytest.approx(cosines, abs=1e-4)
    [valid] = reports(tmp_path / "one", split="valid")
    assert set(valid["calibration_curves"]) == {"click", "purchase"}
    for task, curve in valid["calibration_curves"].items():
        assert sum(curve["examples"]) == valid["tasks"][task]["examples"]
