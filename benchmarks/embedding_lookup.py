"""`polytower bench lookup`: how fast ids become pooled vectors, beside the two obvious rivals.

    lookup         this project: the sharded tables of `embeddings`, a KeyedJaggedTensor in
    tbe            FBGEMM's training kernel (table-batched embeddings) alone, without bounds check
    embedding_bag  an `nn.EmbeddingBag(sparse=True)` per table with `torch.optim.Adagrad`

All three look up the same ids in equal tables, in turn, in one process, and must agree before any
time is taken (`lookup_variants.check_agreement`). Mode `forward` is the lookup alone, without
autograd; mode `train` is lookup, backward and update. The input of a variant is made before its
clock starts; its output, one matrix of all tables' pooled vectors, is made within.

Rates are medians over rounds. Ratios are medians of per-round ratios: what disturbs a round
disturbs both sides of its ratio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import (
    Action,
    ProgressCallback,
    chosen_runtime,
    environment,
    in_milliseconds,
    interleaved_samples,
    peak_bandwidth_gb_per_second,
    stream_actions,
)
from benchmarks.lookup_rates import rates
from benchmarks.lookup_variants import (
    Batch,
    EmbeddingBags,
    RawTbe,
    ShardedLookup,
    Variant,
    check_agreement,
)
from data_loaders.errors import InputError
from embeddings.config import TableConfig
from trainer.runtime import Runtime, joined_ranks

MODES = ("forward", "train")

# Taken in turn, so that no variant finds all its rows where the round before left them.
NUM_BATCHES = 4

# Of the Zipf distribution: row of rank k is drawn with probability ~ k ** -ZIPF_EXPONENT.
ZIPF_EXPONENT = 1.05


@dataclasses.dataclass(frozen=True)
class LookupSettings:
    """What is looked up.

    Attributes:
        num_tables: tables of the same size, one feature each.
        num_rows: of a table.
        dim: width of a row.
        pooling_factor: ids per bag; every bag has as many.
        batch_size: bags per table and step.
        ids: zipf: few rows are wanted often, as in logs; uniform: the caches' worst case.
        num_rounds: timed turns of every variant in every mode.
        seed: of weights, ids and turns.
        device: cuda where there is one, by default.
        num_threads: of PyTorch; its own choice by default.
    """

    num_tables: int = 8
    num_rows: int = 1_000_000
    dim: int = 64
    pooling_factor: int = 10
    batch_size: int = 4096
    ids: Literal["zipf", "uniform"] = "zipf"
    num_rounds: int = 40
    seed: int = 0
    device: Literal["cpu", "cuda"] | None = None
    num_threads: int | None = None


def run_lookup_benchmark(
    settings: LookupSettings, *, on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Runs all variants in all modes.

    Args:
        settings: the default takes 9 GB of memory and about a minute on 2 cores.
        on_progress: told the phase, the rounds done and the rounds in all.

    Returns:
        what `polytower bench lookup --out` writes as JSON; raw samples included.

    Raises:
        InputError: the settings ask for what cannot be.
        VariantsDisagreeError: the variants compute different numbers.
    """
    _check(settings)
    tell = on_progress or (lambda phase, done, total: None)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(settings.num_threads or threads_before)
    try:
        with joined_ranks() as joined:
            runtime = chosen_runtime(joined, device=settings.device, benchmark="lookup")
            return _measure(settings, runtime, tell)
    finally:
        torch.set_num_threads(threads_before)


