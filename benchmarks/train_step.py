"""`polytower bench step`: what balancing costs a training step.

    METHOD            this project's step, as `trainer.loop` makes it, with `balance.method: METHOD`
    textbook_static   the same towers on unfused tables: dense gradients, one backward of the sum
    textbook_pcgrad   the same, with a backward for each task, and the projections made on the
                      gradients of all shared parameters, tables included

All train on the same drawn batches, in turn, in one process, from the same weights, and must agree
on the losses before any time is taken (`step_variants.check_agreement`). A turn is a few steps, so
that each finds what it left in the caches.

Ratios are medians of per-round ratios: what disturbs a round disturbs both sides of its ratio. On
CPU there is a second set, of the process' CPU time: other processes on the machine lengthen a step,
and a long step is disturbed more often, but they leave its CPU time much as it is.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.harness import (
    Action,
    ProgressCallback,
    chosen_runtime,
    environment,
    in_milliseconds,
    interleaved_samples,
)
from benchmarks.step_variants import FusedStep, UnfusedStep, Variant, check_agreement
from data_loaders.batch import InteractionBatch
from data_loaders.errors import InputError
from data_loaders.streams import Cursor
from trainer.balancing import BALANCERS
from trainer.config import Recipe
from trainer.recipe_file import build_recipe
from trainer.runtime import Runtime, joined_ranks

BASELINE = "static"

# Taken in turn; more than the turns of a round need.
NUM_BATCHES = 8

# Of the Zipf distribution: row of rank k is drawn with probability ~ k ** -ZIPF_EXPONENT.
ZIPF_EXPONENT = 1.05

# Of the labels of every second task, as of what is only known after a click.
OBSERVED_FRACTION = 0.3


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What is trained.

    Attributes:
        architecture: `model.architecture`, with its default widths.
        num_tasks: binary ones.
        num_tables: tables of the same size, one id list each.
        num_rows: of a table.
        dim: width of a row.
        pooling_factor: ids of each list.
        num_dense: dense features.
        batch_size: examples of a step.
        steps_per_turn: timed together.
        num_rounds: timed turns of every variant.
        seed: of weights, batches and turns.
        device: cuda where there is one, by default.
        num_threads: of PyTorch; its own choice by default.
    """

    architecture: str = "mmoe"
    num_tasks: int = 4
    num_tables: int = 8
    num_rows: int = 50_000
    dim: int = 16
    pooling_factor: int = 5
    num_dense: int = 16
    batch_size: int = 2048
    steps_per_turn: int = 4
    num_rounds: int = 30
    seed: int = 0
    device: Literal["cpu", "cuda"] | None = None
    num_threads: int | None = None


