"""Live panel of a training for train, validate and watch, and the plain line of an epoch.

rich draws the panel as wide as the terminal; columns that do not fit are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from plifctl.cli import console
from plifctl.cli.sparkline import sparkline
from plifctl.config.choices import Protocol
from plifctl.config.training import TrainSpec
from plifctl.runs import StepProgress, best_row
from plifctl.runs.metrics import layers_of
from plifctl.units import format_duration

_ACCURACIES = (("train", "train_accuracy"), ("val", "validation_accuracy"), ("test", "test_accuracy"))


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Returns an epoch as one line, for output without a terminal."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['loss']:.4f}"]
    parts += [f"{name} {100 * row[key]:.2f} %" for name, key in _ACCURACIES if row[key] is not None]
    parts.append("τ " + " ".join(f"{tau:.2f}" for tau in row["tau"]))
    parts.append("firing rate " + " ".join(f"{rate:.3f}" for rate in row["firing_rate"]))
    parts.append(f"{row['seconds']:.1f} s")
    return "  ".join(parts)


class Panel:
    """Live panel of a training; a renderable of rich.

    Args:
        title: Title of the experiment.
        run: Id of the run.
        train: Its training.
        rows: Rows of ``metrics.jsonl`` so far.
        protocol: Protocol of the run; C has no best epoch.

    Attributes:
        progress: Current step; None between epochs.
    """

    def __init__(
        self, title: str, run: str, train: TrainSpec, rows: Sequence[dict[str, Any]], protocol: Protocol = "A"
    ) -> None:
        self.title, self.run, self.train, self.protocol = title, run, train, protocol
        self.rows = list(rows)
        self.progress: StepProgress | None = None

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or screen.size.height
        parts: list[RenderableType] = [_line(f"{self.title}  {self.run}", "bold"), *self._now(width)]
        if self.rows:
            layers = self._layers(width, most=max(3, height - 10))
            room = height - len(parts) - layers.row_count - 6  # headings, blank lines, best, and the line of the shell
            parts += ["", layers, "", self._epochs(max(1, min(5, room)))]
            parts += [_line(f"best: {self._best()}", "bold")] if self.protocol != "C" else []
        yield Group(*parts)

    def _now(self, width: int) -> list[RenderableType]:
        progress = self.progress
        if progress is None:
            return [_line(f"{len(self.rows)} of {self.train.epochs} epochs done")]
        head = f"epoch {progress.epoch}/{self.train.epochs} {progress.part}"
        tail = f"{progress.step:,}/{progress.steps:,}"
        bar = ProgressBar(
            total=progress.steps, completed=progress.step, width=max(4, min(60, width - len(head + tail) - 2))
        )
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(_line(head), bar, _line(tail))
        loss = f"loss {progress.loss:.4f}, " if progress.loss is not None else ""
        left = ", ".join(f"{what} {format_duration(round(seconds))}" for what, seconds in self._left(progress).items())
        speed = f"{progress.rate * self.train.batch_size:,.1f} samples/s"
        return [line, _line(f"{loss}{speed}{', left: ' if left else ''}{left}")]

    def _left(self, progress: StepProgress) -> dict[str, float]:
        """Returns the seconds left of epoch and run, by earlier epochs, or in the first one by the speed of steps."""
        if progress.rate <= 0:
            return {}
        part = (progress.steps - progress.step) / progress.rate
        known = sorted(row["seconds"] for row in self.rows[-5:])
        epoch_seconds = known[len(known) // 2] if known else progress.elapsed + part
        epoch = max(part, epoch_seconds - progress.elapsed)
        return {"epoch": epoch, "run": epoch + (self.train.epochs - progress.epoch) * epoch_seconds}

    def _layers(self, width: int, most: int) -> Table:
        last, before = self.rows[-1], self.rows[-2] if len(self.rows) > 1 else None
        names = layers_of(last)
        longest = max(len("layer"), *map(len, names))
        # τ 7, Δτ 7, rate 6, two norms of 7, two blanks between two
        wide = width >= longest + 46 + 8
        history = max(4, min(24, width - longest - (46 if wide else 37)))
        norms = _feeding_norms(last.get("gradient_norm", {}))
        head = "τ over epochs" if history >= len("τ over epochs") else "τ so far"
        table = _table(("layer", "τ", "Δτ", head, "rate", "‖∇W‖"), text_columns=(0, 3))
        if wide:
            table.add_column("‖∇a‖", justify="right", no_wrap=True)
        for index, name in enumerate(names[:most]):
            taus = [row["tau"][index] for row in self.rows]
            change = f"{taus[-1] - taus[-2]:+.3f}" if before is not None else ""
            weights, own = norms.get(name, (None, None))
            cells = [name, f"{taus[-1]:.3f}", change, sparkline(taus, history), f"{last['firing_rate'][index]:.4f}"]
            cells += [_short(weights), _short(own)] if wide else [_short(weights)]
            table.add_row(*cells)
        if len(names) > most:
            table.add_row(f"… {len(names) - most} more")
        return table

    def _epochs(self, most: int) -> Table:
        shown = self.rows[-most:]
        accuracies = [(name, key) for name, key in _ACCURACIES if any(row[key] is not None for row in shown)]
        table = _table(("epoch", "loss", *(f"{name} %" for name, _ in accuracies), "samples/s", "s"), text_columns=())
        for row in shown:
            cells = [console.percent(row[key]) for _, key in accuracies]
            speeds = (f"{row['samples_per_second']:,.1f}", f"{row['seconds']:,.1f}")
            table.add_row(str(row["epoch"]), f"{row['loss']:.4f}", *cells, *speeds)
        return table

    def _best(self) -> str:
        best = best_row(self.rows, self.train.ties)
        if best is None:
            return "none yet"
        known = [f"{name} {console.percent(best[key])} %" for name, key in _ACCURACIES[1:] if best[key] is not None]
        return f"{', '.join(known)}, epoch {best['epoch']}"


def _feeding_norms(norms: dict[str, float | None]) -> dict[str, tuple[float | None, float | None]]:
    """Returns the gradient norms of each spiking layer: of the weights before it, and of its own parameters."""
    found: dict[str, tuple[float | None, float | None]] = {}
    weights: float | None = None
    for name, norm in norms.items():  # in the network's order
        kind = name.rstrip("0123456789")
        if kind == "sn":
            found[name] = weights, norm
        elif kind != "bn":
            weights = norm
    return found


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(columns: Sequence[str], *, text_columns: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in text_columns else "right", no_wrap=True)
    return table


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
