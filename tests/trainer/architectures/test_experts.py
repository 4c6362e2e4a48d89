"""Architectures of experts, and a shared bottom, against loops over examples, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainer.architectures.drawn import copies_and_outputs, draw
from trainer.architectures import build_architecture
from trainer.architectures.architecture import Architecture, Inputs, Sizes
from trainer.architectures.dselect_k import DselectK, entropy, smooth_step
from trainer.architectures.home import Home
from trainer.architectures.layers import Experts
from trainer.architectures.mmoe import Mmoe, Omoe
from trainer.architectures.ple import Ple
from trainer.architectures.shared_bottom import SharedBottom
from trainer.architectures.stem import Stem
from trainer.model_config import AnyModel
from trainer.recipe_errors import choices

NUM_EXAMPLES, WIDTH = 5, 7
TASKS = ("click", "purchase", "watch")
GROUPS = {"buy": ["purchase", "click"], "stay": ["watch"]}


def build(word: str, **options: Any) -> tuple[Any, Inputs]:
    torch.manual_seed(1)
    config = choices(AnyModel)[word].model_validate(
        {"architecture": word, "expert_tower": [6, 5], "task_tower": [8], **options}
    )
    sizes = Sizes(input_width=WIDTH, tasks=TASKS, num_outputs=(1, 2, 1))
    architecture = build_architecture(config, sizes=sizes).double()  # type: ignore[arg-type]
    for parameter in architecture.parameters():
        # gates that differ much from one expert and example to the other, and scales and shifts
        # that are not those of no normalisation
        nn.init.normal_(parameter, std=0.8)
    shared, *own = torch.randn(1 + len(TASKS), NUM_EXAMPLES, WIDTH, dtype=torch.float64)
    return architecture, Inputs(shared_BI=shared, own_BI=tuple(own))


def expert(experts: Experts, index: int, vector: Tensor) -> Tensor:
    """One expert's answer to one example."""
    for weight, bias in zip(experts.weights, experts.biases, strict=True):
        vector = vector @ weight[index] + bias[index, 0]
        is_last = weight is experts.weights[-1]
        if experts.scales and is_last:
            variance = vector.var(unbiased=False)
            vector = (vector - vector.mean()) / torch.sqrt(variance + 1e-5)
            vector = vector * experts.scales[0][index, 0] + experts.shifts[0][index, 0]
        vector = vector * vector.sigmoid() if experts.scales else vector.clamp(min=0)
    return vector


def mixture(answers: Sequence[Tensor], gate: Tensor) -> Tensor:
    assert len(answers) == len(gate)
    return torch.stack([weight * answer for weight, answer in zip(gate, answers, strict=True)]).sum(
        0
    )


def softmax_gate(layer: nn.Module, vector: Tensor) -> Tensor:
    scores: Tensor = layer(vector)
    return scores.exp() / scores.exp().sum()


def answers(experts: Experts, vector: Tensor, indices: Sequence[int] | None = None) -> list[Tensor]:
    chosen = range(len(experts.weights[0])) if indices is None else indices
    return [expert(experts, index, vector) for index in chosen]


def naive_omoe(model: Omoe, inputs: Inputs, example: int, task: int) -> tuple[Tensor, Tensor]:
    vector = inputs.shared_BI[example]
    gate = softmax_gate(model.gate, vector)
    return mixture(answers(model.experts, vector), gate), gate


def naive_mmoe(model: Mmoe, inputs: Inputs, example: int, task: int) -> tuple[Tensor, Tensor]:
    vector = inputs.shared_BI[example]
    gate = softmax_gate(model.gates[task], vector)
    return mixture(answers(model.experts, vector), gate), gate


def naive_ple(model: Ple, inputs: Inputs, example: int, task: int) -> tuple[Tensor, Tensor]:
    shared = inputs.shared_BI[example]
    streams = [shared] * len(TASKS)
    for level in [*model.below, model.last]:
        of_all = answers(level.shared_experts, shared)
        count = len(level.task_experts.weights[0]) // len(TASKS)
        own = [
            answers(level.task_experts, stream, range(other * count, (other + 1) * count))
            for other, stream in enumerate(streams)
        ]
        gates = [
            softmax_gate(gate, stream) for gate, stream in zip(level.gates, streams, strict=True)
        ]
        streams = [mixture([*mine, *of_all], gate) for mine, gate in zip(own, gates, strict=True)]
        if level is not model.last:
            gate = softmax_gate(level.shared_gate, shared)
            shared = mixture([*itertools.chain(*own), *of_all], gate)
    return streams[task], gates[task]


