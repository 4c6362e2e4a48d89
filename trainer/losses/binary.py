"""A yes or no: one output, its logit.

Shape legend: B examples on this rank, K = 1 output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from data_loaders.config import AnyTask, DataConfig
from data_loaders.task_config import BinaryTask
from trainer.losses.task_loss import ExampleLoss


class BinaryLoss(ExampleLoss):
    """Cross entropy in nats.

    With label y, prediction p, positive weight w, focal gamma g and smoothing s:
        y' = (1 - s) y + s / 2,    loss = -w y' (1 - p)^g log p - (1 - y') p^g log(1 - p).
    A soft label is a part of each class, in the focal loss too, whose paper knows hard ones.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, equations 4 and 5;
        Szegedy et al., "Rethinking the inception architecture", CVPR 2016, section 7.
    """

    def __init__(self, config: AnyTask, *, name: str, data: DataConfig) -> None:
        super().__init__(config, name=name, data=data)
        assert isinstance(config, BinaryTask)
        self._positive_weight = config.positive_weight
        self._gamma = config.focal_gamma
        self._smoothing = config.label_smoothing

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        logits_B = outputs_BK[:, 0]
        if self._smoothing:
            labels_B = labels_B * (1 - self._smoothing) + self._smoothing / 2
        if not self._gamma:
            weight = None
            if self._positive_weight != 1:
                weight = logits_B.new_tensor(self._positive_weight)
            return functional.binary_cross_entropy_with_logits(
                logits_B, labels_B, pos_weight=weight, reduction="none"
            )
        # of a yes and of a no: -log p and -log(1 - p)
        yes_B, no_B = functional.softplus(-logits_B), functional.softplus(logits_B)
        of_yes_B = yes_B * torch.exp(-self._gamma * no_B)
        of_no_B = no_B * torch.exp(-self._gamma * yes_B)
        return self._positive_weight * labels_B * of_yes_B + (1 - labels_B) * of_no_B

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The probability of a yes."""
        return torch.sigmoid(outputs_BK[:, 0])
