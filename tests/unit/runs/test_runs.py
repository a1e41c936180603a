"""Run directories: status derived from the files, result records, checkpoints, manifest."""

import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_run

import plifctl as package
from plifctl import files, runs
from plifctl.config.lookup import load_registry
from plifctl.errors import CheckpointError, Interrupted, ResumeError, RunError, UsageError
from plifctl.paths import registry_dirs
from plifctl.runs import (
    Run,
    RunAccuracy,
    RunData,
    RunRecorder,
    StepProgress,
    best_row,
    create_run,
    find_any,
    find_curves,
    find_run,
    find_run_folder,
    folders,
    list_runs,
    load_checkpoint,
    load_records,
    remove_run,
    verify_run,
)
from plifctl.runs.documents import load_document, save_document
from plifctl.runs.manifest import write_manifest
from plifctl.runs.metrics import MetricsFile
from plifctl.runs.progress_file import is_beating, write_progress
from plifctl.runs.records import record_text
from plifctl.training.progress import TRAINING_VERSION, EpochRow, Outcome

RESOLVED = load_registry().experiment("demo", overrides=["train.epochs=2"])
LONGER = load_registry().experiment("demo", overrides=["train.epochs=5"])


def make(folder: Path) -> Run:
    parts: dict[str, Any] = {"cache": {"content_digest": "c"}, "split": {"train": ["a"]}, "environment": {"torch": "2"}}
    return create_run(folder, RESOLVED, "A", **parts)


def test_create_run_in_a_folder_that_tensorboard_cannot_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not UTF-8") as error:
        make(tmp_path / "bad\udcff")
    assert "--runs-dir" in error.value.hint
    assert not list(tmp_path.iterdir())
    run = make(tmp_path / "good")
    moved = Run(run.path.rename(tmp_path / "moved\udcff"))
    before = (moved.path / "run.json").read_bytes()
    with pytest.raises(UsageError, match="not UTF-8"), RunRecorder(moved, RESOLVED.spec).live():
        pass
    assert (moved.path / "run.json").read_bytes() == before


def test_create_run_when_read_back_has_its_config(tmp_path: Path) -> None:
    run = make(tmp_path)
    config = run.config()
    assert config.spec == RESOLVED.spec
    assert (config.experiment, config.protocol, config.overrides) == ("demo", "A", ("train.epochs=2",))
    assert run.name.endswith(f"-demo-{RESOLVED.spec.digest[:12]}-s2020")
    assert "origins:" in (run.path / "config.yaml").read_text(encoding="utf-8")


def test_create_run_within_one_second_gives_different_names(tmp_path: Path) -> None:
    assert len({make(tmp_path).name for _ in range(3)}) == 3


def test_status_follows_the_lock_and_the_files(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert run.status() == "killed"  # not locked, and no end was recorded
    recorder = RunRecorder(run, RESOLVED.spec)
    with recorder.live():
        recorder.begin(RESOLVED, 0)
        assert run.status() == "running"
    assert run.status() == "killed"
    with pytest.raises(RunError), recorder.live():
        raise RunError("x")
    assert run.status() == "failed"
    with pytest.raises(ZeroDivisionError), recorder.live():
        raise ZeroDivisionError  # a bug is not a stop
    assert run.status() == "failed"
    with pytest.raises(Interrupted), recorder.live():
        raise Interrupted(2, "x")
    assert run.status() == "stopped"
    with pytest.raises(KeyboardInterrupt), recorder.live():  # in a notebook
        raise KeyboardInterrupt
    assert run.status() == "stopped"
    assert (run.info()["exit_code"], run.info()["error"]) == (130, "stopped by Ctrl-C")
    with recorder.live():  # killed: nothing is left of the end before
        recorder.begin(RESOLVED, 0)
    assert (run.info()["exit_code"], run.info()["error"]) == (None, None)
    (run.path / "result.json").write_text("{}")
    assert run.status() == "finished"


@pytest.mark.long
@pytest.mark.slow
def test_live_of_a_second_process_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path)
    second = RunRecorder(run, RESOLVED.spec).live()
    with RunRecorder(run, RESOLVED.spec).live(), pytest.raises(ResumeError, match="another process"):
        second.__enter__()


