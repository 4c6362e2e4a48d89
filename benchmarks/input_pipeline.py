"""`polytower bench input`: how fast a log becomes batches, beside the limit and the usual ways.

The contenders (`input_contenders` says what each does) read the same columns of the same Parquet
files, in turn, in one run, and must agree on what they read before any time is taken. A turn is an
epoch: its clock starts when all that is made once for all epochs is made, and ends with the last
batch. Then the loader's peak memory is measured on logs that hold the same files 1, 10 and 100
times (`loader_memory`).

Rates are medians over rounds; a ratio is the loader's median rate over a rival's.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import input_contenders
from benchmarks.harness import (
    Action,
    ProgressCallback,
    environment,
    in_milliseconds,
    interleaved_samples,
)
from benchmarks.input_contenders import Contender, Contents, check_agreement, local_ray
from benchmarks.input_encoding import Columns, check_hand_written
from benchmarks.loader_memory import GROWTH, measure_growth
from benchmarks.parquet_log import Log, log_facts
from data_loaders.dataset import parquet_files
from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.row_groups import locate_root, read_columns
from data_loaders.synthetic import SCENARIOS, generate
from trainer.config import Recipe
from trainer.fitting import fitted_recipe

CPU = torch.device("cpu")

# A training split of 8 files of 8 row groups of 50,000 rows: the size that suits a long log, and a
# log that is longer than what is shuffled together. Of a shorter one no batch is made before all is
# read, and in smaller row groups what each costs beside its rows is half of all: neither is so of a
# log of a size that matters.
DEFAULT_EXAMPLES = 4_000_000

MEMORY_PHASE = "measuring memory"


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """What is read, and how often.

    Attributes:
        num_examples: of the generated log, all splits together; the training split, 80% of them, is
            read. None where the recipe names a log, and for `DEFAULT_EXAMPLES`.
        num_rounds: timed turns of every contender.
        num_workers: processes of a DataLoader, CPUs of Ray and threads of the scan; one per core by
            default.
        smallest_memory_log_max_examples: bounds the smallest log that memory is measured on; the
            others hold its files as often as `GROWTH` says.
        seed: of the generated log and of turns.
    """

    num_examples: int | None = None
    num_rounds: int = 3
    num_workers: int | None = None
    smallest_memory_log_max_examples: int = 200_000
    seed: int = 0


def run_input_benchmark(
    recipe: Recipe,
    *,
    scenario: str,
    settings: InputSettings,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measures all contenders on the training split of a recipe's log, then the loader's memory.

    Args:
        recipe: its section `data` says what is read; where it names no log, one is generated.
        scenario: of the generated log.
        settings: the default takes 9 to 15 minutes on 2 cores.
        on_progress: told the phase, what is done of it and what there is in all.

    Returns:
        what `polytower bench input --out` writes as JSON; raw samples included.

    Raises:
        InputError: the settings ask for what cannot be, or the log does not fit the recipe.
        ContendersDisagreeError: the contenders read different things.
    """
    _check(settings)
    check_hand_written(recipe.data)
    tell = on_progress or (lambda phase, done, total: None)
    if recipe.data.root is not None:
        if settings.num_examples is not None:
            raise InputError(
                f"examples: {settings.num_examples} are of a generated log, but data.root names "
                f"another: {recipe.data.root}; leave out one of the two"
            )
        return _measure(recipe, settings, tell)
    if scenario not in SCENARIOS:
        raise InputError(
            f"data.root: is not set, and no log can be generated for {scenario} (there are: "
            f"{', '.join(SCENARIOS)}); give the log's URI, e.g. data.root=s3://bucket/log"
        )
    num_examples = settings.num_examples or DEFAULT_EXAMPLES
    with tempfile.TemporaryDirectory(prefix="polytower-input-") as folder:
        generate(
            scenario,
            out=folder,
            examples=num_examples,
            seed=settings.seed,
            on_progress=lambda done: tell("generating the log", done, num_examples),
        )
        data = recipe.data.model_copy(update={"root": folder})
        settings = dataclasses.replace(settings, num_examples=num_examples)
        return _measure(recipe.model_copy(update={"data": data}), settings, tell)


