"""A training from the cache to the result record; implements ``plifctl train``, ``validate`` and ``refit``.

With several processes (torchrun, srun) every rank calls :func:`train`. The first rank writes the run and reports; the
others only train.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from plifctl import paths
from plifctl.config.choices import DataPlacement, Protocol, Recipe
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import (
    CheckpointError,
    Interrupted,
    PlifctlError,
    ResumeError,
    RunError,
    StoppedByCallback,
    UsageError,
)
from plifctl.evaluation.extreme_rates import describe_extreme_rates
from plifctl.evaluation.step_cost import describe_step, step_cost
from plifctl.pipeline.progress import Progress, silent
from plifctl.pipeline.start_weights import describe_start, kept_start_weights
from plifctl.pipeline.train_options import TrainObserver, TrainOptions
from plifctl.pipeline.train_setup import TrainingSetup, TrainingTask, is_done, resolve, set_up
from plifctl.runs import Predictions, Run, RunData, RunRecorder, create_run, describe_machine, load_checkpoint
from plifctl.training.distributed import Group, Ranks, process_group, rank_device, rank_info
from plifctl.training.kernel_selection import Selection
from plifctl.training.kernel_trial import known_cause
from plifctl.training.process import use_deterministic_algorithms
from plifctl.training.progress import EpochRow, Outcome, Recorder
from plifctl.training.sample_store import free_memory
from plifctl.training.step_times import products_per_second
from plifctl.training.trainer import Trainer
from plifctl.units import format_bytes

_log = logging.getLogger(__name__)


class _CallbackObserver(TrainObserver):
    """Calls a function after each epoch, and stops the training if it returns False."""

    def __init__(self, on_epoch: Callable[[dict[str, Any]], bool | None] | None) -> None:
        self._callback = on_epoch
        self.run: Run | None = None

    def on_run(self, run: Run) -> None:
        self.run = run

    def on_epoch(self, row: dict[str, Any]) -> bool | None:
        answer = self._callback(row) if self._callback is not None else None
        # np.bool_: what numpy's numbers compare to
        return bool(answer) if isinstance(answer, bool | np.bool_) else None


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        run: Its run directory; :meth:`~plifctl.runs.Run.record` is the result.
        trained: False if the run was already finished and had nothing left to train.
        rank: Rank of this process; the first one, 0, writes the run.
    """

    run: Run
    trained: bool = True
    rank: int = 0


@dataclass(frozen=True)
class TrainPlan:
    """Plan of a training; fields in the order in which they are shown.

    Attributes:
        state: Whether the training is new, a run would be resumed, or is finished, so that nothing would be trained.
        run: Name of the run to resume, or that is finished.
        started_from: What the training begins with, or began with, a line each; empty if all weights are drawn.
        frozen: Layers, or parameters of a layer, that are not trained.
    """

    state: Literal["new", "resumed", "finished"]
    run: str | None
    experiment: str
    recipe: Recipe
    protocol: Protocol
    modified: list[str]
    started_from: list[str]
    frozen: str
    cache: str
    train: int
    validation: int
    test: int
    T: int
    epochs: int
    steps_per_epoch: int
    device: str
    kernel: str
    data_in: DataPlacement
    step_bytes: int
    runs_dir: str


def train(options: TrainOptions, observer: TrainObserver | None = None, progress: Progress = silent) -> TrainResult:
    """Trains an experiment, or resumes a run, to its last epoch.

    Args:
        options: What to train, and how.
        observer: Called after each step and epoch; may stop the training.
        progress: Opens the tasks of building a cache.

    Raises:
        UsageError: Unknown experiment, run or option.
        ResumeError: The run to resume was made with other settings.
        CacheError: There is no cache, and building was not requested.
        RunError: The training failed.
        Interrupted: A signal or the observer stopped it; its state is saved.
    """
    observer = observer or TrainObserver()
    info = rank_info()
    if info is None:
        return _train(options, observer, progress, Ranks())
    group: Group | None = None
    observer.on_rank(info.rank)
    try:
        with process_group(info, options.rank_timeout) as group:
            return _train(replace(options, device=rank_device(info, options.device)), observer, progress, group)
    except (Exception, Interrupted):
        observer.on_rank_failure(reported=group is not None and group.first_rank_reported)
        raise


