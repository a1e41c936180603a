"""What a training needs before it begins: the experiment or the run to resume, its cache, split, device and kernel.

:func:`resolve` says what is to be trained, :func:`set_up` finds the rest, so that errors are found before there is a
run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from plifctl import paths
from plifctl.cache import Cache, copy_cache
from plifctl.config.choices import DataPlacement
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.lookup import file_of, load_experiment, load_registry, without_effect
from plifctl.config.overrides import override_texts
from plifctl.errors import ResumeError, UsageError
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.device import find_device, open_device
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.progress import Progress
from plifctl.pipeline.resume import find_resumed, resumed_experiment
from plifctl.pipeline.start_weights import StartWeights, describe_start, find_start_weights
from plifctl.pipeline.train_options import TrainOptions
from plifctl.runs import RegisteredExperiments, Run, StartedFrom
from plifctl.runs.directory import RunConfig
from plifctl.training.batches import BatchLoader
from plifctl.training.distributed import Ranks, compare_ranks
from plifctl.training.fine_tuning import describe_layers, select_frozen
from plifctl.training.kernel_selection import Selection, select_kernel
from plifctl.training.optimizer import check_options, graph_unsupported_reason
from plifctl.training.progress import Recorder
from plifctl.training.sample_store import choose_placement
from plifctl.training.splits import Split, make_split
from plifctl.training.trainer import Trainer, build_model, check_memory

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTask:
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


def resolve(options: TrainOptions, ranks: Ranks) -> TrainingTask:
    """Returns what is to be trained; the first rank looks at the run to resume, for all.

    Raises:
        UsageError: Unknown experiment, run or network to begin with, or an experiment of another digest.
        ResumeError: The run to resume was made with other settings.
    """
    runs_dir = options.runs_dir or paths.runs_dir()
    resumed = find_resumed(options, runs_dir)
    if resumed is not None:
        experiment, start = resumed_experiment(options, resumed), None
    else:
        experiment, start = _new_experiment(options, runs_dir)
    _check_digest(experiment.spec, options.digest)
    done = ranks.broadcast_from_first(
        lambda: resumed.path if resumed is not None and is_done(resumed, experiment.spec) else None
    )
    return TrainingTask(experiment, start, resumed, None if done is None else Run(done))


def _check_digest(spec: ExperimentSpec, expected: str | None) -> None:
    """Raises UsageError if an experiment is not the one that was expected."""
    if expected is not None and not (expected and spec.digest.startswith(expected)):
        raise UsageError(
            f"{spec.name} has changed: its digest is {spec.digest[:12]}, expected {expected[:12]}",
            hint="if a sweep trains it, type the plifctl sweep run command again",
        )


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
    resolved.check_protocol(options.protocol)
    return resolved.for_protocol(options.protocol), start


def is_done(run: Run, spec: ExperimentSpec) -> bool:
    """Returns whether a run has nothing left to train."""
    if run.status() != "finished":
        return False
    record = run.record()
    return record.stopped_early or spec.train.epochs <= record.epochs


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that all ranks train with; ``cache`` may be a copy of that in ``cache_path``."""

    options: TrainOptions
    task: TrainingTask
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
        """The settings of the experiment."""
        return self.task.experiment.spec

    @property
    def changes(self) -> tuple[str, ...]:
        """How the experiment differs from that of its name, as :meth:`RegisteredExperiments.changes` returns it."""
        spec, protocol, overrides = self.spec, self.options.protocol, self.task.experiment.overrides
        config = RunConfig(spec.name, spec.recipe, protocol, overrides, spec, {})
        return RegisteredExperiments(load_registry()).changes(config)

    def trainer(self, recorder: Recorder, start: Mapping[str, Tensor] | None = None) -> Trainer:
        """Returns the training in its initial state; see :class:`Trainer` for ``start``."""
        batches = BatchLoader(self.cache, self.spec, self.device, data_in=self.place, ranks=self.ranks)
        return Trainer(
            self.spec,
            batches,
            self.split,
            recorder,
            last_epoch=self.options.protocol == "C",
            checkpoint_every=self.options.checkpoint_every,
            kernel=self.selection.kernel,
            graph=self.selection.graph,
            start=start,
        )


def set_up(
    options: TrainOptions, task: TrainingTask, progress: Progress, ranks: Ranks, *, dry_run: bool = False
) -> TrainingSetup:
    """Returns everything else that a training needs.

    Args:
        options: How to train.
        task: What is trained.
        progress: Opens the tasks of building a cache.
        ranks: All processes of the training.
        dry_run: Copy no cache, and try no kernels.

    Raises:
        UsageError: An option that is impossible on this device, or samples that do not allow the split.
        ResumeError: The cache has other content than that of the run to resume.
        CacheError: There is no cache, and building was not requested.
    """
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
    if task.start is not None:
        task = replace(task, start=task.start.for_split(split, cache, options.protocol))
    setup = TrainingSetup(options, task, frozen, cache, cache_path, split, device, selection, place, ranks, local_ranks)
    _announce(setup, placement_reason)
    return setup


def _describe_frozen(spec: ExperimentSpec) -> str:
    """Returns the layers, or parameters of a layer, that ``train.freeze`` selects; empty if it selects none."""
    if not spec.train.freeze:
        return ""
    model = build_model(spec, torch.device("cpu"))
    names = [name for name, _ in model.named_parameters()]
    return describe_layers(select_frozen(model, spec.train.freeze), names)


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
    content = resumed.content_digest if resumed is not None else None
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
        command = prepare_command_of(spec, file=_file_of(options), source=options.source, cache_dir=options.cache_dir)
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


def _announce(setup: TrainingSetup, placement_reason: str) -> None:
    """Says what is special about a training: its split, its changed settings, its start."""
    for note in (*setup.split.notes, *without_effect(setup.spec, setup.task.experiment.overrides)):
        _log.warning(note)
    if groups := setup.split.describe_groups():
        _log.info("groups: %s", groups)
    if changes := setup.changes:
        _log.info("modified: %s; tables leave the run out unless --include-modified is given", ", ".join(changes))
    if setup.task.start is not None:
        for line in describe_start(setup.task.start.source):
            _log.log(logging.WARNING if line == setup.task.start.source.describe_seen() else logging.INFO, line)
    if setup.frozen:
        _log.info("frozen: %s", setup.frozen)
    _log.info(placement_reason)
