"""What is seen of single steps: the tasks' gradients where they meet, their weights, and the gates.

Shape legend: B examples on this rank, N experts of a task, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_loaders.config import AnyTask
from trainer.balancing.fan_out import TaskGradients
from trainer.model import StepOutput, Towers

_DIGITS = 6


class Telemetry:
    """Watches the steps that it is told to; others cost nothing.

    Args:
        model: sharded or not; every rank has its own.
        tasks: of the recipe.
    """

    def __init__(self, model: nn.Module, *, tasks: Mapping[str, AnyTask]) -> None:
        [self._towers] = [item for item in model.modules() if isinstance(item, Towers)]
        self._tasks = list(tasks)
        weights = [task.weight for task in tasks.values()]
        self._weights_T = torch.tensor(weights, dtype=torch.float64)
        self._is_watched = False

    @contextmanager
    def watching(self, is_on: bool) -> Iterator[None]:
        """Around a step, which `entries` is to tell of if it is on; the same on all ranks."""
        fan_out, architecture = self._towers.fan_out, self._towers.architecture
        fan_out.observed = fan_out.loss_weights_T = None
        fan_out.is_observed = architecture.is_observed = self._is_watched = is_on
        try:
            yield
        finally:
            fan_out.is_observed = architecture.is_observed = False

    @torch.no_grad()
    def entries(self, output: StepOutput) -> dict[str, Any]:
        """What the step that was watched last leaves in a report; every rank must call.

        Args:
            output: of that step.

        Returns:
            Empty if it was not watched. Else `gradients`: `norms` and `cosines` of the gradients of
            the tasks' weighted losses by what they share, None where a task has none, and
            `factors` that they were multiplied by; `loss_weights`: what each task's loss counts for
            in what all share, the recipe's weight included; and of an architecture with gates
            `gates`: for each task `weights`, the experts' means over the examples of all ranks, and
            `entropy`, the mean in nats. What does not apply is left out.
        """
        if not self._is_watched:
            return {}
        fan_out = self._towers.fan_out
        found: dict[str, Any] = {}
        weights_T = self._weights_T
        if fan_out.loss_weights_T is not None:
            weights_T = weights_T * fan_out.loss_weights_T.double().cpu()
        if fan_out.observed is not None:
            found["gradients"] = self._gradients(fan_out.observed)
            weights_T = weights_T * fan_out.observed.factors_T
        found["loss_weights"] = self._by_task(weights_T)
        gates = self._towers.architecture.observed_gates
        if len(gates):
            found["gates"] = self._gates(gates, given_B=output.weights_B > 0)
            self._towers.architecture.observed_gates = ()
        return found

    def _gradients(self, seen: TaskGradients) -> dict[str, Any]:
        norms_T = seen.gram_TT.diagonal().clamp(min=0).sqrt()
        cosines: dict[str, dict[str, float | None]] = {}
        for one, name in enumerate(self._tasks[:-1]):
            cosines[name] = {}
            for two in range(one + 1, len(self._tasks)):
                scale = float(norms_T[one] * norms_T[two])
                cosine = float(seen.gram_TT[one, two]) / scale if scale else None
                cosines[name][self._tasks[two]] = None if cosine is None else _short(cosine)
        return {
            "norms": self._by_task(norms_T),
            "cosines": cosines,
            "factors": self._by_task(seen.factors_T),
        }

    def _gates(self, gates: Sequence[Tensor], *, given_B: Tensor) -> dict[str, Any]:
        sums = [given_B.sum().double().reshape(1)]
        for gate_BN in gates:
            shares_BN = gate_BN[given_B].double()
            sums += [shares_BN.sum(0), -torch.xlogy(shares_BN, shares_BN).sum().reshape(1)]
        total = torch.cat(sums)
        if dist.is_initialized():
            dist.all_reduce(total)
        count, *parts = total.cpu().split([len(item) for item in sums])
        means = [[_short(value) for value in (part / count).tolist()] for part in parts]
        return {
            task: {"weights": weights, "entropy": entropy}
            for task, weights, [entropy] in zip(self._tasks, means[::2], means[1::2], strict=True)
        }

    def _by_task(self, values_T: Tensor) -> dict[str, float]:
        return {
            task: _short(value) for task, value in zip(self._tasks, values_T.tolist(), strict=True)
        }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
