"""Writes a training to its run directory: metrics, checkpoints, status and result."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import filelock

from plifctl import files
from plifctl.config.choices import CheckpointName
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.errors import Interrupted, PlifctlError, ResumeError
from plifctl.runs import folders
from plifctl.runs.checkpoints import load_checkpoint, save_checkpoint
from plifctl.runs.directory import Run, require_utf8, write_config
from plifctl.runs.documents import save_document
from plifctl.runs.manifest import write_manifest
from plifctl.runs.metrics import MetricsFile
from plifctl.runs.predictions import FILE_NAME, Predictions
from plifctl.runs.progress_file import (
    EVERY_SECONDS,
    ProgressTracker,
    StepProgress,
    heartbeat,
    write_progress,
)
from plifctl.runs.records import ResultRecord, RunData, fold_of, record_text
from plifctl.runs.sessions import append_entry, describe_change, entry, sessions_of
from plifctl.training.progress import EpochRow, Outcome, Recorder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger(__name__)


class RunRecorder(Recorder):
    """Writes a training to its run directory.

    Everything happens within :meth:`live`; :meth:`begin` comes first, :meth:`finish` last.

    Args:
        run: The run.
        spec: The experiment; every checkpoint contains it and the cache's content digest, so that it can be evaluated
            on its own.
    """

    def __init__(self, run: Run, spec: ExperimentSpec) -> None:
        self.run, self.spec = run, spec
        self._metrics = MetricsFile(run.path)
        self._cache = run.content_digest
        self.last_step: StepProgress | None = None
        self._tracker, self._progress_written = ProgressTracker(), 0.0
        self._board: SummaryWriter | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Locks the run while the block runs, and writes its outcome to ``run.json``.

        Raises:
            ResumeError: Another process is training it.
            UsageError: TensorBoard cannot write to its folder.
        """
        require_utf8(self.run.path)
        lock = self.run.lock()
        try:
            lock.acquire(timeout=2)  # a process that reads the status holds the lock for a moment
        except filelock.Timeout:
            raise ResumeError(f"{self.run.path}: another process is training this run") from None
        for stale in folders.temporary_files(self.run.path):
            stale.unlink(missing_ok=True)  # left by a killed process, since this one holds the lock
        try:
            with heartbeat(self.run.path / "progress.json"):
                yield
        except BaseException as error:
            if not self.run.is_finished():  # by an earlier training, which this one did not begin to make longer
                self._update_info(**_describe_end(error))
            raise
        finally:
            try:
                self._close_board()
            finally:  # TensorBoard raises again what its thread could not write
                lock.release()

    def begin(
        self, resolved: Experiment, epochs_done: int, step: int = 0, environment: Mapping[str, Any] | None = None
    ) -> None:
        """Marks the run as running, from its start or resumed, and records the process as a session of its training.

        The result of a finished run that is made longer stays until :meth:`finish` replaces it.

        Args:
            resolved: The experiment, possibly with more epochs than before.
            epochs_done: Epochs in the checkpoint; later rows of ``metrics.jsonl`` are removed.
            step: Batches of the next epoch in the checkpoint.
            environment: Versions and machine of this process.

        Raises:
            RunError: ``metrics.jsonl`` is damaged, or has fewer epochs.
        """
        self._metrics.truncate(epochs_done)  # first: it may refuse
        entries = self._session_entries(epochs_done, step, environment or {})
        write_config(self.run.path, resolved, self.run.config().protocol)
        # after the configuration, by which a run that is made longer is not finished
        (self.run.path / "manifest.json").unlink(missing_ok=True)
        process = {"pid": os.getpid(), "host": socket.gethostname(), "started": _now(), "argv": sys.argv}
        self._update_info(status="running", exit_code=None, error=None, **process, sessions=entries)

    def _session_entries(self, epochs_done: int, step: int, environment: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the sessions of the run with that of this process; warns of other versions and settings."""
        begun = self.run.session_entries() if epochs_done or step else []
        entries = append_entry(begun, entry(epochs_done + 1, step, socket.gethostname(), environment))
        known = sessions_of(entries, epochs_done + 1)
        if len(known) > 1 and (change := describe_change(known[-2], known[-1])):
            _log.warning(
                "%s: resumed in epoch %d under other conditions: %s; the record names both",
                self.run.name,
                epochs_done + 1,
                change,
            )
        return entries

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """Writes the progress for other processes, at most once a second."""
        self.last_step = self._tracker.update(epoch, step, steps, loss, part)
        if time.monotonic() - self._progress_written >= EVERY_SECONDS:
            self._progress_written = time.monotonic()
            write_progress(self.run.path / "progress.json", self.last_step)

    def on_epoch(self, row: EpochRow) -> None:
        """Appends a row to ``metrics.jsonl``, and writes the same to TensorBoard's events."""
        self._metrics.append(asdict(row))
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.run.path), purge_step=row.epoch)
        for name, value in _scalars(row).items():
            if value is not None:
                self._board.add_scalar(name, value, row.epoch)
        for layer, found in row.w_over_tau.items():
            _add_histogram(self._board, f"w_over_tau/{layer}", found, row.epoch)
        self._board.flush()

    def save(self, name: CheckpointName, state: dict[str, Any]) -> None:
        """Replaces a checkpoint."""
        context = {"spec": self.spec.model_dump_json(), "cache": self._cache}
        save_checkpoint(self.run.checkpoint(name), {**state, **context})

    def load_best(self) -> dict[str, Any]:
        """Returns the best checkpoint."""
        return load_checkpoint(self.run.checkpoint("best"))

    def finish(
        self,
        outcome: Outcome,
        resolved: Experiment,
        data: RunData,
        environment: dict[str, Any],
        predictions: Predictions | None = None,
    ) -> ResultRecord:
        """Writes predictions, the manifest of all files, then the record, which replaces a shorter one.

        Args:
            outcome: The completed training.
            resolved: The experiment.
            data: Numbers of samples.
            environment: Versions and machine of this process.
            predictions: Those of the reported epoch; None: unknown.
        """
        self._save_predictions(predictions, outcome)
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
            stopped_early=outcome.stopped_early,
            digest=spec.digest,
            overrides=resolved.overrides,
            data=data,
            accuracy=outcome.accuracy,
            best_epoch=outcome.best_epoch,
            validation_accuracy=outcome.validation_accuracy,
            test_accuracy=tuple(row.test_accuracy for row in outcome.history),
            validation_curve=_unless_unknown(row.validation_accuracy for row in outcome.history),
            cpu_seconds=_unless_unknown(row.cpu_seconds for row in outcome.history),
            tau=tuple(tuple(row.tau) for row in outcome.history),
            fold=fold_of(spec),
            started_from=self.run.started_from(),
            environment=environment,
            sessions=sessions_of(self.run.session_entries(), len(outcome.history)),
            finished=_now(),
        )
        self._update_info(status="finished", exit_code=0)
        self._close_board()  # the manifest needs its final content
        text = record_text(record)
        write_manifest(self.run.path, {"result.json": text.encode("utf-8")})
        files.write_text(self.run.path / "result.json", text)
        return record

    def _save_predictions(self, predictions: Predictions | None, outcome: Outcome) -> None:
        path = self.run.path / FILE_NAME
        if predictions is None:
            path.unlink(missing_ok=True)  # those of a shorter training
            return
        found = (predictions.epoch, predictions.accuracy)
        reported = (outcome.best_epoch, outcome.accuracy)
        if found != reported:
            raise AssertionError(f"predictions of epoch and accuracy {found}, but the run reports {reported}")
        predictions.save(path)

    def _close_board(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None

    def _update_info(self, **changes: Any) -> None:
        save_document(self.run.path / "run.json", {**self.run.info(), "updated": _now(), **changes})


def _describe_end(error: BaseException) -> dict[str, Any]:
    """Returns what ``run.json`` says of a training that an error or a signal ended."""
    if isinstance(error, KeyboardInterrupt):  # in a notebook; the command line has a handler
        return {"status": "stopped", "exit_code": 128 + signal.SIGINT, "error": "stopped by Ctrl-C"}
    code = error.exit_code if isinstance(error, PlifctlError | Interrupted) else PlifctlError.exit_code
    status = "stopped" if isinstance(error, Interrupted) else "failed"
    return {"status": status, "exit_code": code, "error": str(error) or type(error).__name__}


def _scalars(row: EpochRow) -> dict[str, float | None]:
    """Scalars for TensorBoard: those of the epoch, and those of each layer by its name."""
    names = ("loss", "train_accuracy", "validation_accuracy", "test_accuracy", "lr")
    costs = ("seconds", "cpu_seconds", "samples_per_second", "peak_rss_bytes", "peak_gpu_bytes")
    found = {name: getattr(row, name) for name in (*names, *costs)}
    for name, values in (("tau", row.tau), ("a", row.a), ("firing_rate", row.firing_rate)):
        found |= {f"{name}/{layer}": value for layer, value in zip(row.layers, values, strict=True)}
    for layer, (least, *_, most) in row.tau_quantiles.items():
        found |= {f"tau_min/{layer}": least, f"tau_max/{layer}": most}
    return found | {f"gradient_norm/{layer}": norm for layer, norm in row.gradient_norm.items()}


def _add_histogram(board: SummaryWriter, name: str, found: dict[str, Any], step: int) -> None:
    """Adds a histogram from a distribution of :func:`plifctl.training.layer_metrics.distribution`."""
    from plifctl.training.layer_metrics import EDGES

    least, most = found["quantiles"][0], found["quantiles"][-1]
    n = sum(found["counts"])
    board.add_histogram_raw(
        name,
        min=least,
        max=most,
        num=n,
        sum=n * found["mean"],
        sum_squares=n * (found["std"] ** 2 + found["mean"] ** 2),
        bucket_limits=[*EDGES, max(most, 2 * EDGES[-1])],  # right edges
        bucket_counts=found["counts"],
        global_step=step,
    )


def _unless_unknown(values: Iterable[float | None]) -> tuple[float | None, ...]:
    """Returns the values of the epochs; none if no epoch has one."""
    found = tuple(values)
    return found if any(value is not None for value in found) else ()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
