"""The plan of a sweep, ``sweeps/NAME.json`` in the runs directory: its only memory.

The plan says what the sweep consists of, and which job of which engine trains what. The state of a run is never taken
from it but from the run's own files (:mod:`plifctl.sweep.progress`); the states in the file are those of its last
update, for people who read it. One process at a time writes it, under a lock.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import filelock
from pydantic import Field, ValidationError

from plifctl import files, paths
from plifctl.config.base import Spec
from plifctl.config.choices import Engine, Protocol
from plifctl.config.problems import first_problem
from plifctl.config.sweep import SweepSpec
from plifctl.errors import RunError, UsageError, did_you_mean
from plifctl.pipeline.commands import folder_option
from plifctl.runs.documents import load_document, save_document
from plifctl.runs.sweep_plans import FOLDER, plan_files

_MAX_NAME = 100
_RESERVED = ("run", "env", "split", "result", "manifest", "imported", "added")
"""Names that would make the folder of the plans look like a run."""

State = Literal["missing", "queued", "running", "finished", "interrupted", "failed"]
"""State of a run of a sweep; the same command continues what is ``interrupted`` and tries again what is ``failed``."""

ACTIVE: tuple[Literal["queued", "running"], ...] = ("queued", "running")
"""The states of a run that waits or is trained."""

_Strings = tuple[str, ...]


class PlannedRun(Spec):
    """A run of a sweep.

    Attributes:
        name: Its name in the runs directory.
        experiment: Name of its experiment.
        protocol: A, B or C.
        seed: Seed.
        epochs: Epochs to train.
        values: Values of the grid, and the fold, by key.
        digest: Digest of the experiment.
        settings: Digest of all settings that its run must have; empty in a plan of 0.1.0.
        dataset: Name of the data set.
        raw: Place of its recordings; None: the data set states none.
        command: What a person types to train it alone.
        argv: What the engine starts.
        engine: Engine of the last job; None: none was started.
        job: Id of that job.
        state: State at the last update of the plan.
        reason: Why it failed or waits; empty otherwise.
    """

    name: str
    experiment: str
    protocol: Protocol
    seed: int
    epochs: int
    values: dict[str, Any] = Field(default_factory=dict)
    digest: str
    settings: str = ""
    dataset: str
    raw: str | None = None
    command: str
    argv: _Strings = Field(strict=False)
    engine: Engine | None = None
    job: str | None = None
    state: State = "missing"
    reason: str = ""


def has_other_recordings(raw: str | None, trained: str | None) -> bool:
    """Returns whether a run was trained on recordings in another place than a training states, which are still there.

    Args:
        raw: Place that the training states; None: none.
        trained: Place that the run states; what is no longer there may have been moved.
    """
    if raw is None or trained is None:
        return False
    place = Path(trained)
    return place.exists() and place.resolve() != Path(raw).resolve()


class Plan(Spec):
    """A sweep.

    Attributes:
        name: Its name.
        command: What was typed.
        definition: What it consists of, as typed.
        created: Time when it was first planned, seconds since 1970.
        updated: Time of the last update.
        host: Machine of the process that runs it; None: none does.
        pid: Id of that process. After a kill it stays; whether the process exists, the lock says.
        runs: Its runs.
    """

    name: str
    command: str
    definition: SweepSpec
    created: float
    updated: float
    host: str | None = None
    pid: int | None = None
    runs: tuple[PlannedRun, ...] = Field(strict=False)

    def with_runs(self, changed: Sequence[PlannedRun]) -> Plan:
        """Returns the plan with some runs replaced by those of the same name."""
        by_name = {run.name: run for run in changed}
        return self.model_copy(update={"runs": tuple(by_name.get(run.name, run) for run in self.runs)})

    def released(self) -> Plan:
        """Returns the plan of a sweep that no process runs."""
        return self.model_copy(update={"host": None, "pid": None})


class PlanFile:
    """The file of a plan, and the files beside it.

    Args:
        runs_dir: Runs directory.
        name: Name of the sweep.

    Raises:
        UsageError: It cannot be the name of a sweep.
    """

    def __init__(self, runs_dir: Path, name: str) -> None:
        if problem := _name_problem(name):
            raise UsageError(f"{name!r}: not a valid name of a sweep: {problem}", hint="choose another --name")
        self.runs_dir, self.name = runs_dir, name
        self.path, self.folder = runs_dir / FOLDER / f"{name}.json", runs_dir / FOLDER / name

    def log_of(self, run: str) -> Path:
        """Returns the file of a run's output."""
        return self.folder / f"{run}.log"

    def load(self) -> Plan:
        """Returns the plan.

        Raises:
            UsageError: There is none.
            RunError: It is damaged.
        """
        if not self.path.is_file():
            known = sweep_names(self.runs_dir)
            hint = did_you_mean(self.name, known) if known else "plifctl sweep run --help shows how to begin one"
            raise UsageError(f"no sweep {self.name!r} in {self.runs_dir}", hint=hint)
        hint = "remove it and type the plifctl sweep run command again: its runs stay"
        tree = load_document(self.path, ("definition", "runs"), hint=hint)
        try:
            return Plan.model_validate(tree)
        except ValidationError as error:
            raise RunError(f"{self.path}: damaged: {first_problem(error)}", hint=hint) from error

    def save(self, plan: Plan) -> None:
        """Replaces the plan.

        Raises:
            MachineError: It cannot be written.
        """
        with files.machine_errors(self.path):
            files.make_dir(self.path.parent)
            tree = plan.model_copy(update={"updated": time.time()}).model_dump(mode="json")
            save_document(self.path, tree)

    @property
    def argument(self) -> str:
        """The sweep as commands take it, quoted for a shell, with its runs directory unless that is the usual one."""
        folder = folder_option("--runs-dir", self.runs_dir, paths.runs_dir())
        return " ".join([shlex.quote(self.name), *folder])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the sweep while the block runs, and writes the process into the plan, if there is one.

        A cancel signals the process that the plan names: the number of one that was killed may be a stranger's by now.

        Raises:
            UsageError: Another process holds it.
            RunError: The plan is damaged.
            MachineError: The plan cannot be written.
        """
        with files.machine_errors(self.path):
            files.make_dir(self.path.parent)
            lock = self._lock()
            try:
                lock.acquire(timeout=1)  # a process that asks whether it is held has it for a moment
            except filelock.Timeout:
                name = self.argument
                raise UsageError(
                    f"the sweep {self.name} is being run by another process",
                    hint=f"plifctl sweep status {name} shows it, plifctl sweep cancel {name} stops it",
                ) from None
        try:
            if self.path.is_file():
                self.save(self.load().model_copy(update=this_process()))
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Returns whether a process holds the sweep."""
        try:
            return files.is_locked(Path(self._lock().lock_file))
        except OSError:  # another user's
            return False

    def _lock(self) -> filelock.BaseFileLock:
        return filelock.FileLock(self.path.with_suffix(".lock"))


def _name_problem(name: str) -> str:
    """Returns what is wrong with the name of a sweep; empty if nothing is."""
    if not re.fullmatch(r"\w[\w.+ -]*", name) or name != name.strip():
        return "use letters, digits, and . _ + - or blanks"
    if len(name.encode()) > _MAX_NAME:
        return f"it has more than {_MAX_NAME} bytes"
    if name in _RESERVED or name.endswith((".json", ".lock")):
        return "it is that of another file"
    return ""


def sweep_names(runs_dir: Path) -> list[str]:
    """Returns the names of the sweeps of a runs directory, the latest last."""
    return [path.stem for path in sorted(plan_files(runs_dir), key=lambda path: (path.stat().st_mtime, path.name))]


def this_process() -> dict[str, Any]:
    """Returns host and pid of this process, as a plan has them."""
    return {"host": socket.gethostname(), "pid": os.getpid()}
