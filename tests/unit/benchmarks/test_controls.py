"""The table of controls: a row for each, mean and range over the networks."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import controls


def test_table_of_controls_has_mean_and_range_of_all_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(network: str, *, operations: int, layer_times: float, **control: Any) -> SimpleNamespace:
        assert (operations, layer_times) == (0, 0)
        return SimpleNamespace(accuracy={"a": 1.0, "b": 0.75}[network] - 0.5 * ("time" in control))

    monkeypatch.setattr(controls.plifctl, "evaluate", evaluate)
    monkeypatch.setattr(sys, "argv", ["controls", "a", "b"])
    controls.main()
    rows = capsys.readouterr().out.splitlines()
    assert rows[2] == "| unchanged | 87.50 (75.00 to 100.00) |"
    assert rows[3] == "| `--time shuffled` | 37.50 (25.00 to 50.00) |"
    assert len(rows) == 3 + len(controls.CONTROLS)
    monkeypatch.setattr(sys, "argv", ["controls", "b"])
    controls.main()
    assert capsys.readouterr().out.splitlines()[2] == "| unchanged | 75.00 |"
