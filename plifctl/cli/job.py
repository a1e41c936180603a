"""The job behind train and validate: find the cache, make or take up a run, train, keep the result."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plifctl import paths
from plifctl.cli import console, options
from plifctl.cli.following import Screen, screen
from plifctl.config.base import flattened
from plifctl.config.choices import Protocol, Recipe
from plifctl.config.registry import Experiment
from plifctl.errors import (
    CacheError,
    CheckpointError,
    CorruptCacheError,
    Interrupted,
    ResumeError,
    UsageError,
    join_problems,
)
from plifctl.runs import ResultRecord, Run, RunData, RunRecorder, find_run

if TYPE_CHECKING:
    import torch

    from plifctl.cache import Cache
    from plifctl.config.experiment import ExperimentSpec
    from plifctl.snn.kernels import Kernel
    from plifctl.training.distributed import Ranks
    from plifctl.training.progress import EpochRow, Recorder
    from plifctl.training.sample_store import Place
    from plifctl.training.splits import Split
    from plifctl.training.trainer import Trainer


@dataclass(frozen=True)
class Request:
    """What was typed: a new training, or one to go on with. Fields are the options of train and validate."""

    protocol: Protocol
    experiment: str | None
    resume: str | None
    recipe: Recipe | None
    overrides: list[str]
    device: str | None
    data_in: Place | None
    prepare: bool
    raw: Path | None
    no_checksum: bool
    no_download: bool
    checkpoint_every: int
    kernel: Kernel
    deterministic: bool
    graph: bool
    rank_timeout: float
    dry_run: bool
    cache_dir: Path
    runs_dir: Path
    as_json: bool

    @property
    def verb(self) -> str:
        return options.verb_of(self.protocol)


@dataclass(frozen=True)
class _Work:
    """What all ranks train with."""

    ask: Request
    resolved: Experiment
    cache: Cache
    split: Split
    device: torch.device
    place: Place
    ranks: Ranks

    def trainer(self, recorder: Recorder) -> Trainer:
        """Returns the training, at its beginning."""
        from plifctl.training.batches import BatchLoader
        from plifctl.training.trainer import Trainer

        ask, spec = self.ask, self.resolved.spec
        feeder = BatchLoader(self.cache, spec, self.device, data_in=self.place, ranks=self.ranks)
        every = ask.checkpoint_every
        return Trainer(spec, feeder, self.split, recorder, checkpoint_every=every, kernel=ask.kernel, graph=ask.graph)


def run_job(ask: Request) -> None:
    """Does what was asked, from the cache to the result on the screen, in one process or as one of several."""
    from plifctl.training.distributed import Group, Ranks, device_of, joined, rank_info

    seat = rank_info()
    if seat is None:
        _run_job(ask, Ranks())
        return
    group: Group | None = None
    console.mute(seat.rank > 0)
    try:
        with joined(seat, ask.rank_timeout) as group:
            _run_job(replace(ask, device=device_of(seat, ask.device)), group)
    except (Exception, Interrupted):
        console.mute(group is not None and group.first_is_through)
        raise


def _run_job(ask: Request, ranks: Ranks) -> None:
    import torch

    from plifctl.runs import create_run, describe_machine
    from plifctl.training.distributed import compare_ranks
    from plifctl.training.memory import keep_freed_memory
    from plifctl.training.optimizer import check_options, why_no_graph
    from plifctl.training.randomness import be_deterministic
    from plifctl.training.sample_store import choose_place

    if not ask.prepare and (ask.raw is not None or ask.no_checksum or ask.no_download):
        raise UsageError("--raw, --no-checksum and --no-download are of use with --prepare only", hint="add --prepare")
    resumed = find_run(ask.resume, ask.runs_dir) if ask.resume is not None else None
    resolved = _as_before(ask, resumed) if resumed is not None else _anew(ask)
    check_options(resolved.spec.train)
    device = choose_device(ask.device, ask.kernel)
    if ask.graph and (why := why_no_graph(resolved.spec.train, device, ranks.size)) is not None:
        raise UsageError(f"--graph: {why}", hint="leave --graph out")
    if device.type == "cpu":
        keep_freed_memory()
    if ask.deterministic:
        be_deterministic()
    with ranks.first_alone():
        cache = _cache(ask if ranks.rank == 0 else replace(ask, prepare=False), resolved, resumed)
    check_frames(cache, resolved.spec)
    compare_ranks(
        ranks,
        {
            "experiment": resolved.spec.digest[:12],
            "train.seed": resolved.spec.train.seed,
            "train.epochs": resolved.spec.train.epochs,
            "cache": cache.content_digest[:12],
            "run to resume": resumed and resumed.name,
            "--checkpoint-every": ask.checkpoint_every,
            "kind of device": device.type,
            "plifctl": paths.code_version(),
            "torch": torch.__version__,
        },
    )
    place, why = choose_place(cache.nbytes, device, ask.data_in, processes=ranks.on_this_machine())
    split = _split(ask, resolved, cache)
    for text in (*cache.notes, *split.notes):
        console.warn(text)
    if resolved.modified:
        console.note(f"modified: {', '.join(resolved.modified)}; the run stays out of the paper's tables")
    work = _Work(ask, resolved, cache, split, device, place, ranks)
    if ask.dry_run:
        _say_plan(work)
        return
    if resumed is not None and ranks.from_first(lambda: _is_done(resumed, resolved)):
        longer = "stopped early" if resumed.record().stopped_early else "--epochs makes it longer"
        console.note(f"{resumed.name} is finished; {longer}")
        _say_result(resumed, resumed.record(), ask.as_json)
        return
    if ranks.rank > 0:
        _take_part(work)
        return
    environment = {
        **describe_machine(str(device), torch.get_num_threads(), ranks.size),
        "kernel": ask.kernel,
        "deterministic": ask.deterministic,
        "graph": ask.graph,
    }
    if resumed is None:
        used = {"path": str(cache.path), "content_digest": cache.content_digest}
        run = create_run(
            ask.runs_dir,
            resolved,
            ask.protocol,
            cache=used,
            split=split.to_json(cache.sample_ids),
            environment=environment,
        )
    else:
        run = resumed
    console.note(why)
    record = _train(work, run, environment)
    _say_result(run, record, ask.as_json)


def _is_done(run: Run, resolved: Experiment) -> bool:
    if run.status() != "finished":
        return False
    record = run.record()
    return record.stopped_early or resolved.spec.train.epochs <= record.epochs


def _anew(ask: Request) -> Experiment:
    if ask.experiment is None:
        raise UsageError(f"plifctl {ask.verb} what?", hint=f"plifctl {ask.verb} demo; plifctl ls lists experiments")
    return _resolve(ask.protocol, ask.experiment, ask.recipe or "paper", ask.overrides)


def _resolve(protocol: Protocol, experiment: str, recipe: Recipe, overrides: list[str]) -> Experiment:
    return options.registry().experiment(experiment, recipe=recipe, overrides=overrides).under(protocol)


def _as_before(ask: Request, run: Run) -> Experiment:
    """The experiment of a run to go on with; only its number of epochs may be another, and larger."""
    config = run.config()
    if config.protocol != ask.protocol:
        verb = options.verb_of(config.protocol)
        raise ResumeError(f"{run.name} follows protocol {config.protocol}", hint=f"plifctl {verb} --resume {run.name}")
    changed = {text.split("=")[0].strip() for text in ask.overrides}
    kept = [text for text in config.overrides if text.split("=")[0].strip() not in changed]
    experiment, recipe = ask.experiment or config.experiment, ask.recipe or config.recipe
    if config.experiment not in options.registry().experiments():
        raise ResumeError(
            f"{run.name} is of the experiment {config.experiment}, which is in no registry folder",
            hint="export PLIFCTL_REGISTRY as it was when the run began",
        )
    resolved = _resolve(ask.protocol, experiment, recipe, [*kept, *ask.overrides])
    was, now = config.spec, resolved.spec
    before, after = (flattened({**s.identity(), "name": s.name, "train.seed": s.train.seed}) for s in (was, now))
    different = [
        f"{key}: was {before.get(key)}, now {after.get(key)}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
    if now.train.epochs < was.train.epochs:
        different.append(f"train.epochs: was {was.train.epochs}, now {now.train.epochs}; they may only grow")
    if different:
        raise ResumeError(
            join_problems([f"{run.name} was made with other settings:", *different]),
            hint=f"plifctl {ask.verb} --resume {run.name}",
        )
    return resolved


def _cache(ask: Request, resolved: Experiment, resumed: Run | None) -> Cache:
    from plifctl.cache import find_cache, raw_independent_key
    from plifctl.cli.making import make_cache

    spec = resolved.spec
    place = ask.cache_dir if ask.cache_dir != paths.cache_dir() else None
    command = options.prepare_command_of(spec, raw=ask.raw, cache_dir=place, no_checksum=ask.no_checksum)
    wanted = raw_independent_key(spec.dataset, spec.T, spec.frames)
    content = resumed.info()["cache"]["content_digest"] if resumed is not None else None
    try:
        cache = find_cache(
            wanted,
            ask.cache_dir,
            prepare=command if ask.prepare else f"{command}\nor add --prepare to this command",
            content=content,
        )
    except CorruptCacheError:
        raise
    except CacheError:
        if not ask.prepare or ask.dry_run:
            raise
        cache, _ = make_cache(
            spec.dataset,
            wanted["T"],
            spec.frames,
            ask.raw,
            cache_dir=ask.cache_dir,
            verify=not ask.no_checksum,
            download=not ask.no_download,
            command=command,
            workers=options.DEFAULT_WORKERS,
        )
    if resumed is not None and content != cache.content_digest:
        raise ResumeError(
            f"{resumed.name} was trained on a cache of content {str(content)[:12]}; "
            f"{cache.path} has {cache.content_digest[:12]}",
            hint=f"prepare the same raw data again: {command}",
        )
    return cache


def _split(ask: Request, resolved: Experiment, cache: Cache) -> Split:
    from plifctl.training.splits import split_a, split_b

    spec = resolved.spec
    if ask.protocol == "A":
        return split_a(cache.labels, cache.is_test, spec.train.subset, spec.dataset.classes)
    return split_b(
        cache.labels,
        cache.is_test,
        train_fraction=spec.validation.train_fraction,
        rounding=spec.validation.rounding,
        subset=spec.train.subset,
        classes=spec.dataset.classes,
    )


def _say_plan(work: _Work) -> None:
    from plifctl.training.batches import steps_per_epoch

    ask, split, spec = work.ask, work.split, work.resolved.spec
    plan: dict[str, Any] = {
        "experiment": spec.name,
        "recipe": spec.recipe,
        "protocol": ask.protocol,
        "modified": list(work.resolved.modified),
        "cache": str(work.cache.path),
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "T": spec.T,
        "epochs": spec.train.epochs,
        "steps_per_epoch": steps_per_epoch(len(split.train), spec.train),
        "device": str(work.device),
        "data_in": work.place,
        "runs_dir": str(ask.runs_dir),
    }
    if ask.as_json:
        console.emit_json(plan)
    else:
        console.emit_table(("", "value"), [(key, _text(value)) for key, value in plan.items()])


def _train(work: _Work, run: Run, environment: dict[str, Any]) -> ResultRecord:
    """Trains the run to its end, from where it stands, and keeps the record."""
    cache, split, spec, ranks = work.cache, work.split, work.resolved.spec, work.ranks
    data = RunData(
        verified=cache.verified,
        complete=cache.complete_set,
        train=len(split.train),
        validation=len(split.validation),
        test=len(split.test),
        cache=cache.content_digest,
    )
    recorder = _Shown(run, spec)
    with recorder.live(), _signals_noted(recorder), ranks.as_one():
        trainer = work.trainer(recorder)
        state = ranks.from_first(lambda: _state_of(run))
        if state is not None:
            trainer.restore(state)
        recorder.begin(work.resolved, trainer.progress.epoch)
        _say_start(run, spec.title, trainer, work.device)
        with screen(run, spec, run.metrics()) as recorder.screen:
            try:
                outcome = trainer.run()
            except Interrupted as stopped:
                stopped.hint = f"go on with: plifctl {work.ask.verb} --resume {run.name}"
                raise
        return recorder.finish(outcome, work.resolved, data, environment)


def _state_of(run: Run) -> dict[str, Any] | None:
    """What the run goes on from; None at its beginning."""
    from plifctl.runs import load_checkpoint

    if run.checkpoint("last").exists():
        return load_checkpoint(run.checkpoint("last"))
    # the state is saved after an epoch's row: killed in between in the first epoch, a run has a row and no state
    if len(run.metrics()) > 1 or run.status() == "finished":
        raise CheckpointError(
            f"{run.checkpoint('last')}: gone, the run cannot go on", hint="begin another: leave --resume out"
        )
    return None


def _take_part(work: _Work) -> None:
    """Trains along with the first rank, step by step, and keeps and says nothing."""
    recorder = _Silent()
    with _signals_noted(recorder), work.ranks.as_one():
        trainer = work.trainer(recorder)
        state = work.ranks.from_first(lambda: None)
        if state is not None:
            trainer.restore(state)
        trainer.run()


class _Silent:
    """The recorder of all ranks but the first."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """Nothing."""

    def on_epoch(self, row: EpochRow) -> None:
        """Nothing."""

    def save(self, name: Literal["last", "best"], state: dict[str, Any]) -> None:
        """Nothing."""

    def load_best(self) -> dict[str, Any]:
        """Is asked of the first rank only."""
        raise AssertionError

    def stop_signal(self) -> int | None:
        """Returns the signal that this rank received."""
        return self.signum


class _Shown(RunRecorder):
    """A recorder that also shows what happens."""

    screen: Screen

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        super().on_step(epoch, step, steps, loss, part)
        assert self.beat is not None
        self.screen.step(self.beat)

    def on_epoch(self, row: EpochRow) -> None:
        super().on_epoch(row)
        self.screen.epoch(asdict(row))


@contextmanager
def _signals_noted(recorder: RunRecorder | _Silent) -> Iterator[None]:
    """The first signal asks the training to stop at the next step; the second one does not wait."""

    def ask(signum: int, frame: object) -> None:
        recorder.signum = signum
        for number, handler in previous.items():
            signal.signal(number, handler)
        console.note("stopping after this step; once more stops at once")

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in previous:
            signal.signal(number, ask)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_frames(cache: Cache, spec: ExperimentSpec) -> None:
    """Refuses samples of another number of frames than there are time steps.

    Slices of a fixed duration are as many as the longest recording fills, whatever T is.

    Raises:
        UsageError: They differ; says what T must be.
    """
    if spec.frames is not None and cache.shape[1] != spec.T:
        raise UsageError(
            f"{cache.path}: its samples have {cache.shape[1]} frames, the experiment has T = {spec.T}",
            hint=f"train with --set T={cache.shape[1]}",
        )


def choose_device(name: str | None, kernel: Kernel = "auto") -> torch.device:
    """Returns the torch device of that name, or the best there is.

    Raises:
        UsageError: There is no such device here, or the kernel does not serve it.
    """
    import torch

    from plifctl.snn.kernels import why_not

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name is None else _named_device(name)
    if (why := why_not(kernel, device)) is not None:
        raise UsageError(f"--kernel {kernel}: {why}", hint="leave --kernel out, or choose with --device")
    return device


def _named_device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, but nothing in them
    except Exception as error:  # torch has many ways to say that it was built without
        raise UsageError(
            f"--device {name}: {(str(error).splitlines() or [type(error).__name__])[0]}",
            hint="--device cpu works everywhere",
        ) from None
    return device


def _say_start(run: Run, title: str, trainer: Trainer, device: torch.device) -> None:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    console.note(f"{title}: {parameters:,} parameters on {device}, run {run.path}")
    if trainer.progress.epoch or trainer.progress.step:
        console.note(f"going on after epoch {trainer.progress.epoch}, step {trainer.progress.step}")


def _say_result(run: Run, record: ResultRecord, as_json: bool) -> None:
    if as_json:
        console.emit_json(record.model_dump(mode="json"))
        return
    what = "best test accuracy" if record.protocol == "A" else "test accuracy of the model chosen by validation"
    console.emit(f"{what}: {100 * record.accuracy:.2f} % (epoch {record.best_epoch} of {record.epochs})")
    if record.stopped_early:
        console.emit(f"stopped early: no better epoch came in the {record.epochs - record.best_epoch} after it")
    if record.validation_accuracy is not None:
        console.emit(f"its validation accuracy: {100 * record.validation_accuracy:.2f} %")
    console.emit(f"run: {run.path}")


def _text(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