def naive_stem(model: Stem, inputs: Inputs, example: int, task: int) -> tuple[Tensor, Tensor]:
    """Columns of the gate: the task's own experts, the others' in their order, the shared ones."""
    shared, own = inputs.shared_BI[example], [item[example] for item in inputs.own_BI]
    gate = softmax_gate(model.gates[task], own[task] + shared)
    count = len(model.task_experts.weights[0]) // len(TASKS)
    order = [task, *(other for other in range(len(TASKS)) if other != task)]
    found = [
        item
        for other in order
        for item in answers(
            model.task_experts, own[other], range(other * count, (other + 1) * count)
        )
    ]
    return mixture([*found, *answers(model.shared_experts, shared)], gate), gate


def naive_home(model: Home, inputs: Inputs, example: int, task: int) -> tuple[Tensor, Tensor]:
    vector = inputs.shared_BI[example]
    num_shared, num_group, num_own = 3, 2, 2
    group = next(g for g, tasks in enumerate(GROUPS.values()) if TASKS[task] in tasks)
    spans = [range(num_shared)]
    spans += [
        range(num_shared + g * num_group, num_shared + (g + 1) * num_group)
        for g in range(len(GROUPS))
    ]

    def chosen_features(gate: Any, item: Tensor) -> Tensor:
        thin, wide = gate.layers
        return item * 2 / (1 + torch.exp(-(wide.weight @ (thin.weight @ item))))

    def past_the_gate(gate: Any, item: Tensor, own: list[Tensor]) -> Tensor:
        return mixture(own, softmax_gate(gate.layer, item))

    level = model.metas
    by_part = [
        answers(level.experts, chosen_features(gate, vector), span)
        for gate, span in zip(level.feature_gates, spans, strict=True)
    ]
    metas = []
    for part, own in enumerate(by_part):
        read = [*own, *by_part[0]] if part else list(itertools.chain(*by_part))
        meta = mixture(read, softmax_gate(level.gates[part], vector))
        metas.append(meta + past_the_gate(level.self_gates[part], vector, own))
    meta = metas[1 + group]
    own = answers(
        model.task_experts,
        chosen_features(model.feature_gates[task], meta),
        range(task * num_own, (task + 1) * num_own),
    )
    read = [
        *own,
        *answers(model.experts, meta, spans[1 + group]),
        *answers(model.experts, metas[0], spans[0]),
    ]
    gate = softmax_gate(model.gates[task], torch.cat([meta, metas[0]]))
    return mixture(read, gate) + past_the_gate(model.self_gates[task], meta, own), gate


def naive_selectors(model: DselectK, vector: Tensor, task: int) -> tuple[Tensor, list[Tensor]]:
    """The softmax weights of the selectors, and what each gives each expert."""
    gate: Any = model.gates[task]
    num_experts, width = len(model.experts.weights[0]), 1.5
    outputs = gate.bias + (0 if gate.weight is None else vector @ gate.weight)
    num_bits = math.ceil(math.log2(num_experts))
    selectors, scores = [], []
    for score, *code in outputs.reshape(-1, 1 + num_bits):
        weights = [torch.zeros((), dtype=torch.float64) for _ in range(num_experts)]
        for number in range(2**num_bits):
            product = torch.ones((), dtype=torch.float64)
            for bit, value in enumerate(code):
                step = naive_step(value, width)
                product = product * (step if number >> bit & 1 else 1 - step)
            weights[number % num_experts] = weights[number % num_experts] + product
        selectors.append(torch.stack(weights))
        scores.append(score)
    return torch.stack(scores).softmax(0), selectors


def naive_step(value: Tensor, width: float) -> Tensor:
    if value <= -width / 2:
        return value * 0
    if value >= width / 2:
        return value * 0 + 1
    return -2 / width**3 * value**3 + 3 / (2 * width) * value + 0.5


def naive_dselect_k(
    model: DselectK, inputs: Inputs, example: int, task: int
) -> tuple[Tensor, Tensor]:
    vector = inputs.shared_BI[example]
    weights, selectors = naive_selectors(model, vector, task)
    gate = mixture(selectors, weights)
    return mixture(answers(model.experts, vector), gate), gate


