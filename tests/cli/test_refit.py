"""Protocol C: training on all samples but the test samples, and one test after the last epoch."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plifctl
from plifctl.runs import Run

Plifctl = Callable[..., Any]
OVERRIDES = ("train.batch_size=11", "T=4", "neuron.v_threshold=0.03")
FIRING = tuple(part for text in OVERRIDES for part in ("--set", text))


def test_refit_tests_the_last_epoch_once_and_its_run_is_like_any_other(prepared: Plifctl, places: Path) -> None:
    result = prepared("refit", "demo", *FIRING, "--epochs", 2, "--name", "c")
    assert (result.code, "test %" in result.err.splitlines()[-1]) == (0, False)
    run = Run(places / "runs/c")
    record, rows = run.record(), run.metrics()
    assert (
        "accuracy C, test accuracy of the last epoch, trained on all but the test samples: "
        f"{100 * record.accuracy:.2f} % (epoch 2 of 2)" in result.out
    )
    assert [row["validation_accuracy"] for row in rows] == [None, None]
    assert [row["test_accuracy"] for row in rows] == [None, record.accuracy]
    assert all(any(row["firing_rate"]) for row in rows)
    assert (record.protocol, record.best_epoch, record.validation_accuracy) == ("C", 2, None)
    assert record.data is not None
    assert (record.data.train, record.data.validation) == (len(run.split()["train"]), 0)
    found = json.loads(prepared("eval", "c", "--json").out)
    assert found["accuracy"] == record.accuracy
    assert found["kept_predictions"]["equal"] == record.data.test
    assert "tested, once (protocol C)" in _card(prepared, places)


def _card(prepared: Plifctl, places: Path) -> str:
    assert prepared("export", "c", places / "folder").code == 0
    return (places / "folder/README.md").read_text()


def test_refit_that_was_tested_is_not_trained_longer(prepared: Plifctl, places: Path) -> None:
    assert prepared("refit", "demo", *FIRING, "--epochs", 1, "--name", "c").code == 0
    longer = prepared("refit", "--resume", "c", "--epochs", 2)
    assert longer.code == 3
    assert "epoch 1 has been tested, and protocol C tests once" in longer.err
    again = prepared("refit", "--resume", "c")
    assert (again.code, "c is finished; it was tested, once" in again.err) == (0, True)
    assert "resume          finished, and tested once" in prepared("runs", "show", "c").out
    assert "follows protocol C" in prepared("validate", "--resume", "c").err


def test_refit_refuses_to_stop_early_before_anything_is_created(prepared: Plifctl, places: Path) -> None:
    result = prepared("refit", "demo", *FIRING, "--set", "train.early_stop=2")
    assert (result.code, "train.early_stop=2, but protocol C tests the last epoch only" in result.err) == (2, True)
    planned = prepared("sweep", "run", "demo", "--protocol", "C", "--set", "train.early_stop=2", "--name", "s")
    assert (planned.code, "train.early_stop=2, but protocol C" in planned.err) == (2, True)
    assert not list((places / "runs").glob("*/config.yaml"))


def test_experiment_that_stops_early_is_refitted_without_and_its_runs_are_reported(
    prepared: Plifctl, places: Path
) -> None:
    text = "like: demo\ntrain:\n  optimizer: adam\n"
    (places / "mine.yaml").write_text(text)
    remedy = ("--set", "train.early_stop=null", *FIRING, "--epochs", 1)
    assert prepared("refit", places / "mine.yaml", *remedy, "--name", "c").code == 0
    (places / "mine.yaml").write_text(text.replace("train:\n", "train:\n  early_stop: 5\n", 1))
    assert "but protocol C" in prepared("refit", places / "mine.yaml", "--dry-run").err
    assert prepared("refit", places / "mine.yaml", *remedy, "--dry-run").code == 0
    assert prepared("sweep", "run", places / "mine.yaml", "--protocol", "C", *remedy, "--dry-run").code == 0
    table = prepared("report", "--table", "runs", "--include-modified", "--format", "csv")
    assert (table.code, ",C," in table.out) == (0, True)
    assert prepared("runs", "show", "c").code == 0


def test_run_that_is_not_tested_yet_names_its_last_checkpoint(prepared: Plifctl, places: Path) -> None:
    def stop(row: dict[str, Any]) -> bool:
        return False

    run = plifctl.refit("demo", overrides=OVERRIDES, epochs=2, name="c", on_epoch=stop)
    assert run.status() == "stopped"
    result = prepared("eval", "c")
    assert result.code != 0
    assert "no best checkpoint yet; the first one is written after the last epoch: that of the latest is " in result.err
    early = prepared("eval", "c", "--checkpoint", "last")
    assert (early.code, "protocol C tests it once, afterwards" in early.err) == (0, True)
    assert "last.pt (epoch 1)" in early.out
    assert prepared("refit", "--resume", "c").code == 0
    assert "tests it once" not in prepared("eval", "c", "--checkpoint", "last").err


def test_unfinished_run_that_is_tested_after_every_epoch_may_be_tested(prepared: Plifctl) -> None:
    overrides = (*OVERRIDES, "validation.test=every-epoch")
    plifctl.validate("demo", overrides=overrides, epochs=2, name="b", on_epoch=lambda row: False)
    result = prepared("eval", "b")
    assert (result.code, "tests it once" in result.err) == (0, False)


def test_sweep_of_protocol_c_is_reported_beside_the_others(prepared: Plifctl, places: Path) -> None:
    swept = prepared("sweep", "run", "demo", "--protocol", "A,C", *FIRING, "--epochs", 1, "--name", "both")
    assert swept.code == 0
    names = sorted(path.parent.name for path in (places / "runs").glob("*/config.yaml"))
    assert ["-C-" in name for name in names] == [True, False]
    rows = prepared("report", "--table", "runs", "--include-modified", "--format", "csv").out
    assert {",C," in line for line in rows.splitlines()[1:]} == {True, False}
    listed = prepared("runs").out.splitlines()
    assert [line.split()[2] for line in listed[1:]] in (["A", "C"], ["C", "A"])


def test_column_of_a_table_of_ones_own_may_be_accuracy_c(
    prepared: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared("refit", "demo", "--set", "T=4", "--epochs", 1, "--name", "c").code == 0
    folder = places / "own/tables"
    folder.mkdir(parents=True)
    (folder / "table-mine.yaml").write_text(
        "caption: mine\nsource: mine\nours: columns\ncolumns: {Data set: , best: accuracy A, refitted: accuracy C}\n"
        'rows: {gestures: {cells: ["", ""], of: demo}}\n'
    )
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
    text = prepared("report", "--table", "mine", "--include-modified", "--format", "csv").out
    (row,) = [one for one in csv.DictReader(text.splitlines()) if one["result"]]
    assert (row["column"], row["protocol"]) == ("refitted", "C")
    assert row["measure"] == "test accuracy of the last epoch, trained on all but the test samples"
    assert float(row["result"]) == pytest.approx(100 * Run(places / "runs/c").record().accuracy, abs=0.005)
