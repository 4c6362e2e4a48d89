"""The architectures that a recipe chooses by a word, `model.architecture`."""

from __future__ import annotations

from trainer.architectures.architecture import Architecture, Sizes
from trainer.architectures.mmoe import Mmoe
from trainer.architectures.shared_bottom import SharedBottom
from trainer.model_config import ModelConfig

ARCHITECTURES: dict[str, type[Architecture]] = {
    "shared_bottom": SharedBottom,
    "mmoe": Mmoe,
}


def build_architecture(config: ModelConfig, *, sizes: Sizes) -> Architecture:
    """The architecture that a recipe's section `model` asks for."""
    return ARCHITECTURES[config.architecture](config, sizes=sizes)
