"""report --statement: the reproducibility statement on finished runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from factories import make_run

from plifctl.runs.records import Fold, record_text

Plifctl = Callable[..., Any]


def test_statement_lists_results_data_machines_and_deviations(plifctl: Plifctl, places: Path) -> None:
    run = make_run(places / "runs", epochs=3)
    changed = make_run(places / "runs", "train.lr=0.5", epochs=12)
    result = plifctl("report", "--statement")
    assert result.code == 0, result.err
    record, hours = run.record(), sum(row["seconds"] for row in run.metrics()) / 3600
    assert f"| demo | paper | A | 8 | 3 | {record.seed} | {100 * record.accuracy:.2f} | {hours:.2f} |" in result.out
    assert record.data is not None
    assert f"`{record.data.cache[:16]}`" in result.out
    assert f"- `{run.name}`: 3 of 12 epochs" in result.out
    assert f"- `{changed.name}`: changed: train.lr=0.5" in result.out
    assert "maximum over test epochs" in result.out

    one = plifctl("report", "--statement", "--run", changed.name, "--json")
    text = json.loads(one.out)["markdown"]
    assert (run.name in text, changed.name in text) == (False, True)


def test_statement_of_a_fold_of_ones_own_experiment_has_no_changes(plifctl: Plifctl, places: Path) -> None:
    run = make_run(places / "runs", epochs=3)
    fold = Fold(number=1, folds=5, series="s" * 64)
    overrides = ("split.method=folds", "split.folds=5", "split.fold=1")
    own = run.record().model_copy(update={"experiment": "hands", "overrides": overrides, "fold": fold})
    (run.path / "result.json").write_text(record_text(own))
    text = plifctl("report", "--statement").out
    assert f"- `{run.name}`: the experiment is not in the registry" in text
    assert "changed: " not in text


def test_statement_without_finished_runs_is_an_error(plifctl: Plifctl, places: Path) -> None:
    assert plifctl("report", "--statement").code == 2
    run = make_run(places / "runs", finished=False)
    result = plifctl("report", "--statement", "--run", run.name)
    assert (result.code, "no result to state" in result.err) == (2, True)
    assert plifctl("report", "--statement", "--table", "4").code == 2
