"""Ranking losses, against loops over pairs in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from data_loaders.config import DataConfig
from tests.helpers.ranks import run_ranks
from tests.helpers.tasks import data_config, losses_of
from trainer.losses import TaskSet, ranking

NUM_EXAMPLES, NUM_PADDING = 44, 4
NEGATIVES = {"catalogue": "items.parquet", "per_example": 3}


def pairwise(encoding: str | None = "hash") -> DataConfig:
    """With example weights; in groups if an encoding of the group's ids is given."""
    task = {"kind": "ranking", "example_weight": "w"}
    if encoding is None:
        return data_config({"rank": task})
    features = {"user": {"kind": "id", "encoding": encoding}}
    return data_config({"rank": task | {"group": "user"}}, features=features)


def drawn() -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Scores, graded labels some of which are not observed, weights, and groups from row 0 on."""
    random = np.random.default_rng(2)
    size = NUM_EXAMPLES + NUM_PADDING
    scores = random.normal(size=(size, 1))
    scores[3] = scores[4]
    labels = random.choice([0.0, 0.0, 1.0, 0.5, math.nan], size)
    weights = random.choice([0.0, 0.5, 1.0, 2.0], size)
    groups = random.integers(0, 6, size)
    given = np.arange(size) < NUM_EXAMPLES
    groups[~given] = -1
    labels[~given], weights[~given] = math.nan, math.nan
    return (
        torch.from_numpy(scores),
        torch.from_numpy(np.stack([labels, weights], axis=1)),
        torch.from_numpy(given.astype(float)),
        {"user": torch.from_numpy(groups)},
    )


def naive(first_row: int | None) -> tuple[float, float, np.ndarray]:
    """The mean over pairs, how often they are in order, and the gradient by the scores."""
    scores_B1, labels_BT, given_B, groups = drawn()
    scores, groups_B = scores_B1[:, 0].tolist(), groups["user"].tolist()
    total = count = right = 0.0
    gradient = np.zeros(len(scores))
    for i in range(len(scores)):
        for j in range(len(scores)):
            label_i, label_j = float(labels_BT[i, 0]), float(labels_BT[j, 0])
            if not (given_B[i] and given_B[j] and label_i > label_j):
                continue
            if first_row is not None and not groups_B[i] == groups_B[j] >= first_row:
                continue
            weight = float(labels_BT[i, 1] * labels_BT[j, 1])
            margin = scores[i] - scores[j]
            total += weight * math.log1p(math.exp(-margin))
            count += weight
            right += weight * ((margin > 0) + 0.5 * (margin == 0))
            gradient[i] -= weight / (1 + math.exp(margin))
            gradient[j] += weight / (1 + math.exp(margin))
    return total / count, right / count, gradient / count


@pytest.mark.parametrize("pairs_at_once", [1, 100, 2**20])
@pytest.mark.parametrize(
    ("encoding", "first_row"), [(None, None), ("direct", 0), ("hash", 1), ("vocabulary", 2)]
)
def test_the_pairwise_loss_is_the_mean_over_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
    encoding: str | None,
    first_row: int | None,
    pairs_at_once: int,
) -> None:
    """Value, gradient and order, in parts of any size; missing and rare ids are no group."""
    monkeypatch.setattr(ranking, "PAIRS_AT_ONCE", pairs_at_once)
    tasks = TaskSet(pairwise(encoding))
    scores_B1, labels_BT, given_B, groups = drawn()
    scores_B1.requires_grad_()
    losses_T, means_T, sums_3T = losses_of(
        tasks, outputs_BK=scores_B1, labels_BT=labels_BT, weights_B=given_B, groups=groups
    )
    losses_T.sum().backward()
    loss, right, gradient = naive(first_row)
    assert float(means_T[0]) == pytest.approx(loss, rel=1e-9)
    assert float(sums_3T[2, 0] / sums_3T[1, 0]) == pytest.approx(right, rel=1e-9)
    np.testing.assert_allclose(scores_B1.grad[:, 0], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("labels", [[0.0, 0.0], [1.0, 1.0], [math.nan, math.nan], [1.0, math.nan]])
def test_without_a_pair_the_loss_is_zero(labels: list[float]) -> None:
    """And so is its gradient, which there is all the same."""
    tasks = TaskSet(data_config({"rank": {"kind": "ranking"}}))
    outputs_BK = torch.zeros(2, 1, requires_grad=True)
    labels_BT = torch.tensor(labels).unsqueeze(1)
    losses_T, _, sums_3T = losses_of(tasks, outputs_BK=outputs_BK, labels_BT=labels_BT)
    losses_T.sum().backward()
    assert losses_T.tolist() == [0.0]
    assert sums_3T.abs().sum() == 0
    assert outputs_BK.grad.tolist() == [[0.0], [0.0]]


def loss_of_own_examples() -> tuple[float, float, Tensor]:
    """On a rank: its share of the loss, the mean, and its part of the ranks' average gradient."""
    own = slice(dist.get_rank(), None, dist.get_world_size())
    scores_B1, labels_BT, given_B, groups = drawn()
    scores_B1 = scores_B1[own].clone().requires_grad_()
    losses_T, means_T, _ = losses_of(
        TaskSet(pairwise()),
        outputs_BK=scores_B1,
        labels_BT=labels_BT[own],
        weights_B=given_B[own],
        groups={"user": groups["user"][own]},
    )
    losses_T.sum().backward()
    world_size = dist.get_world_size()
    return float(losses_T) / world_size, float(means_T), scores_B1.grad[:, 0] / world_size


