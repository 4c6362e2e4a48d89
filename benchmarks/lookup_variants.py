"""Three ways to look up the same ids in the same tables, and the check that they agree.

Shape legend: B examples, T tables, N ids in the batch, E summed embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from embeddings.config import TableConfig
from embeddings.planner import is_table, plan_tables, shard_model
from embeddings.tables import build_tables, initialise_tables
from trainer.runtime import Runtime, rank_memory_bytes

LEARNING_RATE = 0.01
EPS = 1e-8
INIT_STD = 0.02


class VariantsDisagreeError(RuntimeError):
    """Two variants computed different numbers, so their times must not be compared."""


@dataclass(frozen=True)
class Batch:
    """Ids and what comes back for them, on the device.

    Attributes:
        ids_N: int64, all bags of the first table, then of the second, ...
        lengths_TB: int32 (T * B,), ids per bag.
        offsets_TB: int64 (T * B + 1,), where each bag begins.
        gradient_BE: float32, of the pooled vectors.
        num_tables: T.
    """

    ids_N: Tensor
    lengths_TB: Tensor
    offsets_TB: Tensor
    gradient_BE: Tensor
    num_tables: int

    def ids_of(self, table: int) -> Tensor:
        bounds = self.offsets_TB[:: len(self.gradient_BE)]
        return self.ids_N[bounds[table] : bounds[table + 1]]

    def num_distinct_rows(self) -> int:
        return sum(len(self.ids_of(table).unique()) for table in range(self.num_tables))


class Variant(Protocol):
    """One way to look up."""

    name: str
    # of the optimizer's float32 state, which an update reads and writes beside each row
    momentum_width: int

    def inputs(self, batch: Batch) -> Any:
        """The batch as this variant takes it; not timed."""
        ...

    def forward(self, inputs: Any) -> Tensor:
        """The pooled vectors of all tables side by side, float32 (B, E)."""
        ...

    def train(self, inputs: Any, gradient_BE: Tensor) -> None:
        """Forward, backward and update."""
        ...

    def weights(self) -> list[Tensor]:
        """The tables themselves, not copies."""
        ...


class ShardedLookup:
    """This project's path: the tables as a recipe's model has them, sharded over one rank."""

    name = "lookup"
    momentum_width = 1

    def __init__(
        self, *, num_tables: int, table: TableConfig, batch_size: int, seed: int, runtime: Runtime
    ) -> None:
        tables = {f"table_{index:03d}": table for index in range(num_tables)}
        self.keys = list(tables)
        module = _Pooled(
            build_tables(tables, keys=self.keys, table_of_feature={key: key for key in self.keys})
        )
        self.plan = plan_tables(
            module,
            tables=tables,
            world_size=1,
            local_world_size=1,
            device_type=runtime.device_type,
            memory_bytes=rank_memory_bytes(device_type=runtime.device_type, local_world_size=1),
            batch_size=batch_size,
        )
        self.model = shard_model(
            module,
            plan=self.plan,
            device=runtime.device,
            learning_rate=LEARNING_RATE,
            eps=EPS,
        )
        self._parameters = {
            name: item for name, item in self.model.state_dict().items() if is_table(name)
        }
        initialise_tables(self._parameters, seed=seed, std=INIT_STD)

    def inputs(self, batch: Batch) -> KeyedJaggedTensor:
        """A new one each time, as the loader makes it: the offsets are not known yet."""
        return KeyedJaggedTensor(
            keys=self.keys,
            values=batch.ids_N,
            lengths=batch.lengths_TB,
            stride=len(batch.gradient_BE),
        )

    def forward(self, inputs: KeyedJaggedTensor) -> Tensor:
        pooled_BE: Tensor = self.model(inputs)
        return pooled_BE

    def train(self, inputs: KeyedJaggedTensor, gradient_BE: Tensor) -> None:
        self.forward(inputs).backward(gradient_BE)

    def sharding_types(self) -> set[str]:
        """That the planner chose."""
        modules: Any = self.plan.plan.values()
        return {item.sharding_type for module in modules for item in module.values()}

    def weights(self) -> list[Tensor]:
        return [self._parameters[name].local_tensor() for name in sorted(self._parameters)]


class RawTbe:
    """FBGEMM's training kernel by itself, without the check that ids lie within their table."""

    name = "tbe"
    momentum_width = 1

    def __init__(self, *, weights: Sequence[Tensor]) -> None:
        on_cpu = weights[0].device.type == "cpu"
        location = EmbeddingLocation.HOST if on_cpu else EmbeddingLocation.DEVICE
        compute = ComputeDevice.CPU if on_cpu else ComputeDevice.CUDA
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, location, compute) for rows, dim in (item.shape for item in weights)],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=LEARNING_RATE,
            eps=EPS,
            bounds_check_mode=BoundsCheckMode.NONE,
            device=weights[0].device,
        )
        _copy(weights, self.weights())

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.ids_N, batch.offsets_TB

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        pooled_BE: Tensor = self.tables(*inputs)
        return pooled_BE

    def train(self, inputs: tuple[Tensor, Tensor], gradient_BE: Tensor) -> None:
        self.forward(inputs).backward(gradient_BE)

    def weights(self) -> list[Tensor]:
        return list(self.tables.split_embedding_weights())


