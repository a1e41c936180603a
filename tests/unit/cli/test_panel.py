"""Live panel: complete at every width, correct at every moment."""

import io
from typing import Any

import pytest
from rich.console import Console

from plifctl.cli.panel import Panel, epoch_line
from plifctl.cli.sparkline import sparkline
from plifctl.config.lookup import load_registry
from plifctl.runs import StepProgress

NAMES = [f"sn{index}" for index in range(8)]
TRAIN = load_registry().experiment("cifar10-plif", overrides=["train.epochs=64"]).spec.train


def row(epoch: int, **changes: Any) -> dict[str, Any]:
    norms = {f"{kind}{index}": 0.5 for index in range(8) for kind in ("conv", "bn", "sn")}
    plain = {"epoch": epoch, "loss": 0.09, "train_accuracy": 0.5, "validation_accuracy": 0.25, "test_accuracy": None}
    plain |= {"tau": [2.0 + epoch / 4] * 8, "firing_rate": [0.125] * 8, "seconds": 100.0, "samples_per_second": 1234.5}
    return {**plain, "layers": NAMES, "gradient_norm": norms, **changes}


def drawn(panel: Panel, width: int, height: int = 30, *, colour: bool = False) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=colour, no_color=not colour)
    console.print(panel)
    return file.getvalue().splitlines()


def panel_of(rows: list[dict[str, Any]], progress: StepProgress | None = None) -> Panel:
    panel = Panel("CIFAR-10, PLIF, τ₀ = 2", "20261125T025445Z-cifar10-plif-6b839d57fc8c-s2020", TRAIN, rows)
    panel.progress = progress
    return panel


PROGRESS = StepProgress(epoch=13, part="train", step=500, steps=3125, loss=0.0876, rate=50.0, elapsed=10.0)


@pytest.mark.parametrize("width", [50, 60, 80, 120])
@pytest.mark.parametrize("epochs", [0, 1, 12, 400])
def test_panel_fits_the_terminal_with_every_layer(width: int, epochs: int) -> None:
    rows = [row(epoch + 1) for epoch in range(epochs)]
    lines = drawn(panel_of(rows, PROGRESS), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 30
    text = "\n".join(lines)
    assert "500/3,125" in text
    assert "loss 0.0876, 800.0 samples/s, left: epoch" in text
    if epochs:
        for name in NAMES:  # each layer in one line
            (line,) = [line for line in lines if line.startswith(name)]
            assert "5.0e-01" in line
            assert ("+0.250" in line) == (epochs > 1)
        assert any(line.split()[:2] == [str(epochs), "0.0900"] for line in lines)
        assert "best: val 25.00 %, epoch 1" in text
        assert ("‖∇a‖" in text) == (width >= 60)


def test_panel_on_a_low_terminal_leaves_layers_out() -> None:
    lines = drawn(panel_of([row(1), row(2)], PROGRESS), 80, 14)
    assert "… 4 more" in "\n".join(lines)
    assert len(lines) <= 14


def test_panel_estimates_the_time_left() -> None:
    panel = panel_of([row(epoch + 1) for epoch in range(12)], PROGRESS)  # an epoch takes 100 s, 10 of them are over
    assert "left: epoch 2 min, run 1 h 26 min" in "\n".join(drawn(panel, 80))  # 90 s, and 51 · 100 s
    first = panel_of([], StepProgress(1, "train", 100, 3125, 0.1, 50.0, 2.0))
    assert "left: epoch 60 s, run 1 h 7 min" in "\n".join(drawn(first, 80))  # 60.5 s, and 63 · 62.5 s
    assert "left" not in "\n".join(drawn(panel_of([], StepProgress(1, "train", 1, 3125, 0.1, 0.0, 0.0)), 80))


def test_panel_with_rows_of_early_runs_numbers_the_layers() -> None:
    old = {key: value for key, value in row(1).items() if key not in ("layers", "gradient_norm")}
    lines = drawn(panel_of([old]), 80)
    assert any(line.startswith("sn7") for line in lines)
    assert lines[1] == "1 of 64 epochs done"


def test_panel_without_colour_has_the_same_text() -> None:
    import re

    panel = panel_of([row(1)], PROGRESS)
    coloured = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in drawn(panel, 80, colour=True)]
    plain = [line.rstrip() for line in drawn(panel, 80)]
    assert [line for line in coloured if "━" not in line] == [line for line in plain if "━" not in line]


def test_epoch_line_has_loss_accuracies_and_layers() -> None:
    text = epoch_line(row(3, tau=[2.0], firing_rate=[0.1]), 64)
    assert text == "epoch 3/64  loss 0.0900  train 50.00 %  val 25.00 %  τ 2.00  firing rate 0.100  100.0 s"


@pytest.mark.parametrize("width", [1, 3, 7, 50])
def test_sparkline_ends_with_the_last_number(width: int) -> None:
    line = sparkline([0.0] * 30 + [1.0], width)
    assert len(line) == min(31, width)
    assert line[-1] == ("█" if width > 1 else "▁")
    assert sparkline([], width) == ""
    assert sparkline([None, float("inf")], width).strip() == ""
