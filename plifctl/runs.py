"""Run directories: everything a training leaves behind, and the small record that reports are made from.

    runs/<UTC>-<experiment>-<spec12>-s<seed>/
        run.json         when, by which process, on which cache; how it ended
        config.yaml      the resolved experiment and where each value came from
        env.json         versions and machine
        split.json       the ids trained on, validated on, tested on
        metrics.jsonl    one line an epoch
        events.out.…     the same for TensorBoard
        checkpoints/     last.pt, best.pt
        result.json      the record; written last, by finished runs only

A run is live while its process holds ``.lock``: a killed run never looks finished or running.
"""

from __future__ import annotations

import io
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import filelock
import numpy as np
import yaml
from pydantic import Field, ValidationError

from plifctl import paths
from plifctl.errors import CheckpointError, Interrupted, PlifctlError, ResumeError, RunError, UsageError
from plifctl.registry import Resolved
from plifctl.specs import ExperimentSpec, Protocol, Recipe, Spec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from plifctl.training.loop import EpochRow, Outcome

Status = Literal["running", "finished", "stopped", "failed", "killed", "unknown"]
_SAID = ("running", "stopped", "failed")

_log = logging.getLogger(__name__)


Fraction = Annotated[float, Field(ge=0, le=1)]


class RunData(Spec):
    """What a run was trained and tested on: numbers of samples, and the content digest of the cache."""

    verified: bool
    complete: bool
    train: int
    validation: int
    test: int
    cache: str


class ResultRecord(Spec):
    """The small record of a finished run that reports are made from. Accuracies are fractions, epochs count from 1."""

    schema_version: Literal[1]
    run: str
    experiment: str
    recipe: Recipe
    protocol: Protocol
    dataset: str
    T: int
    seed: int
    epochs: int
    digest: str
    overrides: tuple[str, ...]
    data: RunData
    accuracy: Fraction
    best_epoch: int
    validation_accuracy: Fraction | None
    test_accuracy: tuple[Fraction | None, ...]
    tau: tuple[tuple[float, ...], ...]
    environment: dict[str, Any]
    finished: str


@dataclass(frozen=True)
class RunConfig:
    """What was asked of a run: enough to ask for it again."""

    experiment: str
    recipe: Recipe
    protocol: Protocol
    overrides: tuple[str, ...]
    spec: ExperimentSpec


