"""Training display: the panel on a terminal, a line for each epoch elsewhere; for train, validate and watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from plifctl.cli import console

if TYPE_CHECKING:
    from plifctl.cli.panel import Panel
    from plifctl.config.experiment import ExperimentSpec
    from plifctl.runs import Run, StepProgress


class TrainingDisplay(Protocol):
    """Shows the steps and epochs of a training."""

    def step(self, progress: StepProgress) -> None:
        """Shows the current step."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Shows a finished epoch, a row of ``metrics.jsonl``."""


class _PanelDisplay:
    def __init__(self, panel: Panel, draw: Callable[[], None]) -> None:
        self._panel, self._draw = panel, draw

    def step(self, progress: StepProgress) -> None:
        self._panel.progress = progress
        self._draw()

    def epoch(self, row: dict[str, Any]) -> None:
        self._panel.rows.append(row)
        if row["epoch"] >= self._panel.train.epochs:
            self._panel.progress = None
        self._draw()


class _LineDisplay:
    def __init__(self, bar: console.Bar, epochs: int, say: Callable[[str], None]) -> None:
        self._bar, self._epochs, self._say = bar, epochs, say

    def step(self, progress: StepProgress) -> None:
        detail = f"loss {progress.loss:.4f}" if progress.loss is not None else ""
        title = f"epoch {progress.epoch}/{self._epochs} {progress.part}"
        self._bar.update(progress.step, progress.steps, title=title, detail=detail)

    def epoch(self, row: dict[str, Any]) -> None:
        from plifctl.cli.panel import epoch_line

        self._say(epoch_line(row, self._epochs))


@contextmanager
def training_display(
    run: Run, spec: ExperimentSpec, rows: Sequence[dict[str, Any]], *, say: Callable[[str], None] = console.note
) -> Iterator[TrainingDisplay]:
    """Yields a display of a training while the block runs.

    Args:
        run: The run.
        spec: Its experiment; its number of epochs is the one planned.
        rows: The epochs so far; without a terminal they are not shown again.
        say: Writes a line where there is no terminal.
    """
    if console.can_draw():
        from plifctl.cli.panel import Panel

        panel = Panel(spec.title, run.name, spec.train, rows, run.config().protocol)
        with console.live(panel) as draw:
            yield _PanelDisplay(panel, draw)
    else:
        with console.bar(spec.title, "batches") as bar:
            yield _LineDisplay(bar, spec.train.epochs, say)
