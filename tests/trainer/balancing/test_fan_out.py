"""Where the tasks' gradients meet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer.balancing.methods import make
from trainer.balancing.fan_out import FanOut
from trainer.losses import NonFiniteLossError

SHAPES = ((3, 4, 5), (4, 6))


def backward(fan_out: FanOut, gradients: list[list[Tensor]]) -> list[Tensor]:
    """What goes on, of each shared tensor, if these come back to the tasks' copies."""
    shared = tuple(torch.zeros(shape, requires_grad=True) for shape in SHAPES)
    copies = fan_out(shared)
    fan_out.means_T = torch.ones(len(copies))
    loss = sum(
        (item * gradient).sum()
        for copy, parts in zip(copies, gradients, strict=True)
        for item, gradient in zip(copy, parts, strict=True)
    )
    assert isinstance(loss, Tensor)
    return list(torch.autograd.grad(loss, shared))


def drawn(num_tasks: int, *, orders: tuple[tuple[int, ...], ...]) -> list[list[Tensor]]:
    """Gradients that lie in memory in one order for each task."""
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for order in orders[:num_tasks]:
        cube = torch.empty([SHAPES[0][dim] for dim in order])
        back = [order.index(dim) for dim in range(3)]
        gradients.append(
            [
                cube.permute(back).normal_(generator=generator),
                torch.randn(SHAPES[1], generator=generator),
            ]
        )
    return gradients


@pytest.mark.parametrize(
    "orders",
    [
        ((0, 1, 2), (0, 1, 2), (0, 1, 2)),
        ((2, 0, 1), (2, 0, 1), (2, 0, 1)),
        ((1, 0, 2), (0, 2, 1), (2, 1, 0)),
    ],
)
def test_inner_products_and_sum_do_not_depend_on_how_gradients_lie(
    orders: tuple[tuple[int, ...], ...],
) -> None:
    """Backward leaves some of them transposed."""
    gradients = drawn(3, orders=orders)
    fan_out = FanOut(make("mgda", num_tasks=3), group=None)
    found = backward(fan_out, gradients)
    flat_TD = torch.stack([torch.cat([item.flatten() for item in parts]) for parts in gradients])
    assert fan_out.observed is not None
    torch.testing.assert_close(
        fan_out.observed.gram_TT, (flat_TD.double() @ flat_TD.T.double()), rtol=1e-5, atol=1e-5
    )
    factors = fan_out.observed.factors_T.tolist()
    for index, item in enumerate(found):
        expected = sum(
            factor * parts[index] for factor, parts in zip(factors, gradients, strict=True)
        )
        torch.testing.assert_close(item, expected)


def test_static_weights_add_the_gradients_up() -> None:
    """And look at nothing, unless they are observed."""
    gradients = drawn(2, orders=((0, 1, 2), (2, 1, 0)))
    fan_out = FanOut(make("static", num_tasks=2), group=None)
    found = backward(fan_out, gradients)
    for index, item in enumerate(found):
        torch.testing.assert_close(item, gradients[0][index] + gradients[1][index])
    assert fan_out.observed is None
    fan_out.is_observed = True
    observed = backward(fan_out, gradients)
    assert all(map(torch.equal, found, observed))
    assert fan_out.observed is not None


def test_a_gradient_that_is_not_finite_goes_no_further() -> None:
    """The tables behind would step on it."""
    gradients = drawn(2, orders=((0, 1, 2), (0, 1, 2)))
    gradients[1][0][0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteLossError):
        backward(FanOut(make("pcgrad", num_tasks=2), group=None), gradients)
