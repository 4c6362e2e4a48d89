"""Interaction logs whose ground truth is known: for trials, for tests, to see the best possible.

Beside every label lies a column `truth_<label>` (float64, never null): the probability that a
binary label was drawn from, or the mean of a regression label, or of log(1 + label) where the
scenario draws that. It is a function of the example's other columns and of hidden effects of each
user, item, ad and so on, which a model can learn: none does better, but by luck. What the truth
itself reaches on a split's observed labels is written to `dataset.json` as `best`:

    binary      auc, and normalized_entropy: its cross-entropy over the entropy of the base rate
    regression  mse, of the label or of log(1 + label), NOT standardised: a model of
                (f(y) - mean) / std multiplies its own mse by std ** 2 to compare

A missing value means to the truth what it means to a model (data_loaders/config.py): a missing
number is the feature's mean, a missing or empty id list is a zero vector, and "no id" is one more
id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pyarrow as pa
from numpy.random import PCG64, Generator, SeedSequence

from data_loaders.dataset import (
    SPLITS,
    DatasetInfo,
    Split,
    SplitInfo,
    begin_dataset,
    write_dataset_info,
    write_split,
)
from data_loaders.errors import InputError, did_you_mean
from data_loaders.oracle import BinaryBest, RegressionBest, best_of
from data_loaders.scenarios.ecommerce import Ecommerce
from data_loaders.scenarios.scenario import Scenario
from data_loaders.scenarios.social import Social
from data_loaders.storage import locate

SCENARIOS: dict[str, type[Scenario]] = {
    "ecommerce": Ecommerce,
    "social": Social,
}

MIN_EXAMPLES = 1_000
CHUNK_EXAMPLES = 65_536


def generate(
    scenario: str,
    *,
    out: str,
    examples: int,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Writes a log of `examples` examples: 80% of them in train, 10% each in valid and test.

    The same scenario, examples and seed give the same bytes. Memory is bounded: held are a file of
    at most 500,000 examples, and the effects of users, items and ads, whose numbers are capped.

    Args:
        scenario: a word of `SCENARIOS`.
        out: URI of a folder that is empty or does not exist yet.
        on_progress: called after each chunk with the number of examples drawn so far, of all splits
            together.

    Raises:
        InputError: the scenario is unknown, `examples` below 1,000, or `seed` negative.
        StorageError: `out` is not empty, or cannot be reached or written.
    """
    if scenario not in SCENARIOS:
        raise InputError(f"{scenario}: no such scenario; {did_you_mean(scenario, SCENARIOS)}")
    if examples < MIN_EXAMPLES:
        raise InputError(f"examples: {examples} are too few; give {MIN_EXAMPLES} or more")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    root = locate(out)
    begin_dataset(root, name=scenario)

    num_held_out = examples // 10
    sizes = (examples - 2 * num_held_out, num_held_out, num_held_out)
    # A small train split has 8 files of 8 row groups, enough for 64 streams; a large one more.
    rows_per_file = min(math.ceil(sizes[0] / 8), 500_000)
    world_seed, *split_seeds = SeedSequence(seed).spawn(1 + len(SPLITS))
    world = SCENARIOS[scenario](examples=examples, rng=Generator(PCG64(world_seed)))
    splits: dict[Split, SplitInfo] = {}
    for split, size, split_seed in zip(SPLITS, sizes, split_seeds, strict=True):
        best = {task: best_of(kind) for task, kind in world.tasks.items()}
        num_before = sum(info.examples for info in splits.values())
        chunks = _chunks(
            world,
            rng=Generator(PCG64(split_seed)),
            examples=range(num_before, num_before + size),
            num_total=examples,
            best=best,
        )
        write_split(
            root,
            split=split,
            tables=_reported(chunks, num_before=num_before, on_progress=on_progress),
            rows_per_file=rows_per_file,
            rows_per_row_group=math.ceil(rows_per_file / 8),
        )
        metrics = {task: scores.metrics() for task, scores in best.items()}
        splits[split] = SplitInfo(examples=size, best=metrics)
    description = f"synthetic log of {world.description}; {examples:,} examples, seed {seed}"
    info = DatasetInfo(name=scenario, description=description, splits=splits)
    write_dataset_info(root, info)
    return info


def _chunks(
    world: Scenario,
    *,
    rng: Generator,
    examples: range,
    num_total: int,
    best: dict[str, BinaryBest | RegressionBest],
) -> Iterator[pa.Table]:
    """A split's examples, which are `examples` among the log's; `best` has seen those drawn."""
    for first in examples[::CHUNK_EXAMPLES]:
        end = min(first + CHUNK_EXAMPLES, examples.stop)
        table = world.draw(
            rng, num_examples=end - first, start=first / num_total, stop=end / num_total
        )
        for task, scores in best.items():
            observed_N = table[task].is_valid().to_numpy()
            labels_N, truth_N = table[task].to_numpy(), table[f"truth_{task}"].to_numpy()
            scores.add(truth=truth_N[observed_N], labels=labels_N[observed_N])
        yield table


def _reported(
    tables: Iterator[pa.Table], *, num_before: int, on_progress: Callable[[int], None] | None
) -> Iterator[pa.Table]:
    for table in tables:
        num_before += table.num_rows
        if on_progress is not None:
            on_progress(num_before)
        yield table
