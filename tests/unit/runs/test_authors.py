"""The authors' runs in the registry: the same numbers as an import of their logs gives, and no run twice."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from plifctl.config.lookup import load_registry
from plifctl.errors import RunError
from plifctl.paths import registry_dirs
from plifctl.runs import (
    ImportedRun,
    authors_records,
    find_curves,
    find_logs,
    import_log,
    load_curves,
    load_records,
    save_imported,
)
from plifctl.runs.authors import load_authors
from plifctl.runs.curves import curve_of_imported
from plifctl.runs.records import check_records, record_text


def authors() -> dict[str, ImportedRun]:
    return {run.name: run for run in load_authors(registry_dirs())}


def imported_names(runs_dir: Path) -> list[str]:
    return [record.run for record in load_records(runs_dir, registry_dirs()) if record.origin == "authors"]


def write_log(folder: Path, run: ImportedRun, change: float = 0.0, newline: str = "\n") -> ImportedRun:
    """Writes the test accuracies of a run as its code does, after the first epoch with a change; returns its import."""
    folder.mkdir(parents=True)
    rows = [(epoch - 1, value + change * (epoch > 1)) for epoch, value in run.epochs["test_accuracy"].items()]
    lines = ["Wall time,Step,Value", *(f"{1 + step},{step},{value!r}" for step, value in rows)]
    name = "run-MNIST_init_tau_2.0_use_plif_False_use_max_pool_True_T_8_detach_reset_True-tag-test_accuracy.csv"
    (folder / name).write_bytes(newline.join([*lines, ""]).encode())
    (log,) = find_logs(folder)
    known = authors_records(registry_dirs())
    return import_log(log, folder, tags={}, experiments=load_registry().experiments(), authors=known)


@pytest.mark.long
@pytest.mark.real
def test_load_authors_equals_an_import_of_the_logs_epoch_by_epoch(shared: Path) -> None:
    folder, experiments, runs = shared / "data/published-logs", load_registry().experiments(), authors()
    known = authors_records(registry_dirs())
    logs = find_logs(folder)
    assert len(logs) == len(runs) == 32
    for log in logs:
        imported = import_log(log, folder, tags={}, experiments=experiments, authors=known)
        run = runs[imported.name]
        assert run.epochs == imported.epochs
        assert run.record() == imported.record()
        assert curve_of_imported(run) == curve_of_imported(imported)
        assert sorted(facts["sha256"] for facts in run.files.values()) == sorted(
            facts["sha256"] for facts in imported.files.values()
        )


def test_load_authors_has_the_reported_maxima_and_the_gaps_of_the_logs() -> None:
    registry, runs = load_registry(), authors()
    records = [record for run in runs.values() if (record := run.record()) is not None]
    assert [record.protocol for record in records].count("A") == 30
    for record in records:
        reported = registry.experiment(record.experiment).spec.reported
        assert reported is not None
        wanted = reported.accuracy_a if record.protocol == "A" else reported.accuracy_b
        assert f"{100 * record.accuracy:.2f}" == f"{wanted:.2f}", record.run
    assert {len(run.logged) for run in runs.values()} == {997, 999, 1000, 1024}
    fashion = runs["authors-fashion-mnist-plif"].epochs["test_accuracy"]
    assert [round(fashion[epoch], 4) for epoch in (1, 2, 3, 4)] == [0.8896, 0.9046, 0.9110, 0.9097]
    assert max(value for epoch, value in fashion.items() if epoch <= 64) == pytest.approx(0.9396)
    assert runs["authors-cifar10-plif"].epochs["tau/sn6"][1024] == pytest.approx(55.00, abs=0.005)


@pytest.mark.parametrize("name", ["authors-gesture-lif", "published-gesture-lif", "gesture-by-another-name"])
def test_load_records_with_an_import_of_the_same_logs_has_the_run_once(tmp_path: Path, name: str) -> None:
    record = authors()["authors-gesture-lif"].record()
    assert record is not None
    (tmp_path / name).mkdir()
    (tmp_path / name / "result.json").write_text(record_text(record.model_copy(update={"run": name})))
    names = imported_names(tmp_path)
    assert len(names) == 32
    assert [found for found in names if "gesture" in found and found.endswith(("-lif", "name"))] == [name]


def test_load_curves_without_imports_has_the_authors_with_validation_and_tau(tmp_path: Path) -> None:
    curves = {curve.name: curve for curve in load_curves(tmp_path, registry_dirs()) if curve.origin == "authors"}
    assert len(curves) == 32
    validated = curves["authors-gesture-plif-validated"]
    assert (validated.protocol, len(validated.epochs), len(validated.tau)) == ("B", 1024, 7)
    assert None not in validated.series["validation_accuracy"]
    assert find_curves(["authors-mnist-lif"], tmp_path, registry_dirs()) == [curves["authors-mnist-lif"]]


def test_load_curves_prefers_an_import(tmp_path: Path) -> None:
    run = authors()["authors-mnist-lif"]
    save_imported(run, tmp_path)
    found = [curve for curve in load_curves(tmp_path, registry_dirs()) if curve.name == run.name]
    assert found == [curve_of_imported(run, "authors")]
    assert find_curves([run.name], tmp_path, registry_dirs()) == found
    assert len(imported_names(tmp_path)) == 32


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["as written", "as git writes on Windows"])
def test_import_log_of_the_authors_is_theirs(tmp_path: Path, newline: str) -> None:
    run = write_log(tmp_path / "logs", authors()["authors-mnist-lif"], newline=newline)
    assert run.name == "authors-mnist-lif"
    (path := save_imported(replace(run, name="under-another-name"), tmp_path / "runs"))
    assert sorted(imported_names(tmp_path / "runs"))[-1] == "under-another-name"
    assert len(imported_names(tmp_path / "runs")) == 32
    for name in ("under-another-name", str(path)):
        assert [curve.origin for curve in find_curves([name], tmp_path / "runs", registry_dirs())] == ["authors"]
    assert [curve.origin for curve in find_curves([str(path)], tmp_path / "no-runs", registry_dirs())] == ["authors"]


@pytest.mark.parametrize("name", [None, "authors-mnist-lif", "published-mnist-lif"])
def test_import_log_of_a_run_of_the_authors_code_by_somebody_else_is_not_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str | None
) -> None:
    """Also of one that an earlier version imported as the authors'."""
    run = write_log(tmp_path / "logs", authors()["authors-mnist-lif"], change=-0.01)
    assert (run.name, run.settings["experiment"]) == ("imported-mnist-lif", "mnist-lif")
    run = replace(run, name=name or run.name)
    save_imported(run, tmp_path / "runs")
    records = load_records(tmp_path / "runs", registry_dirs())
    found = {(r.run, r.origin): r.accuracy for r in records if r.experiment == "mnist-lif" and r.origin != "shipped"}
    assert found.keys() == {("authors-mnist-lif", "authors"), (run.name, "imported")}
    assert found[run.name, "imported"] < found["authors-mnist-lif", "authors"]
    assert len(imported_names(tmp_path / "runs")) == 32
    curves = load_curves(tmp_path / "runs", registry_dirs())
    assert {(c.name, c.origin) for c in curves if c.experiment == "mnist-lif" and c.origin != "shipped"} == found.keys()
    assert [curve.origin for curve in find_curves([run.name], tmp_path / "runs", registry_dirs())] == ["imported"]
    assert ("has the name of a run of the authors" in caplog.text) == (name == "authors-mnist-lif")


