"""A training from the cache to the result record; implements ``plifctl train`` and ``plifctl validate``.

With several processes (torchrun, srun) every rank calls :func:`train`. The first rank writes the run and reports; the
others only train.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from plifctl import paths
from plifctl.cache import Cache, copy_cache
from plifctl.config.choices import TRAINING_VERBS, DataPlacement, Kernel, Protocol, Recipe
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.lookup import file_of, load_experiment, load_registry, without_effect
from plifctl.config.overrides import override_texts, without_split
from plifctl.data.source import RawSource
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
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.device import find_device, open_device
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.progress import Progress, silent
from plifctl.pipeline.resume import find_resumed, resumed_experiment
from plifctl.pipeline.start_weights import StartWeights, describe_start, find_start_weights, kept_start_weights
from plifctl.runs import (
    Predictions,
    Run,
    RunData,
    RunRecorder,
    StartedFrom,
    StepProgress,
    create_run,
    describe_machine,
    load_checkpoint,
)
from plifctl.training.batches import BatchLoader
from plifctl.training.distributed import Group, Ranks, compare_ranks, process_group, rank_device, rank_info
from plifctl.training.fine_tuning import describe_layers, select_frozen
from plifctl.training.kernel_selection import Selection, select_kernel
from plifctl.training.kernel_trial import known_cause
from plifctl.training.optimizer import check_options, graph_unsupported_reason
from plifctl.training.process import use_deterministic_algorithms
from plifctl.training.progress import EpochRow, Outcome, SilentRecorder
from plifctl.training.sample_store import choose_placement, free_memory
from plifctl.training.splits import Split, make_split
from plifctl.training.step_times import products_per_second
from plifctl.training.trainer import Trainer, build_model, check_memory

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``plifctl train`` and ``plifctl validate``: a new training, or one to resume.

    Attributes:
        protocol: A (``train``) or B (``validate``).
        experiment: A name in the registry, or an experiment; None: that of the run to resume.
        name: Name of a new run; None: one of time, experiment, digest and seed.
        resume: Run to resume: path, id, part of an id, or ``last``; ``auto``: the run called ``name``, or a new one if
            there is none; None: a new run.
        recipe: Recipe of a named experiment; None: ``paper``, or that of the run to resume.
        overrides: Changes to a named experiment, texts ``key=value``.
        digest: Digest that the experiment must have, or how it begins; None: any.
        weights: Network whose weights a new training begins with, where they fit: a run, or anything else that can be
            evaluated; None: all weights are drawn.
        build_cache: Build the cache if it does not exist.
        source: Raw data to build it from.
        device: Torch device; None: a GPU where there is one.
        data_in: Where samples are held; None: wherever they fit.
        kernel: Implementation of the spiking layers; ``auto`` is fused on the CPU, and chosen by trials on a GPU.
        deterministic: Only use deterministic algorithms; changes torch's settings in the whole process. None: as the
            resumed run was begun, a new one without.
        graph: Record a training step as a CUDA graph and replay it; None: if trials choose it.
        checkpoint_every: Save the state every so many steps as well; 0: after epochs and on signals only.
        rank_timeout: Seconds to wait for a rank that does not answer.
        copy_cache: Folder on this machine's own disk, to which the cache is copied first; None: it is read where it is.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """

    protocol: Protocol = "A"
    experiment: str | Experiment | None = None
    name: str | None = None
    resume: str | None = None
    recipe: Recipe | None = None
    overrides: tuple[str, ...] = ()
    digest: str | None = None
    weights: str | None = None
    build_cache: bool = False
    source: RawSource = field(default_factory=RawSource)
    device: str | None = None
    data_in: DataPlacement | None = None
    kernel: Kernel = "auto"
    deterministic: bool | None = None
    graph: bool | None = None
    checkpoint_every: int = 0
    rank_timeout: float = 120.0
    copy_cache: Path | None = None
    cache_dir: Path | None = None
    runs_dir: Path | None = None

    @property
    def verb(self) -> str:
        """The subcommand of the protocol."""
        return TRAINING_VERBS[self.protocol]


