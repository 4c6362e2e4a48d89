"""A run from its first step, or its newest checkpoint, to its summary.

    log -> loader -> pipeline(model, optimizer) -> metrics, checkpoints -> evaluation -> summary

`train` is what every rank executes. It needs no launcher but the environment that Ray Train or
torchrun sets, and may be called
again after any failure: it finds the newest complete checkpoint by itself.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from data_loaders.dataset import Split
from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.row_groups import has_split
from data_loaders.storage import Location, locate
from embeddings.plan_report import placements
from embeddings.planner import is_table
from trainer.build import build_sharded_model
from trainer.checkpoint import Checkpoints, Manifest, check_fits, restore, state_of
from trainer.config import Recipe
from trainer.evaluate import (
    Evaluation,
    TaskResults,
    evaluate_split,
    final_split,
    selection_score,
)
from trainer.log_files import changes_since_begun, check_ranks_agree
from trainer.losses import NonFiniteLossError
from trainer.metrics import TaskMetrics
from trainer.model import StepOutput
from trainer.optimizer import build_optimizer
from trainer.progress import Listener, Progress, throttled
from trainer.recipe_file import dump_recipe
from trainer.run_folder import RunFolder
from trainer.runtime import Runtime, joined_ranks
from trainer.skip_report import SkipReport, Skips, in_words
from trainer.state import Stopwatch, TrainState, Window
from trainer.telemetry import Telemetry
from trainer.vocabularies import keep_vocabularies


def train(recipe: Recipe, *, listener: Listener | None = None) -> None:
    """Trains, evaluates, and writes the run's folder; called on every rank.

    Args:
        recipe: with `run.uri` and `data.root` set.
        listener: told the progress, on rank 0 only.

    Raises:
        InputError: the recipe, the log or a checkpoint is at fault.
    """
    with joined_ranks() as runtime:
        listener = listener if runtime.rank == 0 else None
        _Training(recipe.fitted(), runtime, listener=listener).run()


class _Training:
    """The parts of one run on one rank."""

    def __init__(self, recipe: Recipe, runtime: Runtime, *, listener: Listener | None) -> None:
        assert recipe.run.uri is not None, "the launcher chooses run.uri"
        location = locate(recipe.run.uri)
        # checkpoints move CPU tensors, whatever the model's collectives run on
        self.group = dist.new_group(backend="gloo")
        recipe = keep_vocabularies(
            recipe, run=location, is_writer=runtime.rank == 0, group=self.group
        )
        self.recipe, self.runtime = recipe, runtime
        self.listener = throttled(listener) if listener is not None else None
        self.device = runtime.device
        self.loader = InteractionLoader(
            recipe.data,
            split="train",
            num_rows=recipe.num_rows_of_feature(),
            seed=recipe.run.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
        )
        check_ranks_agree(self.loader.files, split="train")
        epochs = recipe.run.num_epochs
        self.num_steps = recipe.run.num_steps or (epochs or 0) * self.loader.steps_per_epoch
        self.has_valid = has_split(recipe.data, split="valid")
        self.checkpoints = Checkpoints(location, keep=recipe.checkpoint.keep, group=self.group)
        self.checkpoint, self.state = self._newest_checkpoint(location)
        self.folder = RunFolder(location, is_writer=runtime.rank == 0, resumed_step=self.state.step)
        self.data_wait = Stopwatch(self.state.data_wait_seconds)
        # reading starts here, while the model is built
        self.batches = self.data_wait.timed(
            self.loader.batches(
                start=self.state.cursor,
                num_steps=self.num_steps - self.state.step,
                pin_memory=runtime.device_type == "cuda",
            )
        )
        self.model, self.plan = build_sharded_model(recipe, runtime=runtime)
        self.optimizer = build_optimizer(self.model, config=recipe.optimizer)
        if self.checkpoint is not None:
            restore(self.checkpoint, model=self.model, optimizer=self.optimizer, group=self.group)
        self.metrics = TaskMetrics(recipe.data, device=self.device)
        self.skips = Skips(recipe.data, device=self.device)
        tasks = recipe.data.tasks
        self.telemetry = Telemetry(
            self.model, tasks=list(tasks), weights=[task.weight for task in tasks.values()]
        )

    def run(self) -> None:
        self.folder.write_recipe(dump_recipe(self.recipe))
        if self.checkpoint is None:
            self.folder.write_log_files(self.loader.files)
        self._train_steps()
        self._finish()

    def _train_steps(self) -> None:
        """All steps that are left."""
        pipeline = TrainPipelineSparseDist(self.model, self.optimizer, self.device)
        self.model.train()
        window = Window(self.state)
        while self.state.step < self.num_steps:
            started = time.monotonic()
            self._seed_step()
            with self.telemetry.watching(self._is_watched(self.state.step + 1)):
                output = self._next_output(pipeline)
            self.metrics.update(output)
            self.skips.update(output)
            self.state = self._after(output, seconds=time.monotonic() - started)
            self._tell(output, window)
            is_last = self.state.step == self.num_steps
            valid_due = self.has_valid and (is_last or self._is_validation_due())
            save_due = _is_due(self.recipe.checkpoint.interval_steps, self.state.step)
            save_due = save_due or valid_due or is_last
            # before a save too, so that a resumed run reports the same windows
            if save_due or _is_due(self.recipe.run.log_interval_steps, self.state.step):
                window = self._report_training(window, output)
            if save_due:
                pipeline.detach()
                self.checkpoint = self._save(score=self._validate() if valid_due else None)

    def _next_output(self, pipeline: TrainPipelineSparseDist) -> StepOutput:
        try:
            output: StepOutput = pipeline.progress(self.batches)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(
                f"step {self.state.step + 1}: {error}; nothing of this step was applied; "
                "lower optimizer.*.learning_rate, or look for extreme values in the log"
            ) from None
        return output

    def _after(self, output: StepOutput, *, seconds: float) -> TrainState:
        plan = self.loader.plan(epoch=self.state.cursor.epoch)
        examples = plan.num_examples(rank=0, world_size=1, step=self.state.cursor.step)
        return dataclasses.replace(
            self.state,
            step=self.state.step + 1,
            examples=self.state.examples + examples,
            seconds=self.state.seconds + seconds,
            data_wait_seconds=self.data_wait.seconds,
            cursor=output.cursor,
        )

    def _seed_step(self) -> None:
        """Dropout depends on (seed, step, rank) alone, so a resumed run draws the same."""
        seed = (self.recipe.run.seed * 1_000_003 + self.state.step) * 1_000_003
        torch.manual_seed((seed + self.runtime.rank) % 2**63)

    def _is_validation_due(self) -> bool:
        interval = self.recipe.run.eval_interval_steps
        is_epoch_end = self.state.cursor.step == 0
        return _is_due(interval, self.state.step) if interval else is_epoch_end

    def _tell(self, output: StepOutput, window: Window) -> None:
        if self.listener is None:
            return
        losses = dict(zip(self.recipe.data.tasks, output.losses_T.tolist(), strict=True))
        rate = window.examples_per_second(self.state)
        self.listener(Progress("train", self.state.step, self.num_steps, rate, losses))

    def _is_watched(self, step: int) -> bool:
        return _is_due(self.recipe.run.log_interval_steps, step) or step == self.num_steps

    def _report_training(self, window: Window, output: StepOutput) -> Window:
        tasks, skips = self.metrics.reduce_and_reset(), self.skips.reduce_and_reset()
        if self.skips.is_on:
            self._count_skipped(skips, window)
        rate, skipped = window.examples_per_second(self.state), self.state.skipped
        more = {"examples_per_second": rate, "skipped": skipped}
        self._report("train", tasks, skips, **more, **self.telemetry.entries(output))
        return Window(self.state)

    def _count_skipped(self, skips: SkipReport, window: Window) -> None:
        """Takes what was left out from the examples, which were counted as planned."""
        if skips.skipped and not self.state.has_skipped and self.listener is not None:
            note = f"{in_words(skips.skipped[0])} (data.on_error: skip; more: metrics.jsonl)"
            self.listener(Progress("train", self.state.step, self.num_steps, 0.0, {}, note))
        self.state = dataclasses.replace(
            self.state,
            examples=window.start.examples + skips.num_given,
            skipped=self.state.skipped + skips.num_skipped,
            uncounted_files=self.state.uncounted_files + skips.num_uncounted_files,
        )

    def _report(self, split: str, tasks: TaskResults, skips: SkipReport, **more: Any) -> None:
        state = self.state
        head = {"split": split, "step": state.step, "examples": state.examples}
        line = {**head, "seconds": round(state.seconds, 3), **more, **skips.entries()}
        self.folder.report({**line, "tasks": tasks})

    def _evaluate(self, split: Split) -> Evaluation:
        return evaluate_split(
            self.model,
            recipe=self.recipe,
            split=split,
            runtime=self.runtime,
            listener=self.listener,
        )

    def _validate(self) -> float:
        result = self._evaluate("valid")
        rate, skipped = result.examples_per_second, result.skips.num_skipped
        more = {"examples_per_second": rate, "skipped": skipped}
        curves = result.curves
        self._report("valid", result.tasks, result.skips, **more, calibration_curves=curves)
        return selection_score(result.tasks)

    def _save(self, *, score: float | None) -> Location:
        self._refuse_broken_model()
        self.folder.flush()
        state = self.state
        manifest = Manifest(
            step=state.step,
            examples=state.examples,
            seconds=state.seconds,
            data_wait_seconds=state.data_wait_seconds,
            skipped=state.skipped,
            uncounted_files=state.uncounted_files,
            cursor=dataclasses.astuple(state.cursor),
            log_fingerprint=self.loader.fingerprint,
            world_size=self.runtime.world_size,
            score=score,
            recipe=self.recipe.model_dump(mode="json"),
        )
        return self.checkpoints.save(model=self.model, optimizer=self.optimizer, manifest=manifest)

    def _refuse_broken_model(self) -> None:
        """A finite loss may still have left NaN behind: a run could not go on from that."""
        towers = (item for name, item in self.model.named_parameters() if not is_table(name))
        finite = torch.stack([torch.isfinite(item).all() for item in towers]).all().float()
        dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        if not finite:
            raise NonFiniteLossError(
                f"step {self.state.step}: the towers' weights are no longer finite; no checkpoint "
                "was written; lower optimizer.*.learning_rate, or look for extreme values"
            )

    def _newest_checkpoint(self, run: Location) -> tuple[Location | None, TrainState]:
        """Where to go on, if this run has been begun before."""
        newest = self.checkpoints.newest()
        if newest is None:
            return None, TrainState()
        location, manifest = newest
        check_fits(
            location,
            manifest,
            recipe=self.recipe,
            log_fingerprint=self.loader.fingerprint,
            file_changes=changes_since_begun(run, self.loader.files),
        )
        if manifest.step > self.num_steps:
            raise InputError(
                f"{location.uri}: this run is {manifest.step} steps long already, more than "
                f"the {self.num_steps} asked for; "
                "raise run.num_steps (or num_epochs), or start another run.uri"
            )
        return location, state_of(manifest)

    def _finish(self) -> None:
        """Takes the best checkpoint, evaluates it on the final split, writes the summary."""
        best = self.checkpoints.best() if self.recipe.run.select == "best" else None
        assert self.checkpoint is not None, "the last step is always saved"
        if best is not None and best[0].uri != self.checkpoint.uri:
            self.checkpoint = best[0]
            restore(self.checkpoint, model=self.model, group=self.group)
        result = self._evaluate(final_split(self.recipe.data))
        state = self.state
        self.folder.write_summary(
            {
                "examples": state.examples,
                "skipped": state.skipped,
                "skipped_uncounted_files": state.uncounted_files,
                "steps": state.step,
                "world_size": self.runtime.world_size,
                "seconds": round(state.seconds, 3),
                "examples_per_second": round(state.examples / state.seconds, 1),
                "data_wait_fraction": round(state.data_wait_seconds / state.seconds, 4),
                "evaluated_on": result.split,
                **result.skips.of_evaluation(),
                "tasks": result.tasks,
                "calibration_curves": result.curves,
                "checkpoint": self.checkpoint.uri,
                "plan": [
                    dataclasses.asdict(item)
                    for item in placements(self.plan, tables=self.recipe.embeddings.tables)
                ],
            }
        )


def _is_due(interval: int | None, step: int) -> bool:
    return interval is not None and step % interval == 0
