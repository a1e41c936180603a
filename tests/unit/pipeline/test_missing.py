"""The runs that tables lack."""

import json
from pathlib import Path
from typing import Any

import pytest
from factories import made_record

from plifctl.config.lookup import load_experiment
from plifctl.errors import UsageError
from plifctl.evaluation.step_cost import step_cost
from plifctl.pipeline.missing import MissingRun, find_missing
from plifctl.report import TableOptions
from plifctl.runs.records import StartedFrom, record_text
from plifctl.runs.sessions import Session
from plifctl.training.progress import TRAINING_VERSION


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


def save_record(runs: Path, experiment: str, seed: int, **changes: Any) -> None:
    """Saves the result of a run of two epochs of recipe ``authors``, trained by this plifctl."""
    recipe, overrides = changes.pop("recipe", "authors"), changes.get("overrides", ())
    spec = load_experiment(experiment, recipe=recipe, overrides=overrides).spec
    sessions = (Session(epochs=(1, 2), training_version=TRAINING_VERSION, host="h", environment={}),)
    values = {"recipe": recipe, "digest": spec.digest, "run": f"{experiment}-{seed}", "sessions": sessions} | changes
    record = made_record(experiment, (0.8, 0.9), seed, **values)
    (runs / record.run).mkdir(parents=True)
    (runs / record.run / "result.json").write_text(record_text(record), encoding="utf-8")


@pytest.mark.parametrize("table", ["significance", "speed", "claims"])
def test_missing_of_a_pair_trains_with_the_settings_and_seeds_of_the_runs_of_the_other_side(
    places: Path, table: str
) -> None:
    for seed in (1, 2):
        save_record(places / "runs", "fashion-mnist-plif", seed)
    place = "Fashion-MNIST, τ = 2" if table == "claims" else "Fashion-MNIST: PLIF − LIF, τ = 2"

    def missing() -> list[MissingRun]:
        return [run for run in find_missing([table]) if any(place in cell for cell in run.cells)]

    found, start = missing(), "plifctl train fashion-mnist-lif --recipe authors --epochs 2 --seed"
    assert [run.command for run in found] == [f"{start} 1", f"{start} 2"]
    assert [(run.recipe, run.epochs, run.seed) for run in found] == [("authors", 2, 1), ("authors", 2, 2)]
    for seed in (1, 2):  # the runs that the commands give
        save_record(places / "runs", "fashion-mnist-lif", seed)
    assert missing() == []


def test_missing_of_a_pair_of_modified_runs_has_their_changes(places: Path, speed: float) -> None:
    changes = ("train.subset=0.1",)
    save_record(places / "runs", "fashion-mnist-plif", 2020, overrides=changes)
    options = TableOptions(include_modified=True)
    (run,) = [run for run in find_missing(["speed"], options=options) if run.experiment == "fashion-mnist-lif"]
    assert run.command == "plifctl train fashion-mnist-lif --recipe authors --epochs 2 --set train.subset=0.1"
    spec = load_experiment("fashion-mnist-lif", recipe="authors").spec
    assert run.seconds == pytest.approx(2 * spec.train.steps_per_epoch(6000) * 2 * step_cost(spec).macs / speed)


def test_missing_of_a_pair_does_not_pass_on_a_stated_value_that_is_no_change(places: Path) -> None:
    save_record(places / "runs", "fashion-mnist-plif", 2020, overrides=("neuron.tau_0=2",))
    found = [run.command for run in find_missing(["speed"]) if run.experiment == "fashion-mnist-lif"]
    assert found == ["plifctl train fashion-mnist-lif --recipe authors --epochs 2"]


def test_missing_of_a_pair_of_an_experiment_that_was_changed_since_names_no_training(places: Path) -> None:
    save_record(places / "runs", "fashion-mnist-plif", 2020, digest="d" * 64)
    found = find_missing(["speed"], options=TableOptions(include_modified=True))
    assert not [run for run in found if run.experiment == "fashion-mnist-lif"]


def test_missing_of_a_pair_trains_runs_of_an_earlier_training_version_again(places: Path) -> None:
    save_record(places / "runs", "fashion-mnist-plif", 1, sessions=())  # as those of 0.1.0
    experiments = ("fashion-mnist-lif", "fashion-mnist-plif")
    found = [run.command for run in find_missing(["speed"]) if run.experiment in experiments]
    assert found == [f"plifctl train {name} --recipe authors --epochs 2 --seed 1" for name in experiments]


def test_missing_within_some_epochs_names_runs_that_have_no_more_and_fill_the_cells(places: Path) -> None:
    def missing() -> dict[str, str]:
        found = find_missing(["S2"], options=TableOptions(epochs=2))
        return {run.protocol: run.command for run in found if run.experiment == "gesture-plif"}

    save_record(places / "runs", "gesture-plif", 2020, protocol="B", run="longer", epochs=3, recipe="paper")
    assert missing() == {"A": "plifctl train gesture-plif --epochs 2", "B": "plifctl validate gesture-plif --epochs 2"}
    save_record(places / "runs", "gesture-plif", 2020, protocol="B", recipe="paper")
    assert missing() == {"A": "plifctl train gesture-plif --epochs 2"}


def test_missing_of_protocol_c_trains_an_experiment_without_the_early_stop_that_it_refuses(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("tables", "experiments"):
        (places / "own" / folder).mkdir(parents=True)
    tree = load_experiment("gesture-plif", ["train.early_stop=5"]).spec.model_dump(
        mode="json", exclude={"name", "recipe"}, exclude_none=True
    )
    shared = {"dataset": tree.pop("dataset")["name"], "network": tree.pop("network")["name"]}
    (places / "own/experiments/es.yaml").write_text(json.dumps({**shared, "variants": {"es": tree}}), encoding="utf-8")
    text = "caption: c\nsource: s\nours: columns\ncolumns: {a: , b: accuracy C}\nrows: {r: {cells: [''], of: es}}\n"
    (places / "own/tables/table-es.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
    (run,) = find_missing(["es"])
    assert run.command == "plifctl refit es --set train.early_stop=null"
    changes = ("train.early_stop=null",)
    load_experiment("es", overrides=changes).check_protocol("C")
    save_record(places / "runs", "es", 2020, protocol="C", recipe="paper", overrides=changes)
    assert find_missing(["es"]) == []


def test_missing_beside_runs_that_began_with_weights_is_left_out_with_a_line(
    places: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = "a" * 64
    began = StartedFrom(name="before", digest=digest, experiment="demo", epoch=1, accuracy=0.9, taken=("w",), anew=())
    changes = (f"train.weights={digest}",)
    save_record(places / "runs", "fashion-mnist-plif", 2020, overrides=changes, started_from=began)
    found = find_missing(["speed"], options=TableOptions(include_modified=True))
    assert not [run for run in found if "train.weights" in run.command]
    place = "Table speed: Fashion-MNIST: PLIF − LIF, τ = 2, "
    (line,) = [text for text in caplog.messages if place in text]
    assert line.endswith(": the runs beside it began with the weights of before")


def test_missing_runs_of_an_experiment_that_is_not_valid_are_left_out_with_a_line(
    places: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (places / "own/tables").mkdir(parents=True)
    text = "caption: c\nsource: s\nours: columns\ncolumns: {a: , b: accuracy A}\nrows: {r: {cells: [''], of: gone}}\n"
    (places / "own/tables/table-own.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
    assert find_missing(["own"]) == []
    assert "left out: Table own: r, b: unknown experiment 'gone'" in caplog.text
