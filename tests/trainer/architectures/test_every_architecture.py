"""What holds for every architecture, whatever it is made of."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from trainer.architectures import ARCHITECTURES, build_architecture
from trainer.architectures.architecture import Architecture, Inputs, Sizes
from trainer.architectures.gated import GatedTower
from trainer.architectures.layers import Experts
from trainer.loop import train
from trainer.model_config import AnyModel
from trainer.recipe_errors import choices
from trainer.recipe_file import build_recipe

NUM_EXAMPLES, WIDTH, GATE_WIDTH = 6, 12, 5
TASKS = ("click", "purchase", "watch")

# keys of the section `model`, where an architecture has some that are not the others'
CHAIN = {"after": {"purchase": "click"}}
GATES = {"gate_features": ["price", "user"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "cross_stitch": {"stitched_tower": [8, 6]},
    "aitm": CHAIN,
    "esmm": CHAIN,
    "escm2": CHAIN | {"estimator": "dr"},
    "dbmtl": {"depends_on": {"purchase": ["click"], "watch": ["click", "purchase"]}},
    "pepnet": GATES,
    "poso": GATES,
    "home": {"groups": {"buy": ["click", "purchase"], "stay": ["watch"]}},
}


def options(word: str) -> dict[str, Any]:
    """Small, without dropout, and with a tower too wide to start dead."""
    known = choices(AnyModel)[word].model_fields
    widths = {key: [8, 6] for key in ("shared_tower", "expert_tower") if key in known}
    return {"architecture": word, **widths, "task_tower": [16], **OPTIONS.get(word, {})}


def make(word: str, **more: Any) -> tuple[Architecture, Inputs]:
    torch.manual_seed(0)
    sizes = Sizes(input_width=WIDTH, tasks=TASKS, num_outputs=(1, 1, 2), gate_width=GATE_WIDTH)
    architecture = build_architecture(
        choices(AnyModel)[word].model_validate(options(word) | more), sizes=sizes
    ).double()

    def drawn(width: int) -> Tensor:
        return torch.randn(NUM_EXAMPLES, width, dtype=torch.float64)

    inputs = Inputs(
        shared_BI=drawn(WIDTH),
        gate_BG=drawn(GATE_WIDTH),
        own_BI=tuple(drawn(WIDTH) for _ in TASKS),
    )
    return architecture, inputs


def own_copies(architecture: Architecture, inputs: Inputs) -> list[tuple[Tensor, ...]]:
    """Of what the tasks share, as leaves."""
    shared = architecture.shared(inputs)
    return [tuple(item.detach().requires_grad_() for item in shared) for _ in TASKS]


def test_every_word_of_a_recipe_has_its_architecture() -> None:
    """And none is out of reach."""
    assert sorted(choices(AnyModel)) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_an_output_depends_on_its_own_copy_alone(word: str) -> None:
    """So the gradient that comes back to a copy is that of one task's loss."""
    architecture, inputs = make(word)
    copies = own_copies(architecture, inputs)
    outputs = architecture.outputs(copies, inputs=inputs)
    assert [tuple(item.shape) for item in outputs] == [(6, 1), (6, 1), (6, 2)]
    for task, output in enumerate(outputs):
        for other, copy in enumerate(copies if any(copies) else ()):
            gradients = torch.autograd.grad(
                output.sum(), copy, retain_graph=True, allow_unused=True
            )
            is_read = any(item is not None and bool(item.any()) for item in gradients)
            assert is_read == (task == other)


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_any_two_tasks_read_something_that_both_can_change(word: str) -> None:
    """Else their gradients are orthogonal whatever they want, and no method could do anything."""
    architecture, inputs = make(word)
    copies = own_copies(architecture, inputs)
    outputs = architecture.outputs(copies, inputs=inputs)
    read = []
    for copy, output in zip(copies if any(copies) else (), outputs, strict=False):
        gradients = torch.autograd.grad(output.sum(), copy, retain_graph=True, allow_unused=True)
        read.append(
            [
                torch.zeros_like(item) if gradient is None else gradient
                for item, gradient in zip(copy, gradients, strict=True)
            ]
        )
    for one, two in itertools.combinations(read, 2):
        assert any(bool((mine * other).any()) for mine, other in zip(one, two, strict=True))


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_gates_are_observed_when_asked_for(word: str) -> None:
    """What each tower's gate gives the experts, without a way for gradients; nothing otherwise,
    and nothing where there are no experts.
    """
    architecture, inputs = make(word)
    outputs_of(architecture, inputs)
    assert architecture.observed_gates == ()
    architecture.is_observed = True
    outputs_of(architecture, inputs)
    num_gates = len(TASKS) if "expert_tower" in options(word) else 0
    assert len(architecture.observed_gates) == num_gates
    for gate_BN in architecture.observed_gates:
        assert len(gate_BN) == NUM_EXAMPLES
        assert not gate_BN.requires_grad
        assert bool((gate_BN >= 0).all())
        torch.testing.assert_close(gate_BN.sum(1), torch.ones_like(gate_BN[:, 0]))


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_an_extra_loss_depends_on_its_own_copy_alone(word: str) -> None:
    """It is finite where labels are not observed, too."""
    architecture, inputs = make(word)
    copies = own_copies(architecture, inputs)
    outputs = architecture.outputs(copies, inputs=inputs)
    labels_BT = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 1], [1, math.nan, 1]] * 2)[:6].double()
    labels_BT[5] = math.nan
    extra_BT = architecture.extra_losses(outputs, copies=copies, labels_BT=labels_BT)
    if extra_BT is None:
        return
    assert extra_BT.shape == labels_BT.shape
    assert extra_BT.isfinite().all()
    for task in range(len(TASKS)):
        (own, *others) = [copies[task], *copies[:task], *copies[task + 1 :]]
        loss = extra_BT[:, task].sum()
        if loss.grad_fn is not None:
            gradients = torch.autograd.grad(
                loss, [*own, *sum(others, ())], retain_graph=True, allow_unused=True
            )
            assert all(item is None or not item.any() for item in gradients[len(own) :])


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_every_parameter_takes_part(word: str) -> None:
    """DistributedDataParallel waits for the gradient of each."""
    architecture, inputs = make(word)
    copies = [architecture.shared(inputs) for _ in TASKS]
    outputs = architecture.outputs(copies, inputs=inputs)
    extra_BT = architecture.extra_losses(
        outputs, copies=copies, labels_BT=torch.ones(6, 3).double()
    )
    loss = sum(output.square().sum() for output in outputs)
    (loss if extra_BT is None else loss + extra_BT.sum()).backward()
    missing = [name for name, item in architecture.named_parameters() if item.grad is None]
    assert not missing


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_examples_do_not_see_each_other(word: str) -> None:
    """A batch that is cut over ranks gives the same outputs."""
    architecture, inputs = make(word)
    whole = [item.detach() for item in outputs_of(architecture, inputs)]
    half = Inputs(
        shared_BI=inputs.shared_BI[:3],
        gate_BG=None if inputs.gate_BG is None else inputs.gate_BG[:3],
        own_BI=tuple(item[:3] for item in inputs.own_BI),
    )
    for one, two in zip(outputs_of(architecture, half), whole, strict=True):
        torch.testing.assert_close(one, two[:3])