def train_with_callback(options: TrainOptions, on_epoch: Callable[[dict[str, Any]], bool | None] | None = None) -> Run:
    """Trains as :func:`train`, and returns the run even if the callback stopped it.

    Args:
        options: What to train, and how.
        on_epoch: Called after each epoch with its row of ``metrics.jsonl``; False stops the training.
    """
    if on_epoch is not None and not callable(on_epoch):
        raise UsageError(f"on_epoch: found {on_epoch!r}, expected a function of the epoch's row")
    observer = _CallbackObserver(on_epoch)
    try:
        return train(options, observer).run
    except StoppedByCallback:
        assert observer.run is not None
        return observer.run


def plan_training(options: TrainOptions) -> TrainPlan:
    """Returns what :func:`train` would do; reads the cache, builds and writes nothing.

    Raises:
        UsageError, ResumeError, CacheError: As :func:`train`; the cache is needed for a finished run, too.
    """
    options, ranks = replace(options, build_cache=False), Ranks()
    task = resolve(options, ranks)
    setup = set_up(options, task, silent, ranks, dry_run=True)
    spec, split = setup.spec, setup.split
    return TrainPlan(
        state="new" if task.resumed is None else "resumed" if task.finished is None else "finished",
        run=None if task.resumed is None else task.resumed.name,
        experiment=spec.name,
        recipe=spec.recipe,
        protocol=options.protocol,
        modified=list(setup.changes),
        started_from=describe_start(setup.task.started_from),
        frozen=setup.frozen,
        cache=str(setup.cache.path),
        train=len(split.train),
        validation=len(split.validation),
        test=len(split.test),
        T=spec.T,
        epochs=spec.train.epochs,
        steps_per_epoch=spec.train.steps_per_epoch(len(split.train)),
        device=str(setup.device),
        kernel=setup.selection.describe(),
        data_in=setup.place,
        step_bytes=step_cost(spec, spec.train.batch_size).nbytes,
        runs_dir=str(options.runs_dir or paths.runs_dir()),
    )


def _train(options: TrainOptions, observer: TrainObserver, progress: Progress, ranks: Ranks) -> TrainResult:
    task = resolve(options, ranks)
    if (done := task.finished) is not None:
        longer = "it stopped early" if done.record().stopped_early else "a larger --epochs trains it longer"
        if done.config().tests_once:
            longer = "it was tested, once"
        _log.info("%s is finished; %s", done.name, longer)
        return TrainResult(done, trained=False, rank=ranks.rank)
    options = replace(options, deterministic=_is_deterministic(options, task))
    if options.deterministic:
        use_deterministic_algorithms()
    setup = set_up(options, task, progress, ranks)
    environment = {
        **describe_machine(str(setup.device), torch.get_num_threads(), ranks.size),
        **setup.selection.to_environment(),
        "deterministic": options.deterministic,
    }
    run = task.resumed or Run(ranks.broadcast_from_first(lambda: _new_run(setup, environment).path))
    observer.on_run(run)
    first = ranks.rank == 0
    with ranks.first_rank_first():  # the others wait as long as it takes
        if first and (host := run.beating_host()) is not None:
            raise ResumeError(f"{run.path}: a process on {host} is training this run")
    trained = _train_run(setup, run, environment, observer) if first else _train_along(setup, observer)
    return TrainResult(run, trained=trained, rank=ranks.rank)


def _is_deterministic(options: TrainOptions, task: TrainingTask) -> bool:
    """Returns whether only deterministic algorithms are allowed: as the options say, else as the run was begun."""
    if options.deterministic is not None or task.resumed is None:
        return bool(options.deterministic)
    if task.resumed.session_entries()[-1]["environment"].get("deterministic"):
        _log.info("deterministic algorithms only, as before; --no-deterministic allows others")
        return True
    return False


