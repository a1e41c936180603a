"""Run directories: creating, finding, reading and removing them."""

from __future__ import annotations

import calendar
import json
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import yaml
from pydantic import ValidationError

from plifctl import files, paths
from plifctl.config.choices import TRAINING_VERBS, CheckpointName, Protocol, Recipe, RunStatus, Ties
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.identity import current_path
from plifctl.config.problems import first_problem
from plifctl.errors import ResumeError, RunError, UsageError
from plifctl.runs import folders
from plifctl.runs.checkpoints import save_checkpoint
from plifctl.runs.documents import add_checksum, load_document, save_document
from plifctl.runs.metrics import MetricsFile
from plifctl.runs.predictions import Predictions, reported_predictions
from plifctl.runs.progress_file import StepProgress, is_beating, is_recent, read_progress
from plifctl.runs.records import Fold, ResultRecord, RunAccuracy, StartedFrom, best_epoch, fold_of, read_record
from plifctl.runs.sessions import Session, first_entry, sessions_of
from plifctl.training.process import processor_name

_RECORDED = ("running", "stopped", "failed")
_LOCK = ".lock"
_START = "checkpoints/start.pt"
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run: enough to train it again.

    Attributes:
        experiment: Name of the experiment.
        recipe: Recipe of the values.
        protocol: A, B or C.
        overrides: Changes to the experiment, texts ``key=value``.
        spec: The resolved experiment.
        origins: File and line, or option, of each value, by dotted key.
    """

    experiment: str
    recipe: Recipe
    protocol: Protocol
    overrides: tuple[str, ...]
    spec: ExperimentSpec
    origins: dict[str, str]

    @property
    def digest(self) -> str:
        """Digest of the experiment."""
        return self.spec.digest

    @property
    def fold(self) -> Fold | None:
        """The part of the samples that it is tested on; None if it is no cross-validation."""
        return fold_of(self.spec)

    @property
    def tests_once(self) -> bool:
        """Whether it tests one epoch only, when its training has ended."""
        return self.protocol == "C" or (self.protocol == "B" and self.spec.validation.test == "once")


_Stamp = tuple[int, ...] | None


class Run:
    """A run directory.

    Args:
        path: The directory.

    Raises:
        UsageError: The directory is not a run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._config: tuple[_Stamp, RunConfig] | None = None  # state of the file, and its content
        self._record: tuple[_Stamp, ResultRecord] | None = None
        self._metrics: tuple[tuple[bool, _Stamp, _Stamp], list[dict[str, Any]]] | None = None
        self._created: float | None = None
        try:
            self._created = float(self.info()["created"])
        except (RunError, KeyError, TypeError, ValueError):  # damaged, or made by 0.1.0
            if not folders.is_trained(path):
                raise UsageError(f"{path}: not a run of plifctl", hint="plifctl runs lists all runs") from None

    def __repr__(self) -> str:
        return f"<run {self.path}>"

    @property
    def name(self) -> str:
        """The name of the directory, which is the run's id."""
        return self.path.name

    def resume_command(self) -> str:
        """Returns the command that continues its training."""
        return f"plifctl {TRAINING_VERBS[self.config().protocol]} --resume {folders.run_argument(self.path)}"

    @property
    def cache_dir(self) -> Path | None:
        """Directory of the cache that it was trained on; None if the cache is not there any more.

        It may have been moved together with the runs directory.
        """
        stated = self.info()["cache"]
        places = [Path(str(stated.get("path", ""))), self.path.parent / str(stated.get("from_runs", ""))]
        dataset = self.config().spec.dataset.name
        return next((one.parent.parent for one in places if one.parent.name == dataset and one.is_file()), None)

    @property
    def content_digest(self) -> str:
        """Digest of the content of the cache that it was trained on."""
        return str(self.info()["cache"]["content_digest"])

    @property
    def created(self) -> float:
        """Time when the run was created, seconds since 1970; renaming the folder does not change it."""
        if self._created is not None:
            return self._created
        try:
            return float(calendar.timegm(time.strptime(self.name.split("-")[0], _STAMP)))
        except ValueError:  # renamed; the split is written once, and renaming keeps its time
            split = self.path / "split.json"
            return (split if split.is_file() else self.path).stat().st_mtime

    def config(self) -> RunConfig:
        """Returns the settings of the run.

        Raises:
            RunError: ``config.yaml`` is damaged, or made by an older plifctl.
        """
        path = self.path / "config.yaml"
        if (stamp := files.stamp(path)) is not None and self._config is not None and self._config[0] == stamp:
            return self._config[1]
        tree = load_document(path, ("spec", "protocol"))
        try:
            spec = ExperimentSpec.model_validate(tree["spec"])
            overrides = tuple(tree["overrides"])
            origins = {current_path(key): str(origin) for key, origin in tree["origins"].items()}
            config = RunConfig(tree["experiment"], spec.recipe, tree["protocol"], overrides, spec, origins)
            self._config = stamp, config
            return config
        except ValidationError as error:
            raise RunError(f"{path}: damaged, or of another version of plifctl: {first_problem(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: damaged: {error}") from error

    def info(self) -> dict[str, Any]:
        """Returns ``run.json``: process, cache, and how the run ended.

        Raises:
            RunError: It is damaged, or made by an older plifctl.
        """
        path = self.path / "run.json"
        tree = load_document(path, ("cache",))
        try:
            str(tree["cache"]["content_digest"])
        except (TypeError, KeyError) as error:
            raise RunError(f"{path}: damaged: {error}") from error
        return tree

    def environment(self) -> dict[str, Any]:
        """Returns ``env.json``, as :func:`describe_machine` gave it."""
        return load_document(self.path / "env.json", ("torch",))

    def split(self) -> dict[str, Any]:
        """Returns ``split.json``, as :meth:`plifctl.training.splits.Split.to_json` gave it."""
        return load_document(self.path / "split.json", ("train", "test"))

    def status(self) -> RunStatus:
        """Returns the status, derived from the files and the lock: a killed run never looks finished or running.

        Locks of some network file systems are not seen by other machines: there, a run is running while its heartbeat
        is recent.
        """
        if self.is_finished():
            return "finished"
        if self.host_elsewhere() is not None:
            return "running"
        try:
            if files.is_locked(self.path / _LOCK):
                return "running"
        except OSError:  # another user's run, whose lock cannot be read: the status written last
            return self.info()["status"] if self.info().get("status") in _RECORDED else "unknown"
        recorded = self.info().get("status")
        return recorded if recorded in ("stopped", "failed") else "killed"

    def host_elsewhere(self) -> str | None:
        """Returns the name of another machine whose process trains the run, by its heartbeat; None: there is none.

        For display: a training is not seen if the clocks of this machine and of the file server differ by a minute.
        """
        return self.begun_elsewhere() if is_recent(self.path / "progress.json") else None

    def beating_host(self) -> str | None:
        """Returns the name of another machine that trains the run: if one may, waits a minute for its heartbeat."""
        host = self.begun_elsewhere()
        return host if host is not None and is_beating(self.path / "progress.json") else None

    def begun_elsewhere(self) -> str | None:
        """Returns the name of another machine whose process, killed or not, has not ended its training of the run."""
        try:
            info = self.info()
        except RunError:  # damage is named where the file is used
            return None
        host = info.get("host")
        return str(host) if info.get("status") == "running" and host != socket.gethostname() else None

    def kept_result(self) -> ResultRecord | None:
        """Returns the result of fewer epochs, of a finished run whose longer training has not ended; else None.

        It stays the result of its own number of epochs, which reports read, until the longer one replaces it.
        """
        try:
            record, wanted = self.record(), self.config().spec.train.epochs
        except RunError:  # no result, or damage that is named where the file is used
            return None
        return record if record.epochs < wanted and not record.stopped_early else None

    def result_of(self, epochs: int) -> ResultRecord | None:
        """Returns the result of a training of so many epochs, which may have stopped early; None: it has none.

        It may be one that a longer training has not replaced yet.

        Raises:
            RunError: A file of a finished run is damaged.
        """
        if (kept := self.kept_result()) is not None:
            return kept if kept.epochs == epochs else None
        return self.record() if self.is_finished() and self.config().spec.train.epochs == epochs else None

    def is_finished(self) -> bool:
        """Returns whether it has the result of all its epochs."""
        return (self.path / "result.json").is_file() and self.kept_result() is None

    def sessions(self) -> tuple[Session, ...]:
        """Returns the processes that trained the epochs so far."""
        return sessions_of(self.session_entries(), len(self.metrics()))

    def session_entries(self) -> list[dict[str, Any]]:
        """Returns the list of processes in ``run.json``; for a run of 0.1.0, the one that created it."""
        info = self.info()
        known: list[dict[str, Any]] | None = info.get("sessions")
        return known if known is not None else [first_entry(str(info.get("host", "")), self.environment())]

    def lock(self) -> filelock.BaseFileLock:
        """Returns the lock that a process holds while it trains the run."""
        return filelock.FileLock(self.path / _LOCK)

    def progress(self) -> StepProgress | None:
        """Returns the current step of a running run, at most about a second old; None if it is unknown."""
        return read_progress(self.path / "progress.json")

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the rows of the epochs so far, as :class:`plifctl.training.progress.EpochRow` has them.

        Files that did not change are not read again.

        Raises:
            RunError: A row is damaged, or the run was made by an older plifctl.
        """
        file, finished = MetricsFile(self.path), self.is_finished()
        state = finished, files.stamp(file.path), files.stamp(file.checksums)  # a row counts when its checksum is there
        if self._metrics is None or self._metrics[0] != state:
            try:
                self._metrics = state, file.read(finished=finished)
            except RunError:
                self.config()  # a better error if an older plifctl made the run
                raise
        return [*self._metrics[1]]

    def checkpoint(self, name: CheckpointName) -> Path:
        """Returns the path of a checkpoint."""
        return self.path / "checkpoints" / f"{name}.pt"

    @property
    def start_weights(self) -> Path:
        """Path of the weights of another network that the training began with, if it did."""
        return self.path / _START

    def started_from(self) -> StartedFrom | None:
        """Returns the network whose weights the training began with; None: all weights were drawn."""
        described = self.info().get("started_from")
        return None if described is None else StartedFrom.model_validate_json(json.dumps(described))

    def record(self) -> ResultRecord:
        """Returns the result of a finished run, or the one that a longer training has not replaced yet."""
        path = self.path / "result.json"
        if (stamp := files.stamp(path)) is None or self._record is None or self._record[0] != stamp:
            self._record = stamp, read_record(path)
        return self._record[1]

    def accuracy_so_far(self) -> RunAccuracy | None:
        """Returns the accuracy of the result of a finished run; before, the best one by which it chooses its epoch.

        That is the accuracy on validation samples where the run has any, and on test samples otherwise. None before the
        first epoch, and of protocol C before the test.

        Raises:
            RunError: A file of the run is damaged.
        """
        if self.is_finished():
            return self.record().reported
        if (best := best_row(self.metrics(), self.config().spec.train.ties)) is None:
            return None
        if (value := best.get("validation_accuracy")) is not None:
            return RunAccuracy(float(value), int(best["epoch"]), "validation")
        return RunAccuracy(float(best["test_accuracy"]), int(best["epoch"]), "test")

    def predictions(self) -> Predictions | None:
        """Returns the predicted class of each test sample, of the epoch that :meth:`record` reports.

        None of an unfinished run, and where :func:`~plifctl.runs.predictions.reported_predictions` finds none.

        Raises:
            RunError: The file is damaged.
        """
        finished = (self.path / "result.json").is_file()
        return reported_predictions(self.path, self.record()) if finished else None


def create_run(
    runs_dir: Path,
    resolved: Experiment,
    protocol: Protocol,
    *,
    cache: dict[str, Any],
    split: dict[str, Any],
    environment: dict[str, Any],
    started_from: StartedFrom | None = None,
    start: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Run:
    """Creates the directory of a new run, with everything that is known before the first step.

    Args:
        runs_dir: Runs directory.
        resolved: The experiment.
        protocol: A, B or C.
        cache: Path and content digest of the cache.
        split: As :meth:`plifctl.training.splits.Split.to_json` gives it.
        environment: As :func:`describe_machine` gives it.
        started_from: The network whose weights the training begins with; None: all weights are drawn.
        start: These weights, by name; the run keeps them.
        name: Its name; None: one of time, experiment, digest and seed.

    Raises:
        UsageError: TensorBoard cannot write to the directory.
        ResumeError: Another process has just created a run of this name.
    """
    require_utf8(runs_dir)
    spec = resolved.spec
    given, stamp = name, time.strftime(_STAMP, time.gmtime())
    name = given or f"{stamp}-{spec.name}-{spec.digest[:12]}-s{spec.train.seed}"
    _remove_abandoned(files.make_dir(runs_dir))
    with files.machine_errors(runs_dir / name):
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=runs_dir))
        files.apply_umask(temporary)
    try:
        created = {"status": "created", "created": time.time(), "cache": cache}
        if started_from is not None:
            created["started_from"] = started_from.model_dump(mode="json")
            about = {"spec": spec.model_dump_json(), "cache": cache["content_digest"]}
            save_checkpoint(temporary / _START, {"model": dict(start or {}), **about})
        save_document(temporary / "run.json", created)
        save_document(temporary / "env.json", environment)
        save_document(temporary / "split.json", split)
        write_config(temporary, resolved, protocol)
        for number in range(1, 1000):  # two runs may start within a second
            path = runs_dir / (name if number == 1 else f"{name}-{number}")
            try:
                temporary.rename(path)
                files.sync_folder(runs_dir)
                break
            except OSError:
                if not path.exists():
                    raise
                if given is not None:
                    raise ResumeError(f"{path}: another process has just created this run") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run(path)


def _remove_abandoned(runs_dir: Path) -> None:
    """Removes the temporary folders of processes that were killed while they created a run."""
    for path in runs_dir.glob(".*.partial"):
        with suppress(OSError):  # another process was faster
            if folders.is_abandoned_folder(path) and time.time() - path.stat().st_mtime > files.STALE_AFTER_S:
                shutil.rmtree(path)


def write_config(path: Path, resolved: Experiment, protocol: Protocol) -> None:
    """Writes the ``config.yaml`` of the run in the folder ``path``."""
    tree = {
        "experiment": resolved.spec.name,
        "recipe": resolved.spec.recipe,
        "protocol": protocol,
        "overrides": list(resolved.overrides),
        "digest": resolved.spec.digest,
        "spec": resolved.spec.model_dump(mode="json"),
        "origins": {key: str(origin) for key, origin in resolved.origins.items()},
    }
    text = yaml.safe_dump(add_checksum(tree), sort_keys=False, allow_unicode=True, width=120)
    files.write_text(path / "config.yaml", text)


def require_utf8(path: Path) -> None:
    """Raises UsageError if a path contains bytes that are not UTF-8: TensorBoard cannot write there."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{path}: the path contains bytes that are not UTF-8; TensorBoard cannot write there",
            hint="rename the folder, or choose another one: --runs-dir DIR",
        ) from None


