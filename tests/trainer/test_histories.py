"""What becomes of the vectors of lists that are encoded: `model.histories`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from embeddings.lists import VectorLists
from trainer.histories import Histories, HistoryEncoder, HistoryTransformer, TargetAttention
from trainer.history_config import TargetAttentionConfig, TransformerConfig

WIDTH, NUM_HEADS, MAX_LENGTH = 6, 3, 5
LENGTHS = [3, 0, 5, 1, 0, 2, 0]  # the last ones are padding


def make(word: str) -> HistoryEncoder:
    """Every parameter drawn, so that none hides behind a zero."""
    torch.manual_seed(1)
    encoder: HistoryEncoder
    if word == "target_attention":
        attention = TargetAttentionConfig(encoder=word, target="item", hidden=[7, 4])
        encoder = TargetAttention(attention, width=WIDTH)
    else:
        config = TransformerConfig.model_validate(
            {"encoder": word, "num_layers": 2, "num_heads": NUM_HEADS}
        )
        encoder = HistoryTransformer(config, width=WIDTH, max_length=MAX_LENGTH)
    with torch.no_grad():
        for item in encoder.parameters():
            item.copy_(torch.randn_like(item) * 0.4)
    return encoder.double()


def drawn(lengths: Sequence[int] = LENGTHS) -> tuple[list[Tensor], Tensor]:
    """A list of vectors for each example, and targets."""
    generator = torch.Generator().manual_seed(2)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return [normal(length, WIDTH) for length in lengths], normal(len(lengths), WIDTH)


def jagged(vectors: Sequence[Tensor]) -> JaggedTensor:
    lengths = torch.tensor([len(item) for item in vectors], dtype=torch.int32)
    return JaggedTensor(values=torch.cat(list(vectors)), lengths=lengths)


def encoded(encoder: HistoryEncoder, vectors: Sequence[Tensor], target_BW: Tensor) -> Tensor:
    found: Tensor = encoder(VectorLists.of(jagged(vectors)), target_BW)
    return found


def naive_attention(encoder: nn.Module, ids: Tensor, target: Tensor) -> Tensor:
    """Id by id."""
    total = torch.zeros(WIDTH, dtype=torch.float64)
    for vector in ids:
        state = torch.cat([vector, target, vector * target, vector - target])
        *hidden, last = [item for item in encoder.unit if isinstance(item, nn.Linear)]
        slopes = [item.weight for item in encoder.unit if isinstance(item, nn.PReLU)]
        for layer, slope in zip(hidden, slopes, strict=True):
            state = layer.weight @ state + layer.bias
            state = torch.where(state > 0, state, slope * state)
        total = total + (last.weight @ state + last.bias) * vector
    return total


def naive_transformer(encoder: Any, ids: Tensor, target: Tensor) -> Tensor:
    """Query by query, head by head."""
    if len(ids) == 0:
        return torch.zeros(WIDTH, dtype=torch.float64)
    states = [ids[at] + encoder.positions_LW[len(ids) - 1 - at] for at in range(len(ids))]
    for layer in encoder.layers:
        width = WIDTH // NUM_HEADS
        rows = [
            (layer.queries_keys_values.weight @ layer.attention_norm(state)).chunk(3)
            for state in states
        ]
        mixed = []
        for query, _, _ in rows:
            heads = []
            for head in range(NUM_HEADS):
                part = slice(head * width, (head + 1) * width)
                scores = torch.stack([query[part] @ key[part] for _, key, _ in rows])
                shares = torch.softmax(scores / math.sqrt(width), 0)
                heads.append(
                    sum(
                        share * value[part]
                        for share, (_, _, value) in zip(shares, rows, strict=True)
                    )
                )
            mixed.append(layer.mixture(torch.cat(heads)))
        states = [state + one for state, one in zip(states, mixed, strict=True)]
        states = [state + layer.tower(layer.tower_norm(state)) for state in states]
    return torch.stack(states).mean(0)


NAIVE = {"target_attention": naive_attention, "transformer": naive_transformer}


@pytest.mark.parametrize("word", sorted(NAIVE))
@pytest.mark.parametrize("is_training", [True, False])
def test_an_encoder_is_its_definition(word: str, is_training: bool) -> None:
    """Example by example in float64; an empty list gives zeros, in evaluation too."""
    encoder = make(word).train(is_training)
    vectors, target_BW = drawn()
    with torch.set_grad_enabled(is_training):
        found_BW = encoded(encoder, vectors, target_BW)
    expected = [
        NAIVE[word](encoder, ids, target) for ids, target in zip(vectors, target_BW, strict=True)
    ]
    torch.testing.assert_close(found_BW, torch.stack(expected))
    for length, found_W in zip(LENGTHS, found_BW, strict=True):
        assert bool(found_W.any()) == (length > 0)


@pytest.mark.parametrize("word", sorted(NAIVE))
def test_examples_do_not_see_each_other(word: str) -> None:
    """Neither in the outputs nor in the gradients; all lists may be empty."""
    encoder = make(word)
    vectors, target_BW = drawn()
    vectors = [item.requires_grad_() for item in vectors]
    found_BW = encoded(encoder, vectors, target_BW)
    alone_BW = encoded(encoder, vectors[2:4], target_BW[2:4])
    torch.testing.assert_close(alone_BW, found_BW[2:4])
    gradients = torch.autograd.grad(found_BW[2].sum(), vectors)
    assert [bool(item.any()) for item in gradients] == [at == 2 for at in range(len(LENGTHS))]
    nothing, target_BW = drawn([0, 0])
    found_BW = encoded(encoder, nothing, target_BW)
    assert torch.equal(found_BW, torch.zeros(2, WIDTH, dtype=torch.float64))
    # every parameter has a gradient, which DistributedDataParallel waits for
    gradients = torch.autograd.grad(found_BW.sum(), list(encoder.parameters()))
    assert not any(bool(item.any()) for item in gradients)


def test_order_matters_to_places_alone() -> None:
    """A transformer reads it, target attention does not."""
    vectors, target_BW = drawn([4, 3])
    turned = [item.flip(0) for item in vectors]
    for word, matters in (("target_attention", False), ("transformer", True)):
        encoder = make(word)
        one, two = (encoded(encoder, item, target_BW) for item in (vectors, turned))
        assert torch.allclose(one, two) != matters


def test_dropout_is_for_training_alone() -> None:
    """And then drawn anew."""
    config = TransformerConfig(encoder="transformer", dropout=0.5)
    encoder = HistoryTransformer(config, width=WIDTH, max_length=MAX_LENGTH).double()
    vectors, target_BW = drawn()
    one, two = (encoded(encoder, vectors, target_BW) for _ in range(2))
    assert not torch.allclose(one, two)
    encoder.eval()
    one, two = (encoded(encoder, vectors, target_BW) for _ in range(2))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("word", sorted(NAIVE))
def test_bfloat16_stays_near_float32(word: str) -> None:
    """As `Towers` computes it; vectors and gradients stay float32."""
    encoder = make(word).float()
    vectors, target_BW = drawn()
    vectors = [item.float() for item in vectors]
    exact_BW = encoded(encoder, vectors, target_BW.float())
    with torch.autocast("cpu", torch.bfloat16):
        rough_BW = encoded(encoder, vectors, target_BW.float())
    assert rough_BW.dtype == torch.float32
    torch.testing.assert_close(rough_BW, exact_BW, rtol=0.05, atol=0.1)
    gradients = torch.autograd.grad(rough_BW.square().sum(), list(encoder.parameters()))
    assert all(bool(item.isfinite().all()) for item in gradients)


def test_lists_beside_an_encoded_one_are_pooled() -> None:
    """Sums, with weights or without, and means; in the order of the keys; targets are pooled."""
    vectors, _ = drawn()
    lengths = torch.tensor([1, 1, 1, 1, 1, 0, 0])
    items, _ = drawn(lengths.tolist())
    item_BW = torch.stack([one.sum(0) for one in items])
    encoder = make("target_attention")
    user_BW = torch.randn(len(LENGTHS), 2, dtype=torch.float64)
    weights_N = torch.rand(sum(LENGTHS), dtype=torch.float64)
    keys = ["user", "item", "seen", "plain", "mean"]
    features = {key: key for key in keys}
    histories = Histories(
        {"seen": encoder}, features=features, targets={"seen": "item"}, means=["mean"]
    )
    lookup = {name: jagged(vectors) for name in ("mean", "seen", "plain")}
    pooled = KeyedTensor.from_tensor_list(["user"], [user_BW])
    sequences = [lookup, {"item": jagged(items)}]
    for weights in (None, weights_N):
        ids = KeyedJaggedTensor(
            keys=["item", "seen", "plain", "mean"],
            values=torch.zeros(int(lengths.sum()) + 3 * sum(LENGTHS), dtype=torch.int64),
            lengths=torch.cat([lengths, *[torch.tensor(LENGTHS)] * 3]),
            weights=None
            if weights is None
            else torch.cat([torch.ones(int(lengths.sum())).double(), *[weights] * 3]),
        )
        found = histories(pooled, sequences, ids)
        assert found.keys() == keys
        by_name = found.to_dict()
        parts = torch.ones(sum(LENGTHS)) if weights is None else weights
        factors = parts.double().split(LENGTHS)
        expected = {
            "user": user_BW,
            "item": item_BW,
            "seen": encoded(encoder, vectors, item_BW),
            "plain": torch.stack(
                [(one * two.unsqueeze(1)).sum(0) for one, two in zip(vectors, factors, strict=True)]
            ),
            "mean": torch.stack([one.mean(0) if len(one) else one.sum(0) for one in vectors]),
        }
        for name, expected_BW in expected.items():
            torch.testing.assert_close(by_name[name], expected_BW)
        squares = [expected[name].square().sum(1) for name in keys if name != "seen"]
        squares.append(torch.stack([item.square().sum() for item in vectors]))
        torch.testing.assert_close(
            histories.squared_norms(found, sequences), torch.stack(squares).sum(0)
        )
