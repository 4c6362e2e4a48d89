"""Methods that choose the factors by the gradients: closed forms, and what the papers promise."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from tests.trainer.balancing.methods import SEED, drawn, factors_of, make
from trainer.balancing.nonnegative import nonnegative_minimum
from trainer.balancing.projection import pairs

TOLERANCE = 1e-6

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def gradients(draw: st.DrawFn, *, min_tasks: int = 1, max_tasks: int = 5) -> Tensor:
    """In general position, of lengths from a thousandth to a thousand."""
    exponents = draw(st.lists(st.integers(-3, 3), min_size=min_tasks, max_size=max_tasks))
    scales_T = 10.0 ** torch.tensor(exponents, dtype=torch.float64)
    return drawn(len(exponents), seed=draw(SEEDS)) * scales_T.unsqueeze(1)


def generator_of_step(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(SEED * 1_000_003 + step)


@given(gradients(min_tasks=2, max_tasks=2))
def test_pcgrad_leaves_no_conflict_between_two_tasks(gradients_TD: Tensor) -> None:
    """Their sum goes against neither task, and is the plain sum where they do not conflict."""
    first_D, second_D = gradients_TD
    direction_D = factors_of(make("pcgrad", num_tasks=2), gradients_TD) @ gradients_TD
    lengths = direction_D.norm() * gradients_TD.norm(dim=1)
    assert (gradients_TD @ direction_D >= -TOLERANCE * lengths).all()
    if first_D @ second_D >= 0:
        torch.testing.assert_close(direction_D, first_D + second_D)


def test_pcgrad_equals_projections_of_the_vectors_one_by_one() -> None:
    """Algorithm 1 on the vectors themselves, in the drawn order, over several steps."""
    balancer = make("pcgrad", num_tasks=4)
    for step in range(6):
        gradients_TD = drawn(4, seed=step, width=5)
        changed_TD = gradients_TD.clone()
        for task, other in pairs(4, generator=generator_of_step(step)):
            product = changed_TD[task] @ gradients_TD[other]
            if product < 0:
                changed_TD[task] -= (
                    product / gradients_TD[other].square().sum() * gradients_TD[other]
                )
        direction_D = factors_of(balancer, gradients_TD) @ gradients_TD
        torch.testing.assert_close(direction_D, changed_TD.sum(0))


def test_pairs_name_each_task_with_each_other_once() -> None:
    """In an order that differs from step to step."""
    found = [list(pairs(5, generator=generator_of_step(step))) for step in range(3)]
    for order in found:
        assert sorted(order) == [(one, two) for one in range(5) for two in range(5) if one != two]
    assert found[0] != found[1] != found[2]


def test_gradvac_equals_turning_the_vectors_one_by_one() -> None:
    """Equation 2 on the vectors themselves, with the average of the cosines, over several steps."""
    balancer = make("gradvac", num_tasks=3, momentum=0.3)
    usual_TT = torch.zeros(3, 3, dtype=torch.float64)
    for step in range(8):
        gradients_TD = drawn(3, seed=step, width=4)
        changed_TD = gradients_TD.clone()
        for task, other in pairs(3, generator=generator_of_step(step)):
            usual = usual_TT[task, other]
            cosine = torch.cosine_similarity(changed_TD[task], gradients_TD[other], dim=0)
            if cosine < usual:
                changed_TD[task] += (
                    changed_TD[task].norm()
                    * (usual * (1 - cosine**2).sqrt() - cosine * (1 - usual**2).sqrt())
                    / (gradients_TD[other].norm() * (1 - usual**2).sqrt())
                ) * gradients_TD[other]
        units_TD = gradients_TD / gradients_TD.norm(dim=1, keepdim=True)
        usual_TT = 0.7 * usual_TT + 0.3 * units_TD @ units_TD.T
        direction_D = factors_of(balancer, gradients_TD) @ gradients_TD
        torch.testing.assert_close(direction_D, changed_TD.sum(0))


@given(SEEDS, st.floats(-0.9, 0.9))
def test_gradvac_turns_a_gradient_to_the_usual_cosine(seed: int, usual: float) -> None:
    """Of two tasks; where the cosine is that or more already, nothing changes."""
    gradients_TD = drawn(2, seed=seed, width=4)
    balancer = make("gradvac", num_tasks=2)
    balancer.usual_TT.fill_(usual)
    one, two = factors_of(balancer, gradients_TD).tolist()
    cosine = torch.cosine_similarity(*gradients_TD, dim=0)
    if cosine >= usual:
        assert (one, two) == (1, 1)
    else:  # each is changed by a multiple of the other
        for first, second, share in ((0, 1, two - 1), (1, 0, one - 1)):
            changed_D = gradients_TD[first] + share * gradients_TD[second]
            found = torch.cosine_similarity(changed_D, gradients_TD[second], dim=0)
            torch.testing.assert_close(found.item(), usual, rtol=TOLERANCE, atol=TOLERANCE)


@given(gradients())
def test_mgda_finds_the_shortest_mean(gradients_TD: Tensor) -> None:
    """Weights of a mean, and no gradient's inner product with it is below its squared length."""
    weights_T = factors_of(make("mgda", num_tasks=len(gradients_TD)), gradients_TD)
    assert (weights_T >= 0).all()
    torch.testing.assert_close(weights_T.sum().item(), 1.0)
    mean_D = weights_T @ gradients_TD
    products_T = gradients_TD @ mean_D
    slack_T = TOLERANCE * gradients_TD.norm(dim=1) * mean_D.norm()
    assert (products_T >= mean_D @ mean_D - slack_T).all()