def _new_run(setup: TrainingSetup, environment: dict[str, Any]) -> Run:
    runs_dir, start = setup.options.runs_dir or paths.runs_dir(), setup.task.start
    return create_run(
        runs_dir,
        setup.task.experiment,
        setup.options.protocol,
        cache={
            "path": str(setup.cache_path),
            "from_runs": _relative_path(setup.cache_path, runs_dir),
            "content_digest": setup.cache.content_digest,
            "complete": setup.cache.complete_set,
        },
        split=setup.split.to_json(setup.cache.sample_ids),
        environment=environment,
        started_from=None if start is None else start.source,
        start=None if start is None else start.taken,
        name=setup.options.name,
    )


def _relative_path(path: Path, start: Path) -> str:
    try:
        return os.path.relpath(path.resolve(), start.resolve())
    except ValueError:  # on another drive
        return ""


_FINISHED = "finished"
"""What the ranks get in place of a saved state, if another process finished the run since it was looked at."""


def _train_run(setup: TrainingSetup, run: Run, environment: dict[str, Any], observer: TrainObserver) -> bool:
    """Trains the run to its end from its saved state, and writes the record; False: there was nothing to do."""
    cache, split, spec, ranks = setup.cache, setup.split, setup.spec, setup.ranks
    used = np.concatenate([split.train, split.validation, split.test])
    data = RunData(
        verified=cache.verified,
        complete=cache.complete_set,
        train=len(split.train),
        validation=len(split.validation),
        test=len(split.test),
        cache=cache.content_digest,
        without_events=int(cache.without_events[used].sum()),
    )
    recorder = _ObservedRecorder(run, spec, observer)
    with recorder.live(), observer.training(), ranks.propagate_errors(), _kernel_errors(setup.selection):
        state = ranks.broadcast_from_first(lambda: _FINISHED if is_done(run, spec) else _saved_state(run))
        if isinstance(state, str):
            _log.info("%s was finished by another process", run.name)
            return False
        trainer = setup.trainer(recorder, kept_start_weights(run, spec.train.weights) if state is None else None)
        if state is not None:
            trainer.restore(state)
            trainer.repair_best()
        recorder.begin(setup.task.experiment, trainer.progress.epoch, trainer.progress.step, environment)
        _log_start(run, trainer, setup)
        with observer.display(run, spec):
            try:
                outcome = trainer.run()
            except Interrupted as stopped:
                stopped.hint = f"to continue: {run.resume_command()}"
                raise
        recorder.finish(outcome, setup.task.experiment, data, environment, _test_predictions(setup, outcome))
    return True


def _test_predictions(setup: TrainingSetup, outcome: Outcome) -> Predictions | None:
    if outcome.predictions is None:
        return None
    cache, rows = setup.cache, setup.split.test
    labels = cache.labels[rows].astype(outcome.predictions.dtype)
    return Predictions(tuple(cache.sample_ids[row] for row in rows), labels, outcome.predictions, outcome.best_epoch)


def _train_along(setup: TrainingSetup, observer: TrainObserver) -> bool:
    """Trains in step with the first rank; writes and reports nothing. Returns False if there was nothing to do."""
    with observer.training(), setup.ranks.propagate_errors(), _kernel_errors(setup.selection):
        state = setup.ranks.broadcast_from_first(lambda: None)
        if isinstance(state, str):
            return False
        trainer = setup.trainer(_RankRecorder(observer))
        if state is not None:
            trainer.restore(state)
        trainer.run()
    return True


@contextmanager
def _kernel_errors(selection: Selection) -> Iterator[None]:
    """Turns the errors of a kernel that this machine cannot build into RunError."""
    try:
        yield
    except PlifctlError:
        raise
    except Exception as error:
        if (cause := known_cause(error)) is None:
            raise
        message = f"the kernel {selection.label} cannot be used: {cause}"
        raise RunError(message, hint="--kernel eager needs nothing; plifctl doctor shows what is missing") from error