DSELECT = {"step_width": 1.5, "num_selected": 2}
COUNTS = {"num_shared_experts": 3, "num_task_experts": 2}
CASES: list[tuple[str, dict[str, Any], Callable[..., tuple[Tensor, Tensor]]]] = [
    ("omoe", {"num_experts": 4}, naive_omoe),
    ("mmoe", {"num_experts": 4}, naive_mmoe),
    ("cgc", COUNTS, naive_ple),
    ("ple", COUNTS | {"num_levels": 1}, naive_ple),
    ("ple", COUNTS | {"num_levels": 2}, naive_ple),
    ("ple", COUNTS | {"num_levels": 3}, naive_ple),
    ("dselect_k", DSELECT | {"num_experts": 8}, naive_dselect_k),
    ("dselect_k", DSELECT | {"num_experts": 5, "num_selected": 3}, naive_dselect_k),
    ("dselect_k", DSELECT | {"num_experts": 4, "gate": "static"}, naive_dselect_k),
    ("dselect_k", DSELECT | {"num_experts": 1, "num_selected": 1}, naive_dselect_k),
    ("home", COUNTS | {"num_group_experts": 2, "gate_rank": 3, "groups": GROUPS}, naive_home),
    ("stem", COUNTS, naive_stem),
]


def forward(model: Architecture, inputs: Inputs) -> list[Tensor]:
    return model.outputs([model.shared(inputs)] * len(TASKS), inputs=inputs)


