"""The runs that tables lack."""

from pathlib import Path

import pytest

from plifctl.config.lookup import load_experiment
from plifctl.errors import UsageError
from plifctl.evaluation.step_cost import step_cost
from plifctl.pipeline.missing import find_missing
from plifctl.report import TableOptions


@pytest.fixture(autouse=True)
def speed(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr("plifctl.training.step_times.products_per_second", lambda: 1e9)
    return 1e9


def test_missing_names_each_run_once_with_all_cells_that_it_fills(places: Path, speed: float) -> None:
    found = {(run.experiment, run.protocol): run for run in find_missing(["4", "5", "S2"], places / "runs")}
    run = found["gesture-plif", "A"]
    assert run.command == "plifctl train gesture-plif"
    assert run.cells == (
        "Table 4: PLIF (τ₀ = 2), DVS128 Gesture",
        "Table 5: max, DVS128 Gesture",
        "Table S2: DVS128 Gesture, without validation",
    )
    assert found["gesture-plif", "B"].command == "plifctl validate gesture-plif"
    assert len([key for key in found if key[0] == "gesture-lif"]) == 1
    assert find_missing(["4"], Path("my runs"))[0].command.endswith(" --runs-dir 'my runs'")

    spec = load_experiment("gesture-plif").spec
    assert spec.dataset.samples is not None
    steps = 1024 * (spec.dataset.samples.train // spec.train.batch_size)  # drop_last
    assert run.seconds == pytest.approx(steps * 2 * step_cost(spec).macs / speed)
    validated = found["gesture-plif", "B"]
    assert run.seconds is not None
    assert validated.seconds is not None
    assert validated.seconds < run.seconds


def test_missing_of_a_source_that_fills_a_cell_leaves_it_out(places: Path) -> None:
    runs = places / "runs"
    mine = {run.experiment for run in find_missing(["4"], runs)}
    shipped = {run.experiment for run in find_missing(["4"], runs, TableOptions("shipped"))}
    assert mine - shipped == {name for name in mine if name.startswith("fashion-mnist-")}


def test_missing_of_tables_that_need_no_run_is_refused(places: Path) -> None:
    with pytest.raises(UsageError, match="no cell of table 1, table fast, table runs waits for a certain run"):
        find_missing(["1", "fast", "runs"], places / "runs")
    assert find_missing(["1", "4"], places / "runs") == find_missing(["4"], places / "runs")