def _log_start(run: Run, trainer: Trainer, setup: TrainingSetup) -> None:
    spec, device, selection = setup.spec, setup.device, setup.selection
    parameters = list(trainer.model.parameters())
    count = f"{sum(parameter.numel() for parameter in parameters):,} parameters"
    if frozen := sum(parameter.numel() for parameter in parameters if not parameter.requires_grad):
        count += f", {frozen:,} of them frozen,"
    _log.info("%s: %s on %s, run %s", spec.title, count, device, run.path)
    if selection.gpu:
        _log.info("kernel: %s", selection.describe())
    if trainer.progress.epoch or trainer.progress.step:
        _log.info("resumed %s", trainer.progress.position)
    if spec.train.precision == "tf32" and device.type != "cuda":
        _log.warning("train.precision tf32 is of GPUs: on %s the numbers are those of fp32", device)
    _log_step_cost(spec, device, setup.ranks.size, setup.local_ranks)


def _log_step_cost(spec: ExperimentSpec, device: torch.device, ranks: int, local_ranks: int) -> None:
    """Logs what a step will need of each rank; warns if that is more memory than there is."""
    size = -(-spec.train.batch_size // ranks)
    cost = step_cost(spec, size)
    on_cpu = device.type == "cpu"
    seconds = 2 * cost.macs / products_per_second() if on_cpu else None
    _log.info(describe_step(cost, size, seconds))
    if on_cpu:  # ranks on one machine share its memory
        cost = replace(cost, nbytes=cost.nbytes * local_ranks)
    free = free_memory() if on_cpu else torch.cuda.mem_get_info(device)[0]
    if free and cost.nbytes > free:
        less = " and --set train.memory=compact" if on_cpu and spec.train.memory == "full" else ""
        batch = max(1, spec.train.batch_size * free // (2 * cost.nbytes))
        need = f"{format_bytes(free)} are free, a step needs about {format_bytes(cost.nbytes)}"
        _log.warning("%s: --set train.batch_size=%d%s needs less", need, batch, less)


def _saved_state(run: Run) -> dict[str, Any] | None:
    """Returns the state that a run is resumed from; None if it starts from the beginning."""
    if run.checkpoint("last").exists():
        return load_checkpoint(run.checkpoint("last"))
    # an epoch's row is written before the state: a run killed in between in its first epoch has a row but no state
    if len(run.metrics()) > 1 or run.status() == "finished":
        raise CheckpointError(
            f"{run.checkpoint('last')}: missing, the run cannot be resumed", hint="start a new run: omit --resume"
        )
    return None


class _ObservedRecorder(RunRecorder):
    """A recorder that also calls an observer."""

    def __init__(self, run: Run, spec: ExperimentSpec, observer: TrainObserver) -> None:
        super().__init__(run, spec)
        self._observer = observer
        self._first_epoch = True  # of this process

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        super().on_step(epoch, step, steps, loss, part)
        assert self.last_step is not None
        self._observer.on_step(self.last_step)

    def on_epoch(self, row: EpochRow) -> None:
        super().on_epoch(row)
        if self._first_epoch:
            self._first_epoch = False
            rates = dict(zip(row.layers, row.firing_rate, strict=True))
            for warning in describe_extreme_rates(rates, self.spec.network, self.spec.neuron):
                _log.warning("after epoch %d: %s", row.epoch, warning)

    def on_saved_epoch(self, row: EpochRow) -> bool | None:
        return self._observer.on_epoch(asdict(row))

    def stop_signal(self) -> int | None:
        return self._observer.stop_signal()


class _RankRecorder(Recorder):
    """Recorder of all ranks but the first; writes nothing."""

    def __init__(self, observer: TrainObserver) -> None:
        self._observer = observer

    def stop_signal(self) -> int | None:
        """Returns the signal that this rank received."""
        return self._observer.stop_signal()
