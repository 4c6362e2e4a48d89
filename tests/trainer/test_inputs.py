"""What lies between the tables and the architecture."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedTensor

from trainer.inputs import InputLayer
from trainer.interactions import build_interaction
from trainer.model_config import SharedBottomConfig

ID_WIDTHS = {"user": 2, "item": 3, "history": 1}
DENSE_WIDTHS = {"age": 1, "image": 2, "price": 1}


def test_gates_read_their_features_whatever_the_plan() -> None:
    """Of any kind, in the recipe's order of them; the plan orders the tables' vectors anew."""
    config = SharedBottomConfig(interaction="dcn")
    layer = InputLayer(
        id_widths=ID_WIDTHS,
        dense_widths=DENSE_WIDTHS,
        interaction=build_interaction(config, widths=list(ID_WIDTHS.values()), num_dense=4),
        gate_features=["price", "item", "image"],
    )
    assert layer.gate_width == 6
    columns = {name: torch.randn(4, n) for name, n in (ID_WIDTHS | DENSE_WIDTHS).items()}
    dense_BD = torch.cat([columns[name] for name in DENSE_WIDTHS], dim=1)
    expected_BG = torch.cat([columns[name] for name in ("price", "item", "image")], dim=1)
    for keys in (list(ID_WIDTHS), ["history", "user", "item"]):
        pooled = pooled_of(columns, keys=keys)
        assert torch.equal(layer(pooled, dense_BD).gate_BG, expected_BG)


def test_a_recipe_without_gates_has_no_input_for_them() -> None:
    """The input is what the interaction makes of vectors and dense features."""
    interaction = build_interaction(
        SharedBottomConfig(), widths=list(ID_WIDTHS.values()), num_dense=4
    )
    layer = InputLayer(id_widths=ID_WIDTHS, dense_widths=DENSE_WIDTHS, interaction=interaction)
    columns = {name: torch.randn(4, n) for name, n in (ID_WIDTHS | DENSE_WIDTHS).items()}
    dense_BD = torch.cat([columns[name] for name in DENSE_WIDTHS], dim=1)
    inputs = layer(pooled_of(columns, keys=["item", "history", "user"]), dense_BD)
    assert inputs.gate_BG is None
    assert torch.equal(inputs.shared_BI, torch.cat(list(columns.values()), dim=1))


def pooled_of(columns: dict[str, Tensor], *, keys: list[str]) -> KeyedTensor:
    return KeyedTensor.from_tensor_list(keys, [columns[key] for key in keys])
