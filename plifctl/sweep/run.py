"""Runs a sweep: plans it, prepares its caches, gives what is missing to an engine, and watches over it to the end.

The same call continues a sweep, whoever interrupted it and wherever its runs were trained: what is finished or being
trained is left alone, the rest is given to the engine. A failure is one of one run. The jobs of a batch system go on
when this process ends; those of other engines are stopped with it, each after a checkpoint.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from plifctl import paths
from plifctl.config.base import flatten
from plifctl.config.choices import Engine as EngineName
from plifctl.config.sweep import SweepSpec
from plifctl.data.source import RawSource
from plifctl.errors import MachineError, PlifctlError, ResumeError, UsageError
from plifctl.pipeline.commands import training_verb
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.progress import Progress, silent
from plifctl.runs import Run, load_records
from plifctl.sweep.engine import Engine, Job, Resources, Task
from plifctl.sweep.engines import open_engine
from plifctl.sweep.expansion import Member, expand, sweep_name
from plifctl.sweep.jobs import is_active, jobs_of, poll_detached
from plifctl.sweep.logs import begin_log
from plifctl.sweep.plan import Plan, PlanFile, PlannedRun, this_process
from plifctl.sweep.progress import ProgressReader, Standing, authors_accuracies

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_SAVE_SECONDS = 10.0


@dataclass(frozen=True)
class SweepOptions:
    """The options of ``plifctl sweep run``.

    Attributes:
        spec: What to train.
        engine: Where.
        resources: What each run gets.
        command: The command that was typed, for the plan.
        source: Raw data to build missing caches from.
        device: Torch device of each run; None: a GPU where there is one.
        checkpoint_every: Save the state every so many steps as well; 0: after epochs and on signals only.
        copy_cache: Folder on the disk of the machine that trains, to which each cache is copied first; None: caches are
            read where they are.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """

    spec: SweepSpec
    engine: EngineName = "local"
    resources: Resources = field(default_factory=Resources)
    command: str = ""
    source: RawSource = field(default_factory=RawSource)
    device: str | None = None
    checkpoint_every: int = 0
    copy_cache: Path | None = None
    cache_dir: Path | None = None
    runs_dir: Path | None = None


Watcher = Callable[[Sequence[Standing]], None]
"""Called with how the runs stand, whenever that was read again."""


def plan_sweep(options: SweepOptions, members: Sequence[Member]) -> tuple[Plan, list[Member]]:
    """Returns the plan of a sweep and its trainings, by the names of their runs; writes nothing.

    Jobs that an earlier plan of the name started stay with their runs.

    Args:
        options: What to train.
        members: Its trainings, of :func:`~plifctl.sweep.expansion.expand`.

    Raises:
        UsageError: It cannot have its name.
        RunError: The earlier plan is damaged.
    """
    runs_dir = options.runs_dir or paths.runs_dir()
    file = PlanFile(runs_dir, sweep_name(options.spec))
    before = file.load() if file.path.is_file() else None
    known = {run.name: run for run in before.runs} if before is not None else {}
    members = _adopt_finished(members, runs_dir)
    runs = [_planned(member, options, runs_dir, known.get(member.name)) for member in members]
    now = time.time()
    created = now if before is None else before.created
    plan = Plan(
        name=file.name, command=options.command, definition=options.spec, created=created, updated=now, runs=tuple(runs)
    )
    return plan, members


def _adopt_finished(members: Sequence[Member], runs_dir: Path) -> list[Member]:
    """Returns the members; those that were trained under another name have the name of that run."""
    found = {(r.digest, r.protocol, r.seed, r.epochs, r.experiment): r for r in load_records(runs_dir, ())}

    def adopt(member: Member) -> Member:
        spec = member.spec
        record = found.get((spec.digest, member.protocol, spec.train.seed, spec.train.epochs, spec.name))
        if record is None or record.origin != "trained" or os.path.lexists(runs_dir / member.name):
            return member
        is_longer_now = Run(runs_dir / record.run).config().spec.train.epochs != record.epochs
        return member if is_longer_now else replace(member, name=record.run)

    return [adopt(member) for member in members]


def _check_dropped(file: PlanFile, names: set[str]) -> None:
    """Raises UsageError if the batch system still has jobs of runs that are no longer part of the sweep."""
    before = file.load().runs if file.path.is_file() else ()
    dropped = [run for run in before if run.name not in names]
    if active := [name for name, job in poll_detached(dropped, file.folder).items() if is_active(job)]:
        raise UsageError(
            f"the sweep {file.name} had other runs, of which {len(active)} may still be trained, e.g. {active[0]}",
            hint=f"give the new one another --name, or first type: plifctl sweep cancel {shlex.quote(file.name)}",
        )


def run_sweep(options: SweepOptions, watch: Watcher = lambda found: None, progress: Progress = silent) -> Plan:
    """Trains what a sweep lacks; returns its plan with the states at the end, or after submitting to a batch system.

    Args:
        options: What to train, and where.
        watch: Called while the sweep runs.
        progress: Opens the tasks of building caches.

    Raises:
        UsageError: Something of it cannot be, another process runs the sweep, or an earlier one of its name had other
            runs, which may still be trained.
        RunError: The plan is damaged.
        MachineError: The engine cannot be reached.
    """
    members = expand(options.spec)
    file = PlanFile(options.runs_dir or paths.runs_dir(), sweep_name(options.spec))
    engine = open_engine(options.engine, options.resources, file.folder)
    with file.locked():
        plan, members = plan_sweep(options, members)
        _check_dropped(file, {run.name for run in plan.runs})
        sweep = _Sweep(plan.model_copy(update=this_process()), file, engine, options, watch)
        sweep.save()
        try:
            sweep.prepare(members, progress)
            sweep.start()
            while not engine.detached and not sweep.is_settled():
                sweep.wait()
                sweep.update()
        finally:
            if not engine.detached:
                engine.cancel(sweep.active())
            sweep.update()
            sweep.end()
    return sweep.plan


class _Sweep:
    """A sweep that this process runs."""

    def __init__(self, plan: Plan, file: PlanFile, engine: Engine, options: SweepOptions, watch: Watcher) -> None:
        self.plan, self._file, self._engine = plan, file, engine
        self._options, self._watch = options, watch
        self._reader = ProgressReader(file.path.parent.parent, authors_accuracies())
        self._jobs: dict[str, Job] = {}
        self._given: set[str] = set()  # runs that this process gave to the engine
        self._saved = self._reading = 0.0
        self._without_cache: dict[str, str] = {}  # runs, and why their cache is missing

    def save(self) -> None:
        """Writes the plan; a full disk stops no training, since the plan can be made again."""
        self._saved = time.monotonic()
        try:
            self._file.save(self.plan)
        except MachineError as error:
            _log.warning("%s; the sweep continues", error)

    def end(self) -> None:
        """Writes the plan at the end of this process, which runs the sweep no longer."""
        self.plan = self.plan.model_copy(update={"host": None, "pid": None})
        self.save()

    def prepare(self, members: Sequence[Member], progress: Progress) -> None:
        """Builds the missing caches of runs that are not finished, each once; without its cache no run is started."""
        self.update()
        waiting = {run.name for run in self.plan.runs if run.state not in ("finished", "running")}
        done: dict[str, str] = {}
        for member in members:
            if member.name not in waiting:
                continue
            key = repr(flatten(member.spec.framing.model_dump(mode="json")))
            if key not in done:
                done[key] = self._prepare(member, progress)
            if done[key]:
                self._without_cache[member.name] = done[key]

    def _prepare(self, member: Member, progress: Progress) -> str:
        try:
            experiment_cache(
                member.spec,
                self._options.cache_dir,
                file=member.file,
                build_from=self._options.source,
                progress=progress,
            )
        except (PlifctlError, OSError) as error:
            _log.warning("%s: %s", member.spec.dataset.name, error)
            return str(error)
        return ""

    def start(self) -> None:
        """Gives the engine what is neither finished nor given nor being trained."""
        wanted = [run for run in self.plan.runs if self._is_wanted(run)]
        for run in wanted:
            begin_log(self._file.log_of(run.name), run.command)
        tasks = [Task(run.name, run.argv, self._file.log_of(run.name)) for run in wanted]
        ids = self._engine.submit(tasks) if tasks else {}
        name = self._options.engine
        self.plan = self.plan.with_runs(
            [run.model_copy(update={"engine": name, "job": ids[run.name]}) for run in wanted if run.name in ids]
        )
        self._given |= {*ids}
        self.update()
        self.save()

    def _is_wanted(self, run: PlannedRun) -> bool:
        is_done = run.name in self._given or run.name in self._without_cache
        return not is_done and run.state in ("missing", "interrupted", "failed")

    def wait(self) -> None:
        """Waits until it is time to read again: reading takes a small part of the time, however many runs there are."""
        time.sleep(max(_POLL_SECONDS, 10 * self._reading))

    def update(self) -> None:
        """Reads how the runs stand, and passes it on."""
        began = time.monotonic()
        self._jobs = self._engine.poll(jobs_of(filter(self._is_ours, self.plan.runs)))
        found = self._reader.read(self.plan, self._file, self._jobs)
        found = [self._explain(standing) for standing in found]
        for standing in found:  # ours found another process training it: when that one stops, it is ours again
            job = self._jobs.get(standing.run.name)
            if standing.state == "running" and job is not None and job.exit_code == ResumeError.exit_code:
                self._given.discard(standing.run.name)
        changed = [s.run for s, before in zip(found, self.plan.runs, strict=True) if s.run != before]
        self.plan = self.plan.with_runs(changed)
        if changed or time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()
        self._reading = time.monotonic() - began
        self._watch(found)

    def _explain(self, standing: Standing) -> Standing:
        why = self._without_cache.get(standing.run.name)
        if why is None or standing.state in ("finished", "running"):
            return standing
        return replace(standing, run=standing.run.model_copy(update={"state": "failed", "reason": why}))

    def _is_ours(self, run: PlannedRun) -> bool:
        """Returns whether the job of a run is one that this engine may know."""
        return run.engine == self._options.engine and (self._engine.detached or run.name in self._given)

    def active(self) -> dict[str, str]:
        """Returns the jobs that wait or run."""
        return jobs_of(run for run in self.plan.runs if is_active(self._jobs.get(run.name)))

    def is_settled(self) -> bool:
        """Returns whether nothing is left to wait for; starts what another process has left unfinished."""
        if any(self._is_wanted(run) for run in self.plan.runs):
            self.start()
        return all(run.state not in ("queued", "running") for run in self.plan.runs)


def _planned(member: Member, options: SweepOptions, runs_dir: Path, before: PlannedRun | None) -> PlannedRun:
    spec, gpus = member.spec, options.resources.gpus or 1
    words = _training_words(member, options, runs_dir)
    start = [sys.executable, "-m"]
    check = ("--digest", spec.digest)  # the experiment may be edited before its turn comes
    if gpus > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
    return PlannedRun(
        name=member.name,
        experiment=spec.name,
        protocol=member.protocol,
        seed=spec.train.seed,
        epochs=spec.train.epochs,
        values=dict(member.values),
        digest=spec.digest,
        dataset=spec.dataset.name,
        command=shlex.join(["plifctl", *words]),
        argv=(*start, "plifctl", *words, *check),
        engine=before.engine if before is not None else None,
        job=before.job if before is not None else None,
    )


def _training_words(member: Member, options: SweepOptions, runs_dir: Path) -> list[str]:
    """Returns the words after ``plifctl`` that train a run, continue it, or find it finished."""
    words = [training_verb(member.protocol), member.spec.name if member.file is None else str(member.file)]
    words += ["--recipe", options.spec.recipe] if options.spec.recipe is not None else []
    for text in member.overrides:
        words += ["--set", text]
    words += ["--name", member.name, "--resume", "auto", "--runs-dir", str(runs_dir.absolute())]
    words += ["--cache-dir", str((options.cache_dir or paths.cache_dir()).absolute())]
    words += ["--device", options.device] if options.device is not None else []
    words += ["--checkpoint-every", str(options.checkpoint_every)] if options.checkpoint_every else []
    words += ["--copy-cache", str(options.copy_cache.absolute())] if options.copy_cache is not None else []
    return words
