"""The authors' runs in the registry: the same numbers as an import of their logs gives, and no run twice."""

import shutil
from pathlib import Path

import pytest

from plifctl.config.lookup import load_registry
from plifctl.errors import RunError
from plifctl.paths import registry_dirs
from plifctl.runs import ImportedRun, find_curves, find_logs, import_log, load_curves, load_records, save_imported
from plifctl.runs.authors import load_authors
from plifctl.runs.curves import curve_of_imported
from plifctl.runs.records import check_records, record_text


def authors() -> dict[str, ImportedRun]:
    return {run.name: run for run in load_authors(registry_dirs())}


def imported_names(runs_dir: Path) -> list[str]:
    return [record.run for record in load_records(runs_dir, registry_dirs()) if record.origin == "imported"]


@pytest.mark.long
@pytest.mark.real
def test_load_authors_equals_an_import_of_the_logs_epoch_by_epoch(shared: Path) -> None:
    folder, experiments, runs = shared / "data/published-logs", load_registry().experiments(), authors()
    logs = find_logs(folder)
    assert len(logs) == len(runs) == 32
    for log in logs:
        imported = import_log(log, folder, tags={}, experiments=experiments)
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
    curves = {curve.name: curve for curve in load_curves(tmp_path, registry_dirs()) if curve.origin == "imported"}
    assert len(curves) == 32
    validated = curves["authors-gesture-plif-validated"]
    assert (validated.protocol, len(validated.epochs), len(validated.tau)) == ("B", 1024, 7)
    assert None not in validated.series["validation_accuracy"]
    assert find_curves(["authors-mnist-lif"], tmp_path, registry_dirs()) == [curves["authors-mnist-lif"]]


def test_load_curves_prefers_an_import(tmp_path: Path) -> None:
    run = authors()["authors-mnist-lif"]
    save_imported(run, tmp_path)
    found = [curve for curve in load_curves(tmp_path, registry_dirs()) if curve.name == run.name]
    assert found == [curve_of_imported(run)]
    assert len(imported_names(tmp_path)) == 32


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
