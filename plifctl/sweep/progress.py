"""State and progress of a sweep's runs: read from their own files, with what the engine knows of their jobs.

| the run's files say | its job | state |
|---|---|---|
| finished, or trained by a process | any | finished, running |
| nothing yet | none, waits, runs, has ended | missing (failed, if the plan says so), queued, running, failed |
| nothing yet | was stopped or cancelled | missing |
| failed | waits, runs, otherwise | queued, running, failed |
| stopped or killed | waits, runs, otherwise | queued, running, interrupted |

A run that has the name but other settings is failed: it is not counted and not continued.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from plifctl import files
from plifctl.config.base import digest_of
from plifctl.config.lookup import load_registry
from plifctl.errors import PlifctlError
from plifctl.runs import RegisteredExperiments, Run, is_trained
from plifctl.runs.authors import load_authors
from plifctl.runs.folders import run_argument
from plifctl.sweep.engine import Job
from plifctl.sweep.logs import last_error
from plifctl.sweep.plan import Plan, PlanFile, PlannedRun, State, has_other_recordings

_SIGNALLED = 128  # plus the number of a signal
_FILES = ("config.yaml", "run.json", "result.json", "metrics.jsonl", "metrics.sha256")  # determine a finished run
_RECENT = 10  # epochs whose mean time predicts that of the next ones


@dataclass(frozen=True)
class RunProgress:
    """State and progress of a run of a sweep.

    Attributes:
        run: The run, with its state and the reason for it.
        epoch: Epochs trained.
        accuracy: The accuracy so far, as :meth:`~plifctl.runs.Run.accuracy_so_far` gives it; None: there is none.
        accuracy_of: The samples that it was measured on.
        authors: What the authors' run of the experiment had reached by that epoch, by the same protocol; None: no such
            run, settings or samples differ from theirs, or ``accuracy`` is no test accuracy.
        epoch_seconds: Mean time of its last epochs; None before the first one.
        seconds_left: Time until it is finished at this speed; None if that is not known.
        host: Machine that trains it; empty if none does.
    """

    run: PlannedRun
    epoch: int = 0
    accuracy: float | None = None
    accuracy_of: Literal["test", "validation"] | None = None
    authors: float | None = None
    epoch_seconds: float | None = None
    seconds_left: float | None = None
    host: str = ""

    @property
    def state(self) -> State:
        """State of the run."""
        return self.run.state

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, without what the engine starts."""
        about = self.run.model_dump(mode="json", exclude={"argv"})
        rest = {key: value for key, value in asdict(self).items() if key != "run"}
        return {**about, **rest}


