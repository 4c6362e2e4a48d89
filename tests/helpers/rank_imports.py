"""What the server process of `tests.helpers.ranks` loads once, so that its forks need not."""

from __future__ import annotations

import hypothesis
import pytest
import sklearn.metrics
import torch.distributed.optim  # which TorchRec imports when it first shards a model

import trainer.loop
from data_loaders.hashing import shuffled

__all__ = ["hypothesis", "pytest", "sklearn", "torch", "trainer"]

shuffled(1, key=(0,))  # numba imports most of itself when the first compiled loop is called
