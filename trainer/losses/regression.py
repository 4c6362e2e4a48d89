"""A number: one output, the number itself, or the parameters of its distribution.

Shape legend: B examples on this rank, K outputs of the task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from data_loaders.config import AnyTask, DataConfig
from data_loaders.task_config import RegressionTask
from trainer.losses.task_loss import ExampleLoss

# keeps the density of a log-normal finite: narrower than a thousandth of the amount it need not be
MIN_SIGMA = 1e-3
# of a mean's logarithm: float64 holds its square, and sums of that
MAX_LOG_MEAN = 80.0


class SquaredLoss(ExampleLoss):
    """Squared error, in squared standard deviations."""

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        return functional.mse_loss(outputs_BK[:, 0], labels_B, reduction="none")

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The standardised number."""
        return outputs_BK[:, 0]


class HuberLoss(SquaredLoss):
    """Half the squared error up to delta, linear beyond.

    Source: Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics
        35, 1964.
    """

    def __init__(self, config: AnyTask, *, name: str, data: DataConfig) -> None:
        super().__init__(config, name=name, data=data)
        assert isinstance(config, RegressionTask)
        self._delta = config.huber_delta

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        return functional.huber_loss(
            outputs_BK[:, 0], labels_B, delta=self._delta, reduction="none"
        )


class LognormalLoss(ExampleLoss):
    """Negative log-likelihood, in nats, of an amount whose logarithm is normal; outputs are mu, and
    sigma before a softplus.

    Source: Wang, Liu and Miao, "A deep probabilistic model for customer lifetime value prediction",
        2019, the lognormal loss; the floor under sigma is ours.
    """

    placeholder = 1.0

    @property
    def num_outputs(self) -> int:
        return 2

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        return _lognormal_losses(outputs_BK, labels_B)

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The mean, exp(mu + sigma^2 / 2), in units of `std`."""
        return _lognormal_means(outputs_BK)


class ZilnLoss(ExampleLoss):
    """Zero-inflated log-normal: an amount is above 0 with probability p, and then log-normal.

    Outputs are the logit of p, mu, and sigma before a softplus; the loss is the cross entropy of p
    in nats, and for amounts above 0 that of `LognormalLoss` in addition.

    Source: Wang, Liu and Miao, "A deep probabilistic model for customer lifetime value prediction",
        2019, the ZILN loss; the floor under sigma is ours.
    """

    @property
    def num_outputs(self) -> int:
        return 3

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        is_above_B = labels_B > 0
        losses_B = functional.binary_cross_entropy_with_logits(
            outputs_BK[:, 0], is_above_B.to(outputs_BK.dtype), reduction="none"
        )
        amounts_B = torch.where(is_above_B, labels_B, 1.0)
        return losses_B + torch.where(
            is_above_B, _lognormal_losses(outputs_BK[:, 1:], amounts_B), 0.0
        )

    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """The mean, p exp(mu + sigma^2 / 2), in units of `std`."""
        return torch.sigmoid(outputs_BK[:, 0]) * _lognormal_means(outputs_BK[:, 1:])


def _lognormal_losses(outputs_B2: Tensor, amounts_B: Tensor) -> Tensor:
    log_B, sigma_B = amounts_B.log(), _sigmas(outputs_B2)
    deviations_B = (log_B - outputs_B2[:, 0]) / sigma_B
    return deviations_B.square() / 2 + sigma_B.log() + log_B + math.log(2 * math.pi) / 2


def _lognormal_means(outputs_B2: Tensor) -> Tensor:
    log_B = outputs_B2[:, 0] + _sigmas(outputs_B2).square() / 2
    return log_B.clamp(max=MAX_LOG_MEAN).exp()


def _sigmas(outputs_B2: Tensor) -> Tensor:
    return functional.softplus(outputs_B2[:, 1]) + MIN_SIGMA
