"""One optimizer for the loop, made of those of the tables and of the dense parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.clipping import GradientClipping, GradientClippingOptimizer
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from embeddings.planner import is_table, readable_name
from trainer.balance_config import BALANCE_STATE
from trainer.optimizer_config import DenseOptimizerConfig, OptimizerConfig


def build_optimizer(
    model: DistributedModelParallel,
    *,
    config: OptimizerConfig,
    is_frozen: Callable[[str], bool] = lambda name: False,
) -> CombinedOptimizer:
    """AdamW for the dense parts beside the tables' fused row-wise Adagrad.

    Data-parallel tables have dense gradients and no fused optimizer; they get row-wise Adagrad too,
    so that a table learns the same however it is cut.

    Args:
        model: sharded.
        config: of the recipe.
        is_frozen: whether a parameter, by its readable name, keeps its value.
    """

    def rowwise_adagrad(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return RowWiseAdagrad(parameters, lr=config.tables.learning_rate, eps=config.tables.eps)

    def idle(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return RowWiseAdagrad(parameters, lr=0.0, eps=config.tables.eps)

    unfused = dict(in_backward_optimizer_filter(model.named_parameters()))
    replicated = {name: item for name, item in unfused.items() if is_table(name)}
    frozen = {name: item for name, item in replicated.items() if is_frozen(readable_name(name))}
    trained = {name: item for name, item in replicated.items() if name not in frozen}
    dense = {
        name: item for name, item in unfused.items() if not is_table(name) and item.requires_grad
    }
    optimizers: list[KeyedOptimizer] = [_dense_optimizer(dense, config=config.dense)]
    if trained:
        optimizers.append(KeyedOptimizerWrapper(trained, rowwise_adagrad))
    if frozen:
        optimizers.append(KeyedOptimizerWrapper(frozen, idle))
    return CombinedOptimizer([model.fused_optimizer, *optimizers])


def _dense_optimizer(
    named: Mapping[str, nn.Parameter], *, config: DenseOptimizerConfig
) -> KeyedOptimizer:
    """AdamW, whose weight decay leaves alone what a balancing method learns, like the logarithm of
    a variance: 0 is nothing special there.
    """
    of_method = {item for name, item in named.items() if name.startswith(BALANCE_STATE)}

    def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": [item for item in parameters if item not in of_method]},
            {"params": list(of_method), "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )

    optimizer = KeyedOptimizerWrapper(named, adamw)
    if config.max_gradient_norm is None:
        return optimizer
    # the same norm on all ranks, because DistributedDataParallel has averaged the gradients
    return GradientClippingOptimizer(
        optimizer, clipping=GradientClipping.NORM, max_gradient=config.max_gradient_norm
    )