@given(gradients(min_tasks=2, max_tasks=2))
def test_mgda_of_two_tasks_is_the_papers_closed_form(gradients_TD: Tensor) -> None:
    """Algorithm 1: the other gradient's projection on the difference, clipped."""
    one_D, two_D = gradients_TD
    expected = ((two_D - one_D) @ two_D / (one_D - two_D).square().sum()).clamp(0, 1)
    found_T = factors_of(make("mgda", num_tasks=2), gradients_TD)
    torch.testing.assert_close(found_T, torch.stack([expected, 1 - expected]))


@given(gradients(), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_cagrad_serves_the_worst_task_best(gradients_TD: Tensor, radius: float) -> None:
    """Within the radius, and the least improvement equals the bound that the dual sets for any
    direction there.
    """
    num_tasks = len(gradients_TD)
    factors_T = factors_of(make("cagrad", num_tasks=num_tasks, radius=radius), gradients_TD)
    mean_D = gradients_TD.mean(0)
    direction_D = factors_T @ gradients_TD
    size = mean_D.norm()
    if radius == 0:
        torch.testing.assert_close(direction_D, mean_D)
        return
    assert (direction_D - mean_D).norm() <= radius * size * (1 + TOLERANCE)
    least = (gradients_TD @ direction_D).min()
    weights_T = factors_T - 1 / num_tasks
    mixed_D = weights_T / weights_T.sum() @ gradients_TD
    bound = mixed_D @ mean_D + radius * size * mixed_D.norm()
    assert (weights_T >= -1e-12).all()
    assert bound - least <= TOLERANCE * size * (mixed_D.norm() + gradients_TD.norm(dim=1).min())


@given(gradients())
def test_nash_mtl_is_the_fixed_point_of_the_bargain(gradients_TD: Tensor) -> None:
    """G a = 1 / a with all factors positive, so the direction's squared length is T."""
    factors_T = factors_of(make("nash_mtl", num_tasks=len(gradients_TD)), gradients_TD)
    assert (factors_T > 0).all()
    torch.testing.assert_close(
        gradients_TD @ gradients_TD.T @ factors_T * factors_T,
        torch.ones_like(factors_T),
        rtol=TOLERANCE,
        atol=TOLERANCE,
    )


@given(gradients())
def test_imtl_has_equal_projections_on_all_gradients(gradients_TD: Tensor) -> None:
    """And none of them is negative."""
    factors_T = factors_of(make("imtl", num_tasks=len(gradients_TD)), gradients_TD)
    units_TD = gradients_TD / gradients_TD.norm(dim=1, keepdim=True)
    projections_T = units_TD @ (factors_T @ gradients_TD)
    assert (projections_T > 0).all()
    slack = TOLERANCE * (factors_T.abs() * gradients_TD.norm(dim=1)).sum()
    assert projections_T.max() - projections_T.min() <= slack


def test_imtl_is_the_papers_closed_form() -> None:
    """Equation 2, where its factors are positive."""
    compared = 0
    for seed in range(20):
        gradients_TD = drawn(3, seed=seed, width=20)
        units_TD = gradients_TD / gradients_TD.norm(dim=1, keepdim=True)
        differences_D = gradients_TD[0] - gradients_TD[1:]
        unit_differences = units_TD[0] - units_TD[1:]
        others = (
            gradients_TD[0]
            @ unit_differences.T
            @ torch.linalg.inv(differences_D @ unit_differences.T)
        )
        expected_T = torch.cat([1 - others.sum(0, keepdim=True), others])
        if (expected_T > 0).all():
            compared += 1
            found_T = factors_of(make("imtl", num_tasks=3), gradients_TD)
            torch.testing.assert_close(found_T, expected_T)
    assert compared > 5


@given(gradients())
def test_aligned_mtl_sums_the_aligned_gradients(gradients_TD: Tensor) -> None:
    """The orthogonal factor of the gradients' matrix, times the least singular value: a matrix
    whose condition number is 1.
    """
    left, singular, right = torch.linalg.svd(gradients_TD, full_matrices=False)
    aligned_TD = singular[-1] * left @ right
    torch.testing.assert_close(torch.linalg.cond(aligned_TD).item(), 1.0)
    factors_T = factors_of(make("aligned_mtl", num_tasks=len(gradients_TD)), gradients_TD)
    torch.testing.assert_close(
        factors_T @ gradients_TD, aligned_TD.sum(0), rtol=1e-4, atol=1e-4 * singular[-1].item()
    )


def test_gradnorm_steps_along_the_papers_loss() -> None:
    """Weights after each step, by autograd of equation 2 over the logarithms of the weights."""
    asymmetry, learning_rate = 1.2, 0.1
    balancer = make("gradnorm", num_tasks=3, asymmetry=asymmetry, learning_rate=learning_rate)
    logs_T = torch.zeros(3, dtype=torch.float64)
    first_T = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    for step in range(5):
        means_T = first_T * torch.tensor([1.0, 0.9, 0.5], dtype=torch.float64) ** step
        weights_T = logs_T.exp()
        losses_T = means_T.clone().requires_grad_()
        total = balancer.total_loss(losses_T, means_T=means_T)
        total.backward()
        torch.testing.assert_close(losses_T.grad, weights_T)
        gradients_TD = drawn(3, seed=step) * torch.tensor([[1.0], [5.0], [0.1]])
        factors_T = factors_of(balancer, gradients_TD * weights_T.unsqueeze(1), means_T=means_T)
        assert (factors_T == 1).all()
        logs_T.requires_grad_()
        norms_T = gradients_TD.norm(dim=1) * logs_T.exp()
        progress_T = means_T / first_T
        mean = norms_T.mean().detach()
        targets_T = mean * (progress_T / progress_T.mean()) ** asymmetry
        (slopes_T,) = torch.autograd.grad((norms_T - targets_T).abs().sum() / mean, logs_T)
        weights_T = (logs_T.detach() - learning_rate * slopes_T).exp()
        logs_T = (3 * weights_T / weights_T.sum()).log()


def test_gradnorm_makes_gradients_equally_large() -> None:
    """With asymmetry 0, of gradients whose lengths are five, one and a fifth."""
    balancer = make("gradnorm", num_tasks=3, asymmetry=0, learning_rate=0.02)
    lengths_T = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)
    means_T = torch.ones(3, dtype=torch.float64)
    for _ in range(400):
        losses_T = means_T.clone().requires_grad_()
        balancer.total_loss(losses_T, means_T=means_T).backward()
        scaled_T = lengths_T * losses_T.grad
        factors_of(balancer, torch.diag(scaled_T), means_T=means_T)
    assert scaled_T.max() / scaled_T.min() < 1.2


