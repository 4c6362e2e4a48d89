"""One's own raw log as training data, as a Ray Data job: on this machine, or on a cluster.

    ROOT/train/..., ROOT/valid/..., ROOT/test/...   the rows that fit the recipe, in input order
    ROOT/vocabularies/COLUMN.parquet                ids of the training split and their counts
    ROOT/rejected/*.parquet                         the other rows: reason, value, source, row, raw
    ROOT/dataset.json                               written last: the data set is complete

The steps are those of `data_loaders.raw.staging`; Ray Data runs each side by side over its items
(parts of the log, hash ranges, files), and runs those again whose process or node was lost. They
exchange files; what comes back to this process are counts and statistics.

Source: https://docs.ray.io/en/latest/data/data.html
"""

from __future__ import annotations

import functools
import logging
import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext

from data_loaders.config import DataConfig
from data_loaders.dataset import (
    SPLITS,
    DatasetInfo,
    SplitInfo,
    write_dataset_info,
)
from data_loaders.errors import InputError, SchemaError, counted, did_you_mean
from data_loaders.exact_numbers import ValueCounts
from data_loaders.prepare_config import PrepareConfig
from data_loaders.raw.cells import EXPECTED
from data_loaders.raw.cleaning import DUPLICATE
from data_loaders.raw.columns import RawColumn, raw_columns
from data_loaders.raw.file_plans import plan_files, split_starts
from data_loaders.raw.files import Part, list_files, list_parts
from data_loaders.raw.staged_files import Job
from data_loaders.raw.staging import (
    CleanPart,
    FilePlan,
    SplitPart,
    assign_splits,
    clean_part,
    find_duplicates,
    write_file,
)
from data_loaders.raw.unfinished import begin_anew, refuse_all_but_unfinished
from data_loaders.statistics import Fitter, fitted_columns
from data_loaders.storage import Location, locate

BLOCK_BYTES = 8 * 2**20
# Of the raw log, per hash range. A key takes about 80 bytes of memory where duplicates are looked
# for, a row of a log seldom less than 20.
RANGE_BYTES = 256 * 2**20

# told the phase, how much of it is done, and how much there is to do
OnProgress = Callable[[str, int, int], None]


def prepare_log(
    data: DataConfig,
    *,
    prepare: PrepareConfig,
    num_rows: Mapping[str, int],
    name: str,
    sources: Sequence[str],
    out: str,
    cluster: AbstractContextManager[None],
    block_bytes: int = BLOCK_BYTES,
    on_progress: OnProgress | None = None,
) -> DatasetInfo:
    """Cleans, splits and describes a raw log on a Ray cluster.

    The same files and recipe give the same bytes, whatever the cluster. What an interrupted call
    left behind is begun anew.

    Args:
        data: features and tasks, which say what is read.
        prepare: how to clean and to split.
        num_rows: rows of the embedding table of each id feature.
        name: of the data set.
        sources: paths, URIs or globs of CSV, JSON lines and Parquet files, in any mixture.
        out: URI of a folder that is empty or does not exist yet; every node must reach it.
        cluster: joins a Ray cluster, once what is asked for has been checked.
        block_bytes: of text, read at once.
        on_progress: told how far it is, in this thread.

    Returns:
        What `dataset.json` says.

    Raises:
        InputError: the recipe or the log is at fault, or nothing is left to train on.
        StorageError: a file cannot be read, or `out` holds something else.
    """
    root = locate(out)
    refuse_all_but_unfinished(root)
    columns = raw_columns(data, prepare=prepare, num_rows=num_rows)
    parts = list_parts(list_files(sources))
    _check_columns(columns, parts)
    begin_anew(root, name=name)
    job = _job(columns, parts=parts, prepare=prepare, root=root, block_bytes=block_bytes)
    steps = _Steps(job, on_progress=on_progress or (lambda *_: None))
    with cluster:
        info = _run_steps(steps, parts, data=data, prepare=prepare, root=root, name=name)
    root.child("_staging").delete()
    write_dataset_info(root, info)
    return info


def _job(
    columns: Sequence[RawColumn],
    *,
    parts: Sequence[Part],
    prepare: PrepareConfig,
    root: Location,
    block_bytes: int,
) -> Job:
    return Job(
        columns=tuple(columns),
        prepare=prepare,
        staging=root.child("_staging").uri,
        rejected=root.child("rejected").uri,
        num_ranges=math.ceil(sum(part.num_bytes for part in parts) / RANGE_BYTES),
        block_bytes=block_bytes,
    )


