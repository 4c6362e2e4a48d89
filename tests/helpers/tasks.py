"""Tasks without a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data_loaders.config import DataConfig
from data_loaders.streams import Cursor
from trainer.losses import TaskSet, normalised_losses
from trainer.model import StepOutput


def data_config(tasks: Mapping[str, Any], **data: Any) -> DataConfig:
    """A section `data` with these tasks and a feature `user`."""
    features = {"user": {"kind": "id"}}
    return DataConfig.model_validate({"features": features, "tasks": dict(tasks), **data})


def losses_of(
    tasks: TaskSet,
    *,
    outputs_BK: Tensor,
    labels_BT: Tensor,
    weights_B: Tensor | None = None,
    groups: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each task's loss to differentiate, its mean over all ranks, and `TaskSums` of this rank."""
    batches = tasks.batches(
        outputs_BK=outputs_BK,
        labels_BT=labels_BT,
        weights_B=torch.ones_like(outputs_BK[:, 0]) if weights_B is None else weights_B,
        groups=groups or {},
    )
    sums_3T = tasks.summed(batches)
    losses_T, means_T = normalised_losses(sums_T=sums_3T[0], counts_T=sums_3T[1], names=tasks.names)
    return losses_T, means_T, sums_3T.detach()


def step_output(
    outputs_BK: Any, labels_BT: Any, weights_B: Any = None, *, sums_3T: Tensor | None = None
) -> StepOutput:
    """What a step leaves behind; all examples are given by default."""
    outputs = torch.as_tensor(outputs_BK, dtype=torch.float32)
    labels = torch.as_tensor(labels_BT, dtype=torch.float32)
    weights = torch.ones(len(outputs)) if weights_B is None else torch.as_tensor(weights_B)
    return StepOutput(
        outputs_BK=outputs,
        labels_BT=labels,
        weights_B=weights.float(),
        losses_T=torch.zeros(labels.shape[1]),
        sums_3T=torch.zeros(3, labels.shape[1]) if sums_3T is None else sums_3T,
        cursor=Cursor(),
    )