def outputs_of(architecture: Architecture, inputs: Inputs) -> list[Tensor]:
    return architecture.outputs([architecture.shared(inputs)] * len(TASKS), inputs=inputs)


def layered(architecture: Architecture) -> dict[str, nn.Module]:
    """Towers and experts, by their names; gates drop nothing."""
    return {
        name: module
        for name, module in architecture.named_modules()
        if isinstance(module, (Experts, GatedTower))
        or (isinstance(module, nn.Sequential) and "gate" not in name)
    }


def results(architecture: Architecture, inputs: Inputs) -> Tensor:
    """Outputs and extra losses side by side."""
    copies = [architecture.shared(inputs)] * len(TASKS)
    outputs = architecture.outputs(copies, inputs=inputs)
    labels_BT = torch.ones(NUM_EXAMPLES, len(TASKS), dtype=torch.float64)
    extra_BT = architecture.extra_losses(outputs, copies=copies, labels_BT=labels_BT)
    return torch.cat(outputs if extra_BT is None else [*outputs, extra_BT], dim=1)


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_dropout_acts_in_training_in_every_tower_and_expert(word: str) -> None:
    """In each by itself, all others as they evaluate; in evaluation nothing is drawn."""
    architecture, inputs = make(word, dropout=0.5)
    architecture.eval()
    assert torch.equal(results(architecture, inputs), results(architecture, inputs))
    parts = layered(architecture)
    assert parts
    for name, part in parts.items():
        part.train()
        assert not torch.equal(results(architecture, inputs), results(architecture, inputs)), name
        part.eval()


@pytest.mark.parametrize("word", sorted(ARCHITECTURES))
def test_bfloat16_stays_near_float32(word: str) -> None:
    """As `Towers` computes it; weights and their gradients stay float32."""
    architecture, inputs = make(word)
    architecture.float()
    inputs = Inputs(
        shared_BI=inputs.shared_BI.float(),
        gate_BG=None if inputs.gate_BG is None else inputs.gate_BG.float(),
        own_BI=tuple(item.float() for item in inputs.own_BI),
    )
    exact = outputs_of(architecture, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        copy = tuple(item.float() for item in architecture.shared(inputs))
        rough = architecture.outputs([copy] * len(TASKS), inputs=inputs)
    for one, two in zip(rough, exact, strict=True):
        torch.testing.assert_close(one.float(), two, rtol=0.05, atol=0.05)
    sum(output.float().square().sum() for output in rough).backward()
    gradients = [item.grad for item in architecture.parameters() if item.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(item).all()) for item in gradients)


def train_all(log: str, folder: str, histories: dict[str, Any]) -> None:
    for word in sorted(ARCHITECTURES):
        tree = toy_recipe(log)
        tree["model"] = options(word) | {"histories": histories}
        if "after" in tree["model"]:
            del tree["data"]["tasks"]["purchase"]["where"]
        tree["run"]["uri"] = f"{folder}/{word}"
        train(build_recipe(tree, overrides=["run.num_steps=3"], source="toy"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "histories", [{}, {"history": {"encoder": "target_attention", "target": "item"}}]
)
def test_two_ranks_train_as_one(tmp_path: Path, histories: dict[str, Any]) -> None:
    """Every architecture, from the log to the metrics of the final model, with lists that are
    pooled and with one that is encoded.
    """
    log = write_toy_log(tmp_path / "log")
    found = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        arguments = {"log": str(log), "folder": str(folder), "histories": histories}
        run_ranks(train_all, world_size=world_size, arguments=arguments)
        found.append([(folder / word / "metrics.jsonl") for word in sorted(ARCHITECTURES)])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4, err_msg=str(one))


def losses(metrics: Path) -> list[float]:
    import json

    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [task["loss"] for line in lines for task in line["tasks"].values()]
