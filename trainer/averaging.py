"""A moving average of the dense parameters: steadier than the last step, and what is evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from embeddings.planner import is_table


class DenseAverage:
    """The exponential moving average of all dense parameters that train; tables are not averaged.

    After step n, `values = decay * values + (1 - decay) * parameters`, from 0 on, and the same sum
    of ones is their weight; `values / weight` is the average, without a bias towards 0.

    Source: the correction is that of Kingma and Ba, "Adam", ICLR 2015, section 3.

    Args:
        model: its dense parameters are alike on all ranks.
        decay: 0 to 1; None for no average.
    """

    def __init__(self, model: DistributedModelParallel, *, decay: float | None) -> None:
        named = () if decay is None else model.named_parameters()
        self._parameters = {
            name: item for name, item in named if item.requires_grad and not is_table(name)
        }
        self._decay = decay or 0.0
        self._values = {name: torch.zeros_like(item) for name, item in self._parameters.items()}
        self._weight = torch.zeros((), dtype=torch.float64)

    @torch.no_grad()
    def update(self) -> None:
        """Takes in what a step left."""
        if self._parameters:
            values, parameters = list(self._values.values()), list(self._parameters.values())
            torch._foreach_lerp_(values, parameters, 1 - self._decay)
            self._weight.lerp_(torch.ones_like(self._weight), 1 - self._decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside `with`, the model's dense parameters are the average, if there is one."""
        if not self._weight:
            yield
            return
        parameters = self._parameters
        kept = {name: item.detach().clone() for name, item in parameters.items()}
        with torch.no_grad():
            for name, item in parameters.items():
                item.copy_(self._values[name] / float(self._weight))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, item in parameters.items():
                    item.copy_(kept[name])

    def reset(self) -> None:
        """As before the first step."""
        for item in (self._weight, *self._values.values()):
            item.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The tensors themselves; empty if nothing is averaged."""
        return {"values": self._values, "weight": self._weight} if self._parameters else {}
