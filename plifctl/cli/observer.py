"""Shows a training on the terminal, and handles the signals that stop it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from plifctl.cli import console
from plifctl.cli.display import TrainingDisplay, training_display
from plifctl.config.experiment import ExperimentSpec
from plifctl.pipeline.train_options import TrainObserver
from plifctl.runs import Run, StepProgress
from plifctl.training.process import stop_signals


class TerminalObserver(TrainObserver):
    """Shows a training on the terminal; Ctrl-C, SIGTERM and SIGHUP stop it after the current step."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._display: TrainingDisplay | None = None

    def on_rank(self, rank: int) -> None:
        console.mute(rank > 0)  # only the first rank writes messages

    def on_rank_failure(self, *, reported: bool) -> None:
        console.mute(reported)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The first signal asks the training to stop; a second SIGINT stops it at once.

        A second SIGTERM or SIGHUP does not, since programs send several: SLURM, to every process of a job, and torchrun
        again to its ranks; a terminal that is closed, and the shell in it.
        """

        def request_stop(signum: int, frame: object) -> None:
            self._signum = signum
            restore()
            with suppress(RuntimeError):  # the signal came while a message was being written, whose stream is busy
                console.note("stopping after this step; press Ctrl-C again to stop at once")

        def restore() -> None:
            for number, handler in previous.items():
                stopping = self._signum is not None and number != signal.SIGINT
                signal.signal(number, signal.SIG_IGN if stopping else handler)

        previous = {number: signal.getsignal(number) for number in stop_signals()}
        try:
            for number in previous:
                signal.signal(number, request_stop)
            yield
        finally:
            restore()

    @contextmanager
    def display(self, run: Run, spec: ExperimentSpec) -> Iterator[None]:
        with training_display(run, spec, run.metrics()) as self._display:
            yield

    def on_step(self, progress: StepProgress) -> None:
        assert self._display is not None
        self._display.step(progress)

    def on_epoch(self, row: dict[str, Any]) -> None:
        assert self._display is not None
        self._display.epoch(row)

    def stop_signal(self) -> int | None:
        return self._signum