class Run:
    """A run directory.

    Args:
        path: The directory.

    Raises:
        UsageError: There is no run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{path}: not a run, config.yaml is missing", hint="plifctl ls runs")

    @property
    def name(self) -> str:
        """The directory's name, the run's id."""
        return self.path.name

    def config(self) -> RunConfig:
        """Returns what was asked of the run.

        Raises:
            RunError: ``config.yaml`` is damaged.
        """
        path = self.path / "config.yaml"
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
            spec = ExperimentSpec.model_validate(tree["spec"])
            return RunConfig(tree["experiment"], tree["recipe"], tree["protocol"], tuple(tree["overrides"]), spec)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise RunError(f"{path}: damaged: {error}") from error

    def info(self) -> dict[str, Any]:
        """Returns ``run.json``.

        Raises:
            RunError: It is damaged.
        """
        path = self.path / "run.json"
        try:
            tree = dict(json.loads(path.read_text(encoding="utf-8")))
            str(tree["cache"]["content_digest"])
            return tree
        except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path}: damaged: {error}") from error

    def status(self) -> Status:
        """Returns how the run stands, from what is there rather than from what was last said."""
        if (self.path / "result.json").is_file():
            return "finished"
        lock = filelock.FileLock(self.path / ".lock")
        try:
            with lock.acquire(timeout=0):
                pass
        except filelock.Timeout:
            return "running"
        except OSError:  # a run of somebody else's: what it said last is all that can be known
            return self.info()["status"] if self.info().get("status") in _SAID else "unknown"
        said = self.info().get("status")
        return said if said in ("stopped", "failed") else "killed"

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the epochs so far, one mapping each; a last line that was cut off while it was written is none."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines() if path.is_file() else []
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, 1):
            try:
                row = dict(json.loads(line))
                int(row["epoch"])
                rows.append(row)
            except (ValueError, TypeError, KeyError) as error:
                if number < len(lines):
                    raise RunError(f"{path}:{number}: damaged: {error}") from error
        return rows

    def checkpoint(self, name: Literal["last", "best"]) -> Path:
        """Returns where a checkpoint lies."""
        return self.path / "checkpoints" / f"{name}.pt"

    def record(self) -> ResultRecord:
        """Returns the result of a finished run."""
        return _read_record(self.path / "result.json")


def create_run(
    runs_dir: Path,
    resolved: Resolved,
    protocol: Protocol,
    *,
    cache: dict[str, Any],
    split: dict[str, Any],
    environment: dict[str, Any],
) -> Run:
    """Makes the directory of a new run and everything in it that is known before the first step.

    Args:
        runs_dir: Where runs lie.
        resolved: The experiment.
        protocol: A or B.
        cache: Path and content digest of the cache.
        split: As :meth:`plifctl.splits.Split.to_json` gives it.
        environment: As :func:`describe_machine` gives it.
    """
    spec = resolved.spec
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{stamp}-{spec.name}-{spec.digest[:12]}-s{spec.train.seed}"
    path = runs_dir / name
    for number in range(2, 1000):  # two runs may start within a second
        paths.make_dir(runs_dir)
        try:
            with paths.machine_errors(path):
                path.mkdir()
            break
        except FileExistsError:
            path = runs_dir / f"{name}-{number}"
    paths.write_json(path / "run.json", {"status": "created", "cache": cache})
    paths.write_json(path / "env.json", environment)
    paths.write_json(path / "split.json", split)
    _write_config(path, resolved, protocol)
    return Run(path)


def _write_config(path: Path, resolved: Resolved, protocol: Protocol) -> None:
    tree = {
        "experiment": resolved.spec.name,
        "recipe": resolved.spec.recipe,
        "protocol": protocol,
        "overrides": list(resolved.overrides),
        "digest": resolved.spec.digest,
        "spec": resolved.spec.model_dump(mode="json"),
        "origins": {key: str(origin) for key, origin in resolved.origins.items()},
    }
    paths.write_text(path / "config.yaml", yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def find_run(name: str, runs_dir: Path) -> Run:
    """Returns a run by its path, its id, any part of its id that no other has, or ``last``.

    Raises:
        UsageError: None fits, or several do.
    """
    if (Path(name) / "config.yaml").is_file():
        return Run(Path(name))
    there = all_runs(runs_dir)
    fitting = there[-1:] if name == "last" else [run for run in there if name in run.name]
    exact = [run for run in fitting if run.name == name]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if fitting:
        listed = ", ".join(run.name for run in fitting[-5:])
        latest = "the latest are " if len(fitting) > 5 else ""
        raise UsageError(f"{len(fitting)} runs fit {name!r}: {latest}{listed}", hint="give more of the name")
    raise UsageError(f"no run {name!r} in {runs_dir}", hint="plifctl ls runs lists them; a path will do, too")


def all_runs(runs_dir: Path) -> list[Run]:
    """Returns every run, oldest first."""
    return [Run(path.parent) for path in sorted(runs_dir.glob("*/config.yaml"))]


def check_records(registry_dirs: Sequence[Path]) -> list[str]:
    """Returns what is wrong with the records committed to a registry's ``results/``."""
    problems: list[str] = []
    for folder in registry_dirs:
        for path in sorted((folder / "results").glob("*.json")):
            try:
                _read_record(path)
            except RunError as error:
                problems.append(str(error))
    return problems


