"""Ways to make a training step of several tasks, and the check that they start alike.

Shape legend: T tasks.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from benchmarks.lookup_variants import VariantsDisagreeError
from data_loaders.batch import InteractionBatch, id_feature_names
from embeddings.planner import is_table
from embeddings.tables import build_tables
from trainer.build import build_model, build_sharded_model
from trainer.config import Recipe
from trainer.losses import TaskSet, normalised_losses
from trainer.optimizer import build_optimizer
from trainer.runtime import Runtime

TOLERANCE = 1e-4


class Variant(Protocol):
    """One way to make a step."""

    name: str

    def step(self) -> Tensor:
        """Forward, backward and update on the next batch; float32 (T,), the losses before it."""
        ...


class FusedStep:
    """This project's step: sharded tables with fused updates, pipelined, balanced in one backward.

    Args:
        recipe: of the model.
        name: of the variant.
        runtime: of a single rank.
        batches: taken in turn, for ever.
    """

    def __init__(
        self, recipe: Recipe, *, name: str, runtime: Runtime, batches: Sequence[InteractionBatch]
    ) -> None:
        self.name = name
        self._model, _ = build_sharded_model(recipe, runtime=runtime)
        optimizer = build_optimizer(self._model, config=recipe.optimizer)
        self._pipeline = TrainPipelineSparseDist(self._model, optimizer, runtime.device)
        self._model.train()
        self._batches = itertools.cycle(batches)

    def step(self) -> Tensor:
        losses_T: Tensor = self._pipeline.progress(self._batches).losses_T
        return losses_T

    def table_weights(self) -> dict[str, Tensor]:
        """Copies, by the names that they have without sharding."""
        return {
            name.removeprefix("tables."): item.local_tensor().clone()
            for name, item in self._model.state_dict().items()
            if is_table(name)
        }


class UnfusedStep:
    """The textbook's step: tables with dense gradients, updated by an optimizer like the rest.

    Args:
        recipe: of the model.
        name: of the variant.
        table_weights: to start from.
        batches: taken in turn, for ever.
        has_projections: a backward for each task, and PCGrad on the gradients of all parameters
            that more than one task reaches, in the recipe's order; else one backward of the sum.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        name: str,
        table_weights: Mapping[str, Tensor],
        batches: Sequence[InteractionBatch],
        has_projections: bool,
    ) -> None:
        self.name = name
        device = batches[0].dense_BD.device
        towers = build_model(recipe).towers
        self._input_layer = towers.input_layer.to(device)
        self._architecture = towers.architecture.to(device)
        self._tables = build_tables(
            recipe.embeddings.tables,
            keys=id_feature_names(recipe.data),
            table_of_feature=recipe.table_of_feature(),
        ).to_empty(device=device)
        self._tables.load_state_dict(dict(table_weights))
        self._tasks = TaskSet(recipe.data)
        self._parameters = [
            *self._tables.parameters(),
            *self._input_layer.parameters(),
            *self._architecture.parameters(),
        ]
        dense, tables = recipe.optimizer.dense, recipe.optimizer.tables
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                self._parameters[len(table_weights) :],
                lr=dense.learning_rate,
                weight_decay=dense.weight_decay,
            ),
            RowWiseAdagrad(self._tables.parameters(), lr=tables.learning_rate, eps=tables.eps),
        ]
        self._batches = itertools.cycle(batches)
        self._has_projections = has_projections

    def step(self) -> Tensor:
        batch = next(self._batches)
        losses_T, means_T = self._losses(batch)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        if self._has_projections:
            _set_gradients(self._parameters, losses_T=losses_T)
        else:
            losses_T.sum().backward()
        for optimizer in self._optimizers:
            optimizer.step()
        return means_T

    def _losses(self, batch: InteractionBatch) -> tuple[Tensor, Tensor]:
        inputs = self._input_layer(self._tables(batch.ids), batch.dense_BD)
        shared = self._architecture.shared(inputs)
        names = self._tasks.names
        outputs = self._architecture.outputs([shared] * len(names), inputs=inputs)
        seen = self._tasks.batches(
            outputs_BK=torch.cat(outputs, dim=1),
            labels_BT=batch.labels_BT,
            weights_B=batch.weights_B,
        )
        sums_3T = self._tasks.summed(seen)
        return normalised_losses(sums_T=sums_3T[0], counts_T=sums_3T[1], names=names)


def _set_gradients(parameters: Sequence[nn.Parameter], *, losses_T: Tensor) -> None:
    """PCGrad by the gradients of the parameters, flattened; Yu et al., algorithm 1."""
    by_task = [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for loss in losses_T
    ]
    is_shared = [
        sum(item is not None for item in parts) > 1 for parts in zip(*by_task, strict=True)
    ]
    flat = [
        torch.cat(
            [
                (torch.zeros_like(parameter) if item is None else item).flatten()
                for parameter, item, shared in zip(parameters, parts, is_shared, strict=True)
                if shared
            ]
        )
        for parts in by_task
    ]
    total = torch.zeros_like(flat[0])
    for task, gradient in enumerate(flat):
        changed = gradient.clone()
        for other in range(len(flat)):
            if other != task and (product := changed @ flat[other]) < 0:
                changed -= product / flat[other].square().sum() * flat[other]
        total += changed
    begin = 0
    for index, parameter in enumerate(parameters):
        if is_shared[index]:
            parameter.grad = total[begin : begin + parameter.numel()].view_as(parameter)
            begin += parameter.numel()
        else:
            parameter.grad = next(parts[index] for parts in by_task if parts[index] is not None)


def check_agreement(variants: Sequence[Variant], *, alike: tuple[str, str]) -> None:
    """Makes two steps of each.

    Args:
        alike: names of two variants that must agree after the first step too.

    Raises:
        VariantsDisagreeError: naming the variant.
    """
    losses = {variant.name: (variant.step(), variant.step()) for variant in variants}
    expected = losses[alike[0]]
    for name, (first_T, second_T) in losses.items():
        if not torch.allclose(first_T, expected[0], rtol=TOLERANCE):
            raise VariantsDisagreeError(f"{name}: the losses of the first step differ")
        if name in alike and not torch.allclose(second_T, expected[1], rtol=TOLERANCE):
            raise VariantsDisagreeError(f"{name}: the losses after the first step differ")
