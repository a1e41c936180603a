"""Runs a sweep: plans it, prepares its caches, gives what is missing to an engine, and watches over it to the end.

The same call continues a sweep, whoever interrupted it and wherever its runs were trained: what is finished or being
trained is left alone, the rest is given to the engine. A failure is one of one run. The jobs of a batch system continue
when this process ends; those of other engines are stopped with it, each after a checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from plifctl import paths
from plifctl.config.choices import Engine as EngineName
from plifctl.errors import MachineError, ResumeError, UsageError
from plifctl.pipeline.progress import Progress, silent
from plifctl.sweep.caches import prepare_caches, warn_of_other_versions
from plifctl.sweep.engine import Engine, Job, Task
from plifctl.sweep.engines import check_resources, open_engine
from plifctl.sweep.expansion import Member, expand, sweep_name
from plifctl.sweep.jobs import is_active, jobs_of, poll_detached
from plifctl.sweep.logs import begin_log
from plifctl.sweep.plan import ACTIVE, Plan, PlanFile, PlannedRun, this_process
from plifctl.sweep.planning import SweepOptions, plan_sweep
from plifctl.sweep.progress import ProgressReader, RunProgress, authors_accuracies
from plifctl.sweep.status import read_plan

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_SAVE_SECONDS = 10.0

Watcher = Callable[[Sequence[RunProgress]], None]
"""Called with state and progress of the runs, whenever they were read again."""


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
        MachineError: The engine cannot be reached, or an earlier plan cannot be written.
    """
    members = expand(options.spec)
    file = PlanFile(options.runs_dir or paths.runs_dir(), sweep_name(options.spec))
    plan, _ = plan_sweep(options, members)
    if read_plan(plan, file.runs_dir).unfinished:
        check_resources(options.engine, options.resources)
    engine = open_engine(options.engine, options.resources, file.folder)
    with file.locked():
        plan, members = plan_sweep(options, members)
        _check_dropped(file, {run.name for run in plan.runs}, options.engine)
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
            try:
                sweep.update()
            finally:
                sweep.end()
    return sweep.plan


def _check_dropped(file: PlanFile, names: set[str], engine: EngineName) -> None:
    """Raises UsageError if the batch system still has jobs that the new plan would forget.

    They are those of runs that are no longer part of the sweep, and all if another engine trains it from now on.
    """
    before = file.load().runs if file.path.is_file() else ()
    dropped = [run for run in before if run.name not in names or run.engine != engine]
    unfinished = ProgressReader(file).unfinished(dropped)
    if active := [name for name, job in poll_detached(unfinished, file.folder).items() if is_active(job)]:
        raise UsageError(
            f"the sweep {file.name} had other runs or another engine, and {len(active)} of its jobs may still be "
            f"trained, e.g. {active[0]}",
            hint=f"give the new one another --name, or first type: plifctl sweep cancel {file.argument}",
        )


class _Sweep:
    """A sweep that this process runs."""

    def __init__(self, plan: Plan, file: PlanFile, engine: Engine, options: SweepOptions, watch: Watcher) -> None:
        self.plan, self._file, self._engine = plan, file, engine
        self._options, self._watch = options, watch
        self._reader = ProgressReader(file, authors_accuracies())
        self._jobs: dict[str, Job] = {}
        self._given: set[str] = set()  # runs that this process gave to the engine
        self._saved = 0.0
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
        self.plan = self.plan.released()
        self.save()

    def prepare(self, members: Sequence[Member], progress: Progress) -> None:
        """Builds the missing caches; without its cache no run is started."""
        self.update()
        states = {run.name: run.state for run in self.plan.runs}
        warn_of_other_versions(states, self._file.runs_dir)
        self._without_cache = prepare_caches(members, states, self._options, progress)

    def start(self) -> None:
        """Gives the engine what is neither finished nor given nor being trained."""
        wanted = [run for run in self.plan.runs if self._is_wanted(run)]
        for run in wanted:
            begin_log(self._file.log_of(run.name), run.command)
        # an engine may start them in another working directory
        tasks = [Task(run.name, run.argv, self._file.log_of(run.name).absolute()) for run in wanted]
        ids = self._engine.submit(tasks) if tasks else {}
        name = self._options.engine
        self.plan = self.plan.with_runs(
            [run.model_copy(update={"engine": name, "job": ids[run.name]}) for run in wanted if run.name in ids]
        )
        self._given |= {*ids}
        self.save()  # first of all: a batch system that does not answer now has the jobs
        self.update()

    def _is_wanted(self, run: PlannedRun) -> bool:
        is_done = run.name in self._given or run.name in self._without_cache
        return not is_done and run.state in ("missing", "interrupted", "failed")

    def wait(self) -> None:
        """Waits until a job has ended, or it is time to read again.

        Meanwhile the engine is asked again and again, since it starts what is queued then.
        """
        until = time.monotonic() + self._reader.pause(_POLL_SECONDS)
        while True:
            time.sleep(_POLL_SECONDS)
            if time.monotonic() >= until:
                return
            ended = [name for name, job in self._poll(self.plan.runs).items() if not is_active(job)]
            if any(is_active(self._jobs.get(name)) for name in ended):
                return

    def _poll(self, runs: Iterable[PlannedRun]) -> dict[str, Job]:
        return self._engine.poll(jobs_of(filter(self._is_ours, runs)))

    def update(self) -> None:
        """Reads state and progress of the runs, and passes them on."""
        with self._reader.timed():
            found = self._read()
        self._watch(found)

    def _read(self) -> list[RunProgress]:
        """Returns state and progress of the runs, whose states the plan has from now on."""
        runs = self._reader.unfinished(self.plan.runs) if self._engine.detached else self.plan.runs
        self._jobs = self._poll(runs)
        found = self._reader.read(self.plan, self._jobs)
        found = [self._explain(entry) for entry in found]
        for entry in found:  # ours found another process training it: when that one stops, it is ours again
            job = self._jobs.get(entry.run.name)
            if entry.state == "running" and job is not None and job.exit_code == ResumeError.exit_code:
                self._given.discard(entry.run.name)
        changed = [s.run for s, before in zip(found, self.plan.runs, strict=True) if s.run != before]
        self.plan = self.plan.with_runs(changed)
        if changed or time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()
        return found

    def _explain(self, entry: RunProgress) -> RunProgress:
        why = self._without_cache.get(entry.run.name)
        if why is None or entry.state in ("finished", "running"):
            return entry
        return replace(entry, run=entry.run.model_copy(update={"state": "failed", "reason": why}))

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
        return all(run.state not in ACTIVE for run in self.plan.runs)
