"""Many trainings of a recipe, each with other values; what falls behind on valid is stopped early.

    drawn values --> Ray Tune, ASHA --> train() in a process per trial --> its run's folder
                          ^                                |
                          +------- score on valid ---------+

A trial is an ordinary run on one rank. Everything that outlives an interruption lies in the
search's folder: values are drawn anew, alike; a trial that had begun goes on from its newest
checkpoint; its scores until then are told to the scheduler again.

Source: Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020 (ASHA);
    https://docs.ray.io/en/latest/tune/api/schedulers.html
"""

from __future__ import annotations

import contextlib
import logging
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import tune as ray_tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler

from cluster.connection import connected, settings
from cluster.failures import LaunchError
from cluster.trials import Score, SearchFolder, State, Trial
from data_loaders.errors import InputError, StorageError
from data_loaders.storage import first_line, locate
from trainer.config import Recipe
from trainer.progress import Progress
from trainer.runtime import ENVIRONMENT, prepare_environment, quiet_libraries

# What Ray reads from the environment; what the user has set stays.
TUNE_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command, as everywhere
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a run's folder has the numbers
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
# At 12 and 36 percent of a run, the best third goes on.
REDUCTION_FACTOR = 3
GRACE_PERCENT = 12
# Of one trial, e.g. when its node goes away; it goes on from its newest checkpoint.
MAX_FAILURES = 3


@dataclass(frozen=True)
class Plan:
    """A trial before it begins.

    Attributes:
        values: drawn, by key.
        recipe: with them, and with `run.uri` set.
    """

    values: dict[str, Any]
    recipe: Recipe


def tune(
    plans: Sequence[Plan],
    *,
    folder: SearchFolder,
    num_parallel: int,
    address: str | None,
    on_trial: Callable[[Trial], None],
) -> list[Trial]:
    """Runs all trials to their ends; what has ended in an earlier attempt is not run again.

    Args:
        plans: by index.
        folder: of the search.
        num_parallel: trials at a time.
        address: of a running cluster, `auto` or HOST:PORT; None starts one that ends with it.
        on_trial: told each trial that ends, in this thread.

    Raises:
        InputError: the cluster cannot be reached or is too small.
        LaunchError: trials failed more often than is allowed.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with (
        settings(TUNE_SETTINGS),
        connected(address, environment=ENVIRONMENT),
        tempfile.TemporaryDirectory() as scratch,
        _noticed_interrupt() as interrupt,
    ):
        watch = TrialWatch(plans, folder=folder, interrupt=interrupt, on_trial=on_trial)
        ray_tune.Tuner(
            _trainable(plans, folder=folder, num_parallel=num_parallel),
            param_space={"index": ray_tune.grid_search(list(range(len(plans))))},
            tune_config=_tune_config(num_parallel),
            run_config=_run_config(scratch, watch=watch),
        ).fit()
        missing = [index for index in range(len(plans)) if folder.ended(index) is None]
    if missing:
        raise LaunchError(
            f"trial {missing[0]} failed {MAX_FAILURES + 1} times: {watch.why(missing[0])}; "
            "the same command tries again"
        )
    return [trial for index in range(len(plans)) if (trial := folder.ended(index)) is not None]


@contextlib.contextmanager
def _noticed_interrupt() -> Iterator[threading.Event]:
    """Set by Ctrl-C, because its exception may be lost on the way through Ray."""
    interrupt = threading.Event()

    def notice(number: int, frame: object) -> None:
        interrupt.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def _trainable(plans: Sequence[Plan], *, folder: SearchFolder, num_parallel: int) -> Any:
    """`run_trial` with what all trials share, and the resources of each."""
    trainable = ray_tune.with_parameters(
        run_trial,
        plans=[
            {"values": plan.values, "recipe": plan.recipe.model_dump(mode="json")} for plan in plans
        ],
        out=folder.location.uri,
    )
    return ray_tune.with_resources(trainable, _resources_of_trial(num_parallel))


def _resources_of_trial(num_parallel: int) -> dict[str, float]:
    """An equal part of the cluster's CPUs, and a GPU where there are any."""
    capacity = ray.cluster_resources()
    num_cpus, num_gpus = (int(capacity.get(name, 0)) for name in ("CPU", "GPU"))
    if num_parallel > (most := num_gpus or num_cpus):
        raise InputError(
            f"--parallel {num_parallel}: expected {most} or fewer, a "
            f"{'GPU' if num_gpus else 'CPU'} for each trial of the Ray cluster"
        )
    return {"cpu": max(1, num_cpus // num_parallel), "gpu": 1 if num_gpus else 0}


def _tune_config(num_parallel: int) -> ray_tune.TuneConfig:
    return ray_tune.TuneConfig(
        metric="score",
        mode="max",
        max_concurrent_trials=num_parallel,
        reuse_actors=False,
        scheduler=ASHAScheduler(
            time_attr="percent",
            max_t=100,
            grace_period=GRACE_PERCENT,
            reduction_factor=REDUCTION_FACTOR,
            stop_last_trials=False,
        ),
    )


def _run_config(scratch: str, *, watch: TrialWatch) -> ray_tune.RunConfig:
    return ray_tune.RunConfig(
        name="search",
        storage_path=scratch,
        verbose=0,
        callbacks=[watch],
        failure_config=ray_tune.FailureConfig(max_failures=MAX_FAILURES),
    )


class TrialWatch(Callback):
    """In the driver: keeps which trials were stopped, and why others failed."""

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        folder: SearchFolder,
        interrupt: threading.Event,
        on_trial: Callable[[Trial], None],
    ) -> None:
        self._plans, self._folder, self._on_trial = plans, folder, on_trial
        self._interrupt = interrupt
        self._errors: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is this process's: Ray stores its callbacks, to restore searches of its
        own.
        """
        return self.__dict__ | {"_on_trial": None, "_interrupt": None}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._interrupt.is_set():
            raise KeyboardInterrupt

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        index = trial.config["index"]
        values = self._plans[index].values
        ended = self._folder.ended(index)
        self._on_trial(ended or self._folder.end(index, values=values, state="stopped"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        self._errors[trial.config["index"]] = first_line(error) if error else "killed"

    def why(self, index: int) -> str:
        """The last failure of a trial."""
        return self._errors.get(index, "killed")


def run_trial(config: Mapping[str, Any], *, plans: Sequence[Mapping[str, Any]], out: str) -> None:
    """What Ray Tune runs in a process for each trial.

    Args:
        config: the trial's `index`.
        plans: of all trials, their recipes as JSON.
        out: URI of the search's folder.
    """
    prepare_environment()
    quiet_libraries()
    index, folder = config["index"], SearchFolder(locate(out))
    scores = folder.scores(index)
    for score in scores:
        ray_tune.report(asdict(score))
    if folder.ended(index) is not None:
        return
    from trainer.loop import train
    from trainer.losses import NonFiniteLossError

    def listen(progress: Progress) -> None:
        if progress.score is not None:
            percent = 100 * progress.step / progress.num_steps
            scores.append(Score(progress.step, percent, progress.score))
            folder.write_scores(index, scores)
            ray_tune.report(asdict(scores[-1]))

    state: State = "complete"
    why = ""
    try:
        train(Recipe.model_validate(plans[index]["recipe"]), listener=listen)
    except StorageError:
        raise  # may have passed by the next attempt
    except InputError as error:
        state, why = "diverged" if isinstance(error, NonFiniteLossError) else "failed", str(error)
    folder.end(index, values=plans[index]["values"], state=state, why=why)
