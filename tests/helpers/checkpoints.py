"""Reads a checkpoint as whole tensors, without any rank."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from data_loaders.storage import Location
from trainer.checkpoint_storage import LocationReader


def read_tensors(checkpoint: Location) -> dict[str, torch.Tensor]:
    """Every tensor by its path: weights, optimizer states, step counts; shards put together."""
    state: dict[str, Any] = {}
    _load_state_dict(
        state,
        storage_reader=LocationReader(checkpoint),
        planner=_EmptyStateDictLoadPlanner(),
        no_dist=True,
    )
    return {key: item for key, item in _flat(state).items() if isinstance(item, torch.Tensor)}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: item
        for name, node in tree.items()
        for key, item in _flat(node, f"{prefix}/{name}").items()
    }


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Bit by bit, and nothing missing."""
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
