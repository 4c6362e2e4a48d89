"""Interactions against loops over examples and pairs of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.trainer.architectures.test_every_architecture import losses
from trainer.interactions import INTERACTIONS, Interaction, build_interaction
from trainer.loop import train
from trainer.model_config import SharedBottomConfig
from trainer.recipe_file import build_recipe

NUM_EXAMPLES, WIDTH, NUM_DENSE = 4, 3, 2


def draw(
    word: str, *, num_vectors: int = 4, num_dense: int = NUM_DENSE, **options: Any
) -> tuple[Interaction, list[Tensor]]:
    """The interaction, and the vectors and dense features that it reads, in float64."""
    torch.manual_seed(2)
    config = SharedBottomConfig(interaction=word, **options)  # type: ignore[arg-type]
    widths = [WIDTH] * num_vectors
    interaction = build_interaction(config, widths=widths, num_dense=num_dense).double()
    for item in interaction.parameters():
        nn.init.normal_(item, std=0.5)
    shapes = [*widths, num_dense]
    return interaction, [torch.randn(NUM_EXAMPLES, n, dtype=torch.float64) for n in shapes]


def result(interaction: Interaction, columns: list[Tensor]) -> Tensor:
    *vectors, dense_BD = columns
    with torch.no_grad():
        found_BI = interaction(vectors, dense_BD)
    assert found_BI.shape == (NUM_EXAMPLES, interaction.output_width)
    return found_BI


@pytest.mark.parametrize("word", sorted(INTERACTIONS))
def test_examples_do_not_see_each_other(word: str) -> None:
    """And one feature alone is enough."""
    for num_vectors in (1, 4):
        interaction, columns = draw(word, num_vectors=num_vectors)
        whole_BI = result(interaction, columns)
        *vectors, dense_BD = (column[1:2] for column in columns)
        torch.testing.assert_close(interaction(vectors, dense_BD).detach(), whole_BI[1:2])


@pytest.mark.parametrize("word", ["concat", "dot", "fm"])
def test_the_input_stays_as_it_is(word: str) -> None:
    """Vectors in their order, then dense features; what is multiplied stands behind them."""
    interaction, columns = draw(word)
    plain_BX = torch.cat(columns, dim=1)
    torch.testing.assert_close(result(interaction, columns)[:, : plain_BX.shape[1]], plain_BX)


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_dot_multiplies_each_pair_of_vectors_once(num_dense: int) -> None:
    """Not a vector with itself; dense features are one more vector. Gradients, too."""
    interaction, columns = draw("dot", num_dense=num_dense)
    learned = [*columns, *interaction.parameters()]
    for item in learned:
        item.requires_grad_()
    *vectors, dense_BD = columns
    found_BI = interaction(vectors, dense_BD)
    assert found_BI.shape == (NUM_EXAMPLES, interaction.output_width)
    rows = []
    for example in range(NUM_EXAMPLES):
        of_example = [list(vector[example]) for vector in vectors]
        dense = list(dense_BD[example])
        plain = [number for vector in of_example for number in vector] + dense
        if num_dense:
            of_example.append(relu_layer(dense, *interaction.parameters()))
            plain += of_example[-1]
        products = [
            sum(a * b for a, b in zip(one, two, strict=True))
            for index, one in enumerate(of_example)
            for two in of_example[index + 1 :]
        ]
        rows.append(torch.stack([*plain, *products]))
    expected_BI = torch.stack(rows)
    torch.testing.assert_close(found_BI, expected_BI)
    # numbers of their own, so that no two columns can stand for each other
    weights_BI = torch.randn(found_BI.shape, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((result_BI * weights_BI).sum(), learned, materialize_grads=True)
        for result_BI in (found_BI, expected_BI)
    )
    torch.testing.assert_close(found, expected)


def relu_layer(numbers: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
    """A linear layer and ReLU, number by number."""
    outputs = []
    for row, first in zip(weight, bias, strict=True):
        total = first + sum(a * b for a, b in zip(row, numbers, strict=True))
        outputs.append(total if total > 0 else 0 * total)
    return outputs


def test_dot_without_dense_features_learns_nothing_of_its_own() -> None:
    """Only they need a layer."""
    interaction = build_interaction(
        SharedBottomConfig(interaction="dot"), widths=[WIDTH] * 4, num_dense=0
    )
    assert interaction.state_dict() == {}


def test_fm_sums_the_products_of_all_pairs() -> None:
    """Whose sum over a vector's numbers is the second-order term of a factorisation machine."""
    interaction, columns = draw("fm")
    found_BI = result(interaction, columns)
    *vectors, _ = columns
    for example in range(NUM_EXAMPLES):
        pairs = [
            sum(
                float(one[example, k] * two[example, k])
                for index, one in enumerate(vectors)
                for two in vectors[index + 1 :]
            )
            for k in range(WIDTH)
        ]
        np.testing.assert_allclose(found_BI[example, 4 * WIDTH + NUM_DENSE :], pairs)


@pytest.mark.parametrize("rank", [None, 2])
def test_dcn_multiplies_with_the_first_input_in_every_layer(rank: int | None) -> None:
    """x' = x0 * (W x + b) + x; with low rank, W is a product of two matrices."""
    interaction, columns = draw("dcn", num_cross_layers=3, cross_rank=rank)
    found_BI = result(interaction, columns)
    assert len(interaction.layers) == 3
    for example in range(NUM_EXAMPLES):
        first_X = torch.cat([column[example] for column in columns])
        crossed_X = first_X
        for layer in interaction.layers:
            weight, bias = (layer.weight, layer.bias) if rank is None else low_rank(layer, rank)
            crossed_X = first_X * (weight @ crossed_X + bias) + crossed_X
        torch.testing.assert_close(found_BI[example], crossed_X.detach())


def low_rank(layer: nn.Module, rank: int) -> tuple[Tensor, Tensor]:
    down, up = layer  # type: ignore[misc]
    assert down.weight.shape[0] == rank
    return up.weight @ down.weight, up.bias


def train_all(log: str, folder: str) -> None:
    for word in sorted(INTERACTIONS):
        tree = toy_recipe(log)
        for table in tree["embeddings"]["tables"].values():
            table["dim"] = 8
        tree["model"]["interaction"] = word
        tree["run"]["uri"] = f"{folder}/{word}"
        train(build_recipe(tree, overrides=["run.num_steps=3"], source="toy"))


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    """Every interaction, from the log to the metrics of the final model."""
    log = write_toy_log(tmp_path / "log")
    for world_size in (1, 2):
        arguments = {"log": str(log), "folder": str(tmp_path / str(world_size))}
        run_ranks(train_all, world_size=world_size, arguments=arguments)
    for word in sorted(INTERACTIONS):
        one, two = (losses(tmp_path / str(n) / word / "metrics.jsonl") for n in (1, 2))
        np.testing.assert_allclose(two, one, rtol=1e-4, err_msg=word)
