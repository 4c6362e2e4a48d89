"""Interaction logs whose ground truth is known: for trials, for tests, to see the best possible.

Beside every label lies a column `truth_<label>` (float64, never null): the probability that a
binary label was drawn from, or the mean of a regression label, or of log(1 + label) where the
scenario draws that. It is a function of the example's other columns and of hidden effects of each
user, item, ad and so on, which a model can learn: none does better, but by luck. What the truth
itself reaches on a split's observed labels is written to `dataset.json` as `best`:

    binary      auc, and normalized_entropy: its cross-entropy over the entropy of the base rate;
                in a scenario with new ids, auc_FEATURE_cold over them, auc_FEATURE_warm over others
    regression  mse, of the label or of log(1 + label), NOT standardised: a model of
                (f(y) - mean) / std multiplies its own mse by std ** 2 to compare

Of an id that is too new to be in train, the truth takes the mean over the id's own hidden effect:
no model can know that effect.

A missing value means to the truth what it means to a model (data_loaders/config.py): a missing
number is the feature's mean, a missing or empty id list is a zero vector, and "no id" is one more
id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from numpy.random import PCG64, Generator, SeedSequence

from data_loaders.dataset import (
    SPLITS,
    DatasetInfo,
    Split,
    SplitInfo,
    write_dataset_info,
    write_split,
)
from data_loaders.errors import InputError, did_you_mean
from data_loaders.oracle import SplitBest
from data_loaders.raw.unfinished import begin_anew, refuse_all_but_unfinished
from data_loaders.scenarios.correlated import Correlated
from data_loaders.scenarios.ecommerce import Ecommerce
from data_loaders.scenarios.music import Music
from data_loaders.scenarios.news import News
from data_loaders.scenarios.scenario import Scenario
from data_loaders.scenarios.social import Social
from data_loaders.statistics import ColumnKind, Fitter
from data_loaders.storage import Location, locate

SCENARIOS: dict[str, type[Scenario]] = {
    "ecommerce": Ecommerce,
    "social": Social,
    "news": News,
    "music": Music,
    "correlated": Correlated,
}

MIN_EXAMPLES = 1_000
# Of a log of so many examples a scenario has the fewest users and items that it may have.
MIN_DENSE_EXAMPLES = 150_000
CHUNK_EXAMPLES = 65_536


def generate(
    scenario: str,
    *,
    out: str,
    examples: int,
    seed: int = 0,
    density: int = 1,
    correlation: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Writes a log of `examples` examples: 80% of them in train, 10% each in valid and test.

    The same arguments give the same bytes. What an interrupted call for the same scenario left
    behind is begun anew. Memory is bounded: held are a file of at most 500,000
    examples, the effects of users, items and ads, whose numbers are capped, and the statistics.

    Args:
        scenario: a word of `SCENARIOS`.
        out: URI of a folder that is empty, does not exist yet, or holds what an interrupted call
            left.
        density: how many times as many examples each user, item and ad has as the scenario says;
            there are fewer of them instead. The log's length does not change that, so whatever
            is learnt of an id from its examples is better known only in a denser log.
        correlation: of the weights of the two tasks of `correlated`, 0.5 by default.
        on_progress: called before the first chunk, and after each, with the number of examples
            drawn so far, of all splits together.

    Raises:
        InputError: the scenario is unknown, `examples` below 1,000, `seed` negative, `density`
            below 1, given to `correlated` or too high for so few examples, or `correlation` beyond
            -1 and 1 or given to another scenario.
        StorageError: `out` holds something else, or cannot be reached or written.
    """
    _check_arguments(
        scenario, examples=examples, seed=seed, density=density, correlation=correlation
    )
    root = locate(out)
    command = f"polytower generate {scenario}"
    refuse_all_but_unfinished(root, command=command)
    begin_anew(root, name=scenario, command=command)
    tell = on_progress or (lambda done: None)
    tell(0)

    options = {} if correlation is None else {"correlation": correlation}
    world_seed, *split_seeds = SeedSequence(seed).spawn(1 + len(SPLITS))
    rng = Generator(PCG64(world_seed))
    world = SCENARIOS[scenario](examples=examples // density, rng=rng, **options)
    fitter = Fitter(_fitted_columns(world))
    splits = _write_splits(
        world, root=root, seeds=split_seeds, examples=examples, fitter=fitter, on_progress=tell
    )
    description = f"synthetic log of {world.description}; {examples:,} examples, seed {seed}"
    if density > 1:
        description += f", {density} times as many for each id"
    info = DatasetInfo(
        name=scenario, description=description, splits=splits, columns=fitter.write(root)
    )
    write_dataset_info(root, info)
    return info


def _write_splits(
    world: Scenario,
    *,
    root: Location,
    seeds: Sequence[SeedSequence],
    examples: int,
    fitter: Fitter,
    on_progress: Callable[[int], None],
) -> dict[Split, SplitInfo]:
    """Draws and writes all splits; the fitter has then seen the training split."""
    parts = _parts(examples)
    # A small train split has 8 files of 8 row groups, enough for 64 streams; a large one more.
    rows_per_file = min(math.ceil(len(parts[0]) / 8), 500_000)
    splits: dict[Split, SplitInfo] = {}
    for split, part, seed in zip(SPLITS, parts, seeds, strict=True):
        best = SplitBest(world.tasks)
        rng = Generator(PCG64(seed))
        chunks = _chunks(world, rng=rng, part=part, num_total=examples, best=best)
        tables = _reported(chunks, num_before=part.start, on_progress=on_progress)
        write_split(
            root,
            split=split,
            tables=fitter.watch(tables) if split == "train" else tables,
            rows_per_file=rows_per_file,
            rows_per_row_group=math.ceil(rows_per_file / 8),
        )
        splits[split] = SplitInfo(examples=len(part), best=best.metrics())
    return splits


def _check_arguments(
    scenario: str, *, examples: int, seed: int, density: int, correlation: float | None
) -> None:
    if scenario not in SCENARIOS:
        raise InputError(f"{scenario}: no such scenario; {did_you_mean(scenario, SCENARIOS)}")
    if examples < MIN_EXAMPLES:
        raise InputError(f"examples: {examples} are too few; give {MIN_EXAMPLES:,} or more")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    if density < 1:
        raise InputError(f"density: expected 1 or more, found {density}")
    if density > 1 and SCENARIOS[scenario] is Correlated:
        raise InputError("density: the scenario correlated takes none; it has no ids")
    if density > 1 and examples < MIN_DENSE_EXAMPLES * density:
        raise InputError(
            f"density: {density} takes {MIN_DENSE_EXAMPLES * density:,} examples or more, found "
            f"{examples:,}; a shorter log has no fewer ids at a higher density"
        )
    if correlation is None:
        return
    if SCENARIOS[scenario] is not Correlated:
        raise InputError(f"correlation: the scenario {scenario} takes none; only correlated does")
    if not -1 <= correlation <= 1:
        raise InputError(f"correlation: expected a number from -1 to 1, found {correlation:g}")


def _parts(num_examples: int) -> tuple[range, range, range]:
    """The examples of train, valid and test."""
    num_held_out = num_examples // 10
    num_train = num_examples - 2 * num_held_out
    return (
        range(num_train),
        range(num_train, num_train + num_held_out),
        range(num_train + num_held_out, num_examples),
    )


def _fitted_columns(world: Scenario) -> dict[str, ColumnKind]:
    """The columns that statistics are fitted of, all but vectors and truths."""
    schema = world.draw(Generator(PCG64(0)), num_examples=1, start=0.0, stop=0.0).schema
    kinds = {field.name: _column_kind(field) for field in schema}
    kinds = {name: kind for name, kind in kinds.items() if not name.startswith("truth_")}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _column_kind(field: pa.Field) -> ColumnKind | None:
    """Strings, whole numbers in lists, and what is called SOMETHING_id are ids."""
    if pa.types.is_fixed_size_list(field.type):
        return None
    if pa.types.is_list(field.type):
        return None if pa.types.is_floating(field.type.value_type) else "id"
    return "id" if pa.types.is_string(field.type) or field.name.endswith("_id") else "number"


def _chunks(
    world: Scenario,
    *,
    rng: Generator,
    part: range,
    num_total: int,
    best: SplitBest,
) -> Iterator[pa.Table]:
    """A split's examples, `part` of the log's; `best` has seen those that are drawn."""
    for first in part[::CHUNK_EXAMPLES]:
        end = min(first + CHUNK_EXAMPLES, part.stop)
        table = world.draw(
            rng, num_examples=end - first, start=first / num_total, stop=end / num_total
        )
        best.add(table)
        yield table


def _reported(
    tables: Iterator[pa.Table], *, num_before: int, on_progress: Callable[[int], None]
) -> Iterator[pa.Table]:
    for table in tables:
        num_before += table.num_rows
        on_progress(num_before)
        yield table
