"""What an architecture is: what the tasks share, and what each has of its own.

    Inputs -> shared() -> tensors -> fan-out -> a copy per task -> outputs() -> an output per task

The line between the two is where the gradients of the tasks meet (`trainer.balancing.fan_out`).
What lies before it is computed once and passed back through once, however many tasks there are.
Behind it, the output of task t depends on copy t alone: where a tower reads another task's hidden
states, it computes them anew from its own copy. So the gradient at copy t is that of task t's loss.

Shape legend: B examples on this rank, I width of the input, G width of the gates' input, K outputs
of a task, N experts, T tasks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

# what the tasks share, as one of them sees it
Copy = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sizes:
    """What an architecture must know of the data.

    Attributes:
        input_width: I.
        tasks: their names.
        num_outputs: K of each task.
        gate_width: G; 0 where the recipe names no `gate_features`.
    """

    input_width: int
    tasks: tuple[str, ...]
    num_outputs: tuple[int, ...]
    gate_width: int = 0

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True)
class Inputs:
    """What an architecture reads of a batch.

    Attributes:
        shared_BI: float32, embeddings and dense features behind their interaction; the dense
            features alone where the tasks share no tables.
        gate_BG: float32, those of `model.gate_features`.
        own_BI: float32, as `shared_BI`, of each task's own tables; empty where there are none.
    """

    shared_BI: Tensor
    gate_BG: Tensor | None = None
    own_BI: tuple[Tensor, ...] = ()


class Architecture(nn.Module):
    """Base of all architectures; every parameter takes part in every step.

    Attributes:
        is_observed: whether the next forward is to leave `observed_gates` behind.
        observed_gates: of the last forward that was observed, what the gate before each task's
            tower gave the experts: float32 (B, N) without gradient, rows that sum to 1; the task's
            own experts come first, then those that it shares. Empty for an architecture without
            gates.
    """

    is_observed: bool = False
    observed_gates: Sequence[Tensor] = ()

    def observe_gates(self, gates: Sequence[Tensor]) -> None:
        """Called by architectures with each task's gate in every forward."""
        if self.is_observed:
            self.observed_gates = [gate_BN.detach() for gate_BN in gates]

    @abstractmethod
    def shared(self, inputs: Inputs) -> Copy:
        """What all tasks read: float32 tensors of any shape (B, ...)."""

    @abstractmethod
    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        """Each task's outputs, float32 (B, K); those of task t depend on `copies[t]`, on no other.

        Args:
            copies: of what `shared` returned, one for each task.
            inputs: of the same batch; tables of a task's own are read here.
        """

    def task_towers(self) -> list[nn.Module]:
        """Each task's own tower, for what ties them to each other (`trainer.balancing.relation`).

        The linear layers in it, in order, are compared with those of the other tasks. Empty where
        there is no `self.towers`, which is to have one for each task; such an architecture may say
        what takes their place.
        """
        towers = getattr(self, "towers", None)
        return list(towers) if isinstance(towers, nn.ModuleList) else []

    def extra_losses(
        self, outputs: Sequence[Tensor], *, copies: Sequence[Copy], labels_BT: Tensor
    ) -> Tensor | None:
        """Losses beside those of the outputs.

        Added to the task's is their mean over the examples of all ranks where its own label is
        observed, by their weights; a report of a task's loss knows nothing of them.

        Args:
            outputs: that `outputs` gave.
            copies: that it gave them for.
            labels_BT: float32, NaN where not observed.

        Returns:
            float32 (B, T), finite also where labels are not observed; gradients of column t go to
            output t and copy t alone. None for no such losses.
        """
        return None