class EmbeddingBags:
    """Plain PyTorch: a sparse `nn.EmbeddingBag` per table and `torch.optim.Adagrad`.

    PyTorch has no row-wise Adagrad: this one keeps a momentum value per weight, not per row.
    """

    name = "embedding_bag"

    def __init__(self, *, weights: Sequence[Tensor]) -> None:
        self.momentum_width = weights[0].size(1)
        # made empty and filled, for a first draw of the values would take longer than the rest
        self.bags = [
            nn.EmbeddingBag(
                rows, dim, mode="sum", sparse=True, _weight=weights[0].new_empty(rows, dim)
            )
            for rows, dim in (weight.shape for weight in weights)
        ]
        _copy(weights, self.weights())
        # the default, said aloud: PyTorch warns of sparse gradients until someone has chosen
        torch.sparse.check_sparse_tensor_invariants.disable()
        self.optimizer = torch.optim.Adagrad(
            [bag.weight for bag in self.bags], lr=LEARNING_RATE, eps=EPS
        )

    def inputs(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        size = len(batch.gradient_BE)
        table_starts = batch.offsets_TB[::size]
        return [
            (
                batch.ids_of(table),
                batch.offsets_TB[table * size : (table + 1) * size] - table_starts[table],
            )
            for table in range(batch.num_tables)
        ]

    def forward(self, inputs: list[tuple[Tensor, Tensor]]) -> Tensor:
        pooled = [bag(ids, offsets) for bag, (ids, offsets) in zip(self.bags, inputs, strict=True)]
        return torch.cat(pooled, dim=1)

    def train(self, inputs: list[tuple[Tensor, Tensor]], gradient_BE: Tensor) -> None:
        self.optimizer.zero_grad()
        self.forward(inputs).backward(gradient_BE)
        self.optimizer.step()

    def weights(self) -> list[Tensor]:
        return [bag.weight.data for bag in self.bags]


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


class _Pooled(nn.Module):
    """The tables and the one thing that a model does with them."""

    def __init__(self, tables: EmbeddingBagCollection) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, ids: KeyedJaggedTensor) -> Tensor:
        pooled_BE: Tensor = self.tables(ids).values()
        return pooled_BE


def check_agreement(*, lookup: Variant, tbe: Variant, embedding_bag: Variant, batch: Batch) -> None:
    """Compares the variants' numbers; leaves the tables of the first two one step older.

    The pooled vectors of all three must agree, and after one update the rows that the batch
    touched in the first two. The third's Adagrad is elementwise, so its rows may not agree.

    Raises:
        VariantsDisagreeError: they do not.
    """
    with torch.no_grad():
        expected_BE = embedding_bag.forward(embedding_bag.inputs(batch))
        for variant in (lookup, tbe):
            pooled_BE = variant.forward(variant.inputs(batch))
            _assert_close(
                pooled_BE, expected_BE, what=f"pooled vectors of {variant.name} and embedding_bag"
            )
    for variant in (lookup, tbe):
        variant.train(variant.inputs(batch), batch.gradient_BE)
    for table, (ours, theirs) in enumerate(zip(lookup.weights(), tbe.weights(), strict=True)):
        rows = batch.ids_of(table).unique()
        what = f"rows of table {table} after one update in {lookup.name} and {tbe.name}"
        _assert_close(ours[rows], theirs[rows], what=what)


def _assert_close(actual: Tensor, expected: Tensor, *, what: str) -> None:
    # float32 sums in another order; a row's first Adagrad step is about LEARNING_RATE whatever the
    # gradient's size, so a thousandth of that is beyond rounding and far below a fault
    if not torch.allclose(actual, expected, rtol=1e-4, atol=LEARNING_RATE / 1000):
        largest = (actual - expected).abs().max().item()
        raise VariantsDisagreeError(f"{what} differ by up to {largest:.3g}; no times are reported")
