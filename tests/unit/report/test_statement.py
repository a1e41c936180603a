"""The reproducibility statement: deviations of runs, and which findings it names."""

from typing import Any

from plifctl.config.lookup import load_registry
from plifctl.report.statement import StatedRun, statement
from plifctl.runs import ResultRecord, RunData
from plifctl.runs.changes import CHANGED_SINCE
from plifctl.runs.records import Fold
from plifctl.runs.sessions import Session

SPEC = load_registry().experiment("nmnist-plif").spec


def record(**changes: Any) -> ResultRecord:
    values: dict[str, Any] = {
        "schema_version": 1,
        "run": "r",
        "experiment": "nmnist-plif",
        "recipe": "paper",
        "protocol": "A",
        "dataset": "nmnist",
        "T": 10,
        "seed": 1,
        "epochs": SPEC.train.epochs,
        "digest": SPEC.digest,
        "overrides": (),
        "data": RunData(verified=True, complete=True, train=60000, validation=0, test=10000, cache="c" * 64),
        "accuracy": 0.99,
        "best_epoch": 1,
        "validation_accuracy": None,
        "test_accuracy": (0.99,),
        "tau": (),
        "environment": {},
        "finished": "2026-01-01T00:00:00Z",
    }
    return ResultRecord(**(values | changes))


def test_deviations_of_a_whole_run_are_none() -> None:
    run = StatedRun(record(), SPEC, (), (1.0,))
    assert list(run.deviations()) == []
    assert "None: every run has the epochs" in statement([run])


def test_deviations_name_an_experiment_that_changed_or_is_not_in_the_registry() -> None:
    changed = StatedRun(record(), SPEC, (CHANGED_SINCE,), (1.0,))
    assert list(changed.deviations()) == ["the experiment has been changed since"]
    modified = StatedRun(record(), SPEC, ("train.lr=0.1", CHANGED_SINCE), (1.0,))
    assert list(modified.deviations()) == ["changed: train.lr=0.1", *changed.deviations()]
    unknown = StatedRun(record(experiment="mine"), None, (), (1.0,))
    assert list(unknown.deviations()) == ["the experiment is not in the registry"]


def test_deviations_name_fewer_and_more_epochs() -> None:
    planned = SPEC.train.epochs
    for epochs in (planned - 1, planned + 1):
        assert list(StatedRun(record(epochs=epochs), SPEC, (), (1.0,)).deviations()) == [
            f"{epochs} of {planned} epochs"
        ]


def test_hours_are_those_of_the_machine_that_trained_an_epoch() -> None:
    sessions = tuple(
        Session(epochs=epochs, training_version=4, host="h", environment={"device": device})
        for epochs, device in (((1, 2), "cpu"), ((2, 3), "cuda"))
    )
    run = record(epochs=3, test_accuracy=(0.9, 0.9, 0.99), sessions=sessions, environment={"device": "cuda"})
    lines = statement([StatedRun(run, SPEC, (), (1.0, 2.0, 4.0))]).splitlines()
    hours = {cells[4].strip(): cells[7].strip() for line in lines if len(cells := line.split("|")) == 9}
    assert (hours["cpu"], hours["cuda"]) == ("1.00", "6.00")  # the second epoch ended on the GPU


def test_findings_are_those_of_the_data_sets_of_the_runs() -> None:
    text = statement([StatedRun(record(), SPEC, (), (1.0,))])
    assert ("N-MNIST: PLIF is not above LIF" in text, "DVS128 Gesture" in text) == (True, False)
    assert "Findings" not in statement([StatedRun(record(dataset="mine"), SPEC, (), (1.0,))])


def test_cells_keep_any_text_in_their_column() -> None:
    text = statement([StatedRun(record(run="a\\\x1b[31m|b\n", epochs=1), SPEC, (), (1.0,))])
    assert "\x1b" not in text
    assert r"| `a\\�[31m\|b�` |" in text


def test_results_have_a_column_of_folds_if_a_run_has_one() -> None:
    whole = StatedRun(record(), SPEC, (), (1.0,))
    fold = StatedRun(record(fold=Fold(number=2, folds=5, series="s" * 64)), SPEC, (), (1.0,))
    assert "fold" not in statement([whole])
    text = statement([whole, fold])
    assert "| seed | fold | accuracy, % |" in text
    assert "| 1 | fold 2 of 5 | 99.00 |" in text


def test_data_of_one_cache_are_stated_apart_where_only_some_were_verified() -> None:
    data = record().data
    assert data is not None
    runs = [StatedRun(record(data=data.model_copy(update={"verified": v})), SPEC, (), (1.0,)) for v in (False, True)]
    kinds = [line.split("|")[-2].strip() for line in statement(runs).splitlines() if "| complete |" in line]
    assert kinds == ["not verified", "verified"]