def _run_steps(
    steps: _Steps,
    parts: Sequence[Part],
    *,
    data: DataConfig,
    prepare: PrepareConfig,
    root: Location,
    name: str,
) -> DatasetInfo:
    """Everything but `dataset.json`, and what that shall say."""
    clean_parts = steps.clean(parts)
    rejected = sum((Counter(part.rejected) for part in clean_parts), Counter[str]())
    num_clean = sum(part.num_rows for part in clean_parts)
    if not num_clean:
        raise _nothing_left(rejected, root=root)
    num_duplicates, split_parts = steps.split(clean_parts)
    rejected[DUPLICATE] += num_duplicates
    plans = plan_files(
        split_parts,
        root=root,
        prepare=prepare,
        num_streams=data.num_streams,
        bytes_per_row=sum(part.num_bytes for part in clean_parts) / num_clean,
        fitted=fitted_columns(data),
    )
    fitter = steps.write(plans, fitter=Fitter(fitted_columns(data)))
    num_rows_S = np.sum([part.num_rows_GS.sum(axis=0) for part in split_parts], axis=0)
    num_files = len({part.uri for part in parts})
    return DatasetInfo(
        name=name,
        description=f"{counted(num_rows_S.sum(), 'row')} of {counted(num_files, 'raw file')}",
        splits={
            split: SplitInfo(examples=examples)
            for split, examples in zip(SPLITS, num_rows_S.tolist(), strict=True)
            if examples
        },
        columns=fitter.write(root),
        rejected=dict(sorted((+rejected).items(), key=lambda item: (-item[1], item[0]))),
    )


class _Steps:
    """The steps of a job, one after another, each over all its items."""

    def __init__(self, job: Job, *, on_progress: OnProgress) -> None:
        self._job = job
        self._on_progress = on_progress

    def clean(self, parts: Sequence[Part]) -> list[CleanPart]:
        num_bytes = sum(part.num_bytes for part in parts)
        found = self._run(clean_part, parts, "cleaning, MiB", num_bytes, unit=2**20)
        return sorted(found, key=lambda part: part.index)

    def split(self, parts: Sequence[CleanPart]) -> tuple[int, list[SplitPart]]:
        """Finds duplicates, then the split of every other row; returns their number, and the
        parts.
        """
        num_rows = sum(part.num_rows for part in parts)
        find = functools.partial(find_duplicates, parts=parts)
        scores, in_range = ValueCounts(), {}
        for found in self._run(find, range(self._job.num_ranges), "finding duplicates", num_rows):
            scores.merge(found.scores)
            in_range[found.index] = found.num_duplicates
        ranges = [index for index in sorted(in_range) if in_range[index]]
        starts = split_starts(self._job.prepare.split, scores=scores)
        assign = functools.partial(assign_splits, starts=starts, ranges=ranges)
        split_parts = sorted(
            self._run(assign, parts, "splitting", num_rows), key=lambda part: part.index
        )
        return sum(in_range.values()), split_parts

    def write(self, plans: Sequence[FilePlan], *, fitter: Fitter) -> Fitter:
        """Writes the files; returns the fitter, which has seen the training split."""
        num_rows = sum(piece.take for plan in plans for piece in plan.pieces)
        for split, found in self._run(write_file, plans, "writing", num_rows):
            if split == "train":
                fitter.merge(found)
        return fitter

    def _run(
        self,
        step: Callable[..., Iterator[Any]],
        items: Sequence[Any],
        phase: str,
        total: int,
        *,
        unit: int = 1,
    ) -> Iterator[Any]:
        """The results of a step over all items, as they come; what an item fails with is raised."""
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_max_block_size = 1  # progress is told as it is made, not when a task ends
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # what is told here is enough
        done = 0
        shown = math.ceil(total / unit)
        self._on_progress(phase, 0, shown)
        with DataContext.current(context):
            dataset = ray.data.from_items(
                [{"item": pickle.dumps(item)} for item in items], override_num_blocks=len(items)
            ).map_batches(_Task(step, job=self._job), batch_size=1, batch_format="pyarrow")
            for row in dataset.iter_rows():
                if row["result"] is None:
                    done = min(total, done + row["done"])
                    self._on_progress(phase, math.ceil(done / unit), shown)
                    continue
                result = pickle.loads(row["result"])
                if isinstance(result, InputError):
                    raise result
                yield result


class _Task:
    """A step as Ray Data calls it: a batch of one item in, progress and the result out."""

    def __init__(self, step: Callable[..., Iterator[Any]], *, job: Job) -> None:
        self._step = step
        self._job = job

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        item = pickle.loads(batch["item"][0].as_py())
        try:
            for told in self._step(item, job=self._job):
                if isinstance(told, int):
                    yield _message(done=told)
                else:
                    yield _message(result=pickle.dumps(told))
        except InputError as error:  # as a value, because Ray would print a trace
            yield _message(result=pickle.dumps(error))


def _message(*, done: int = 0, result: bytes | None = None) -> pa.Table:
    return pa.table({"done": [done], "result": pa.array([result], pa.large_binary())})


def _check_columns(columns: Sequence[RawColumn], parts: Sequence[Part]) -> None:
    known = {name for part in parts for name in part.columns}
    if not parts:
        raise SchemaError("--source: the files have no rows")
    for column in columns:
        if column.name not in known:
            raise SchemaError(
                f"column {column.name} ({column.asked_by}): expected {EXPECTED[column.type]}, "
                "found no such column in any file of --source; "
                f"{did_you_mean(column.name, sorted(known))}"
            )


def _nothing_left(rejected: Counter[str], *, root: Location) -> SchemaError:
    if not rejected:
        return SchemaError("--source: the files have no rows")
    reason, count = rejected.most_common(1)[0]
    return SchemaError(
        f"all {rejected.total():,} rows were rejected, {count:,} of them because of {reason}; "
        f"look at {root.child('rejected').uri} and correct the recipe"
    )
