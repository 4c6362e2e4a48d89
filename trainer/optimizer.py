"""One optimizer for the loop, made of those of the tables and of the dense parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from trainer.optimizer_config import OptimizerConfig


def build_optimizer(
    model: DistributedModelParallel,
    *,
    config: OptimizerConfig,
    is_frozen: Callable[[str], bool] = lambda name: False,
) -> CombinedOptimizer:
    """AdamW for the dense parts beside the tables' fused row-wise Adagrad.

    The weight decay leaves alone what a balancing method learns, like the logarithm of a variance:
    0 is nothing special there.

    Data-parallel tables have dense gradients and no fused optimizer; they get row-wise Adagrad too,
    so that a table learns the same however it is cut.

    Args:
        model: sharded.
        config: of the recipe.
        is_frozen: whether a parameter, by its readable name, keeps its value.
    """

    def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": [item for item in parameters if item not in of_balancer]},
            {"params": list(of_balancer), "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.dense.learning_rate,
            weight_decay=config.dense.weight_decay,
        )

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
    of_balancer = {item for name, item in dense.items() if name.startswith(BALANCE_STATE)}
    optimizers: list[KeyedOptimizer] = [KeyedOptimizerWrapper(dense, adamw)]
    if config.dense.max_gradient_norm is not None:
        # the same norm on all ranks, because DistributedDataParallel has averaged the gradients
        optimizers[0] = GradientClippingOptimizer(
            optimizers[0],
            clipping=GradientClipping.NORM,
            max_gradient=config.dense.max_gradient_norm,
        )
    if trained:
        optimizers.append(KeyedOptimizerWrapper(trained, rowwise_adagrad))
    if frozen:
        optimizers.append(KeyedOptimizerWrapper(frozen, idle))
    return CombinedOptimizer([model.fused_optimizer, *optimizers])
