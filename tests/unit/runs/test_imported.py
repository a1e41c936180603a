"""Imported runs: reading logs, the experiments they belong to, saving them among the runs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from plifctl.config.lookup import load_registry
from plifctl.errors import DamagedFileError, MissingRawDataError, RunError, UsageError
from plifctl.paths import registry_dirs
from plifctl.runs import (
    ImportedRun,
    authors_records,
    find_curves,
    find_logs,
    import_log,
    load_curves,
    load_imported,
    load_records,
    save_imported,
)

EXPERIMENTS = load_registry().experiments()
EVENTS = (
    "CIFAR10DVS_init_tau_2.0_use_plif_True_use_max_pool_True_T_20_c_128_n_{}_split_by_{}_normalization_{}"
    "_detach_reset_True"
)
FASHION = "FashionMNIST_init_tau_{}_use_plif_{}_use_max_pool_{}_T_8_detach_reset_True"


def export(path: Path, *points: tuple[float, object, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["Wall time,Step,Value", *(f"{time},{step},{value}" for time, step, value in points)]
    path.write_text("\n".join(lines) + "\n")


def imported(folder: Path, **tags: str) -> list[ImportedRun]:
    known = authors_records(registry_dirs())
    return [import_log(log, folder, tags=tags, experiments=EXPERIMENTS, authors=known) for log in find_logs(folder)]


def board(folder: Path, **scalars: list[float]) -> None:
    with SummaryWriter(str(folder)) as writer:
        for tag, values in scalars.items():
            for epoch, value in enumerate(values):
                writer.add_scalar(tag.replace("__", "/"), value, epoch)


class TestExports:
    def test_import_log_with_an_authors_name_finds_the_experiment(self, tmp_path: Path) -> None:
        kinds = {
            "plif": ("2.0", True, True),
            "plif-tau16": ("16.0", True, True),
            "lif": ("2.0", False, True),
            "lif-tau16": ("16.0", False, True),
            "plif-avgpool": ("2.0", True, False),
        }
        for number, names in enumerate(kinds.values()):
            path = tmp_path / f"run-{FASHION.format(*names)}-tag-test_accuracy.csv"
            export(path, (1.0, 0, 0.5), (2.0, 1, 0.5 + number / 100))
        runs = {run.settings["experiment"]: run for run in imported(tmp_path)}
        assert set(runs) == {f"fashion-mnist-{kind}" for kind in kinds}
        record = runs["fashion-mnist-plif-avgpool"].record()
        assert record is not None
        assert (record.origin, record.recipe, record.protocol, record.T) == ("imported", "authors", "A", 8)
        assert (record.accuracy, record.best_epoch, record.epochs) == (0.54, 2, 2)

    @pytest.mark.parametrize(
        "name",
        [
            FASHION.format("4.0", True, True),
            FASHION.format("2.0", True, True).replace("T_8", "T_16"),
            FASHION.format("2.0", True, True).replace("reset_True", "reset_False"),
            FASHION.format("2.0.1", True, True),
            f"val_0.2_{FASHION.format('2.0', True, True)}",
            f"{FASHION.format('2.0', True, True)}_lr_0.1",
            EVENTS.format(4, "time", "None"),
            EVENTS.format(3, "number", "None"),
            EVENTS.format(4, "number", "max"),
        ],
    )
    def test_import_log_with_other_settings_has_no_experiment(self, name: str, tmp_path: Path) -> None:
        export(tmp_path / f"run-{name}-tag-test_accuracy.csv", (1.0, 0, 0.5), (2.0, 1, 0.6))
        (run,) = imported(tmp_path)
        assert run.settings.get("experiment") is None
        assert run.record() is None

    def test_import_log_of_the_authors_other_runs_keeps_their_names_apart(self, tmp_path: Path) -> None:
        for setting in ((4, "number", "None"), (4, "time", "None"), (3, "number", "None"), (5, "number", "None")):
            export(tmp_path / f"run-{EVENTS.format(*setting)}-tag-test_accuracy.csv", (1.0, 0, 0.5))
        runs = imported(tmp_path)
        assert len({run.name for run in runs}) == 4
        assert [run.name for run in runs if run.record()] == ["imported-cifar10dvs-plif"]

    def test_find_logs_with_two_exports_of_one_name_accepts_copies_only(self, tmp_path: Path) -> None:
        name = f"run-{FASHION.format('2.0', True, True)}-tag-test_accuracy.csv"
        for folder in ("a", "b"):
            export(tmp_path / folder / name, (1.0, 0, 0.5))
        assert len(imported(tmp_path)) == 1  # a copy
        export(tmp_path / "b" / name, (1.0, 0, 0.75))
        with pytest.raises(DamagedFileError, match="differs from"):
            imported(tmp_path)

    def test_find_logs_accepts_byte_order_mark_and_empty_lines(self, tmp_path: Path) -> None:
        path = tmp_path / f"run-{FASHION.format('2.0', True, True)}-tag-test_accuracy.csv"
        path.write_bytes(b"\xef\xbb\xbfWall time,Step,Value\r\n1,0,0.5\r\n\r\n")
        assert imported(tmp_path)[0].epochs["test_accuracy"] == {1: 0.5}

    def test_import_log_with_accuracy_by_training_step_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / f"run-{FASHION.format('2.0', True, True)}-tag-test_accuracy.csv"
        export(path, (1.0, 0, 0.5), (2.0, 10**9, 0.6))
        with pytest.raises(DamagedFileError, match="at step 1000000000, expected epochs"):
            imported(tmp_path)

    def test_import_log_with_w_out_of_range_is_refused(self, tmp_path: Path) -> None:
        name = f"run-{FASHION.format('2.0', True, True)}-tag-"
        export(tmp_path / f"{name}test_accuracy.csv", (1.0, 0, 0.5))
        export(tmp_path / f"{name}w0.csv", (1.0, 10, -800.0))
        with pytest.raises(DamagedFileError, match="w0 is -800"):
            imported(tmp_path)

    def test_import_log_with_repeated_and_missing_epochs_places_each_value(self, tmp_path: Path) -> None:
        name = FASHION.format("2.0", True, True)
        points = [(1.0, 0, 0.1), (2.0, 1, 0.2), (3.0, 2, 0.3), (4.0, 1, 0.25), (5.0, 2, 0.35), (8.0, 5, 0.6)]
        export(tmp_path / f"run-{name}-tag-test_accuracy.csv", *points)
        # τ is written once an epoch by training step, after the test; 2 and 3 were trained twice, 4 and 5 not logged
        times = [1.1, 2.1, 3.1, 4.1, 5.1, 6.1, 7.1, 8.1]
        export(tmp_path / "w" / f"run-{name}-tag-w0.csv", *((time, 10 * n, n) for n, time in enumerate(times, 1)))
        (run,) = imported(tmp_path)
        assert run.epochs["test_accuracy"] == {1: 0.1, 2: 0.25, 3: 0.35, 6: 0.6}
        written = {1: 1, 2: 4, 3: 5, 4: 6, 5: 7, 6: 8}
        assert run.epochs["tau/sn0"] == {epoch: 1 + math.exp(-w) for epoch, w in written.items()}
        record = run.record()
        assert record is not None
        assert record.test_accuracy == (0.1, 0.25, 0.35, None, None, 0.6)
        assert record.tau[3] == (1 + math.exp(-6),)

    def test_import_log_whose_accuracy_lacks_the_first_epoch_counts_as_its_other_series(self, tmp_path: Path) -> None:
        name = f"run-{FASHION.format('2.0', True, True)}-tag-"
        export(tmp_path / f"{name}test_accuracy.csv", (1.1, 1, 0.2), (2.1, 2, 0.3))
        export(tmp_path / f"{name}train_accuracy.csv", (0.0, 0, 0.4), (1.0, 1, 0.5), (2.0, 2, 0.6))
        (run,) = imported(tmp_path)
        assert run.epochs == {"test_accuracy": {2: 0.2, 3: 0.3}, "train_accuracy": {1: 0.4, 2: 0.5, 3: 0.6}}

    def test_import_log_with_a_loss_before_training_counts_accuracies_from_1(self, tmp_path: Path) -> None:
        name = f"run-{FASHION.format('2.0', True, True)}-tag-"
        export(tmp_path / f"{name}test_accuracy.csv", (1.0, 1, 0.2), (2.0, 2, 0.3))
        export(tmp_path / f"{name}train_loss.csv", (0.0, 0, 0.4), (1.0, 1, 0.3), (2.0, 2, 0.2))
        (run,) = imported(tmp_path)
        assert run.epochs["test_accuracy"] == {1: 0.2, 2: 0.3}

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            ("", 0),
            ("a,b,c\n", 1),
            ("Wall time,Step,Value\n", 1),
            ("Wall time,Step,Value\n1,2\n", 2),
            ("Wall time,Step,Value\n1,0,0.5\n1,1,x\n", 3),
            ("Wall time,Step,Value\n1,-1,0.5\n", 2),
            ("Wall time,Step,Value\n1,0.5,0.5\n", 2),
            ("Wall time,Step,Value\n1,1,nan\n", 2),
            ("Wall time,Step,Value\n1e300,1,0.5\n", 2),
        ],
    )
    def test_find_logs_with_a_damaged_export_names_the_line(self, content: str, line: int, tmp_path: Path) -> None:
        path = tmp_path / f"run-{FASHION.format('2.0', True, True)}-tag-test_accuracy.csv"
        path.write_text(content)
        with pytest.raises(DamagedFileError) as error:
            find_logs(tmp_path)
        assert str(error.value).startswith(f"{path}:{line}:")

    def test_find_logs_without_logs_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.csv").write_text("a,b\n")
        with pytest.raises(MissingRawDataError, match="neither in TensorBoard event files nor in exports"):
            find_logs(tmp_path)
        with pytest.raises(MissingRawDataError, match="no such folder"):
            find_logs(tmp_path / "nowhere")


class TestTensorBoard:
    def test_import_log_finds_series_by_their_usual_tags(self, tmp_path: Path) -> None:
        board(
            tmp_path / "mine", train_acc=[50.0, 60.0], test_acc=[40.0, 55.0], train_loss=[0.3, 0.2], tau__sn0=[2.0, 2.5]
        )
        (run,) = imported(tmp_path)
        assert (run.name, run.record()) == ("imported-mine", None)
        assert run.percent == ("test_accuracy", "train_accuracy")
        assert run.epochs["test_accuracy"] == pytest.approx({1: 0.4, 2: 0.55})
        assert run.epochs["loss"] == pytest.approx({1: 0.3, 2: 0.2})
        assert run.epochs["tau/sn0"] == {1: 2.0, 2: 2.5}

    def test_import_log_with_fractions_and_percentages_gives_fractions(self, tmp_path: Path) -> None:
        board(tmp_path / "mine", train_accuracy=[0.5, 1.0000001], Accuracy__test=[40.0, 55.0])
        (run,) = imported(tmp_path)
        assert run.epochs["train_accuracy"] == {1: 0.5, 2: 1.0}
        assert run.epochs["test_accuracy"] == pytest.approx({1: 0.4, 2: 0.55})

    def test_import_log_with_a_scalar_epoch_maps_training_steps(self, tmp_path: Path) -> None:
        with SummaryWriter(str(tmp_path / "version_0")) as writer:
            for epoch in range(3):
                for tag, value in (("val_acc", 0.5 + epoch / 10), ("epoch", epoch)):
                    writer.add_scalar(tag, value, 100 * epoch + 99)
        (run,) = imported(tmp_path)
        assert run.epochs["validation_accuracy"] == pytest.approx({1: 0.5, 2: 0.6, 3: 0.7})

    def test_import_log_with_a_named_tag_uses_it(self, tmp_path: Path) -> None:
        board(tmp_path / "mine", top1=[0.4, 0.5])
        with pytest.raises(UsageError, match="top1"):
            imported(tmp_path)
        (run,) = imported(tmp_path, test_accuracy="top1")
        assert run.epochs["test_accuracy"] == pytest.approx({1: 0.4, 2: 0.5})
        with pytest.raises(UsageError, match="no scalar 'top5'"):
            imported(tmp_path, test_accuracy="top5")
        with pytest.raises(UsageError, match="no series 'accuracy'"):
            imported(tmp_path, accuracy="top1")

    def test_import_log_with_accuracies_out_of_range_is_refused(self, tmp_path: Path) -> None:
        board(tmp_path / "mine", test_acc=[0.4, 512.0])
        with pytest.raises(DamagedFileError, match=r"accuracies from 0\.4 to 512"):
            imported(tmp_path)

    def test_import_log_with_huge_steps_is_refused_without_allocating(self, tmp_path: Path) -> None:
        export(tmp_path / "run-a-tag-test_acc.csv", (1.0, 0, 0.5), (2.0, 10**12, 0.6))
        with pytest.raises(DamagedFileError, match="at step 1000000000000, expected epochs"):
            imported(tmp_path)

    def test_record_of_a_validated_run_is_chosen_as_in_the_authors_code(self, tmp_path: Path) -> None:
        folder = tmp_path / f"val_0.15_{FASHION.format('2.0', True, True)}"
        board(folder, val_accuracy=[0.5, 0.75, 0.75, 0.5], test_accuracy=[0.9, 0.25, 0.5, 0.9])
        (run,) = imported(tmp_path)
        record = run.record()
        assert record is not None
        assert (record.protocol, record.accuracy, record.best_epoch, record.validation_accuracy) == ("B", 0.5, 3, 0.75)

    def test_find_logs_with_foreign_bytes_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "events.out.tfevents.1.host").write_bytes(b"no such thing" * 100)
        with pytest.raises(DamagedFileError, match=r"event 1 is damaged"):
            find_logs(tmp_path)

    def test_find_logs_with_a_damaged_event_is_refused_unless_it_is_the_incomplete_last(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        board(tmp_path / "mine", test_acc=[0.4, 0.5, 0.6])
        (path,) = (tmp_path / "mine").iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:-5])  # as a killed training leaves it
        assert imported(tmp_path)[0].epochs["test_accuracy"] == pytest.approx({1: 0.4, 2: 0.5})
        assert "incomplete event 4 at the end" in caplog.text
        path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        with pytest.raises(DamagedFileError, match="is damaged"):
            imported(tmp_path)


class TestSaving:
    def test_save_imported_again_replaces_the_same_logs(self, tmp_path: Path) -> None:
        board(tmp_path / "logs" / "mine", test_acc=[0.4, 0.5])
        (run,) = imported(tmp_path / "logs")
        for _ in range(2):
            path = save_imported(run, tmp_path / "runs")
            assert load_imported(path) == run
            assert [p.name for p in (tmp_path / "runs").iterdir()] == ["imported-mine"]
        (curve,) = (c for c in load_curves(tmp_path / "runs", []) if c.origin == "imported")
        assert curve.series == {"test_accuracy": pytest.approx((0.4, 0.5))}
        assert find_curves(["imported-mine"], tmp_path / "runs", registry_dirs()) == [curve]

    @pytest.mark.parametrize(("logs", "folders"), [("a", ["published-x"]), ("b", ["authors-x", "published-x"])])
    def test_save_imported_keeps_the_name_that_0_1_0_gave_to_the_same_logs(
        self, tmp_path: Path, logs: str, folders: list[str]
    ) -> None:
        for folder, value in (("a", 0.4), ("b", 0.5)):
            board(tmp_path / folder / "logs", test_acc=[value])
        save_imported(replace(imported(tmp_path / "a")[0], name="published-x"), tmp_path / "runs")
        save_imported(replace(imported(tmp_path / logs)[0], name="authors-x"), tmp_path / "runs")
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == folders

    def test_save_imported_of_other_logs_with_the_same_name_is_refused(self, tmp_path: Path) -> None:
        for folder, value in (("a", 0.4), ("b", 0.5)):
            board(tmp_path / folder / "logs", test_acc=[value])
        save_imported(imported(tmp_path / "a")[0], tmp_path / "runs")
        with pytest.raises(UsageError, match="from other logs"):
            save_imported(imported(tmp_path / "b")[0], tmp_path / "runs")
        (tmp_path / "a").rename(tmp_path / "moved")
        save_imported(imported(tmp_path / "moved")[0], tmp_path / "runs")

    def test_save_imported_over_another_folder_is_refused(self, tmp_path: Path) -> None:
        board(tmp_path / "logs" / "mine", test_acc=[0.4, 0.5])
        (run,) = imported(tmp_path / "logs")
        (tmp_path / "runs" / run.name).mkdir(parents=True)
        (tmp_path / "runs" / run.name / "precious").write_text("x")
        with pytest.raises(UsageError, match="not an imported run"):
            save_imported(run, tmp_path / "runs")
        assert (tmp_path / "runs" / run.name / "precious").exists()

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"seal": "0"}'])
    def test_load_imported_when_damaged_is_refused(self, content: str, tmp_path: Path) -> None:
        board(tmp_path / "logs" / "mine", test_acc=[0.4, 0.5])
        (run,) = imported(tmp_path / "logs")
        path = save_imported(run, tmp_path / "runs")
        (path / "imported.json").write_text(content)
        with pytest.raises(RunError, match=r"imported\.json: damaged"):
            load_imported(path)
        assert load_curves(tmp_path / "runs", []) == []

    def test_load_curves_warns_of_a_damaged_import(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        board(tmp_path / "logs" / "mine", test_acc=[0.4, 0.5])
        (run,) = imported(tmp_path / "logs")
        path = save_imported(run, tmp_path / "runs") / "imported.json"
        path.write_bytes(path.read_bytes().replace(b"0.4", b"0.3"))
        assert load_curves(tmp_path / "runs", []) == []
        assert [message for message in caplog.messages if message.startswith(f"skipped: {path}: damaged")]


@pytest.mark.slow
@pytest.mark.real
def test_import_log_of_the_authors_logs_gives_the_reported_numbers(shared: Path, tmp_path: Path) -> None:
    """All 30 accuracies A and both B; τ at the end as Fig. 7 has it."""
    folder = shared / "data/published-logs"
    runs = imported(folder)
    assert len(runs) == 32
    registry = load_registry()
    for run in runs:
        record = run.record()
        assert record is not None
        save_imported(run, tmp_path)
        printed = registry.experiment(record.experiment).spec.reported
        assert printed is not None
        wanted = printed.accuracy_a if record.protocol == "A" else printed.accuracy_b
        assert f"{100 * record.accuracy:.2f}" == f"{wanted:.2f}", run.name
    assert sum(record.origin == "imported" for record in load_records(tmp_path, [])) == 32
    curves = {curve.name: curve for curve in load_curves(tmp_path, [])}
    assert curves["authors-cifar10-plif"].tau[6][-1] == pytest.approx(55.00, abs=0.005)
    assert curves["authors-cifar10-plif-tau16"].tau[6][-1] == pytest.approx(55.43, abs=0.005)
    assert curves["authors-cifar10dvs-plif"].tau[4][-1] == pytest.approx(9.54, abs=0.005)
