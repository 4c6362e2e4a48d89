"""The architectures that a recipe chooses by a word, `model.architecture`."""

from __future__ import annotations

from trainer.architectures.aitm import Aitm
from trainer.architectures.architecture import Architecture, Sizes
from trainer.architectures.cross_stitch import CrossStitch
from trainer.architectures.dbmtl import Dbmtl
from trainer.architectures.dselect_k import DselectK
from trainer.architectures.esmm import Escm2, Esmm
from trainer.architectures.gated import Pepnet, Poso
from trainer.architectures.home import Home
from trainer.architectures.mmoe import Mmoe, Omoe
from trainer.architectures.ple import Ple
from trainer.architectures.shared_bottom import SharedBottom
from trainer.architectures.single_task import SingleTask
from trainer.architectures.stem import Stem
from trainer.model_config import ModelConfig

ARCHITECTURES: dict[str, type[Architecture]] = {
    "shared_bottom": SharedBottom,
    "single_task": SingleTask,
    "omoe": Omoe,
    "mmoe": Mmoe,
    "dselect_k": DselectK,
    "cgc": Ple,
    "ple": Ple,
    "home": Home,
    "stem": Stem,
    "cross_stitch": CrossStitch,
    "aitm": Aitm,
    "esmm": Esmm,
    "escm2": Escm2,
    "dbmtl": Dbmtl,
    "pepnet": Pepnet,
    "poso": Poso,
}


def build_architecture(config: ModelConfig, *, sizes: Sizes) -> Architecture:
    """The architecture that a recipe's section `model` asks for."""
    return ARCHITECTURES[config.architecture](config, sizes=sizes)
