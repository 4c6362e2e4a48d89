"""A run from its first step, or its newest checkpoint, to its summary.

    log -> loader -> pipeline(model, optimizer) -> metrics, checkpoints -> evaluation -> summary

`train` is what every rank executes. It needs no launcher but the environment that Ray Train or
torchrun sets, and may be called again after any failure: it finds the newest complete checkpoint by
itself.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch.distributed as dist

from data_loaders.dataset import Split
from data_loaders.loader import InteractionLoader
from data_loaders.row_groups import has_split
from data_loaders.storage import Location, locate
from trainer.averaging import DenseAverage
from trainer.broken_weights import refuse_broken
from trainer.build import build_sharded_model
from trainer.checkpoint import Checkpoints, newest_that_fits, restore
from trainer.config import Recipe
from trainer.early_stopping import EarlyStopping
from trainer.evaluate import Evaluation, TaskResults, evaluate_split, final_split
from trainer.fitting import fitted_recipe
from trainer.init_from import start_from
from trainer.log_files import changes_since_begun, check_ranks_agree
from trainer.manifest import manifest_of, state_of
from trainer.model import StepOutput
from trainer.optimizer import build_optimizer
from trainer.pipeline import StepPipeline
from trainer.progress import Listener, Teller
from trainer.recipe_file import dump_recipe
from trainer.run_folder import RunFolder
from trainer.runtime import Runtime, joined_ranks, seed_step
from trainer.schedule import Schedule
from trainer.skip_report import SkipReport, in_words
from trainer.state import Stopwatch, TrainState, Window
from trainer.summary import summary_of
from trainer.training_report import TrainingReport, notes_on_labels
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
        _Training(fitted_recipe(recipe), runtime, listener=listener).run()


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
        self.loader = InteractionLoader(
            recipe.data,
            split="train",
            num_rows=recipe.num_rows_of_feature(),
            seed=recipe.run.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
        )
        check_ranks_agree(self.loader.files, split="train")
        self.num_steps = recipe.run.length(self.loader.steps_per_epoch)
        self.teller = Teller(listener, tasks=recipe.data.tasks, num_steps=self.num_steps)
        self.has_valid = has_split(recipe.data, split="valid")
        self.stopping = EarlyStopping(recipe.run, has_valid=self.has_valid, group=self.group)
        self.checkpoints = Checkpoints(location, keep=recipe.checkpoint.keep, group=self.group)
        newest = newest_that_fits(
            self.checkpoints,
            recipe=recipe,
            num_steps=self.num_steps,
            log_fingerprint=self.loader.fingerprint,
            file_changes=changes_since_begun(location, self.loader.files),
        )
        self.checkpoint = newest[0] if newest else None
        self.state = state_of(newest[1]) if newest else TrainState()
        self.folder = RunFolder(location, is_writer=runtime.rank == 0, resumed_step=self.state.step)
        self.data_wait = Stopwatch(self.state.data_wait_seconds)
        self._build()

    def _build(self) -> None:
        """What reads, and what learns; in the state in which the run is."""
        recipe, runtime = self.recipe, self.runtime
        # reading starts here, while the model is built
        self.batches = self.data_wait.timed(
            self.loader.batches(
                start=self.state.cursor,
                num_steps=self.num_steps - self.state.step,
                pin_memory=runtime.device_type == "cuda",
            )
        )
        self.model, self.plan = build_sharded_model(recipe, runtime=runtime)
        if self.checkpoint is None and recipe.init_from is not None:
            start_from(recipe.init_from, model=self.model, recipe=recipe, group=self.group)
        self.optimizer = build_optimizer(
            self.model, config=recipe.optimizer, is_frozen=recipe.is_frozen
        )
        self.average = DenseAverage(self.model, decay=recipe.optimizer.ema_decay)
        if self.checkpoint is not None:
            self._restore(self.checkpoint)
        self.schedule = Schedule(
            recipe.optimizer.schedule, optimizer=self.optimizer, num_steps=self.num_steps
        )
        self.reports = TrainingReport(
            self.model, recipe=recipe, num_steps=self.num_steps, device=runtime.device
        )

    def run(self) -> None:
        self.folder.write_recipe(dump_recipe(self.recipe))
        if self.checkpoint is None:
            self.folder.write_log_files(self.loader.files)
        if self._has_steps_left:
            self.folder.reopen()
        self._train_steps()
        self._finish()

    def _train_steps(self) -> None:
        """All steps that are left."""
        pipeline = StepPipeline(self.model, self.optimizer, self.runtime.device)
        self.model.train()
        window = Window(self.state)
        while self._has_steps_left:
            started = time.monotonic()
            seed_step(self.recipe.run.seed, step=self.state.step, rank=self.runtime.rank)
            self.schedule.apply(step=self.state.step)
            with self.reports.watching(self.state.step + 1):
                output = pipeline.take_step(self.state.step + 1, self.batches)
            self.average.update()
            self.reports.update(output)
            self.state = self._after(output, seconds=time.monotonic() - started)
            rate = window.examples_per_second(self.state)
            self.teller.after_step(
                self.state.step, losses_T=output.losses_T, examples_per_second=rate
            )
            is_last = self.state.step == self.num_steps
            valid_due = self.has_valid and (is_last or self._is_validation_due())
            save_due = _is_due(self.recipe.checkpoint.interval_steps, self.state.step)
            save_due = save_due or valid_due or is_last
            # before a save too, so that a resumed run reports the same windows
            if save_due or self.reports.is_due(self.state.step):
                window = self._report_training(window, output)
            if save_due:
                pipeline.detach()
                score = self._validate() if valid_due else None
                self.checkpoint = self._save(score=score)
                if score is not None:
                    self.teller.after_validation(
                        self.state.step, score=score, is_stopped=self._is_stopped
                    )

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

    def _is_validation_due(self) -> bool:
        interval = self.recipe.run.eval_interval_steps
        is_epoch_end = self.state.cursor.step == 0
        return _is_due(interval, self.state.step) if interval else is_epoch_end

    @property
    def _has_steps_left(self) -> bool:
        return self.state.step < self.num_steps and not self._is_stopped

    @property
    def _is_stopped(self) -> bool:
        return self.stopping.is_due(self.state.selection)

    def _report_training(self, window: Window, output: StepOutput) -> Window:
        tasks, skips, entries = self.reports.reduce_and_reset(output)
        if self.reports.counts_skipped:
            self._count_skipped(skips, window)
        if window.start.step == 0:
            for note in notes_on_labels(
                tasks, recipe=self.recipe, num_examples=self.state.examples
            ):
                self.teller.note(self.state.step, note)
        rate, skipped = window.examples_per_second(self.state), self.state.skipped
        more = {"examples_per_second": rate, "skipped": skipped}
        self._report("train", tasks, skips, **more, **entries)
        return Window(self.state)

    def _count_skipped(self, skips: SkipReport, window: Window) -> None:
        """Takes what was left out from the examples, which were counted as planned."""
        if skips.skipped and not self.state.has_skipped:
            note = f"{in_words(skips.skipped[0])} (data.on_error: skip; more: metrics.jsonl)"
            self.teller.note(self.state.step, note)
        self.state = self.state.with_skipped(skips, since=window.start)

    def _report(self, split: str, tasks: TaskResults, skips: SkipReport, **more: Any) -> None:
        state = self.state
        head = {"split": split, "step": state.step, "examples": state.examples}
        line = {**head, "seconds": round(state.seconds, 3), **more, **skips.entries()}
        self.folder.report({**line, "tasks": tasks})

    def _evaluate(self, split: Split) -> Evaluation:
        with self.average.in_place():
            return evaluate_split(
                self.model,
                optimizer=self.optimizer,
                recipe=self.recipe,
                split=split,
                runtime=self.runtime,
                listener=self.teller.listener,
            )

    def _validate(self) -> float | None:
        result = self._evaluate("valid")
        self._report(
            "valid",
            result.tasks,
            result.skips,
            examples_per_second=result.examples_per_second,
            skipped=result.skips.num_skipped,
            calibration_curves=result.curves,
        )
        score = self.stopping.score_of(result.tasks)
        if score is None:
            self.teller.note(self.state.step, "no label on valid: no checkpoint is the best one")
        self.state = dataclasses.replace(self.state, selection=self.state.selection.after(score))
        return score

    def _save(self, *, score: float | None) -> Location:
        refuse_broken(self.model, step=self.state.step)
        self.folder.flush()
        manifest = manifest_of(
            self.state,
            recipe=self.recipe,
            log_fingerprint=self.loader.fingerprint,
            world_size=self.runtime.world_size,
            score=score,
        )
        return self.checkpoints.save(
            model=self.model, optimizer=self.optimizer, average=self.average, manifest=manifest
        )

    def _restore(self, location: Location) -> None:
        restore(
            location,
            model=self.model,
            optimizer=self.optimizer,
            average=self.average,
            group=self.group,
        )

    def _finish(self) -> None:
        """Takes the best checkpoint, evaluates it on the final split, writes the summary."""
        best = self.checkpoints.best() if self.recipe.run.select == "best" else None
        assert self.checkpoint is not None, "the last step is always saved"
        if best is not None and best[0].uri != self.checkpoint.uri:
            self.checkpoint = best[0]
            self._restore(self.checkpoint)
        self.folder.write_summary(
            summary_of(
                self.recipe,
                state=self.state,
                evaluation=self._evaluate(final_split(self.recipe.data)),
                checkpoint=self.checkpoint,
                plan=self.plan,
                world_size=self.runtime.world_size,
                is_stopped_early=self.state.step < self.num_steps,
            )
        )


def _is_due(interval: int | None, step: int) -> bool:
    return interval is not None and step % interval == 0
