"""Looking after runs without the command line."""

import logging
import os
import shutil
from pathlib import Path

import pytest
from factories import make_run

from plifctl.errors import DamagedFileError, UsageError
from plifctl.pipeline import run_files
from plifctl.pipeline import runs as pipeline
from plifctl.pipeline.compare_runs import compare_runs
from plifctl.pipeline.external_runs import import_logs
from plifctl.pipeline.run_files import find_removable, remove_folders, verify_runs
from plifctl.pipeline.run_name import check_run_name
from plifctl.pipeline.runs import describe_run, list_entries
from plifctl.runs import RunRecorder, directory, external_folders, list_runs

pytestmark = pytest.mark.usefixtures("places")
LOG = "run-FashionMNIST_init_tau_2.0_use_plif_True_use_max_pool_True_T_8_detach_reset_True-tag-test_accuracy.csv"


def logs(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("Wall time,Step,Value\n1,0,0.5\n2,1,0.9\n")
    return folder


def test_list_entries_has_imported_runs_then_ours_and_names_damaged_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, finished = [make_run(tmp_path / "runs") for _ in range(2)]
    import_logs(logs(tmp_path / "logs", LOG))
    (damaged.path / "run.json").write_text("{}")
    (damaged.path / "result.json").unlink()
    with caplog.at_level(logging.WARNING, logger="plifctl"):
        entries = list_entries()
    assert [entry.status for entry in entries] == ["imported", "damaged", "finished"]
    assert entries[0].run == "imported-fashion-mnist-plif"
    assert "run.json: damaged" in caplog.text
    assert [entry.run for entry in list_entries(status="finished")] == [finished.name]
    with pytest.raises(UsageError, match="unknown experiment 'demoo'"):
        list_entries(experiment="demoo")


def test_list_entries_leaves_out_runs_that_are_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept, removed = make_run(tmp_path / "runs"), make_run(tmp_path / "runs", name="removed")
    import_logs(logs(tmp_path / "logs", LOG))
    (broken := tmp_path / "runs" / "broken").mkdir()
    (broken / "run.json").write_text("{}")
    listed, external, others = list_runs(removed.path.parent), external_folders(kept.path.parent), [broken]
    for path in (removed.path, *external, broken):
        shutil.rmtree(path)
    monkeypatch.setattr(pipeline, "list_runs", lambda folder: listed)
    monkeypatch.setattr(pipeline, "external_folders", lambda folder: external)
    monkeypatch.setattr(pipeline, "candidates", lambda folder: others)
    assert [entry.run for entry in list_entries()] == [kept.name]
    assert caplog.messages == []


def test_find_removable_of_several_names_lists_the_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [make_run(tmp_path / "runs", name=name).name for name in ("first", "second", "third")]
    calls = []
    for module in (run_files, directory):
        monkeypatch.setattr(module, "list_runs", lambda folder: calls.append(folder) or list_runs(folder))
    assert [path.name for path in find_removable([name[:4] for name in names])] == names
    assert len(calls) == 1


def test_describe_run_has_the_settings_that_differ_from_the_registry(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "train.lr=0.5", finished=False)
    tree = describe_run(run)
    assert {change["key"]: change["run"] for change in tree["changes"]} == {"train.lr": 0.5, "train.epochs": 3}
    assert tree["resume"] == f"plifctl train --resume {run.name}"
    assert (tree["epoch"], tree["best"]["epoch"], tree["accuracy"]) == (3, 3, None)


def test_compare_runs_has_differences_and_epochs(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "runs"), make_run(tmp_path / "runs", "train.lr=0.5", epochs=2)
    tree = compare_runs([first.name, second.name])
    assert tree["settings"]["train.lr"] == [0.003, 0.5]
    assert [row["accuracy"] for row in tree["epochs"]] == [
        [0.25, pytest.approx(1 / 3)],
        [0.5, pytest.approx(2 / 3)],
        [0.75, None],
    ]
    with pytest.raises(UsageError, match="expected two or more"):
        compare_runs([first.name, first.name])


def test_compare_runs_of_other_folders_by_path_has_their_settings(tmp_path: Path) -> None:
    first = make_run(tmp_path / "one", name="a")
    second = make_run(tmp_path / "two", "train.lr=0.5", name="a")
    tree = compare_runs([str(first.path), str(second.path)])
    assert tree["runs"] == [str(first.path), str(second.path)]
    assert tree["settings"]["train.lr"] == [0.003, 0.5]


def test_compare_runs_of_one_run_by_id_and_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="expected two or more"):
        compare_runs([run.name, f"runs/{run.name}"], tmp_path / "runs")