@pytest.mark.parametrize("former", ["authors-mnist-lif", "published-mnist-lif"])
def test_import_log_again_keeps_the_name_that_an_earlier_version_gave_it(tmp_path: Path, former: str) -> None:
    run = write_log(tmp_path / "logs", authors()["authors-mnist-lif"], change=-0.01)
    save_imported(replace(run, name=former), tmp_path / "runs")
    assert save_imported(run, tmp_path / "runs").name == former
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [former]
    assert save_imported(replace(run, name="mine"), tmp_path / "runs").name == "mine"  # the user chose another


@pytest.mark.parametrize("file", ["runs.json", "accuracy.csv", "w.csv"])
def test_load_authors_of_a_changed_file_names_it(tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(registry_dirs()[0] / "authors", tmp_path / "authors")
    path = tmp_path / "authors" / file
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.replace("\n", "\r\n").encode())  # as git writes it on Windows
    assert len(load_authors([tmp_path])) == 32
    path.write_text(text.replace("5", "6", 1), encoding="utf-8")
    with pytest.raises(RunError, match=rf"{file}: .*(changed|modified)"):
        load_authors([tmp_path])
    (problem,) = check_records([tmp_path])
    assert file in problem
    assert load_records(tmp_path, [tmp_path]) == []
    assert file in caplog.text
    path.unlink()
    if file != "runs.json":
        with pytest.raises(RunError, match=rf"{file}: cannot be read"):
            load_authors([tmp_path])