class TrainObserver:
    """Callbacks of :func:`train`, which can also stop the training; all do nothing unless overridden."""

    def on_rank(self, rank: int) -> None:
        """Called first, in each of several processes."""

    def on_run(self, run: Run) -> None:
        """Called on every rank with the run, before it is trained."""

    def on_rank_failure(self, *, reported: bool) -> None:
        """Called when this rank fails; ``reported`` is whether the first rank has already reported the failure."""

    def training(self) -> AbstractContextManager[None]:
        """Context of the training on every rank: signal handlers can be installed here."""
        return nullcontext()

    def display(self, run: Run, spec: ExperimentSpec) -> AbstractContextManager[None]:
        """Context of the training on the first rank: a live display can be shown here."""
        return nullcontext()

    def on_step(self, progress: StepProgress) -> None:
        """Called after each batch, on the first rank."""

    def on_epoch(self, row: dict[str, Any]) -> bool | None:
        """Called with each epoch's row of ``metrics.jsonl`` once its weights are saved; False stops the training.

        It is called on the first rank.
        """
        return None

    def stop_signal(self) -> int | None:
        """Returns the number of the signal that asks the training to stop, or None."""
        return None


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
    task = _resolve(options, ranks)
    setup = _set_up(options, task, silent, ranks, dry_run=True)
    spec, split = setup.spec, setup.split
    return TrainPlan(
        state="new" if task.resumed is None else "resumed" if task.finished is None else "finished",
        run=None if task.resumed is None else task.resumed.name,
        experiment=spec.name,
        recipe=spec.recipe,
        protocol=options.protocol,
        modified=list(task.experiment.modified),
        started_from=describe_start(task.started_from),
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


@dataclass(frozen=True)
class _Task:
    """What is to be trained, before the machine and the data are looked at.

    ``start`` is None of a run to resume, which keeps its own; ``finished`` is a run that has nothing left to train.
    """

    experiment: Experiment
    start: StartWeights | None
    resumed: Run | None
    finished: Run | None

    @property
    def started_from(self) -> StartedFrom | None:
        """The network whose weights the training begins with, or began with; None: all weights are drawn."""
        if self.resumed is not None:
            return self.resumed.started_from()
        return None if self.start is None else self.start.source


def _resolve(options: TrainOptions, ranks: Ranks) -> _Task:
    """Finds the experiment, and the run to resume, which the first rank looks at for all."""
    runs_dir = options.runs_dir or paths.runs_dir()
    resumed = find_resumed(options, runs_dir)
    if resumed is not None:
        experiment, start = resumed_experiment(options, resumed), None
    else:
        experiment, start = _new_experiment(options, runs_dir)
    _check_digest(experiment.spec, options.digest)
    done = ranks.broadcast_from_first(
        lambda: resumed.path if resumed is not None and _is_done(resumed, experiment.spec) else None
    )
    return _Task(experiment, start, resumed, None if done is None else Run(done))


@dataclass(frozen=True)
class _Setup:
    """Everything that all ranks train with; ``cache`` may be a copy of that in ``cache_path``."""

    options: TrainOptions
    task: _Task
    frozen: str
    cache: Cache
    cache_path: Path
    split: Split
    device: torch.device
    selection: Selection
    place: DataPlacement
    ranks: Ranks
    local_ranks: int

    @property
    def spec(self) -> ExperimentSpec:
        return self.task.experiment.spec

    def trainer(
        self, recorder: _ObservedRecorder | _RankRecorder, start: Mapping[str, Tensor] | None = None
    ) -> Trainer:
        """Returns the training in its initial state; see :class:`Trainer` for ``start``."""
        batches = BatchLoader(self.cache, self.spec, self.device, data_in=self.place, ranks=self.ranks)
        return Trainer(
            self.spec,
            batches,
            self.split,
            recorder,
            checkpoint_every=self.options.checkpoint_every,
            kernel=self.selection.kernel,
            graph=self.selection.graph,
            start=start,
        )


def _set_up(options: TrainOptions, task: _Task, progress: Progress, ranks: Ranks, *, dry_run: bool = False) -> _Setup:
    """Finds everything else that a training needs, so that errors are found before training starts."""
    spec, resumed = task.experiment.spec, task.resumed
    frozen = _describe_frozen(spec)
    device = _check_options(options, spec, ranks)
    cache = _cache_of_all_ranks(options, spec, resumed, progress, ranks)
    cache_path = cache.path.absolute()
    if options.copy_cache is not None and not dry_run:
        with ranks.first_rank_first():
            cache = copy_cache(cache, options.copy_cache)
    compare_ranks(
        ranks,
        {
            "experiment": spec.digest[:12],
            "train.seed": spec.train.seed,
            "train.epochs": spec.train.epochs,
            "cache": cache.content_digest[:12],
            "run to resume": resumed and resumed.name,
            "--checkpoint-every": options.checkpoint_every,
            "kind of device": device.type,
            "plifctl": paths.code_version(),
            "torch": torch.__version__,
        },
    )
    # before this process opens the GPU: in exclusive mode no other one could
    selection = _select_kernel(options, spec, device, resumed, ranks, may_try=not dry_run)
    check_memory(spec.train, device, selection.kernel)  # that of a resumed run may be another than the option
    open_device(device)
    local_ranks = ranks.local_size()
    place, placement_reason = choose_placement(cache.nbytes, device, options.data_in, processes=local_ranks)
    if resumed is None:
        split = make_split(options.protocol, spec, cache)
    else:  # another plifctl might draw another, and train on samples that the run was tested on
        split = Split.from_json(resumed.split(), cache.sample_ids)
    setup = _Setup(options, task, frozen, cache, cache_path, split, device, selection, place, ranks, local_ranks)
    _announce(setup, placement_reason)
    return setup


def _check_options(options: TrainOptions, spec: ExperimentSpec, ranks: Ranks) -> torch.device:
    """Returns the device to train on; raises UsageError for what the training could not do there."""
    check_options(spec.train)
    if options.checkpoint_every < 0:
        raise UsageError(f"--checkpoint-every {options.checkpoint_every}: expected a number of steps, or 0")
    device = find_device(options.device, options.kernel)
    if options.graph and (why := graph_unsupported_reason(spec.train, device, ranks.size)) is not None:
        raise UsageError(f"--graph: {why}", hint="omit --graph")
    check_memory(spec.train, device, options.kernel)
    return device


def _announce(setup: _Setup, placement_reason: str) -> None:
    """Says what is special about a training: its split, its changed settings, its start."""
    for note in (*setup.split.notes, *without_effect(setup.spec, setup.task.experiment.overrides)):
        _log.warning(note)
    if groups := setup.split.describe_groups():
        _log.info("groups: %s", groups)
    if modified := _modifications(setup.task.experiment):
        _log.info("modified: %s; tables leave the run out unless --include-modified is given", ", ".join(modified))
    if setup.task.start is not None:
        for line in describe_start(setup.task.start.source):
            _log.info(line)
    if setup.frozen:
        _log.info("frozen: %s", setup.frozen)
    _log.info(placement_reason)


def _modifications(experiment: Experiment) -> list[str]:
    """Returns what makes it another experiment than that of its name; of one's own, a fold is none."""
    split = experiment.spec.split
    is_fold = split is not None and split.fold is not None
    of_own = is_fold and experiment.spec.name not in load_registry().experiments()
    return without_split(experiment.modified) if of_own else list(experiment.modified)


def _check_digest(spec: ExperimentSpec, expected: str | None) -> None:
    """Raises UsageError if an experiment is not the one that was expected."""
    if expected is not None and not (expected and spec.digest.startswith(expected)):
        raise UsageError(
            f"{spec.name} has changed: its digest is {spec.digest[:12]}, expected {expected[:12]}",
            hint="if a sweep trains it, type the plifctl sweep run command again",
        )


def _describe_frozen(spec: ExperimentSpec) -> str:
    """Returns the layers, or parameters of a layer, that ``train.freeze`` selects; empty if it selects none."""
    if not spec.train.freeze:
        return ""
    model = build_model(spec, torch.device("cpu"))
    names = [name for name, _ in model.named_parameters()]
    return describe_layers(select_frozen(model, spec.train.freeze), names)


def _select_kernel(
    options: TrainOptions,
    spec: ExperimentSpec,
    device: torch.device,
    resumed: Run | None,
    ranks: Ranks,
    *,
    may_try: bool,
) -> Selection:
    """Returns the kernel, which the first rank chooses for all."""
    found: Selection | None = None
    with ranks.first_rank_first():  # the others wait as long as it takes
        if ranks.rank == 0:
            entries = resumed.session_entries() if resumed is not None else []
            found = select_kernel(
                spec,
                device,
                kernel=options.kernel,
                graph=options.graph,
                processes=ranks.size,
                recorded=entries[-1]["environment"] if entries else None,
                trials="never" if options.deterministic else "run" if may_try else "later",
            )
    found = ranks.broadcast_from_first(lambda: found)
    assert found is not None
    return found


def _train(options: TrainOptions, observer: TrainObserver, progress: Progress, ranks: Ranks) -> TrainResult:
    task = _resolve(options, ranks)
    if (done := task.finished) is not None:
        longer = "it stopped early" if done.record().stopped_early else "a larger --epochs trains it longer"
        _log.info("%s is finished; %s", done.name, longer)
        return TrainResult(done, trained=False, rank=ranks.rank)
    options = replace(options, deterministic=_is_deterministic(options, task))
    if options.deterministic:
        use_deterministic_algorithms()
    setup = _set_up(options, task, progress, ranks)
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


def _is_deterministic(options: TrainOptions, task: _Task) -> bool:
    """Returns whether only deterministic algorithms are allowed: as the options say, else as the run was begun."""
    if options.deterministic is not None or task.resumed is None:
        return bool(options.deterministic)
    if task.resumed.session_entries()[-1]["environment"].get("deterministic"):
        _log.info("deterministic algorithms only, as before; --no-deterministic allows others")
        return True
    return False


def _new_run(setup: _Setup, environment: dict[str, Any]) -> Run:
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


def _train_run(setup: _Setup, run: Run, environment: dict[str, Any], observer: TrainObserver) -> bool:
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
        state = ranks.broadcast_from_first(lambda: _FINISHED if _is_done(run, spec) else _saved_state(run))
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


def _test_predictions(setup: _Setup, outcome: Outcome) -> Predictions | None:
    if outcome.predictions is None:
        return None
    cache, rows = setup.cache, setup.split.test
    labels = cache.labels[rows].astype(outcome.predictions.dtype)
    return Predictions(tuple(cache.sample_ids[row] for row in rows), labels, outcome.predictions, outcome.best_epoch)


def _train_along(setup: _Setup, observer: TrainObserver) -> bool:
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


def _log_start(run: Run, trainer: Trainer, setup: _Setup) -> None:
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
        need = f"{free / 1e9:.1f} GB are free, a step needs about {cost.nbytes / 1e9:.1f} GB"
        _log.warning("%s: --set train.batch_size=%d%s needs less", need, batch, less)


def _is_done(run: Run, spec: ExperimentSpec) -> bool:
    if run.status() != "finished":
        return False
    record = run.record()
    return record.stopped_early or spec.train.epochs <= record.epochs


def _new_experiment(options: TrainOptions, runs_dir: Path) -> tuple[Experiment, StartWeights | None]:
    """Returns the experiment to train, and the weights that it begins with; None if all are drawn."""
    experiment = options.experiment
    if experiment is None:
        raise UsageError(
            "missing argument: EXPERIMENT", hint=f"plifctl {options.verb} demo; plifctl ls lists experiments"
        )
    resolved = load_experiment(experiment, options.overrides, recipe=options.recipe)
    wanted, start = resolved.spec.train.weights, None
    if options.weights is not None:
        start = find_start_weights(options.weights, resolved.spec, runs_dir)
        resolved = load_experiment(resolved, override_texts({"train.weights": start.source.digest}))
    found = resolved.spec.train.weights if start is not None else None
    if wanted not in (None, found):
        other = "none were given" if found is None else f"those of {options.weights} have the digest {found[:12]}"
        raise UsageError(
            f"{resolved.spec.name} begins with the weights of digest {wanted[:12]} (train.weights); {other}",
            hint="--weights RUN or FILE names them; --set train.weights=null begins with drawn ones",
        )
    return resolved.for_protocol(options.protocol), start


def _cache_of_all_ranks(
    options: TrainOptions, spec: ExperimentSpec, resumed: Run | None, progress: Progress, ranks: Ranks
) -> Cache:
    """Returns the cache that the first rank found or built: the others may not see the recordings."""
    found: Cache | None = None
    with ranks.first_rank_first():  # the others wait as long as it takes
        if ranks.rank == 0:
            found = _training_cache(options, spec, resumed, progress)
    content = ranks.broadcast_from_first(lambda: None if found is None else found.content_digest)
    return found or experiment_cache(spec, options.cache_dir, file=_file_of(options), content=content, run=resumed)


def _training_cache(options: TrainOptions, spec: ExperimentSpec, resumed: Run | None, progress: Progress) -> Cache:
    """Returns the cache; for a run to resume, it must have the content that the run was trained on."""
    content = str(resumed.info()["cache"]["content_digest"]) if resumed is not None else None
    cache = experiment_cache(
        spec,
        options.cache_dir,
        file=_file_of(options),
        content=content,
        run=resumed,
        build_from=options.source if options.build_cache else None,
        progress=progress,
    )
    if resumed is not None and content != cache.content_digest:
        command = prepare_command_of(
            spec, load_registry(), file=_file_of(options), source=options.source, cache_dir=options.cache_dir
        )
        raise ResumeError(
            f"{resumed.name} was trained on a cache of content {str(content)[:12]}; "
            f"{cache.path} has {cache.content_digest[:12]}",
            hint=f"prepare the same raw data again: {command}",
        )
    return cache


def _file_of(options: TrainOptions) -> Path | None:
    """Returns the file of the experiment that the user named; None for a name in the registry, or none."""
    named = options.experiment
    return None if named is None or isinstance(named, Experiment) else file_of(named, load_registry().experiments())


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


class _RankRecorder(SilentRecorder):
    """Recorder of all ranks but the first; writes nothing."""

    def __init__(self, observer: TrainObserver) -> None:
        self._observer = observer

    def stop_signal(self) -> int | None:
        """Returns the signal that this rank received."""
        return self._observer.stop_signal()