@given(SEEDS, st.integers(1, 6))
def test_the_least_point_meets_its_conditions(seed: int, size: int) -> None:
    """x >= 0, no slope leads further down, and where x is positive there is none."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(size, size + 1))
    matrix, linear = root @ root.T, random.normal(size=size)
    x = nonnegative_minimum(matrix, linear)
    slopes = matrix @ x - linear
    assert (x >= 0).all()
    assert (slopes >= -1e-9).all()
    assert abs(slopes @ x) <= 1e-9 * max(1.0, x.sum())


@pytest.mark.parametrize("word", ["mgda", "cagrad", "nash_mtl", "imtl", "aligned_mtl"])
def test_no_task_is_climbed(word: str) -> None:
    """In directions that the papers call common descent, for random gradients of many a length."""
    radius = {"radius": 0.9} if word == "cagrad" else {}
    for seed in range(50):
        scales = 10.0 ** drawn(4, seed=seed + 1000, width=1)
        gradients_TD = drawn(4, seed=seed, width=4 + seed % 9) * scales
        factors_T = factors_of(make(word, num_tasks=4, **radius), gradients_TD)
        products_T = gradients_TD @ (factors_T @ gradients_TD)
        plain_T = gradients_TD @ gradients_TD.mean(0)
        slack = 1e-9 * gradients_TD.norm() ** 2
        if word == "cagrad":
            assert products_T.min() >= plain_T.min() - slack
        elif word != "aligned_mtl":
            assert (products_T >= -slack).all()
