"""Losses over observed labels, the same on one rank and on several."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from tests.helpers.ranks import run_ranks
from tests.helpers.tasks import data_config, losses_of
from trainer.losses import NonFiniteLossError, TaskSet, normalised_losses

TASKS = TaskSet(
    data_config(
        {
            "click": {"kind": "binary"},
            "watch": {"kind": "regression", "weight": 0.3},
            "buy": {"kind": "binary", "weight": 2.0},
        }
    )
)
NUM_EXAMPLES, NUM_PADDING = 40, 5


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, labels of which a third is not observed, and weights; padding at the end."""
    generator = torch.Generator().manual_seed(0)
    size = NUM_EXAMPLES + NUM_PADDING
    outputs_BT = torch.randn(size, 3, generator=generator) * 3
    labels_BT = torch.rand(size, 3, generator=generator)
    labels_BT[:, 0] = labels_BT[:, 0].round()
    labels_BT[torch.rand(size, 3, generator=generator) < 1 / 3] = math.nan
    weights_B = torch.ones(size)
    weights_B[NUM_EXAMPLES:] = 0
    return outputs_BT, labels_BT, weights_B


def loss_of(outputs_BT: Tensor, labels_BT: Tensor, weights_B: Tensor) -> tuple[Tensor, Tensor]:
    losses_T, means_T, _ = losses_of(
        TASKS, outputs_BK=outputs_BT, labels_BT=labels_BT, weights_B=weights_B
    )
    return (losses_T * torch.tensor([task.weight for task in TASKS.losses])).sum(), means_T


def torch_loss(outputs_BT: Tensor, labels_BT: Tensor) -> tuple[Tensor, list[Tensor]]:
    """PyTorch's own losses of the observed examples alone."""
    means = []
    for index, task in enumerate(TASKS.losses):
        observed = ~labels_BT[:NUM_EXAMPLES, index].isnan()
        outputs = outputs_BT[:NUM_EXAMPLES, index][observed]
        labels = labels_BT[:NUM_EXAMPLES, index][observed]
        binary = functional.binary_cross_entropy_with_logits
        is_binary = task.name != "watch"
        means.append((binary if is_binary else functional.mse_loss)(outputs, labels))
    return sum(task.weight * mean for task, mean in zip(TASKS.losses, means, strict=True)), means


def test_the_loss_is_that_of_the_observed_labels_alone() -> None:
    """Value and gradient, soft labels too; what is not observed, and padding, has gradient 0."""
    outputs_BT, labels_BT, weights_B = inputs()
    expected_BT = outputs_BT.clone().requires_grad_()
    wanted, wanted_means = torch_loss(expected_BT, labels_BT)
    wanted.backward()
    outputs_BT.requires_grad_()
    loss, means_T = loss_of(outputs_BT, labels_BT, weights_B)
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(means_T, torch.stack(wanted_means).detach())
    torch.testing.assert_close(outputs_BT.grad, expected_BT.grad)
    hidden_BT = labels_BT.isnan() | (weights_B == 0).unsqueeze(1)
    assert (outputs_BT.grad[hidden_BT] == 0).all()
    assert (outputs_BT.grad[~hidden_BT] != 0).all()


@pytest.mark.parametrize("extreme", [1e4, -1e4, 1e30, -1e30, math.inf, math.nan])
def test_what_is_not_observed_cannot_spoil_the_loss(extreme: float) -> None:
    """Extreme outputs and labels there change neither the loss nor any gradient."""
    outputs_BT, labels_BT, weights_B = inputs()
    plain_BT = outputs_BT.clone().requires_grad_()
    expected, _ = loss_of(plain_BT, labels_BT, weights_B)
    expected.backward()
    hidden_BT = labels_BT.isnan() | (weights_B == 0).unsqueeze(1)
    labels_BT[NUM_EXAMPLES:] = 1.0  # padding that has labels is padding all the same
    spoilt_BT = torch.where(hidden_BT, extreme, outputs_BT).requires_grad_()
    loss, _ = loss_of(spoilt_BT, labels_BT, weights_B)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(spoilt_BT.grad, plain_BT.grad)


def test_extra_losses_count_where_the_label_does() -> None:
    """With the example's weight; a loss of 1 for each example sums to the number of labels."""
    outputs_BT, labels_BT, weights_B = inputs()
    weights_B[:NUM_EXAMPLES] = torch.rand(NUM_EXAMPLES) + 0.5
    batches = TASKS.batches(outputs_BK=outputs_BT, labels_BT=labels_BT, weights_B=weights_B)
    ones_BT = torch.where(labels_BT.isnan(), 1e30, 1.0)
    ones_BT[NUM_EXAMPLES:] = math.inf
    sums_T, weights_T = TASKS.summed_extra(ones_BT, batches=batches)
    torch.testing.assert_close(sums_T, TASKS.summed(batches)[1])
    assert torch.equal(sums_T, weights_T)


@pytest.mark.parametrize("labels", [[1.0, 0.0, 1.0, 0.0, 0.0], [1.0] * 5])
def test_extra_losses_of_pairs_are_a_mean_over_examples(labels: list[float]) -> None:
    """Of 3 for each example 3 is added, however many pairs there are; nothing without any."""
    tasks = TaskSet(data_config({"order": {"kind": "ranking"}}))
    labels_BT = torch.tensor(labels).unsqueeze(1)
    batches = tasks.batches(
        outputs_BK=torch.zeros(5, 1), labels_BT=labels_BT, weights_B=torch.ones(5)
    )
    sums_3T = tasks.summed(batches)
    extra_2T = tasks.summed_extra(torch.full((5, 1), 3.0), batches=batches)
    has_pairs = sums_3T[1].item() > 0
    found = [
        normalised_losses(sums_T=sums_3T[0], counts_T=sums_3T[1], names=["order"], extra_2T=extra)
        for extra in (None, extra_2T)
    ]
    for plain_T, more_T in zip(*found, strict=True):
        assert more_T.item() - plain_T.item() == pytest.approx(3.0 * has_pairs)