def test_begin_removes_rows_after_the_checkpoint(tmp_path: Path) -> None:
    run = make(tmp_path)
    for epoch in (1, 2, 3):
        MetricsFile(run.path).append({"epoch": epoch})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')  # killed here
    recorder = RunRecorder(run, RESOLVED.spec)
    with recorder.live():
        recorder.begin(RESOLVED, 2)
        assert run.metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_metrics_and_info_when_damaged_name_file_and_line(tmp_path: Path) -> None:
    run = make(tmp_path)
    for epoch in (1, 2):
        MetricsFile(run.path).append({"epoch": epoch, "loss": 7})
    first, second = (run.path / "metrics.jsonl").read_bytes().splitlines()
    (run.path / "metrics.jsonl").write_bytes(first + b'\n{"epo\n')
    with pytest.raises(RunError, match=r"metrics.jsonl:2: damaged"):
        run.metrics()
    for line in (b"\xff", b"[]", b"{}", first.replace(b"7", b"8"), b'{"seal": "0"}', b"[" * 100_000):
        (run.path / "metrics.jsonl").write_bytes(line + b"\n" + second + b"\n")
        with pytest.raises(RunError, match=r"metrics.jsonl:1: damaged"):
            run.metrics()
    (run.path / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"run.json: damaged"):
        run.info()


def test_find_run_by_path_id_part_or_last(tmp_path: Path) -> None:
    first, last = make(tmp_path), make(tmp_path)
    assert find_run("last", tmp_path).name == last.name
    assert find_run(str(first.path), tmp_path / "elsewhere").name == first.name
    assert find_run(first.name, tmp_path).name == first.name
    with pytest.raises(UsageError, match="2 runs match"):
        find_run("demo", tmp_path)
    with pytest.raises(UsageError, match="no run 'x'"):
        find_run("x", tmp_path)


def test_find_run_by_a_part_between_hyphens_before_any_other_part(tmp_path: Path) -> None:
    first, last = make(tmp_path), make(tmp_path)
    for run, name in ((first, "demo-s2"), (last, "demo-s20-again")):
        run.path.rename(tmp_path / name)
    assert [find_run(name, tmp_path).name for name in ("s2", "s20", "s20-a")] == ["demo-s2", *["demo-s20-again"] * 2]
    with pytest.raises(UsageError, match="2 runs match 's'"):
        find_run("s", tmp_path)


def write_external(folder: Path, name: str) -> None:
    """Writes an imported run of which no more than its folder is looked at."""
    (folder / name).mkdir()
    (folder / name / "imported.json").write_bytes(folders.EXTERNAL_PREFIX + b'"x"}')


def test_runs_of_any_kind_are_found_by_one_rule(tmp_path: Path) -> None:
    trained = make_run(tmp_path, name="demo-one")
    for name in ("imported-one", "imported-demo", "imported-two"):
        write_external(tmp_path, name)
    found = {part: find_run_folder(part, tmp_path).name for part in ("last", "one", "demo", "two", "imported-one")}
    of_trained = dict.fromkeys(("last", "one", "demo"), trained.name)  # which come before the others
    assert found == {**of_trained, "two": "imported-two", "imported-one": "imported-one"}
    assert find_run_folder(str(tmp_path / "imported-two"), tmp_path / "elsewhere").name == "imported-two"
    assert isinstance(find_any("demo", tmp_path), Run)
    with pytest.raises(UsageError, match="3 runs match 'imported'"):
        find_run_folder("imported", tmp_path)
    with pytest.raises(UsageError, match=r"imported-two: not trained here"):
        find_run("two", tmp_path)
    for name in ("three", "last"):
        with pytest.raises(UsageError, match=f"no run '{name}'"):
            find_any(name, tmp_path / "elsewhere")


