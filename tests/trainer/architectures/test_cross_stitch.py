"""Cross-stitch networks against the paper's equation, an example and a task at a time."""

from __future__ import annotations

import torch

from tests.trainer.architectures.drawn import NUM_EXAMPLES, copies_and_outputs, draw, layers
from trainer.architectures.cross_stitch import CrossStitch

TASKS = ("click", "purchase", "share")


@torch.no_grad()
def test_each_task_reads_a_mixture_of_all_towers_after_every_layer() -> None:
    """Layer by layer: every task's own layer, then for each task the sum over all of them."""
    model, inputs = draw("cross_stitch", tasks=TASKS, stitched_tower=[4, 3], task_tower=[2])
    assert isinstance(model, CrossStitch)
    _, outputs = copies_and_outputs(model, inputs, num_tasks=3)
    for example in range(NUM_EXAMPLES):
        hidden = [inputs.shared_BI[example]] * 3
        for layer, unit_ST in zip(model.layers, model.units, strict=True):
            own = [
                (hidden[t] @ layer.weights[0][t] + layer.biases[0][t, 0]).clamp(min=0)
                for t in range(3)
            ]
            hidden = [sum(unit_ST[s, t] * own[t] for t in range(3)) for s in range(3)]
        for task in range(3):
            expected = layers(model.towers[task], hidden[task])
            torch.testing.assert_close(outputs[task][example], expected)


def test_a_task_begins_with_most_of_its_own_tower() -> None:
    """The rest comes from the others in equal parts; a single task has nothing but its own."""
    for tasks in (TASKS, TASKS[:2], TASKS[:1]):
        unit_TT = first_unit(tasks)
        torch.testing.assert_close(unit_TT.sum(1), torch.ones(len(tasks), dtype=torch.float64))
        assert (unit_TT.diagonal() >= 0.9 - 1e-6).all()
        assert (unit_TT > 0).all()


def first_unit(tasks: tuple[str, ...]) -> torch.Tensor:
    from trainer.architectures import build_architecture
    from trainer.architectures.architecture import Sizes
    from trainer.model_config import CrossStitchConfig

    sizes = Sizes(input_width=4, tasks=tasks, num_outputs=(1,) * len(tasks))
    model = build_architecture(CrossStitchConfig(), sizes=sizes)
    assert isinstance(model, CrossStitch)
    return model.units[0].detach().double()
