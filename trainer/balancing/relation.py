"""Ties the tasks' towers to each other: a penalty beside the losses.

Shape legend: T tasks, D weights of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_loaders.errors import InputError
from trainer.balance_config import RelationConfig

# of the largest singular value: the covariance of fewer tasks than T has no inverse
LEAST_SINGULAR_FRACTION = 1e-4


class TaskRelation(nn.Module):
    """A penalty on how the tasks' towers differ.

    l2: strength / 2 times the squared distance of all towers' weights and biases from their mean
    over the tasks, for layers that have the same shape in all tasks.

    relationship: strength / 2 times tr(W C^-1 W') of the last layers' weights, W of shape (D, T).
    For given weights the covariance of the tasks, C with trace 1, is found in closed form,
    (W'W)^(1/2) over its trace, and then taken for a constant. The paper alternates between the two
    until both are found; here each training step does both once. Its other term, on the weights
    alone, is the dense optimizer's weight decay.

    Source: Evgeniou and Pontil, "Regularized multi-task learning", KDD 2004; Zhang and Yeung, "A
        convex formulation for learning task relationships in multi-task learning", UAI 2010,
        equation 7 and section 2.2.

    Args:
        config: of the penalty.
        towers: of each task.
        architecture: its word in the recipe, for messages.

    Attributes:
        covariance_TT: float64, of kind relationship: the last one found.

    Raises:
        InputError: there is nothing that could be tied.
    """

    covariance_TT: Tensor

    def __init__(
        self, config: RelationConfig, *, towers: Sequence[nn.Module], architecture: str
    ) -> None:
        super().__init__()
        self._config = config
        if len(towers) < 2:
            found = f"{len(towers)} in model.architecture: {architecture}"
            raise InputError(
                f"balance.relation: expected two towers or more, one of each task, found {found}; "
                "remove this section, or choose another architecture"
            )
        tied = _tied_parameters(towers, kind=config.kind)
        if not tied:
            which = "layer" if config.kind == "l2" else "last layer"
            other = "" if config.kind == "l2" else "use kind: l2, or "
            raise InputError(
                f"balance.relation.kind: {config.kind} needs a {which} of the same shape in all "
                f"tasks' towers, found none in model.architecture: {architecture}; "
                f"{other}remove balance.relation"
            )
        num_tasks = len(towers)
        if config.kind == "relationship":
            even_TT = torch.eye(num_tasks, dtype=torch.float64) / num_tasks
            self.register_buffer("covariance_TT", even_TT)

    def forward(self, towers: Sequence[nn.Module]) -> Tensor:
        """The penalty, the same on all ranks.

        Args:
            towers: as they were when this was made.
        """
        tied = _tied_parameters(towers, kind=self._config.kind)
        if self._config.kind == "l2":
            distances = [(item - item.mean(0)).square().sum() for item in map(torch.stack, tied)]
            return self._config.strength / 2 * torch.stack(distances).sum()
        weights_DT = torch.stack([item.flatten() for item in tied[0]], dim=1)
        if self.training:
            self.covariance_TT.copy_(covariance(weights_DT.detach()))
        inverse_TT = torch.linalg.inv(self.covariance_TT).to(weights_DT)
        return self._config.strength / 2 * ((weights_DT @ inverse_TT) * weights_DT).sum()


def covariance(weights_DT: Tensor) -> Tensor:
    """The C with trace 1 under which tr(W C^-1 W') is least; float64 (T, T), positive definite."""
    # the eigenvalues of W'W are squares of W's singular values
    squares_T, vectors_TT = torch.linalg.eigh(weights_DT.double().T @ weights_DT.double())
    singular_T = squares_T.clamp(min=0).sqrt()
    largest = singular_T[-1].clamp(min=torch.finfo(torch.float32).tiny)
    singular_T = torch.maximum(singular_T, LEAST_SINGULAR_FRACTION * largest)
    return (vectors_TT * (singular_T / singular_T.sum())) @ vectors_TT.T


def _tied_parameters(towers: Sequence[nn.Module], *, kind: str) -> list[list[Tensor]]:
    """Weights, or weights and biases, each with its counterparts in all towers."""
    layers = [
        [layer for layer in tower.modules() if isinstance(layer, nn.Linear)] for tower in towers
    ]
    if kind == "relationship":
        tied = [[own[-1].weight for own in layers]] if all(layers) else []
    else:
        tied = [
            list(items)
            for counterparts in zip(*layers, strict=False)
            for items in zip(*(layer.parameters() for layer in counterparts), strict=False)
        ]
    return [items for items in tied if len({item.shape for item in items}) == 1]