def test_verify_runs_yields_the_problems_of_each(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "runs"), make_run(tmp_path / "runs")
    unfinished = make_run(tmp_path / "runs", finished=False)
    damaged = make_run(tmp_path / "runs", finished=False)
    (damaged.path / "run.json").write_text("{")
    (second.path / "env.json").write_text("{}")
    found = dict(verify_runs())
    assert "run.json" in found.pop(damaged.name)[0]
    assert found[first.name] == []
    assert found[second.name][0].startswith("env.json: 2 bytes")
    assert unfinished.name not in found
    with pytest.raises(UsageError, match="only finished runs"):
        list(verify_runs([unfinished.name]))


def test_remove_folders_removes_runs_and_imported_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    import_logs(logs(tmp_path / "logs", LOG))
    sizes = find_removable([run.name, "imported-fashion-mnist-plif", run.name])
    assert [path.name for path in sizes] == ["imported-fashion-mnist-plif", run.name]
    assert all(size > 0 for size in sizes.values())
    assert list(remove_folders(sizes)) == list(sizes)
    assert list((tmp_path / "runs").iterdir()) == []


def test_find_removable_with_a_running_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", finished=False)
    with RunRecorder(run, run.config().spec).live(), pytest.raises(UsageError, match="being trained"):
        find_removable([run.name])


@pytest.mark.parametrize("name", ["a/b", "a\\b", ".a", "a\n", "", " "])
def test_import_logs_with_an_invalid_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a valid folder name"):
        import_logs(logs(tmp_path / "logs", LOG), name=name)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "problem"), [("-x", "read as an option"), (101 * "é", "a name of 202 bytes")])
def test_name_of_a_run_that_would_fail_later_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_run_name(name)
    check_run_name(100 * "é")


@pytest.mark.parametrize("name", ["last", "zoo:demo", "x.pt"])
def test_import_logs_with_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}': as the name of a run it means"):
        import_logs(logs(tmp_path / "logs", LOG), name=name)


def test_import_logs_dry_run_saves_nothing(tmp_path: Path) -> None:
    (run,) = import_logs(logs(tmp_path / "logs", LOG), name="mine", dry_run=True).runs
    assert (run.name, run.accuracies) == ("mine", {1: 0.5, 2: 0.9})
    assert not (tmp_path / "runs").exists()


def test_import_logs_with_logs_that_cannot_be_read_imports_the_others(tmp_path: Path) -> None:
    folder = logs(tmp_path / "logs", LOG, "run-a-tag-test_acc.csv", "run-b-tag-lr.csv")
    (folder / "run-c-tag-test_acc.csv").write_text("Wall time,Step,Value\n1,0,x\n")
    os.mkfifo(folder / "run-d-tag-test_acc.csv")
    (folder / "board").mkdir()
    os.mkfifo(folder / "board/events.out.tfevents.1")
    found = import_logs(folder)
    assert sorted(run.name for run in found.runs) == ["imported-a", "imported-fashion-mnist-plif"]
    assert sorted(str(error).removeprefix(f"{folder}/")[:30] for error in found.errors) == [
        "b: none of its scalars has a k",
        "board/events.out.tfevents.1: n",
        "run-c-tag-test_acc.csv:2: coul",
        "run-d-tag-test_acc.csv: not a ",
    ]


def test_import_logs_without_a_readable_log_is_refused(tmp_path: Path) -> None:
    folder = logs(tmp_path / "logs")
    (folder / "run-c-tag-test_acc.csv").write_text("Wall time,Step,Value\n1,0,x\n")
    with pytest.raises(DamagedFileError, match=r"run-c-tag-test_acc\.csv:2"):
        import_logs(folder)


def test_import_logs_again_names_the_run_that_it_replaces(tmp_path: Path) -> None:
    folder, runs = logs(tmp_path / "logs", LOG), tmp_path / "runs"
    (run,) = import_logs(folder).runs
    (runs / run.name).rename(runs / "authors-fashion-mnist-plif")  # as earlier versions named it
    assert [found.name for found in import_logs(folder).runs] == ["authors-fashion-mnist-plif"]