def test_an_example_weight_of_two_is_the_example_twice() -> None:
    """In each task by its own column, or none; a weight of 0 leaves the example out."""
    tasks = {
        "click": {"kind": "binary", "example_weight": "a"},
        "watch": {"kind": "regression"},
        "buy": {"kind": "binary", "example_weight": "b"},
        "next": {"kind": "binary", "example_weight": "a"},
    }
    outputs_BT, labels_BT, _ = inputs()
    outputs_BT, labels_BT = (torch.hstack([x, x[:, :1]])[:8] for x in (outputs_BT, labels_BT))
    weights = torch.tensor([[0, 1, 2, 1, 1, 3, 0, 1], [1, 1, 1, 2, 2, 0, 0, 1]]).T
    _, means_T, _ = losses_of(
        TaskSet(data_config(tasks)),
        outputs_BK=outputs_BT,
        labels_BT=torch.hstack([labels_BT, weights.float()]),
    )
    for index, (name, column) in enumerate(
        {"click": 0, "watch": None, "buy": 1, "next": 0}.items()
    ):
        times = torch.ones(8, dtype=torch.int64) if column is None else weights[:, column]
        _, alone_T, _ = losses_of(
            TaskSet(data_config({name: {"kind": tasks[name]["kind"]}})),
            outputs_BK=outputs_BT[:, index : index + 1].repeat_interleave(times, dim=0),
            labels_BT=labels_BT[:, index : index + 1].repeat_interleave(times, dim=0),
        )
        torch.testing.assert_close(means_T[index], alone_T[0])


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_only_the_proportion_of_example_weights_matters(factor: float) -> None:
    """A mean is a mean, however small their sum."""
    tasks = TaskSet(data_config({"click": {"kind": "binary", "example_weight": "a"}}))
    outputs_BT, labels_BT = torch.tensor([[1.0], [-2.0]]), torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    _, plain_T, _ = losses_of(tasks, outputs_BK=outputs_BT, labels_BT=labels_BT)
    labels_BT[:, 1] *= factor
    _, scaled_T, _ = losses_of(tasks, outputs_BK=outputs_BT, labels_BT=labels_BT)
    torch.testing.assert_close(scaled_T, plain_T)


def test_a_task_that_no_rank_observed_has_loss_zero() -> None:
    """And no gradient; the others are as they would be without it."""
    outputs_BT, labels_BT, weights_B = inputs()
    _, before_T = loss_of(outputs_BT, labels_BT, weights_B)
    labels_BT[:, 2] = math.nan
    outputs_BT.requires_grad_()
    loss, means_T = loss_of(outputs_BT, labels_BT, weights_B)
    loss.backward()
    assert means_T[2] == 0
    assert torch.equal(means_T[:2], before_T[:2])
    assert (outputs_BT.grad[:, 2] == 0).all()


def test_a_batch_of_padding_has_loss_zero() -> None:
    """The last step may leave a rank nothing but padding."""
    outputs_BT, labels_BT, weights_B = inputs()
    outputs_BT.requires_grad_()
    loss, means_T = loss_of(outputs_BT, labels_BT, torch.zeros_like(weights_B))
    loss.backward()
    assert loss == 0
    assert (means_T == 0).all()
    assert (outputs_BT.grad == 0).all()


def loss_of_own_examples(cuts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """On a rank: loss, means, and the gradient as the ranks' average makes it."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = slice(cuts[rank], cuts[rank + 1])
    outputs_BT, labels_BT, weights_B = (tensor[own] for tensor in inputs())
    outputs_BT.requires_grad_()
    loss, means_T = loss_of(outputs_BT, labels_BT, weights_B)
    loss.backward()
    return loss.detach() / world_size, means_T, outputs_BT.grad / world_size


@pytest.mark.parametrize("cuts", [[0, 11, 45], [0, 45, 45], [0, 3, 3, 45]])
def test_ranks_with_different_counts_equal_one_rank(cuts: list[int]) -> None:
    """In loss, means and gradient, also where a rank has no example at all."""
    outputs_BT, labels_BT, weights_B = inputs()
    outputs_BT.requires_grad_()
    expected, expected_T = loss_of(outputs_BT, labels_BT, weights_B)
    expected.backward()
    results = run_ranks(loss_of_own_examples, world_size=len(cuts) - 1, arguments={"cuts": cuts})
    torch.testing.assert_close(sum(loss for loss, _, _ in results), expected.detach())
    torch.testing.assert_close(torch.cat([grad for _, _, grad in results]), outputs_BT.grad)
    for _, means_T, _ in results:
        torch.testing.assert_close(means_T, expected_T)
        assert torch.equal(means_T, results[0][1])


def refusal_where_one_rank_is_wrong(value: float) -> str:
    outputs_BT, labels_BT, weights_B = inputs()
    if dist.get_rank() == 1:
        outputs_BT[0, 2], labels_BT[0, 2] = value, 0.5
    with pytest.raises(NonFiniteLossError) as caught:
        loss_of(outputs_BT, labels_BT, weights_B)
    return str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_raised_on_all_ranks(value: float) -> None:
    """Naming the task, also on the rank whose own examples are fine."""
    messages = run_ranks(refusal_where_one_rank_is_wrong, world_size=2, arguments={"value": value})
    assert len(set(messages)) == 1
    assert messages[0].startswith("the loss of task buy is ")
    assert "click" not in messages[0]