def run_step_benchmark(
    settings: StepSettings, *, on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Times every method and both textbook ways.

    Args:
        settings: the default takes 2 GB of memory and some minutes on 2 cores.
        on_progress: told the phase, the rounds done and the rounds in all.

    Returns:
        what `polytower bench step --out` writes as JSON; raw samples included.

    Raises:
        InputError: the settings ask for what cannot be.
        VariantsDisagreeError: the variants compute different losses.
    """
    for name, value in dataclasses.asdict(settings).items():
        if name != "seed" and isinstance(value, int) and value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
    tell = on_progress or (lambda phase, done, total: None)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(settings.num_threads or threads_before)
    try:
        with joined_ranks() as joined:
            runtime = chosen_runtime(joined, device=settings.device, benchmark="step")
            return _measure(settings, runtime, tell)
    finally:
        torch.set_num_threads(threads_before)


def recipe_of(settings: StepSettings, *, method: str) -> Recipe:
    """The recipe whose step is timed."""
    lists = {f"list_{index}": {"kind": "id_list"} for index in range(settings.num_tables)}
    dense = {
        f"dense_{index}": {"kind": "dense", "mean": 0, "std": 1}
        for index in range(settings.num_dense)
    }
    tree = {
        "data": {
            "batch_size": settings.batch_size,
            "features": lists | dense,
            "tasks": {f"task_{index}": {"kind": "binary"} for index in range(settings.num_tasks)},
        },
        "embeddings": {
            "tables": {name: {"num_rows": settings.num_rows, "dim": settings.dim} for name in lists}
        },
        "model": {"architecture": settings.architecture},
        "balance": {"method": method},
        "run": {"name": "bench", "num_steps": 1, "seed": settings.seed},
    }
    return build_recipe(tree, overrides=[], source="bench step")


def draw_batches(settings: StepSettings, *, device: torch.device) -> list[InteractionBatch]:
    """NUM_BATCHES batches; the same for the same settings on every device."""
    generator = torch.Generator().manual_seed(settings.seed)
    num_examples, num_lists = settings.batch_size, settings.num_tables
    odds = torch.arange(1, settings.num_rows + 1, dtype=torch.float64) ** -ZIPF_EXPONENT
    cumulative = odds.cumsum(0) / odds.sum()
    lengths = torch.full((num_lists * num_examples,), settings.pooling_factor, dtype=torch.int32)
    batches = []
    for step in range(NUM_BATCHES):
        drawn = torch.rand(int(lengths.sum()), dtype=torch.float64, generator=generator)
        ids_N = torch.searchsorted(cumulative, drawn).clamp_(max=settings.num_rows - 1)
        labels_BT = torch.randint(2, (num_examples, settings.num_tasks), generator=generator)
        is_hidden_BT = torch.rand(labels_BT.shape, generator=generator) > OBSERVED_FRACTION
        is_hidden_BT[:, ::2] = False
        batch = InteractionBatch(
            ids=KeyedJaggedTensor(
                keys=[f"list_{index}" for index in range(num_lists)],
                values=ids_N,
                lengths=lengths,
                stride=num_examples,
            ),
            dense_BD=torch.randn(num_examples, settings.num_dense, generator=generator),
            labels_BT=labels_BT.float().masked_fill(is_hidden_BT, torch.nan),
            weights_B=torch.ones(num_examples),
            cursor=Cursor(epoch=0, step=step + 1),
        )
        batches.append(batch.to(device))
    return batches


def build_variants(
    settings: StepSettings, *, runtime: Runtime, batches: Sequence[InteractionBatch]
) -> list[Variant]:
    """Every method, then both textbook ways, with equal weights."""
    fused = [
        FusedStep(recipe_of(settings, method=word), name=word, runtime=runtime, batches=batches)
        for word in BALANCERS
    ]
    recipe = recipe_of(settings, method=BASELINE)
    weights = fused[0].table_weights()
    unfused = [
        UnfusedStep(
            recipe, name=name, table_weights=weights, batches=batches, has_projections=projects
        )
        for name, projects in (("textbook_static", False), ("textbook_pcgrad", True))
    ]
    return [*fused, *unfused]


def _measure(settings: StepSettings, runtime: Runtime, tell: ProgressCallback) -> dict[str, Any]:
    tell("building models", 0, 1)
    batches = draw_batches(settings, device=runtime.device)
    variants = build_variants(settings, runtime=runtime, batches=batches)
    tell("checking that the variants agree", 0, 1)
    check_agreement(variants, alike=(BASELINE, "textbook_static"))
    cpu_samples: dict[str, list[float]] = {variant.name: [] for variant in variants}
    samples = interleaved_samples(
        {
            variant.name: _action(variant, settings.steps_per_turn, cpu_samples[variant.name])
            for variant in variants
        },
        num_rounds=settings.num_rounds,
        seed=settings.seed,
        device=runtime.device,
        on_round=lambda done: tell("timing steps", done, settings.num_rounds),
    )
    seconds = {name: values / settings.steps_per_turn for name, values in samples.items()}
    cpu_seconds = {
        name: np.array(values) / settings.steps_per_turn for name, values in cpu_samples.items()
    }
    return {
        "benchmark": "train_step",
        "settings": dataclasses.asdict(settings),
        "environment": environment(runtime.device),
        "results": [
            {
                "variant": name,
                **in_milliseconds(values),
                "cpu_ms": float(np.median(cpu_seconds[name])) * 1e3,
                "examples_per_second": settings.batch_size / float(np.median(values)),
            }
            for name, values in seconds.items()
        ],
        "ratios": _ratios(seconds),
        "cpu_ratios": _ratios(cpu_seconds) if runtime.device_type == "cpu" else {},
    }


def _ratios(seconds: dict[str, np.ndarray]) -> dict[str, float]:
    return {
        f"{name}_over_{base}": float(np.median(seconds[name] / seconds[base]))
        for name in seconds
        for base in ([BASELINE] if name in BALANCERS else [BASELINE, "textbook_static"])
        if name != base
    }


def _action(variant: Variant, num_steps: int, cpu_seconds: list[float]) -> Action:
    """Turns of a variant; their CPU time, without that of the warm-up, goes to a list."""

    def prepare(turn: int) -> Callable[[], object]:
        return partial(_steps, variant, num_steps, cpu_seconds if turn >= 0 else [])

    return prepare


def _steps(variant: Variant, num_steps: int, cpu_seconds: list[float]) -> None:
    started = time.process_time()
    for _ in range(num_steps):
        variant.step()
    cpu_seconds.append(time.process_time() - started)
