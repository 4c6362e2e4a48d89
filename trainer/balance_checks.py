"""Whether a recipe's section `balance` fits its tasks and its model."""

from __future__ import annotations

from data_loaders.config import DataConfig
from data_loaders.task_config import AMOUNT_LOSSES, RegressionTask
from trainer.balance_config import BalanceConfig, ImtlConfig
from trainer.model_config import ModelConfig


def check_balance(balance: BalanceConfig, *, data: DataConfig, model: ModelConfig) -> None:
    """Refuses methods that the tasks' losses, or what they share, make no sense to.

    Args:
        balance: the section.
        data: tasks.
        model: what they share.

    Raises:
        ValueError: beginning with the key.
    """
    if balance.weighs_gradients and not model.has_shared_tables:
        raise ValueError(
            f"balance.method: {balance.method} weighs the tasks' gradients at what they share, and "
            f"in model.architecture: {model.architecture} they share nothing; use a method that "
            "weighs losses, like static, or another architecture"
        )
    scales_losses = isinstance(balance, ImtlConfig) and balance.scale_losses
    if not (balance.needs_positive_losses or scales_losses):
        return
    instead = "static, rlw or a method that weighs gradients"
    if scales_losses:
        instead = "balance.scale_losses: false"
    for name, task in data.tasks.items():
        if isinstance(task, RegressionTask) and task.loss in AMOUNT_LOSSES:
            raise ValueError(
                f"balance.method: {balance.method} needs losses that are never negative, found "
                f"data.tasks.{name}.loss: {task.loss}, the logarithm of a density; "
                f"use {instead}, or another loss"
            )