def load_records(runs_dir: Path, registry_dirs: Sequence[Path]) -> list[ResultRecord]:
    """Returns the records of finished runs and those committed to a registry's ``results/``, each run once."""
    found: dict[str, ResultRecord] = {}
    files = [path for folder in registry_dirs for path in sorted((folder / "results").glob("*.json"))]
    for path in [*files, *sorted(runs_dir.glob("*/result.json"))]:
        try:
            record = _read_record(path)
        except RunError as error:
            _log.warning("%s; left out", error)
            continue
        found[record.run] = record
    return list(found.values())


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Returns versions and machine, what a number may depend on beyond the experiment."""
    import torch

    return {
        "plifctl": paths.code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "threads": threads,
    }


class RunRecorder:
    """Keeps a training in its run directory; the :class:`plifctl.training.loop.Recorder` of the command line.

    Everything happens while the run is :meth:`live`; :meth:`begin` comes first, :meth:`finish` last.

    Args:
        run: The run.
        spec: The experiment; kept in every checkpoint, with the cache's content digest, so that one can be evaluated
            alone.
    """

    def __init__(self, run: Run, spec: ExperimentSpec) -> None:
        self.run, self.spec = run, spec
        self._cache = str(run.info()["cache"]["content_digest"])
        self.signum: int | None = None
        self._board: SummaryWriter | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Holds the run while the block runs, and notes how it ended.

        Raises:
            ResumeError: Another process holds it.
        """
        lock = filelock.FileLock(self.run.path / ".lock")
        try:
            lock.acquire(timeout=2)  # whoever asks for the status of a run holds it for a moment
        except filelock.Timeout:
            raise ResumeError(f"{self.run.path}: another process is training this run") from None
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, Interrupted)
            code = error.exit_code if isinstance(error, PlifctlError | Interrupted) else PlifctlError.exit_code
            self._note(status="stopped" if stopped else "failed", exit_code=code, error=str(error))
            raise
        finally:
            if self._board is not None:
                self._board.close()
            lock.release()

    def begin(self, resolved: Resolved, epochs_done: int) -> None:
        """Notes that the run goes on.

        Args:
            resolved: The experiment, maybe with more epochs than before.
            epochs_done: Of earlier processes; later lines of ``metrics.jsonl`` are dropped.
        """
        rows = [row for row in self.run.metrics() if row["epoch"] <= epochs_done]
        paths.write_text(self.run.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        _write_config(self.run.path, resolved, self.run.config().protocol)
        self._note(status="running", pid=os.getpid(), host=socket.gethostname(), started=_now(), argv=sys.argv)
        (self.run.path / "result.json").unlink(missing_ok=True)  # a run that goes on is not finished

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """Keeps nothing of single steps."""

    def on_epoch(self, row: EpochRow) -> None:
        """Appends a line, and the scalars for TensorBoard."""
        with paths.machine_errors(self.run.path), (self.run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.run.path), purge_step=row.epoch)
        for name in ("loss", "train_accuracy", "validation_accuracy", "test_accuracy", "lr", "samples_per_second"):
            value = getattr(row, name)
            if value is not None:
                self._board.add_scalar(name, value, row.epoch)
        for layer, (tau, rate) in enumerate(zip(row.tau, row.firing_rate, strict=True)):
            self._board.add_scalar(f"tau/{layer}", tau, row.epoch)
            self._board.add_scalar(f"firing_rate/{layer}", rate, row.epoch)
        self._board.flush()

    def save(self, name: Literal["last", "best"], state: dict[str, Any]) -> None:
        """Replaces a checkpoint."""
        import torch

        with paths.written_beside(self.run.checkpoint(name)) as temporary:
            whole = io.BytesIO()  # torch's own writing of files has no good word for a full disk
            torch.save({**state, "spec": self.spec.model_dump_json(), "cache": self._cache}, whole)
            temporary.write_bytes(whole.getbuffer())

    def load_best(self) -> dict[str, Any]:
        """Returns the best checkpoint."""
        return load_checkpoint(self.run.checkpoint("best"))

    def stop_signal(self) -> int | None:
        """Returns the signal that was received, if one was."""
        return self.signum

    def finish(self, outcome: Outcome, resolved: Resolved, data: RunData, environment: dict[str, Any]) -> ResultRecord:
        """Writes the record, last of all."""
        spec = resolved.spec
        record = ResultRecord(
            schema_version=1,
            run=self.run.name,
            experiment=spec.name,
            recipe=spec.recipe,
            protocol=self.run.config().protocol,
            dataset=spec.dataset.name,
            T=spec.T,
            seed=spec.train.seed,
            epochs=len(outcome.history),
            digest=spec.digest,
            overrides=resolved.overrides,
            data=data,
            accuracy=outcome.accuracy,
            best_epoch=outcome.best_epoch,
            validation_accuracy=outcome.validation_accuracy,
            test_accuracy=tuple(row.test_accuracy for row in outcome.history),
            tau=tuple(tuple(row.tau) for row in outcome.history),
            environment=environment,
            finished=_now(),
        )
        self._note(status="finished", exit_code=0)
        paths.write_text(self.run.path / "result.json", record.model_dump_json(indent=1) + "\n")
        return record

    def _note(self, **changes: Any) -> None:
        paths.write_json(self.run.path / "run.json", {**self.run.info(), "updated": _now(), **changes})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, executing nothing.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", hint="plifctl ls runs lists the runs there are")
    try:
        with paths.machine_errors(path):
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        ExperimentSpec.model_validate_json(state["spec"])
        str(state["cache"]), dict(state["model"])
    except PlifctlError:
        raise
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise CheckpointError(f"{path}: damaged, or no checkpoint of plifctl: {_first_line(error)}") from error
    return state


def _read_record(path: Path) -> ResultRecord:
    try:
        return ResultRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise RunError(f"{path}: not a result record: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