def match_run(name: str, runs_dir: Path, listed: Sequence[Run] | None = None) -> Path | None:
    """Returns the folder of a run in the runs directory, of any kind; None: no run there has this name.

    Looked up in this order: an id; ``last``, the last run that was created here; a part that only one id of the runs
    trained here has; a part that only one id of the external runs has.

    Args:
        name: The name.
        runs_dir: Runs directory.
        listed: The runs trained there, where several names are looked up; None: they are listed unless the name is an
            id.

    Raises:
        UsageError: Several runs match.
    """
    folders.check_name(name)
    if (path := folders.child(name, runs_dir)) is not None and folders.is_run(path):
        return path
    trained = [run.path for run in (list_runs(runs_dir) if listed is None else listed)]
    if name == "last":
        return trained[-1] if trained else None
    return _match_part(name, trained) or _match_part(name, folders.external_folders(runs_dir))


def _match_part(name: str, found: Sequence[Path]) -> Path | None:
    """Returns the folder whose name alone has a part; raises UsageError if several have it."""
    known = {path.name: path for path in found}
    matching = folders.only_match(name, folders.match_name(name, list(known)))
    return None if matching is None else known[matching]


def find_run_folder(name: str, runs_dir: Path, listed: Sequence[Run] | None = None) -> Path:
    """Returns the folder of a run of any kind, by a name as :func:`match_run` takes it, else by its path.

    Raises:
        UsageError: No run matches, or several do.
    """
    if (path := match_run(name, runs_dir, listed) or folders.find_folder(name, runs_dir)) is not None:
        return path
    hint = (
        "plifctl runs lists all runs; a path can be given as well"
        if list_runs(runs_dir) or folders.external_folders(runs_dir)
        else "no run exists; plifctl train demo makes one"
    )
    raise UsageError(f"no run {name!r} in {runs_dir}", hint=hint)


