"""Which task follows which, and the logit of the probability of a chain."""

from __future__ import annotations

from decimal import Decimal, localcontext

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.architectures.chains import chains, logit_of_product


def exact_logit(logits: list[float]) -> float:
    """In a thousand digits."""
    with localcontext() as context:
        context.prec = 1000
        happens = Decimal(1)
        for logit in logits:
            happens /= 1 + (-Decimal(logit)).exp()
        return float((happens / (1 - happens)).ln())


@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=4))
def test_the_logit_of_a_product_is_exact_at_all_sizes(logits: list[float]) -> None:
    """In float32, also where the probability or its complement is far below what it can hold."""
    found = float(logit_of_product(torch.tensor([logits], dtype=torch.float32)))
    expected = exact_logit(logits)
    assert abs(found - expected) <= 2e-6 * max(1.0, abs(expected))


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=4))
def test_its_gradient_is_finite_at_all_sizes(logits: list[float]) -> None:
    """And no larger than the step itself: between 0 and 1."""
    logits_BS = torch.tensor([logits], dtype=torch.float32, requires_grad=True)
    product_B1 = logit_of_product(logits_BS)
    (gradient_BS,) = torch.autograd.grad(product_B1.sum(), logits_BS)
    assert product_B1.isfinite().all()
    assert ((gradient_BS >= 0) & (gradient_BS <= 1 + 1e-5)).all()


def test_a_chain_begins_with_the_first_task() -> None:
    """Whatever their order among the outputs; several may follow one."""
    tasks = ("purchase", "click", "share", "cart")
    after = {"purchase": "cart", "cart": "click", "share": "click"}
    assert chains(tasks, after) == [(1, 3, 0), (1,), (1, 2), (1, 3)]