def test_pairs_over_ranks_are_those_of_one_rank() -> None:
    """A pair whose examples lie on two ranks counts as any other, in value and gradient."""
    results = run_ranks(loss_of_own_examples, world_size=2)
    loss, _, expected = naive(1)
    assert sum(share for share, _, _ in results) == pytest.approx(loss, rel=1e-9)
    for rank, (_, mean, gradient) in enumerate(results):
        assert mean == pytest.approx(loss, rel=1e-9)
        np.testing.assert_allclose(gradient, expected[rank::2], rtol=1e-9, atol=1e-12)


def softmax_config(**negatives: Any) -> DataConfig:
    task = {"kind": "ranking", "loss": "sampled_softmax"}
    return data_config({"next": task}, negatives=NEGATIVES | negatives)


@pytest.mark.parametrize("is_corrected", [False, True])
def test_the_sampled_softmax_is_the_choice_of_the_positive(is_corrected: bool) -> None:
    """Log row by log row, each as often as its label; corrected by how often items are drawn."""
    config = softmax_config()
    if is_corrected:
        config = softmax_config(sampling="popularity", item="user")
    random = np.random.default_rng(4)
    num_groups, size = 9, 4
    scores = random.normal(size=(num_groups, size)) * 2
    log_q = random.normal(size=(num_groups, size)) * is_corrected
    positives = random.choice([1.0, 1.0, 0.5, 0.0, math.nan], num_groups)
    positives[-1] = math.nan  # padding
    labels = np.zeros((num_groups, size))
    labels[:, 0] = positives
    total = count = right = 0.0
    for score, q, label in zip(scores[:-1], log_q[:-1], positives[:-1], strict=True):
        if label > 0:
            parts = np.exp(score - q)
            total -= label * math.log(parts[0] / parts.sum())
            right += label * (score[0] > score[1:]).mean()
            count += label
    columns = [labels.reshape(-1)]
    if is_corrected:
        log_q[-1] = math.nan
        columns.append(log_q.reshape(-1))
    given = (np.arange(num_groups * size) < (num_groups - 1) * size).astype(float)
    outputs_BK = torch.from_numpy(scores.reshape(-1, 1)).requires_grad_()
    losses_T, means_T, sums_3T = losses_of(
        TaskSet(config),
        outputs_BK=outputs_BK,
        labels_BT=torch.from_numpy(np.stack(columns, axis=1)),
        weights_B=torch.from_numpy(given),
    )
    losses_T.sum().backward()
    assert float(means_T[0]) == pytest.approx(total / count, rel=1e-9)
    assert float(sums_3T[2, 0]) == pytest.approx(right, rel=1e-9)
    gradient_GS = outputs_BK.grad.view(num_groups, size)
    assert torch.isfinite(gradient_GS).all()
    is_used_G = torch.from_numpy(np.nan_to_num(positives) > 0)
    assert ((gradient_GS != 0).all(dim=1) == is_used_G).all()
    torch.testing.assert_close(gradient_GS.sum(1), torch.zeros_like(gradient_GS[:, 0]))
