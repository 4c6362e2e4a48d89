"""Bayesian task dependencies, an example at a time."""

from __future__ import annotations

import torch

from tests.trainer.architectures.drawn import NUM_EXAMPLES, copies_and_outputs, draw, layers
from trainer.architectures.dbmtl import Dbmtl

TASKS = ("purchase", "click", "watch")


@torch.no_grad()
def test_a_task_reads_what_was_found_for_those_it_depends_on() -> None:
    """In the recipe's order of them, through several steps, and beside its own tower."""
    model, inputs = draw(
        "dbmtl",
        tasks=TASKS,
        depends_on={"purchase": ["watch", "click"], "watch": ["click"]},
        shared_tower=[6],
        task_tower=[4],
        relation_tower=[5, 3],
    )
    assert isinstance(model, Dbmtl)
    _, outputs = copies_and_outputs(model, inputs, num_tasks=3)
    for example in range(NUM_EXAMPLES):
        hidden = layers(model.bottom, inputs.shared_BI[example])
        own = [layers(tower, hidden) for tower in model.towers]
        click = layers(model.relations[1], own[1])
        watch = layers(model.relations[2], torch.cat([own[2], click]))
        purchase = layers(model.relations[0], torch.cat([own[0], watch, click]))
        for task, found in enumerate((purchase, click, watch)):
            head = model.heads[task]
            torch.testing.assert_close(outputs[task][example], head.weight @ found + head.bias)