def find_run(name: str, runs_dir: Path, listed: Sequence[Run] | None = None) -> Run:
    """Returns a run that was trained here, by a name as :func:`find_run_folder` takes it.

    Raises:
        UsageError: No run matches, several do, or the one that does was not trained here.
    """
    path = find_run_folder(name, runs_dir, listed)
    if not folders.is_trained(path):
        raise UsageError(f"{path}: not trained here, so it has no checkpoints", hint="plifctl runs show takes it")
    return Run(path)


def list_runs(runs_dir: Path) -> list[Run]:
    """Returns every run that plifctl trained, in the order in which they were created."""
    found: list[tuple[float, str, Run]] = []
    for path in folders.candidates(runs_dir):
        with suppress(UsageError, FileNotFoundError):  # of another program, or removed or renamed at this moment
            run = Run(path)
            found.append((run.created, run.name, run))
    return [run for *_, run in sorted(found, key=lambda entry: entry[:2])]


def best_row(rows: Sequence[dict[str, Any]], ties: Ties) -> dict[str, Any] | None:
    """Returns the row with the highest validation accuracy, or test accuracy if there is no validation.

    Args:
        rows: Rows from :meth:`Run.metrics`.
        ties: Which of equal ones is returned, ``train.ties`` of the run.
    """
    for name in ("validation_accuracy", "test_accuracy"):
        known = {row["epoch"]: row for row in rows if row.get(name) is not None}
        if known:
            return known[best_epoch({epoch: float(row[name]) for epoch, row in known.items()}, ties)]
    return None


def remove_run(run: Run) -> None:
    """Removes a run and everything in its folder, but never what a link points to.

    Raises:
        UsageError: It is being trained, or a link.
    """
    folders.check_removable(run.path, run.path.parent)
    try:
        with files.machine_errors(run.path), run.lock().acquire(timeout=0):
            folders.remove_folder(run.path)
    except filelock.Timeout:
        raise UsageError(
            f"{run.path}: the run is being trained, nothing was removed", hint="stop the training first (Ctrl-C)"
        ) from None


def describe_machine(device: str, threads: int, ranks: int) -> dict[str, Any]:
    """Returns versions and machine (of the first rank), on which numbers may depend besides the experiment."""
    import torch

    return {
        "plifctl": paths.code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "threads": threads,
        "ranks": ranks,
    }
