"""One of several classes: an output for each, whose softmax is its probability.

Shape legend: B examples on this rank, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from data_loaders.config import AnyTask, DataConfig
from data_loaders.task_config import MulticlassTask
from trainer.losses.task_loss import ExampleLoss


class MulticlassLoss(ExampleLoss):
    """Cross entropy in nats, of labels that may be smoothed.

    Source: Szegedy et al., "Rethinking the inception architecture", CVPR 2016, section 7.
    """

    def __init__(self, config: AnyTask, *, name: str, data: DataConfig) -> None:
        super().__init__(config, name=name, data=data)
        assert isinstance(config, MulticlassTask)
        self._num_classes = config.num_classes
        self._smoothing = config.label_smoothing

    @property
    def num_outputs(self) -> int:
        return self._num_classes

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs_BK, labels_B.long(), label_smoothing=self._smoothing, reduction="none"
        )

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The probability of each class."""
        return outputs_BK.softmax(dim=1)
