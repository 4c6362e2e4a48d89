"""What a recipe says about how the vectors of a list's ids become one: a class per encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from data_loaders.config import Section


class TargetAttentionConfig(Section):
    """The vectors' sum, each weighed by what a small tower finds in it and in the target."""

    encoder: Literal["target_attention"]
    target: str = Field(
        description="feature of kind id, e.g. the item; its vectors are as wide as the list's"
    )
    hidden: list[PositiveInt] = Field(
        [36], min_length=1, description="widths of the layers that weigh an id"
    )


class TransformerConfig(Section):
    """The mean of what layers of self-attention make of the vectors and their places."""

    encoder: Literal["transformer"]
    num_layers: int = Field(1, ge=1, description="one on the other")
    num_heads: int = Field(2, ge=1, description="of each layer; they divide the vectors' width")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what layers add, in training")


AnyHistory = Annotated[TargetAttentionConfig | TransformerConfig, Field(discriminator="encoder")]