@pytest.mark.parametrize(
    ("word", "options", "naive"),
    CASES,
    ids=[f"{index} {case[0]}" for index, case in enumerate(CASES)],
)
def test_batches_are_what_loops_over_examples_compute(
    word: str, options: dict[str, Any], naive: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    """Outputs, their gradients with respect to the input, and the gates that are observed."""
    model, inputs = build(word, **options)
    inputs.shared_BI.requires_grad_()
    model.is_observed = True
    outputs = forward(model, inputs)
    (gradient,) = torch.autograd.grad(sum(item.sin().sum() for item in outputs), inputs.shared_BI)
    expected = []
    for task in range(len(TASKS)):
        rows = []
        for example in range(NUM_EXAMPLES):
            mixed, gate = naive(model, inputs, example, task)
            rows.append(model.towers[task](mixed))
            torch.testing.assert_close(model.observed_gates[task][example], gate.detach())
        expected.append(torch.stack(rows))
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    (wanted_gradient,) = torch.autograd.grad(
        sum(item.sin().sum() for item in expected), inputs.shared_BI
    )
    torch.testing.assert_close(gradient, wanted_gradient)


def naive_bottom(model: SharedBottom, vector: Tensor, task: int) -> Tensor:
    """With ReLU behind every layer but the last."""
    modules = [*model.bottom.modules(), *model.towers[task].modules()]
    layers = [item for item in modules if isinstance(item, nn.Linear)]
    assert [layer.out_features for layer in layers] == [6, 5, 4, 3, 1]
    for layer in layers:
        vector = (layer.weight * vector).sum(1) + layer.bias
        vector = vector if layer is layers[-1] else vector.clamp(min=0)
    return vector


def test_a_shared_bottom_is_what_a_loop_over_examples_computes() -> None:
    """Outputs, and their gradients with respect to the input and to every parameter."""
    model, inputs = draw("shared_bottom", tasks=TASKS, shared_tower=[6, 5], task_tower=[4, 3])
    assert isinstance(model, SharedBottom)
    leaves = [inputs.shared_BI.requires_grad_(), *model.parameters()]
    _, found = copies_and_outputs(model, inputs, num_tasks=len(TASKS))
    expected = [
        torch.stack([naive_bottom(model, vector, task) for vector in inputs.shared_BI])
        for task in range(len(TASKS))
    ]
    torch.testing.assert_close(found, expected)
    slopes, wanted_slopes = (
        torch.autograd.grad(torch.stack(outputs).sin().sum(), leaves)
        for outputs in (found, expected)
    )
    torch.testing.assert_close(slopes, wanted_slopes)


def test_a_step_is_smooth_and_ends() -> None:
    """0 and 1 beyond its width, flat where it gets there, and the cubic of the paper between."""
    values = torch.linspace(-2, 2, 401, dtype=torch.float64, requires_grad=True)
    steps = smooth_step(values, width=1.5)
    expected = torch.stack([naive_step(value, 1.5) for value in values])
    torch.testing.assert_close(steps, expected)
    (slopes,) = torch.autograd.grad(steps.sum(), values)
    assert bool((slopes[values.abs() > 0.75] == 0).all())
    assert float(slopes[(values.abs() - 0.75).abs() < 0.006].abs().max()) < 0.05
    assert bool((steps[1:] >= steps[:-1]).all())


@pytest.mark.parametrize("gate", ["example", "static"])
def test_a_penalty_is_the_entropy_of_what_is_selected(gate: str) -> None:
    """Of each example, summed over the selectors, and with a gradient that is finite also where a
    selection is certain.
    """
    model, inputs = build("dselect_k", **DSELECT, num_experts=5, gate=gate, entropy_weight=0.25)
    copies = [model.shared(inputs)] * len(TASKS)
    extra_BT = model.extra_losses(forward(model, inputs), copies=copies, labels_BT=torch.ones(5, 3))
    for example, penalties in enumerate(extra_BT):
        for task, penalty in enumerate(penalties):
            _, selectors = naive_selectors(model, inputs.shared_BI[example], task)
            expected = sum(
                -weight * weight.log() for item in selectors for weight in item if weight > 0
            )
            torch.testing.assert_close(penalty, 0.25 * expected, rtol=1e-4, atol=1e-4)
    extra_BT.sum().backward()
    certain = torch.tensor([[[0.0, 1.0, 0.0]]], requires_grad=True)
    found = entropy(certain)
    found.backward()
    assert found.tolist() == [0]
    assert certain.grad is not None
    assert bool(torch.isfinite(certain.grad).all())
    gradients = [item.grad for item in model.gates.parameters()]
    assert all(bool(torch.isfinite(item).all()) for item in gradients)
    assert any(bool(item.any()) for item in gradients)


def test_without_a_weight_there_is_no_penalty() -> None:
    """And nothing is computed for it."""
    model, inputs = build("dselect_k", entropy_weight=0)
    copies, outputs = [model.shared(inputs)] * len(TASKS), forward(model, inputs)
    assert model.extra_losses(outputs, copies=copies, labels_BT=torch.ones(5, 3)) is None


def test_an_example_selects_no_more_experts_than_allowed() -> None:
    """Once the codes are beyond the step: two selectors, two experts at most."""
    model, inputs = build("dselect_k", num_experts=8, num_selected=2, step_width=0.001)
    model.is_observed = True
    forward(model, inputs)
    assert all(int((gate > 1e-9).sum(1).max()) <= 2 for gate in model.observed_gates)


def test_a_task_reads_all_tables_and_teaches_its_own() -> None:
    """STEM: forward through the experts of all tasks, backward through its own and the shared."""
    model, inputs = build("stem", **COUNTS)
    for own_BI in inputs.own_BI:
        own_BI.requires_grad_()
    outputs = forward(model, inputs)
    for task, output in enumerate(outputs):
        gradients = torch.autograd.grad(
            output.sum(), inputs.own_BI, retain_graph=True, allow_unused=True
        )
        taught = [item is not None and bool(item.any()) for item in gradients]
        assert taught == [other == task for other in range(len(TASKS))]
    others = tuple(item + 1 if task else item for task, item in enumerate(inputs.own_BI))
    changed = forward(model, Inputs(shared_BI=inputs.shared_BI, own_BI=others))
    assert not torch.allclose(changed[0], outputs[0])


def test_a_group_learns_from_its_tasks_alone() -> None:
    """HoME: what a group's tasks share on level 2 is no other group's to change."""
    model, inputs = build("home", **COUNTS, groups=GROUPS)
    shared = [item.detach().requires_grad_() for item in model.shared(inputs)]
    outputs = model.outputs([tuple(shared)] * len(TASKS), inputs=inputs)
    # metas: all, buy, stay; experts: all, buy, stay
    for task, read in ((0, (0, 1, 3, 4)), (1, (0, 1, 3, 4)), (2, (0, 2, 3, 5))):
        gradients = torch.autograd.grad(
            outputs[task].sum(), shared, retain_graph=True, allow_unused=True
        )
        taught = [item is not None and bool(item.any()) for item in gradients]
        assert taught == [part in read for part in range(len(shared))]
