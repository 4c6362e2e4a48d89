"""Methods that weigh the losses: naive references, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.helpers.tasks import data_config, losses_of
from tests.trainer.balancing.methods import make
from trainer.balance_config import UncertaintyConfig
from trainer.balancing import build_balancer
from trainer.balancing.balancer import Balancer
from trainer.losses import TaskSet


def weights_of(balancer: Balancer, means_T: Tensor) -> Tensor:
    """What each task's loss is multiplied by in this step."""
    losses_T = means_T.clone().requires_grad_()
    balancer.total_loss(losses_T, means_T=means_T).backward()
    assert losses_T.grad is not None
    return losses_T.grad


def drawn_losses(step: int, *, num_tasks: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(num_tasks, generator=generator, dtype=torch.float64) + 0.1


def test_uncertainty_is_the_papers_loss() -> None:
    """Equation 10 for the binary task, equation 7 for the regression."""
    balancer = make("uncertainty", num_tasks=2).double()
    variances_T = torch.tensor([0.7, 3.0], dtype=torch.float64)
    with torch.no_grad():
        balancer.log_variances_T.copy_(variances_T.log())
    losses_T = torch.tensor([0.4, 1.9], dtype=torch.float64)
    total = balancer.total_loss(losses_T, means_T=losses_T)
    expected = 0.4 / 0.7 + math.log(0.7) / 2 + 1.9 / (2 * 3.0) + math.log(3.0) / 2
    assert total.item() == pytest.approx(expected, abs=1e-14)


def test_uncertainty_takes_hubers_loss_for_the_half_of_a_squared_error() -> None:
    """So near its target the two learn the same variance and weigh an error alike."""
    errors_B = torch.tensor([0.3, -0.7, 0.1])
    totals = []
    for loss in ("squared", "huber"):
        task = {"kind": "regression", "loss": loss}
        data = data_config({"price": task})
        tasks = TaskSet(data)
        balancer = build_balancer(UncertaintyConfig(), tasks=tasks.losses, seed=0)
        with torch.no_grad():
            balancer.log_variances_T.fill_(0.5)
        losses_T, means_T, _ = losses_of(
            tasks, outputs_BK=errors_B.unsqueeze(1), labels_BT=torch.zeros(3, 1)
        )
        totals.append(balancer.total_loss(losses_T, means_T=means_T))
    torch.testing.assert_close(totals[0], totals[1])


def test_uncertainty_comes_to_rest_at_the_tasks_losses() -> None:
    """A regression's variance at its squared error, a binary task's at twice its cross-entropy."""
    balancer = make("uncertainty", num_tasks=2).double()
    losses_T = torch.tensor([0.4, 1.9], dtype=torch.float64)
    with torch.no_grad():
        balancer.log_variances_T.copy_(torch.tensor([0.8, 1.9], dtype=torch.float64).log())
    balancer.total_loss(losses_T, means_T=losses_T).backward()
    gradient_T = balancer.log_variances_T.grad
    torch.testing.assert_close(gradient_T, torch.zeros_like(losses_T), atol=1e-15, rtol=0)


def test_rlw_weights_are_a_softmax_that_sums_to_the_number_of_tasks() -> None:
    """Drawn anew at each step, by the seed alone; 1 on average."""
    found = [weights_of(balancer, drawn_losses(0)) for balancer in [make("rlw", num_tasks=3)] * 400]
    again = [weights_of(balancer, drawn_losses(1)) for balancer in [make("rlw", num_tasks=3)] * 400]
    assert all(map(torch.equal, found, again))
    weights_ST = torch.stack(found)
    assert len(weights_ST.unique(dim=0)) == 400
    torch.testing.assert_close(weights_ST.sum(1), torch.full((400,), 3.0, dtype=torch.float64))
    assert (weights_ST.mean(0) - 1).abs().max() < 0.15
    logs_ST = weights_ST.log()
    spread = (logs_ST - logs_ST.mean(1, keepdim=True)).square().sum(1).mean().item()
    assert abs(spread - 2) < 0.3  # of three normal draws around their mean


def test_dwa_compares_the_last_two_windows() -> None:
    """Equation 7 on means over windows of steps; 1 in the first two."""
    window, temperature = 3, 1.7
    balancer = make("dwa", num_tasks=3, window_steps=window, temperature=temperature)
    seen: list[Tensor] = []
    for step in range(14):
        means_T = drawn_losses(step)
        done = step // window
        expected_T = torch.ones(3, dtype=torch.float64)
        if done >= 2:
            newer_T = torch.stack(seen[(done - 1) * window : done * window]).mean(0)
            older_T = torch.stack(seen[(done - 2) * window : (done - 1) * window]).mean(0)
            exponents_T = torch.exp(newer_T / older_T / temperature)
            expected_T = 3 * exponents_T / exponents_T.sum()
        torch.testing.assert_close(weights_of(balancer, means_T), expected_T)
        seen.append(means_T)


def test_dwa_averages_over_the_steps_in_which_a_task_was_observed() -> None:
    """And a task that a window did not see counts as one whose loss stays."""
    balancer = make("dwa", num_tasks=2, window_steps=2, temperature=1.0)
    for pair in ([0.0, 1.0], [4.0, 1.0], [2.0, 3.0], [0.0, 3.0]):
        weights_of(balancer, torch.tensor(pair, dtype=torch.float64))
    ratios_T = torch.tensor([2 / 4, 3 / 1], dtype=torch.float64)
    weights_T = weights_of(balancer, torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(weights_T, 2 * ratios_T.softmax(0))
    weights_of(balancer, torch.tensor([0.0, 1.0], dtype=torch.float64))
    ratios_T = torch.tensor([1, 1 / 3], dtype=torch.float64)
    weights_T = weights_of(balancer, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(weights_T, 2 * ratios_T.softmax(0))


def test_famo_is_the_papers_algorithm_on_the_next_steps_losses() -> None:
    """The softmax's derivative by autograd."""
    rate, decay = 0.3, 0.05
    balancer = make("famo", num_tasks=3, learning_rate=rate, decay=decay)
    logits_T = torch.zeros(3, dtype=torch.float64)
    last_T = None
    for step in range(6):
        means_T = drawn_losses(step)
        if last_T is not None:
            logits_T.requires_grad_()
            gains_T = last_T.log() - means_T.log()
            (slopes_T,) = torch.autograd.grad(logits_T.softmax(0) @ gains_T, logits_T)
            logits_T = logits_T.detach() - rate * (slopes_T + decay * logits_T.detach())
        shares_T = logits_T.softmax(0) / means_T
        torch.testing.assert_close(weights_of(balancer, means_T), shares_T / shares_T.sum())
        last_T = means_T


def test_famo_turns_to_the_task_that_gains_least() -> None:
    """One loss falls, the other stays."""
    balancer = make("famo", num_tasks=2)
    for step in range(5):
        weights_of(balancer, torch.tensor([0.9**step, 1.0], dtype=torch.float64))
    assert balancer.logits_T[1] > balancer.logits_T[0]


def test_imtl_scales_losses_to_the_same_size() -> None:
    """exp(s) L - s comes to rest where exp(s) L is 1."""
    balancer = make("imtl", num_tasks=2).double()
    losses_T = torch.tensor([0.3, 1.9], dtype=torch.float64)
    with torch.no_grad():
        balancer.log_scales_T.copy_(-losses_T.log())
    total = balancer.total_loss(losses_T, means_T=losses_T)
    total.backward()
    expected = 2 + math.log(0.3) + math.log(1.9)
    assert total.item() == pytest.approx(expected, abs=1e-14)
    gradient_T = balancer.log_scales_T.grad
    torch.testing.assert_close(gradient_T, torch.zeros_like(losses_T), atol=1e-15, rtol=0)
