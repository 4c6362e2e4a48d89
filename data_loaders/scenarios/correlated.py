"""Two regression tasks, as alike as one chooses: the synthetic tasks of the MMoE paper.

Shape legend: N examples, D numbers of the input, M sine waves.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from data_loaders.oracle import TaskKind
from data_loaders.scenarios.draws import Floats


class Correlated:
    """Two tasks y_k = w_k . x + sum over i of sin(alpha_i w_k . x + beta_i) + noise.

    x         fixed_size_list of 100 float32, independent, each N(0, 1)
    constant  int8, 0: an id, for a model that asks for one
    y1, y2    float32

    With orthogonal unit vectors u_1 and u_2, drawn from the seed, w_1 = c u_1 and
    w_2 = c (p u_1 + sqrt(1 - p^2) u_2). So p is the cosine of the weights and the correlation of
    w_1 . x and w_2 . x. That of the labels is not p, but it rises with p; at p = 1 the tasks differ
    by their noise alone, at p = 0 they have nothing in common but the waves' shape, at p = -1 they
    see the same direction reversed. The truth is the label without its noise, so the best possible
    mse is the noise's variance, about 0.01.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, KDD 2018, section 3.2. The paper leaves c, the alphas and the betas open;
    here c = 1, alpha_i = i and beta_i = i^2 for i from 1 to 3, which a small network learns from
    100,000 examples: waves that are faster make harder tasks. Its noise N(0, 0.01) is read as a
    variance of 0.01.
    """

    num_inputs = 100
    scale = 1.0  # c
    alphas_M = (1.0, 2.0, 3.0)
    betas_M = (1.0, 4.0, 9.0)
    noise_std = 0.1
    tasks: ClassVar[dict[str, TaskKind]] = {"y1": "regression", "y2": "regression"}

    def __init__(self, *, examples: int, rng: Generator, correlation: float = 0.5) -> None:
        """Any number of examples comes from the same two directions; `correlation` is p."""
        basis_D2, _ = np.linalg.qr(rng.standard_normal((self.num_inputs, 2)))
        mix_22 = np.array([[1, correlation], [0, math.sqrt(1 - correlation**2)]])
        self.weights_D2 = self.scale * basis_D2 @ mix_22
        self.description = (
            f"two regression tasks on {self.num_inputs} numbers, with weights of correlation "
            f"{correlation:g}"
        )

    def draw(self, rng: Generator, *, num_examples: int, start: float, stop: float) -> pa.Table:
        """The next examples of the log; any are like any others."""
        x_ND = rng.standard_normal((num_examples, self.num_inputs), dtype=np.float32)
        truth_N2 = self._truth(x_ND)
        labels_N2 = truth_N2 + self.noise_std * rng.standard_normal(truth_N2.shape)
        columns = {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(x_ND.ravel()), self.num_inputs),
            "constant": pa.array(np.zeros(num_examples, dtype=np.int8)),
        }
        columns |= {
            task: pa.array(labels_N, pa.float32())
            for task, labels_N in zip(self.tasks, labels_N2.T, strict=True)
        }
        columns |= {
            f"truth_{task}": pa.array(truth_N)
            for task, truth_N in zip(self.tasks, truth_N2.T, strict=True)
        }
        return pa.table(columns)

    def _truth(self, x_ND: Floats) -> Floats:
        linear_N2 = x_ND.astype(np.float64) @ self.weights_D2
        waves = zip(self.alphas_M, self.betas_M, strict=True)
        return linear_N2 + sum(np.sin(alpha * linear_N2 + beta) for alpha, beta in waves)