def draw_batches(settings: LookupSettings, *, device: torch.device) -> list[Batch]:
    """NUM_BATCHES batches; the same for the same settings on every device."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = settings.batch_size * settings.pooling_factor
    num_bags = settings.num_tables * settings.batch_size
    offsets_TB = torch.arange(num_bags + 1, device=device) * settings.pooling_factor
    width = settings.num_tables * settings.dim
    # the popular rows lie scattered over a table, another set in each
    row_of_rank = [
        torch.randperm(settings.num_rows, generator=generator) for _ in range(settings.num_tables)
    ]
    draw = _zipf_ranks if settings.ids == "zipf" else _uniform_ranks
    batches = []
    for _ in range(NUM_BATCHES):
        ids_N = torch.cat(
            [rows[draw(size, num_rows=len(rows), generator=generator)] for rows in row_of_rank]
        )
        batch = Batch(
            ids_N=ids_N.to(device),
            lengths_TB=offsets_TB.diff().int(),
            offsets_TB=offsets_TB,
            gradient_BE=torch.randn(settings.batch_size, width, generator=generator).to(device),
            num_tables=settings.num_tables,
        )
        batches.append(batch)
    return batches


def build_variants(
    settings: LookupSettings, *, runtime: Runtime
) -> tuple[ShardedLookup, RawTbe, EmbeddingBags]:
    """The three variants with equal weights."""
    lookup = ShardedLookup(
        num_tables=settings.num_tables,
        table=TableConfig(num_rows=settings.num_rows, dim=settings.dim),
        batch_size=settings.batch_size,
        seed=settings.seed,
        runtime=runtime,
    )
    weights = lookup.weights()
    return lookup, RawTbe(weights=weights), EmbeddingBags(weights=weights)


def _measure(settings: LookupSettings, runtime: Runtime, tell: ProgressCallback) -> dict[str, Any]:
    tell("building tables", 0, 1)
    batches = draw_batches(settings, device=runtime.device)
    variants = build_variants(settings, runtime=runtime)
    lookup, tbe, embedding_bag = variants
    tell("checking that the variants agree", 0, 1)
    check_agreement(lookup=lookup, tbe=tbe, embedding_bag=embedding_bag, batch=batches[0])

    streams = stream_actions(runtime.device)
    samples: dict[str, dict[str, np.ndarray]] = {}
    for mode in MODES:
        actions = {variant.name: _action(variant, mode, batches) for variant in variants}
        samples[mode] = interleaved_samples(
            actions | streams if mode == "forward" else actions,
            num_rounds=settings.num_rounds,
            seed=settings.seed,
            device=runtime.device,
            on_round=partial(_tell_round, tell, f"timing {mode}", settings.num_rounds),
        )

    num_distinct_rows = float(np.mean([batch.num_distinct_rows() for batch in batches]))
    peak = peak_bandwidth_gb_per_second(samples["forward"])
    return {
        "benchmark": "embedding_lookup",
        "settings": dataclasses.asdict(settings),
        "environment": environment(runtime.device),
        "sharding": sorted(lookup.sharding_types()),
        "num_distinct_rows": num_distinct_rows,
        "peak_bandwidth_gb_per_second": peak,
        "results": [
            rates(
                samples[mode][variant.name],
                variant=variant,
                mode=mode,
                num_ids=len(batches[0].ids_N),
                num_distinct_rows=num_distinct_rows,
                peak=peak,
            )
            for mode in MODES
            for variant in variants
        ],
        "ratios": {
            f"lookup_over_{rival.name}_{mode}": float(
                np.median(samples[mode][rival.name] / samples[mode][lookup.name])
            )
            for mode in MODES
            for rival in (tbe, embedding_bag)
        },
        "streams": {name: in_milliseconds(samples["forward"][name]) for name in streams},
    }


def _action(variant: Variant, mode: str, batches: Sequence[Batch]) -> Action:
    def prepare(turn: int) -> Callable[[], object]:
        batch = batches[turn % len(batches)]
        inputs = variant.inputs(batch)
        if mode == "train":
            return partial(variant.train, inputs, batch.gradient_BE)
        return partial(torch.no_grad()(variant.forward), inputs)

    return prepare


def _tell_round(tell: ProgressCallback, phase: str, num_rounds: int, done: int) -> None:
    tell(phase, done, num_rounds)


def _zipf_ranks(size: int, *, num_rows: int, generator: torch.Generator) -> Tensor:
    odds = torch.arange(1, num_rows + 1, dtype=torch.float64) ** -ZIPF_EXPONENT
    cumulative = odds.cumsum(0)
    drawn = torch.rand(size, dtype=torch.float64, generator=generator) * cumulative[-1]
    return torch.searchsorted(cumulative, drawn).clamp_(max=num_rows - 1)


def _uniform_ranks(size: int, *, num_rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(num_rows, (size,), generator=generator)


def _check(settings: LookupSettings) -> None:
    for name, value in dataclasses.asdict(settings).items():
        if name != "seed" and isinstance(value, int) and value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
    if settings.num_rows < 2:
        raise InputError(f"num_rows: expected at least 2, found {settings.num_rows}")
    if settings.dim % 4:
        raise InputError(f"dim: expected a multiple of 4 (FBGEMM's), found {settings.dim}")