def _measure(recipe: Recipe, settings: InputSettings, tell: ProgressCallback) -> dict[str, Any]:
    recipe = fitted_recipe(recipe)
    num_workers = settings.num_workers or len(os.sched_getaffinity(0))
    log = _log(recipe)
    samples = _samples(
        log, reader=_loader(recipe), num_workers=num_workers, settings=settings, tell=tell
    )
    facts = log_facts(log)
    # a log that is 100 times as long takes as much longer: counted is what is read
    tell(MEMORY_PHASE, 0, sum(GROWTH))
    memory = measure_growth(
        recipe.data,
        files=log.files,
        num_rows=recipe.num_rows_of_feature(),
        seed=recipe.run.seed,
        max_examples=settings.smallest_memory_log_max_examples,
        on_done=lambda done: tell(MEMORY_PHASE, sum(GROWTH[:done]), sum(GROWTH)),
    )
    results = [_result(name, seconds, facts=facts) for name, seconds in samples.items()]
    return {
        "benchmark": "input_pipeline",
        "settings": {
            **dataclasses.asdict(settings),
            "recipe": recipe.run.name,
            "num_workers": num_workers,
            "batch_size": log.batch_size,
        },
        "environment": environment(CPU),
        "log": facts,
        "results": results,
        "ratios": ratios(results),
        "memory": memory,
    }


def _samples(
    log: Log,
    *,
    reader: InteractionLoader,
    num_workers: int,
    settings: InputSettings,
    tell: ProgressCallback,
) -> dict[str, np.ndarray]:
    """Seconds of every contender in every round; its workers have ended when this returns."""
    tell("starting Ray", 0, 1)
    with local_ray(num_cpus=num_workers):
        contenders = _contenders(log, reader=reader, num_workers=num_workers)
        _compare_contents(contenders, num_examples=reader.num_examples, tell=tell)
        return interleaved_samples(
            _actions(contenders, num_rounds=settings.num_rounds, tell=tell),
            num_rounds=settings.num_rounds,
            num_warm_up_rounds=0,  # every contender has just read the whole log
            seed=settings.seed,
            device=CPU,
        )


def ratios(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The loader's median rate over each rival's."""
    rates = {row["contender"]: row["examples_per_second"] for row in results}
    loader = rates.pop("loader")
    return {f"loader_over_{name}": loader / rate for name, rate in rates.items()}


def _log(recipe: Recipe) -> Log:
    return Log(
        files=tuple(parquet_files(locate_root(recipe.data), split="train")),
        names=tuple(read_columns(recipe.data)),
        columns=Columns.of(recipe.data, num_rows=recipe.num_rows_of_feature()),
        batch_size=recipe.data.batch_size,
    )


def _loader(recipe: Recipe) -> InteractionLoader:
    return InteractionLoader(
        recipe.data,
        split="train",
        num_rows=recipe.num_rows_of_feature(),
        seed=recipe.run.seed,
        rank=0,
        world_size=1,
    )


def _contenders(log: Log, *, reader: InteractionLoader, num_workers: int) -> list[Contender]:
    num_processes = min(num_workers, len(log.files))  # workers share files
    return [
        input_contenders.scan(log, num_threads=num_workers),
        input_contenders.loader(log, reader=reader),
        input_contenders.dataloader(log, num_workers=num_processes),
        input_contenders.dataloader_batched(log, num_workers=num_processes),
        input_contenders.ray_data(log),
    ]


def _compare_contents(
    contenders: Sequence[Contender], *, num_examples: int, tell: ProgressCallback
) -> None:
    """Reads an epoch with each contender, which also starts its workers."""
    read = {}
    for index, contender in enumerate(contenders):
        tell("checking that all read the same", index, len(contenders))
        if contender.contents is None:
            read[contender.name] = Contents(num_examples=contender.read())
        else:
            read[contender.name] = sum(map(contender.contents, contender.batches()), Contents())
    check_agreement(read, num_examples=num_examples)


def _actions(
    contenders: Sequence[Contender], *, num_rounds: int, tell: ProgressCallback
) -> dict[str, Action]:
    num_turns = 0

    def action(contender: Contender) -> Action:
        def prepare(turn: int) -> Callable[[], object]:
            nonlocal num_turns
            tell("timing", num_turns, num_rounds * len(contenders))
            num_turns += 1
            return contender.read

        return prepare

    return {contender.name: action(contender) for contender in contenders}


def _result(name: str, seconds: np.ndarray, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A contender's times, and its rate in examples and in bytes: read as stored, written as Arrow
    holds them.
    """
    moved = facts["column_bytes"] + facts["arrow_bytes"]
    median = float(np.median(seconds))
    return {
        "contender": name,
        **in_milliseconds(seconds),
        "examples_per_second": facts["examples"] / median,
        "bytes_moved": moved,
        "gb_per_second": moved / median / 1e9,
    }


def _check(settings: InputSettings) -> None:
    for name, value in dataclasses.asdict(settings).items():
        if name != "seed" and value is not None and value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
