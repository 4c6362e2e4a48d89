"""What the sections of a recipe are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# a key that overrides can address (no dot) and TorchRec leaves alone (no @)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


# what float32 holds, as columns and the model's inputs do
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-3.4e38, le=3.4e38)]
PositiveFinite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# `fit` stands for what dataset.json knows; data_loaders.fitting puts the number in its place
Fit = Literal["fit"]