@pytest.fixture
def documents_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose run.json was read."""
    read, original = [], files.read_regular

    def read_regular(path: Path, *args: Any) -> bytes:
        if path.name == "run.json":
            read.append(path.parent.name)
        return original(path, *args)

    monkeypatch.setattr(files, "read_regular", read_regular)
    return read


def test_list_runs_reads_each_run_once(tmp_path: Path, documents_read: list[str]) -> None:
    names = [make(tmp_path).name for _ in range(3)]
    documents_read.clear()
    assert sorted(run.name for run in list_runs(tmp_path)) == sorted(documents_read) == sorted(names)


def test_find_run_by_its_id_reads_no_other_run(tmp_path: Path, documents_read: list[str]) -> None:
    first, second = make(tmp_path), make(tmp_path)
    documents_read.clear()
    assert find_run(first.name, tmp_path).path == first.path
    assert find_any(first.name, tmp_path).path == first.path  # type: ignore[union-attr]
    assert second.name not in documents_read


@pytest.mark.parametrize("damaged", [False, True])
def test_list_runs_leaves_out_a_run_that_is_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    first, second = make(tmp_path), make(tmp_path)
    if damaged:
        second = Run(second.path.rename(tmp_path / "renamed"))  # its time is that of a file
        (second.path / "run.json").write_text("{}")
    made, opened = folders.candidates(tmp_path), Run.__init__

    def open_run(self: Run, path: Path) -> None:
        if not damaged:
            shutil.rmtree(second.path, ignore_errors=True)
        opened(self, path)
        shutil.rmtree(second.path, ignore_errors=True)

    monkeypatch.setattr(folders, "candidates", lambda runs_dir: sorted(made, key=lambda path: path != second.path))
    monkeypatch.setattr(Run, "__init__", open_run)
    assert [run.name for run in list_runs(tmp_path)] == [first.name]


def test_load_checkpoint_when_damaged_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path)
    recorder = RunRecorder(run, RESOLVED.spec)
    recorder.save("best", {"model": {"w": torch.ones(2)}})
    assert recorder.load_best()["model"]["w"].tolist() == [1, 1]
    path = run.checkpoint("best")
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"best.pt: damaged"):
            load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such"):
        load_checkpoint(run.checkpoint("last"))


def test_load_checkpoint_executes_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"spec": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "touched").exists()


def test_load_records_skips_damaged_ones_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make(tmp_path)
    (run.path / "result.json").write_text("{")
    with caplog.at_level("WARNING", logger=runs.__name__):
        assert load_records(tmp_path, []) == []
    assert "result.json: damaged" in caplog.text
    with pytest.raises(RunError):
        run.record()


def test_describe_machine_has_version_and_commit() -> None:
    described = runs.describe_machine("cpu", 1, 1)
    assert re.fullmatch(rf"{re.escape(package.__version__)}(\+\w+(-dirty)?)?", described["plifctl"])
    assert {"python", "torch", "numpy", "platform", "processor", "device", "threads"} <= set(described)


class TestManifest:
    def test_manifest_of_a_finished_run_has_all_its_files(self, tmp_path: Path) -> None:
        run = make_run(tmp_path)
        manifest = json.loads((run.path / "manifest.json").read_text())["files"]
        there = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
        assert there - set(manifest) == {"manifest.json", ".lock"}
        assert set(manifest) <= there
        (run.path / "notes.txt").write_text("the user's")
        assert verify_run(run) == []

    @pytest.mark.parametrize(
        "name", ["result.json", "run.json", "metrics.jsonl", "metrics.sha256", "checkpoints/best.pt"]
    )
    def test_verify_run_after_damage_names_the_file(self, tmp_path: Path, name: str) -> None:
        run = make_run(tmp_path)
        path = run.path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1, whole[-1]]))
        assert verify_run(run) == [f"{name}: checksum mismatch: the file was modified"]
        path.write_bytes(whole[:-1])
        assert verify_run(run) == [f"{name}: {len(whole) - 1:,} bytes, expected {len(whole):,}"]
        path.unlink()
        assert verify_run(run) == [f"{name}: missing"]

    @pytest.mark.parametrize("text", ["{", "[]", '{"files": []}', '{"files": {"x": {}}}'])
    def test_verify_run_with_a_damaged_manifest_names_it(self, tmp_path: Path, text: str) -> None:
        run = make_run(tmp_path)
        (run.path / "manifest.json").write_text(text)
        (problem,) = verify_run(run)
        assert problem.startswith("manifest.json: damaged")

    def test_begin_of_a_finished_run_removes_its_manifest(self, tmp_path: Path) -> None:
        run = make_run(tmp_path)
        with RunRecorder(run, LONGER.spec).live():
            RunRecorder(run, LONGER.spec).begin(LONGER, 3)
        assert not (run.path / "manifest.json").exists()
        assert run.status() == "killed"


def test_progress_of_a_running_run_is_its_present_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("plifctl.runs.recorder.time.monotonic", lambda: now)
    run = make(tmp_path)
    assert run.progress() is None
    recorder = RunRecorder(run, RESOLVED.spec)
    with recorder.live():
        recorder.on_step(1, 1, 9, 0.5, "train")
        recorder.on_step(1, 2, 9, 0.4, "train")  # within a second: not written
        beat = run.progress()
        assert beat is not None
        assert (beat.epoch, beat.part, beat.step, beat.steps, beat.loss) == (1, "train", 1, 9, 0.5)
        now += 1
        recorder.on_step(1, 3, 9, 0.3, "train")
        beat = run.progress()
        assert beat is not None
        assert (beat.step, beat.loss) == (3, 0.3)
        recorder.on_step(1, 1, 3, math.nan, "test")
        assert recorder.last_step is not None
        assert (recorder.last_step.loss, recorder.last_step.rate) == (None, 0.0)
        (run.path / "progress.json").write_text("{")
        assert run.progress() is None
    assert not (run.path / "progress.json").exists()


def test_write_progress_without_the_folder_does_not_fail(tmp_path: Path) -> None:
    write_progress(tmp_path / "gone" / "progress.json", StepProgress(1, "train", 1, 1, None, 0.0, 0.0))


@pytest.mark.parametrize(
    ("protocol", "accuracies", "expected"),
    [
        ("A", ((None, 0.5), (None, 0.75), (None, 0.25)), RunAccuracy(0.75, 2, "test")),
        ("B", ((0.9, None), (0.95, None), (0.91, None)), RunAccuracy(0.95, 2, "validation")),
        ("B", ((0.9, 0.7), (0.95, 0.72), (0.91, 0.8)), RunAccuracy(0.95, 2, "validation")),  # tested every epoch
        ("C", ((None, None),) * 3, None),
        ("C", ((None, None), (None, None), (None, 0.8)), RunAccuracy(0.8, 3, "test")),
    ],
)
def test_accuracy_so_far_is_the_best_one_by_which_the_run_chooses_its_epoch(
    tmp_path: Path, protocol: str, accuracies: Any, expected: RunAccuracy | None
) -> None:
    run = make_run(tmp_path, protocol=protocol, finished=False, accuracies=accuracies)
    assert run.accuracy_so_far() == expected


def test_accuracy_so_far_of_a_finished_run_is_its_result(tmp_path: Path) -> None:
    assert make(tmp_path).accuracy_so_far() is None  # before the first epoch
    run = make_run(tmp_path, protocol="B", accuracies=((0.9, 0.7), (0.95, 0.72), (0.91, 0.8)))
    record = run.record()
    assert run.accuracy_so_far() == RunAccuracy(record.accuracy, record.best_epoch, "test")


def test_best_row_prefers_validation_then_the_earliest_or_the_latest() -> None:
    rows = [{"epoch": 1, "test_accuracy": 0.9, "validation_accuracy": 0.1}]
    rows += [{"epoch": number, "test_accuracy": 0.5, "validation_accuracy": 0.2} for number in (2, 3)]
    assert best_row(rows, "earliest") is rows[1]
    assert best_row(rows, "latest") is rows[2]
    tested = [{**row, "validation_accuracy": None} for row in rows]
    assert best_row(tested, "latest") is tested[0]
    assert best_row([], "earliest") is None


def test_remove_run_of_a_running_run_is_refused(tmp_path: Path) -> None:
    run, other = make(tmp_path), make(tmp_path)
    with RunRecorder(run, RESOLVED.spec).live(), pytest.raises(UsageError, match="being trained"):
        remove_run(run)
    assert run.config()
    remove_run(run)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_remove_run_killed_half_way_leaves_a_run_that_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_run(run)
    assert load_records(tmp_path, []) == []
    assert [left.name for left in runs.list_runs(tmp_path)] == [run.name]
    remove_run(find_run(run.name, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_create_run_removes_abandoned_folders_of_plifctl_only(tmp_path: Path) -> None:
    stem = ".20261128T000000Z-demo-x-s{}.abcd_123.partial"
    ours, begun, mixed = (tmp_path / stem.format(seed) for seed in (1, 2, 3))
    mine = tmp_path / ".thesis.chapters.partial"
    for path in (
        ours / "run.json",
        begun / "run.json",
        begun / "checkpoints/start.pt",
        mixed / "checkpoints/notes.txt",
        mine / "one.tex",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    for folder in tmp_path.iterdir():
        os.utime(folder, (0, 0))
    make(tmp_path)
    assert [path.exists() for path in (ours, begun, mixed, mine)] == [False, False, True, True]


def test_live_removes_temporary_files_of_plifctl_only(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / "checkpoints").mkdir()
    ours = [run.path / ".run.json.abcd_123.partial", run.path / "checkpoints/.last.pt.abcd_123.partial"]
    mine = [run.path / ".notes.txt.partial", run.path / ".run.json.mine.partial", run.path / ".thesis.abcd_123.partial"]
    for path in (*ours, *mine):
        path.touch()
    with RunRecorder(run, RESOLVED.spec).live():
        pass
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in mine)


def test_renamed_run_has_one_record_and_one_curve_of_its_new_name(tmp_path: Path) -> None:
    make_run(tmp_path).path.rename(tmp_path / "baseline")
    assert [record.run for record in load_records(tmp_path, [])] == ["baseline"]
    assert [curve.name for curve in runs.load_curves(tmp_path, [])] == ["baseline"]
    assert verify_run(find_run("baseline", tmp_path)) == []


@pytest.mark.parametrize(("finished", "complete"), [(False, False), (False, True), (True, False), (True, None)])
def test_curve_of_a_run_says_whether_its_data_are_complete(
    tmp_path: Path, finished: bool, complete: bool | None
) -> None:
    run = make_run(tmp_path, finished=finished)
    if complete is not None:  # 0.1.0 did not store it: the record of a finished run has it
        info = run.info()
        save_document(run.path / "run.json", {**info, "cache": {**info["cache"], "complete": complete}})
    assert runs.curve_of_run(run).subset == (complete is False)


def test_config_of_another_version_is_one_line_with_the_key(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    tree = load_document(run.path / "config.yaml", ())
    tree["spec"]["train"]["of_tomorrow"] = None
    save_document(run.path / "config.yaml", tree)
    with pytest.raises(
        RunError, match=r"of another version of plifctl: train\.of_tomorrow: Extra inputs are not"
    ) as error:
        Run(run.path).config()
    assert "\n" not in str(error.value)


def test_find_curves_takes_a_part_that_only_one_run_here_has(tmp_path: Path) -> None:
    names = [make_run(tmp_path, name=f"1-{part}-a").name for part in ("mnist-plif", "gesture-plif")]
    found = runs.find_curves(["mnist-plif", "gesture-plif"], tmp_path, registry_dirs())
    assert [curve.name for curve in found] == names
    with pytest.raises(UsageError, match="2 runs match 'plif'"):
        runs.find_curves(["plif"], tmp_path, registry_dirs())


def test_find_curves_takes_records_by_their_whole_name_and_by_parts_that_no_run_here_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, name="like-authors-mnist-lif-1")
    make_run(tmp_path, name="like-authors-mnist-lif-2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gesture-plif-validated").mkdir()  # a folder, not a run
    found = runs.find_curves(["authors-mnist-lif", "gesture-plif-validated"], tmp_path / ".", registry_dirs())
    assert [(curve.name, curve.origin) for curve in found] == [
        ("authors-mnist-lif", "authors"),
        ("authors-gesture-plif-validated", "authors"),
    ]


def test_find_curves_of_a_damaged_run_with_a_result_is_that_of_the_result(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "config.yaml").write_text("{}")
    (curve,) = runs.find_curves([run.name], tmp_path, [])
    assert (curve.name, curve.folder, len(curve.epochs)) == (run.name, None, 3)


def test_find_curves_of_a_damaged_run_is_never_the_shipped_record_of_its_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    registry = tmp_path / "registry"
    (registry / "results").mkdir(parents=True)
    shipped = run.record().model_copy(update={"test_accuracy": (0.1, 0.1, 0.2)})
    (registry / "results/r.json").write_text(record_text(shipped))
    (run.path / "config.yaml").write_text("{}")
    (of_result,) = runs.find_curves([run.name], tmp_path / "runs", [registry])
    assert (of_result.origin, of_result.series["test_accuracy"]) == ("trained", run.record().test_accuracy)
    (run.path / "result.json").write_text("{}")
    with pytest.raises(RunError, match=r"config\.yaml"):
        runs.find_curves([run.name], tmp_path / "runs", [registry])


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "result.json"])
def test_load_curves_warns_once_of_a_damaged_run(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    good, hurt = make_run(tmp_path, name="good"), make_run(tmp_path, name="hurt")
    (hurt.path / name).write_text("{}")
    assert [curve.name for curve in runs.load_curves(tmp_path, []) if curve.folder is not None] == [good.name]
    (warning,) = caplog.messages
    assert warning.startswith(f"skipped: {hurt.path / name}: ")


class TestLongerTraining:
    """A finished run of 3 epochs is made longer, to 5."""

    @pytest.mark.parametrize(
        ("error", "status"), [(None, "killed"), (RunError("x"), "failed"), (Interrupted(15, "x"), "stopped")]
    )
    def test_result_stays_that_of_its_epochs_until_the_longer_one_is_written(
        self, tmp_path: Path, error: BaseException | None, status: str
    ) -> None:
        run = make_run(tmp_path)
        kept = run.record()
        assert (kept.epochs, kept.accuracy) == (3, 0.75)
        assert run.kept_result() is None
        recorder = RunRecorder(run, LONGER.spec)

        def extend() -> None:
            with recorder.live():
                recorder.begin(LONGER, 3)
                assert run.status() == "running"
                MetricsFile(run.path).append({"epoch": 4})
                with (run.path / "metrics.jsonl").open("a") as file:
                    file.write('{"epoch": 5')  # being written
                assert [row["epoch"] for row in run.metrics()] == [1, 2, 3, 4]
                if error is not None:
                    raise error

        if error is None:
            extend()
        else:
            with pytest.raises(type(error)):
                extend()
        assert run.status() == status
        assert run.kept_result() == kept
        assert load_records(tmp_path, []) == [kept]

    def test_finish_replaces_the_result(self, tmp_path: Path) -> None:
        run = make_run(tmp_path)
        recorder = RunRecorder(run, LONGER.spec)
        data = RunData(verified=True, complete=True, train=2, validation=0, test=1, cache="c" * 64)
        with recorder.live():
            recorder.begin(LONGER, 3)
            for epoch in (4, 5):
                MetricsFile(run.path).append({"epoch": epoch})
            rows = [EpochRow(n, 0.1, 0.5, None, n / 10, 1e-3, [2.0], [0.1], 1.0, 9.0) for n in range(1, 6)]
            recorder.finish(Outcome(0.5, None, 5, rows, False), LONGER, data, {"torch": "2"})
        assert run.status() == "finished"
        assert run.kept_result() is None
        assert [(record.epochs, record.accuracy) for record in load_records(tmp_path, [])] == [(5, 0.5)]
        assert verify_run(run) == []

    def test_longer_training_that_fails_before_it_begins_leaves_the_run_as_it_was(self, tmp_path: Path) -> None:
        run = make_run(tmp_path)
        with pytest.raises(RunError, match="no cache"), RunRecorder(run, LONGER.spec).live():
            raise RunError("no cache")
        assert run.status() == "finished"
        assert verify_run(run) == []

    def test_files_of_the_user_are_no_part_of_the_run(self, tmp_path: Path) -> None:
        run = make_run(tmp_path)
        (run.path / "notes.txt").write_text("while it trained")
        write_manifest(run.path, {})
        listed = json.loads((run.path / "manifest.json").read_text())["files"]
        assert {"config.yaml", "run.json", "metrics.jsonl", "result.json", "checkpoints/best.pt"} <= {*listed}
        assert "notes.txt" not in listed

    def test_board_that_fails_again_leaves_no_lock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> None:
            raise OSError(28, "no space left")

        run = make_run(tmp_path, finished=False)
        recorder = RunRecorder(run, LONGER.spec)
        monkeypatch.setattr(recorder, "_close_board", full)
        with pytest.raises(OSError, match="no space left") as held, recorder.live():
            pass
        with RunRecorder(run, LONGER.spec).live():
            assert held.value.errno == 28

    def test_run_killed_before_its_configuration_is_written_is_finished(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run(tmp_path)
        recorder = RunRecorder(run, LONGER.spec)

        def killed(*_: object) -> None:
            raise SystemExit

        monkeypatch.setattr("plifctl.runs.recorder.write_config", killed)
        monkeypatch.setattr(recorder, "_update_info", lambda **_: None)
        with pytest.raises(SystemExit), recorder.live():
            recorder.begin(LONGER, 3)
        assert run.status() == "finished"
        assert verify_run(run) == []


class TestSessions:
    def begin(self, run: Run, epochs_done: int, step: int, **environment: Any) -> None:
        recorder = RunRecorder(run, LONGER.spec)
        with recorder.live():
            recorder.begin(LONGER, epochs_done, step, environment)

    def row(self, run: Run, *epochs: int) -> None:
        for epoch in epochs:
            MetricsFile(run.path).append({"epoch": epoch})

    def test_every_process_that_trained_is_listed_with_its_epochs(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = make(tmp_path)
        self.begin(run, 0, 0, torch="2.5.1", device="cpu", plifctl="a")
        self.row(run, 1, 2)
        self.begin(run, 2, 0, torch="9", device="cpu", plifctl="a")  # killed before it saved anything
        self.begin(run, 2, 0, torch="2.6.0", device="cpu", plifctl="a")  # stopped in epoch 4, after 7 batches
        self.row(run, 3)
        self.begin(run, 3, 7, torch="2.6.0", device="H100", plifctl="b")
        self.row(run, 4, 5)
        found = [(s.epochs, s.environment["torch"], s.environment["device"]) for s in run.sessions()]
        assert found == [((1, 2), "2.5.1", "cpu"), ((3, 4), "2.6.0", "cpu"), ((4, 5), "2.6.0", "H100")]
        assert {s.training_version for s in run.sessions()} == {TRAINING_VERSION}
        assert all(s.host for s in run.sessions())
        warned = [message for message in caplog.messages if "under other conditions" in message]
        assert "resumed in epoch 3 under other conditions: torch 2.5.1, now 2.6.0;" in warned[1]
        assert "epoch 4 under other conditions: device cpu, now H100; plifctl a, now b;" in warned[2]

    def test_resuming_with_another_training_version_is_recorded_and_warned_of(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make(tmp_path)
        self.begin(run, 0, 0)
        self.row(run, 1)
        monkeypatch.setattr("plifctl.runs.sessions.TRAINING_VERSION", 7)
        self.begin(run, 1, 0)
        self.row(run, 2)
        assert [(s.epochs, s.training_version) for s in run.sessions()] == [((1, 1), TRAINING_VERSION), ((2, 2), 7)]
        assert f"training version {TRAINING_VERSION}, now 7" in caplog.text

    def test_run_of_0_1_0_has_the_process_that_created_it(self, tmp_path: Path) -> None:
        run = make(tmp_path)
        self.row(run, 1, 2)  # 0.1.0 wrote no sessions
        assert [(s.epochs, s.training_version, s.environment) for s in run.sessions()] == [((1, 2), 1, {"torch": "2"})]
        self.begin(run, 2, 0, torch="3")
        self.row(run, 3)
        assert [(s.epochs, s.environment["torch"]) for s in run.sessions()] == [((1, 2), "2"), ((3, 3), "3")]

    def test_record_has_the_sessions(self, tmp_path: Path) -> None:
        record = make_run(tmp_path).record()
        assert [session.epochs for session in record.sessions] == [(1, 3)]
        assert record.training_versions == (TRAINING_VERSION,)
        assert record.digest == make_run(tmp_path).record().digest

    @pytest.mark.parametrize(("protocol", "curve"), [("A", ()), ("B", (0.25, 0.5, 0.75))])
    def test_record_has_validation_and_processor_time_of_each_epoch(
        self, protocol: str, curve: tuple[float, ...], tmp_path: Path
    ) -> None:
        record = make_run(tmp_path, protocol=protocol).record()
        assert record.validation_curve == curve
        assert record.cpu_seconds == (2.0, 4.0, 6.0)


def test_heartbeat_of_days_ago_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = tmp_path / "progress.json"
    beat.touch()
    os.utime(beat, (time.time() - 2 * 86_400,) * 2)
    monkeypatch.setattr("plifctl.runs.progress_file.time.sleep", lambda _: pytest.fail("waited"))
    assert not is_beating(beat)
    assert not is_beating(tmp_path / "none")


def test_record_of_protocol_b_has_the_accuracies_of_its_run_by_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", accuracies=[(0.5, 0.4), (0.6, None), (0.7, 0.5)], protocol="B")
    (tmp_path / "registry/results").mkdir(parents=True)
    shipped = run.record().model_copy(update={"tau": ()})  # an epoch with a validation accuracy alone counts, too
    (tmp_path / "registry/results/r.json").write_text(record_text(shipped))
    own, of_record = find_curves([run.name, f"shipped:{run.name}"], tmp_path / "runs", [tmp_path / "registry"])
    assert of_record.epochs == own.epochs
    for name in ("validation_accuracy", "test_accuracy"):
        assert of_record.series[name] == own.series[name]