class ProgressReader:
    """Reads state and progress of the runs of a sweep; files that did not change are not read again.

    Args:
        file: File of its plan.
        authors: What the authors' runs had reached by each epoch, as :func:`authors_accuracies` returns it.
    """

    def __init__(self, file: PlanFile, authors: Mapping[tuple[str, str], Mapping[int, float]] | None = None) -> None:
        self._file, self._authors = file, authors or {}
        self._experiments = RegisteredExperiments(load_registry())
        self._runs: dict[str, Run] = {}
        self._finished: dict[str, tuple[object, RunProgress]] = {}  # by name: state of the files, and what was read
        self._seconds = 0.0  # of the last reading

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Takes the time of the block, which reads everything once, for :meth:`pause`."""
        began = time.monotonic()
        yield
        self._seconds = time.monotonic() - began

    def pause(self, least: float) -> float:
        """Returns the seconds to wait before the next reading, so that reading takes a small part of the time."""
        return max(least, 10 * self._seconds)

    def read(self, plan: Plan, jobs: Mapping[str, Job]) -> list[RunProgress]:
        """Returns state and progress of the runs of a plan, in its order.

        Args:
            plan: The plan, which need not be the one in the file.
            jobs: What the engine knows of their jobs, by name of the run.
        """
        return [self._read_run(run, jobs.get(run.name)) for run in plan.runs]

    def unfinished(self, runs: Iterable[PlannedRun]) -> list[PlannedRun]:
        """Returns the runs that are not finished by their own files: what became of the jobs of others is no matter."""
        return [run for run in runs if not self._is_finished(run)]

    def _is_finished(self, run: PlannedRun) -> bool:
        known = self._finished.get(run.name)
        if known is not None and known[0] == self._stamps(run):
            return True
        if not is_trained(self._folder(run)):
            return False
        return self._open(run).is_finished() or self._open(run).result_of(run.epochs) is not None

    def _stamps(self, run: PlannedRun) -> object:
        return [files.stamp(self._folder(run) / name) for name in _FILES]

    def _open(self, run: PlannedRun) -> Run:
        if run.name not in self._runs:
            self._runs[run.name] = Run(self._folder(run))
        return self._runs[run.name]

    def _folder(self, run: PlannedRun) -> Path:
        return self._file.runs_dir / run.name

    def _read_run(self, run: PlannedRun, job: Job | None) -> RunProgress:
        known, stamps = self._finished.get(run.name), self._stamps(run)
        if known is not None and known[0] == stamps and known[1].run == _at(run, "finished", ""):
            return known[1]
        if not is_trained(self._folder(run)):
            if job is None:  # a failure before the first step has left a trace in the plan only
                return RunProgress(run if run.state == "failed" else _at(run, "missing", ""))
            if job.is_stopped:  # before its first step, as `sweep cancel` and Ctrl-C do
                return RunProgress(_at(run, "missing", ""))
            state: State = "failed" if job.state == "ended" else job.state
            return RunProgress(_at(run, state, self._reason(job, None, run)), host=job.host)
        try:
            found = self._trained(run, self._open(run), job)
            if found.state == "finished":
                self._finished[run.name] = stamps, found
            return found
        except (PlifctlError, OSError) as error:  # damaged, or removed at this moment
            return RunProgress(_at(run, "failed", str(error)))

    def _trained(self, planned: PlannedRun, run: Run, job: Job | None) -> RunProgress:
        spec = run.config().spec
        if difference := _difference(planned, run):
            reason = f"{run.path} has {difference}; rename or remove it: plifctl runs rm {run_argument(run.path)}"
            return RunProgress(_at(planned, "failed", reason))
        status, rows, result = run.status(), run.metrics(), run.result_of(planned.epochs)
        state: State = "failed" if status == "failed" else "interrupted"
        if result is not None:  # perhaps one that a longer training has not replaced
            state, rows = "finished", rows[: result.epochs]
        elif status == "running":
            state = status
        elif job is not None and job.state != "ended":
            state = job.state
        reason = "" if state in ("finished", "running") else self._reason(job, run, planned)
        config, accuracy = run.config(), run.accuracy_so_far() if result is None else result.reported
        on_tests = accuracy is not None and accuracy.of == "test"
        comparable = run.info()["cache"].get("complete") and on_tests and config.recipe != "fast"
        found = RunProgress(
            _at(planned, state, reason),
            len(rows),
            None if accuracy is None else accuracy.value,
            None if accuracy is None else accuracy.of,
            self._authors_at(planned, len(rows)) if comparable and not self._experiments.changes(config) else None,
            host=_host(run, state, job),
        )
        if not rows:
            return found
        seconds = statistics.fmean(row["seconds"] for row in rows[-_RECENT:])
        left = 0.0 if state == "finished" else (spec.train.epochs - len(rows)) * seconds
        return replace(found, epoch_seconds=seconds, seconds_left=left)

    def _authors_at(self, planned: PlannedRun, epoch: int) -> float | None:
        curve = self._authors.get((planned.experiment, planned.protocol), {})
        return next((curve[at] for at in sorted(curve, reverse=True) if at <= epoch), None)

    def _reason(self, job: Job | None, run: Run | None, planned: PlannedRun) -> str:
        """Returns why a run is not finished: the error in its job's output, its own error, or what the engine says.

        A job that was killed wrote no error: one in the run's files would be an older one.
        """
        known, code = (job.reason, job.exit_code) if job is not None else ("", None)
        if job is not None and job.state == "ended":
            if code == 0 and run is None:
                log = self._file.log_of(planned.name)
                return f"the command ended without an error, but {self._folder(planned)} is not there; see {log}"
            if code is None or 0 < code < _SIGNALLED:
                return last_error(self._file.log_of(planned.name)) or known
        is_killed = code is not None and (code < 0 or code == _SIGNALLED + signal.SIGKILL)
        if run is not None and not is_killed and (info := run.info()).get("status") in ("failed", "stopped"):
            return str(info.get("error") or known)
        return known


def authors_accuracies() -> dict[tuple[str, str], Mapping[int, float]]:
    """Returns the accuracy that the authors' runs had reached by each logged epoch, by experiment and protocol.

    In protocol A that is the best test accuracy so far; in protocol B, the test accuracy at the best validation
    accuracy so far, at the last of equal ones, as their code selects it.
    """
    found: dict[tuple[str, str], Mapping[int, float]] = {}
    for run in load_authors(load_registry().folders):
        tests = run.epochs.get("test_accuracy")
        if (experiment := run.settings.get("experiment")) and tests:
            protocol = str(run.settings.get("protocol") or "A")
            chosen_by = tests if protocol == "A" else run.epochs.get("validation_accuracy", {})
            found[experiment, protocol] = _reached(tests, chosen_by)
    return found


def _reached(tests: Mapping[int, float], chosen_by: Mapping[int, float]) -> dict[int, float]:
    """Returns the test accuracy of the best epoch so far, the last of equal ones, by epoch."""
    epochs = sorted(tests.keys() & chosen_by.keys())
    best = accumulate(epochs, partial(max, key=lambda epoch: (chosen_by[epoch], epoch)))
    return {epoch: tests[chosen] for epoch, chosen in zip(epochs, best, strict=True)}


def _difference(planned: PlannedRun, run: Run) -> str:
    """Returns what is different in a run that has the name of a planned one; empty if nothing is."""
    config = run.config()
    spec = config.spec
    if spec.digest != planned.digest or config.protocol != planned.protocol:
        return "other settings"
    if spec.train.seed != planned.seed:
        return f"seed {spec.train.seed}"
    if planned.settings and digest_of(spec.kept_settings()) != planned.settings:
        return "another name of its experiment, or other classes, shape or layout of its data set"
    if has_other_recordings(planned.raw, spec.dataset.raw):
        return f"the recordings {spec.dataset.raw}, not {planned.raw}"
    if spec.train.epochs != planned.epochs and run.result_of(planned.epochs) is None:
        return f"{spec.train.epochs} epochs"
    return ""


def _host(run: Run, state: State, job: Job | None) -> str:
    if state != "running":
        return ""
    return str(run.info().get("host") or (job.host if job is not None else ""))


def _at(run: PlannedRun, state: State, reason: str) -> PlannedRun:
    return run.model_copy(update={"state": state, "reason": reason if state in ("failed", "interrupted") else ""})
