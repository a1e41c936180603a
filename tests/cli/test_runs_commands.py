"""plifctl runs and plifctl watch, on runs that were made without training."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import make_run

from plifctl.cli.runs import fit_columns
from plifctl.config.lookup import load_registry
from plifctl.errors import Interrupted, RunError, UsageError
from plifctl.runs import Run, RunRecorder
from plifctl.runs.directory import remove_run
from plifctl.runs.documents import save_document
from plifctl.runs.folders import match_name
from plifctl.runs.metrics import MetricsFile
from plifctl.runs.records import record_text

Plifctl = Callable[..., Any]


@pytest.fixture
def folder(places: Path) -> Path:
    return places / "runs"


class TestList:
    def test_runs_lists_with_and_without_ls(self, plifctl: Plifctl, folder: Path) -> None:
        assert "plifctl train demo" in plifctl("runs").err
        finished = make_run(folder)
        half = make_run(folder, epochs=2, finished=False, protocol="B")
        result = plifctl("runs")
        lines = result.out.splitlines()
        assert lines[0].split() == ["run", "status", "protocol", "best", "%", "epoch", "age", "recipe"]
        assert re.fullmatch(rf"{finished.name} +finished +A +75\.00 +3/3 +\d+ s +paper", lines[1])
        assert re.fullmatch(rf"{half.name} +killed +B +66\.67 val +2/2 +\d+ s +paper", lines[2])
        assert plifctl("runs", "ls").out.splitlines()[0] == lines[0]
        (entry,) = json.loads(plifctl("runs", "--status", "killed", "--json").out)
        assert (entry["run"], entry["best_test"], entry["best_validation"]) == (half.name, None, pytest.approx(2 / 3))
        assert entry["accuracy_of"] == "validation"
        assert json.loads(plifctl("runs", "ls", "--experiment", "mnist-plif", "--json").out) == []
        assert len(json.loads(plifctl("runs", "--json").out)) == 2
        result = plifctl("runs", "ls", "--experiment", "demoo")
        assert result.code == 2
        assert "did you mean demo?" in result.err

    @pytest.mark.subprocess
    def test_completion_of_a_run_gives_its_name(self, folder: Path, places: Path) -> None:
        run = make_run(folder, epochs=1)
        asked = {"_PLIFCTL_COMPLETE": "complete_bash"}
        command = [sys.executable, "-c", "import sys, plifctl.cli; sys.argv = ['plifctl']; plifctl.cli.main()"]
        for words in ("plifctl runs show 2", "plifctl watch 2"):
            asked |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
            result = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, timeout=60)
            assert result.stdout.split() == [run.name], result.stderr

    @pytest.mark.parametrize("width", [None, 130, 100, 80])
    def test_fit_columns_fits_the_terminal(self, width: int | None) -> None:
        names = [f"2026112{day}T025341Z-fashion-mnist-plif-88a346a5703e-s2020" for day in (1, 2)]
        rows = [[name, "finished", "B", "93.45 val", "1024/1024", "12 min", "authors"] for name in names]
        columns, fitting = fit_columns(rows, width)
        used = sum(max(map(len, column)) for column in zip(columns, *fitting, strict=True)) + 2 * (len(columns) - 1)
        assert used <= (width or 1000)
        assert (fitting == rows) == (width in (None, 130))
        assert all(short[0] in full[0] for short, full in zip(fitting, rows, strict=True))

    def test_fit_columns_keeps_names_that_would_be_ambiguous(self) -> None:
        names = [f"20261121T025341Z-demo-88a346a5703e-s{seed}" for seed in (1, 2)]  # of one second
        rows = [[name, "finished", "A", "93.45", "12/12", "12 min", "paper"] for name in names]
        assert [row[0] for row in fit_columns(rows, 40)[1]] == names

    def test_fit_columns_shortens_names_to_parts_that_find_the_run(self) -> None:
        names = ["g1-aaaaaaaaaaaa-s1", "g12-bbbbbbbbbbbb-s1"]
        rows = [[name, "finished", "A", "93.45", "12/12", "12 min", "paper"] for name in names]
        shown = [row[0] for row in fit_columns(rows, 40)[1]]
        assert shown == ["g1", "g12"]
        assert [match_name(part, names) for part in shown] == [[name] for name in names]


class TestShow:
    def test_show_has_settings_accuracies_layers_and_files(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder, "train.lr=0.5")
        result = plifctl("runs", "show", "last")
        assert result.code == 0
        for text in (
            str(run.path),
            "demo, paper recipe, protocol A",
            "test accuracy   ▁▅█  best 75.00, last 75.00 %",
            "2 train, 0 validation, 1 test",
            "finished; to train longer: plifctl train --resume",
        ):
            assert text in result.out
        assert re.search(r"train\.lr +0\.5 +0\.003 +--set train\.lr=0\.5", result.out)
        assert re.search(r"sn0 +5\.000 +▁▅█ +0\.1000", result.out)
        assert re.search(r"checkpoints/best\.pt +[\d,]+", result.out)
        tree = json.loads(plifctl("runs", "show", run.name, "--json").out)
        assert {change["key"] for change in tree["changes"]} == {"train.lr", "train.epochs"}
        assert tree["best"]["epoch"] == tree["last"]["epoch"] == 3
        assert (tree["accuracy"], "accuracy_of" in tree) == (0.75, False)

    def test_show_of_an_unfinished_run_has_the_command_that_resumes_it(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder, epochs=12, finished=False, protocol="B")
        result = plifctl("runs", "show", str(run.path))
        assert f"plifctl validate --resume {run.name}" in result.out
        assert "all settings are those of the registry" in result.out
        assert "% of the test samples" not in result.out

    def test_show_of_a_finished_run_of_protocol_b_has_the_result_of_the_chosen_epoch(
        self, plifctl: Plifctl, folder: Path
    ) -> None:
        run = make_run(folder, accuracies=[(0.8, 0.95), (0.9, 0.9)], epochs=2, protocol="B")
        chosen = run.record().model_copy(update={"accuracy": 0.9, "best_epoch": 2})
        (run.path / "result.json").write_text(record_text(chosen))
        expected = "90.00 % of the test samples, epoch 2 (test accuracy of the epoch that validation chose)"
        assert re.search(rf"result +{re.escape(expected)}\n", plifctl("runs", "show", run.name).out)

    def test_command_that_resumes_a_run_of_another_runs_directory_has_its_path(
        self, plifctl: Plifctl, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run(folder, epochs=12, finished=False)
        monkeypatch.setenv("PLIFCTL_RUNS_DIR", str(tmp_path / "mine"))
        result = plifctl("runs", "show", run.name, "--runs-dir", run.path.parent)
        assert f"plifctl train --resume {run.path}\n" in result.out
        moved = run.path.parent.rename(tmp_path / "of others")
        result = plifctl("runs", "show", run.name, "--runs-dir", moved)
        assert f"plifctl train --resume '{moved / run.name}'" in result.out
        monkeypatch.chdir(moved)
        assert f"plifctl train --resume ./{run.name}\n" in plifctl("runs", "show", run.name, "--runs-dir", ".").out


class TestLongerTraining:
    def test_show_names_the_result_that_stays_and_the_longer_training(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder, epochs=2)
        longer = load_registry().experiment("demo", overrides=["train.epochs=5"])
        recorder = RunRecorder(run, longer.spec)
        with recorder.live():
            recorder.begin(longer, 2, 0, {"torch": "9.9"})
            assert "running" in plifctl("runs", "show", run.name).out
        result = plifctl("runs", "show", run.name)
        assert re.search(r"status +killed", result.out)
        assert re.search(r"epochs +2 of 5", result.out)
        assert re.search(r"result +66\.67 % of 2 epochs, reported until the longer training ends", result.out)
        assert f"plifctl train --resume {run.name}" in result.out
        tree = json.loads(plifctl("runs", "show", run.name, "--json").out)
        assert (tree["status"], tree["kept_result"]["epochs"]) == ("killed", 2)
        (entry,) = json.loads(plifctl("runs", "--json").out)
        assert (entry["status"], entry["epoch"], entry["epochs"]) == ("killed", 2, 5)
        assert json.loads(plifctl("watch", run.name, "--json").out)["exit_code"] == 6
        entries = json.loads(plifctl("report", "--table", "selection", "--json").out)[0]["entries"]
        assert run.name in {entry["row"] for entry in entries}

    def test_show_lists_the_processes_that_trained_a_run(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder, finished=False)
        recorder = RunRecorder(run, run.config().spec)
        with recorder.live():
            recorder.begin(load_registry().experiment("demo", overrides=["train.epochs=3"]), 2, 0, {"torch": "9.9"})
            MetricsFile(run.path).append({**run.metrics()[0], "epoch": 3})
        result = plifctl("runs", "show", run.name)
        assert re.search(r"\n1 to 2 +.*\n3 +9\.9 ", result.out)
        assert [one["epochs"] for one in json.loads(plifctl("runs", "show", run.name, "--json").out)["sessions"]] == [
            [1, 2],
            [3, 3],
        ]


class TestCompare:
    def test_compare_has_settings_then_accuracies_then_tau(self, plifctl: Plifctl, folder: Path) -> None:
        first, second = make_run(folder, epochs=2), make_run(folder, "train.lr=0.5", epochs=50)
        result = plifctl("runs", "compare", first.name, second.name)
        assert result.code == 0
        out = result.out
        assert re.search(r"train\.lr +0\.003 +0\.5", out)
        assert out.index("train.lr") < out.index("accuracy, %") < out.index("τ of sn0")
        assert re.search(r"\n +1 +33\.33 +1\.96\n", out)
        assert re.search(r"\n +50 +98\.04\n", out)
        assert "epochs shown; --json has all" in result.err
        tree = json.loads(plifctl("runs", "compare", first.name, second.name, "--json").out)
        assert tree["epochs"][1]["tau"] == [[4.0], [4.0]]
        assert tree["epochs"][2]["accuracy"][0] is None
        assert len(tree["epochs"]) == 50

    def test_compare_says_of_which_samples_each_accuracy_is(self, plifctl: Plifctl, folder: Path) -> None:
        first, second = make_run(folder), make_run(folder, protocol="B")
        assert re.search(r"epoch +A test +B validation\n", plifctl("runs", "compare", first.name, second.name).out)
        tree = json.loads(plifctl("runs", "compare", first.name, second.name, "--json").out)
        assert tree["accuracy_of"] == ["test", "validation"]

    def test_compare_of_records_has_what_is_known_of_them(self, plifctl: Plifctl, folder: Path) -> None:
        shipped = ("fashion-mnist-plif-subset=0.1-s1", "20261125T092154Z")
        tree = json.loads(plifctl("runs", "compare", *shipped, "--json").out)["settings"]
        assert (tree["changes"], tree["part of the samples"]) == (["train.subset=0.1", "none"], ["yes", "no"])
        assert (tree["epochs"], tree["training_version"]) == ([12, 4], ["4", "1"])
        own = make_run(folder)
        again = make_run(folder, name="order-s1-5680f25c")  # as a repeated sweep names it
        pair = json.loads(plifctl("runs", "compare", again.name, f"shipped:{again.name}", "--json").out)
        assert pair["runs"] == [str(again.path), f"shipped:{again.name}"]
        assert pair["settings"]["origin"] == ["trained", "shipped"]
        assert "no shipped record 'nothing'" in plifctl("runs", "compare", again.name, "shipped:nothing").err
        mixed = json.loads(plifctl("runs", "compare", own.name, shipped[0], "--json").out)["settings"]
        assert mixed["origin"] == ["trained", "shipped"]
        assert mixed["experiment digest"][0] == own.config().spec.digest[:12]

    def test_compare_of_more_runs_than_letters_has_two_letters(self, plifctl: Plifctl, folder: Path) -> None:
        names = [make_run(folder, epochs=1, name=f"r{number}").name for number in range(28)]
        lines = plifctl("runs", "compare", *names).out.splitlines()
        assert [lines[index] for index in (0, 25, 26, 27)] == ["A: r0", "Z: r25", "AA: r26", "AB: r27"]

    def test_compare_of_one_run_is_refused(self, plifctl: Plifctl, folder: Path) -> None:
        make_run(folder)
        assert plifctl("runs", "compare", "last", "last").code == 2


class TestVerify:
    def test_verify_of_intact_and_damaged_runs(self, plifctl: Plifctl, folder: Path) -> None:
        run, other = make_run(folder), make_run(folder, finished=False)
        result = plifctl("runs", "verify")
        assert (result.code, result.out) == (0, f"{run.name}: ok\n")
        result = plifctl("runs", "verify", other.name)
        assert result.code == 2
        (run.path / "env.json").write_text("{}")
        result = plifctl("runs", "verify", run.name)
        assert result.code == 1
        assert "DAMAGED\n  env.json: 2 bytes" in result.out
        assert json.loads(plifctl("runs", "verify", "--json").out)[run.name]


class TestRemove:
    def test_rm_without_a_terminal_needs_yes(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder)
        result = plifctl("runs", "rm", run.name)
        assert result.code == 2
        assert "hint: add --yes" in result.err
        assert "would be removed" in plifctl("runs", "rm", run.name, "--dry-run").out
        assert run.path.is_dir()
        assert plifctl("runs", "rm", run.name, "--yes").code == 0
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
    def test_rm_on_a_terminal_asks_first(
        self, plifctl: Plifctl, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
    ) -> None:
        run = make_run(folder)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
        result = plifctl("runs", "rm", "last", "--json")
        assert result.code == code
        assert [removed["run"] for removed in json.loads(result.out)["removed"]] == [run.name] * (answer == "y")
        assert run.path.is_dir() == (answer == "n")

    @pytest.mark.parametrize("as_json", [False, True])
    def test_rm_that_fails_reports_what_it_removed_before(
        self, plifctl: Plifctl, folder: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
    ) -> None:
        first, second = make_run(folder), make_run(folder)

        def fail(run: Run) -> None:
            if run.name == second.name:
                raise UsageError("being trained")
            remove_run(run)

        monkeypatch.setattr("plifctl.pipeline.run_files.remove_run", fail)
        result = plifctl("runs", "rm", first.name, second.name, "--yes", *["--json"] * as_json)
        assert (result.code, first.path.exists(), second.path.exists()) == (2, False, True)
        assert f"removed: {first.name}, " in (result.err if as_json else result.out)
        if as_json:
            assert json.loads(result.out)["error"]["message"] == "being trained"

    def test_rm_with_a_running_run_removes_nothing(self, plifctl: Plifctl, folder: Path) -> None:
        first, second = make_run(folder), make_run(folder, finished=False)
        with RunRecorder(second, second.config().spec).live():
            result = plifctl("runs", "rm", first.name, second.name, "--yes")
        assert result.code == 2
        assert "being trained" in result.err
        assert first.path.is_dir()
        assert second.path.is_dir()


def hold(run: Run, until: threading.Event, error: BaseException | None) -> threading.Thread:
    """Makes the run look as if it were trained, until told to end."""
    resolved = load_registry().experiment("demo", overrides=["train.epochs=3"])
    recorder, held = RunRecorder(run, run.config().spec), threading.Event()

    def train() -> None:
        try:
            with recorder.live():
                recorder.begin(resolved, 2)
                recorder.on_step(3, 1, 5, 0.5, "train")
                held.set()
                assert until.wait(60)
                if error is not None:
                    raise error
        except (RunError, Interrupted):
            pass

    thread = threading.Thread(target=train)
    thread.start()
    assert held.wait(60)
    return thread


class TestWatch:
    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (RunError("the loss is nan"), 6, "the loss is nan"),
            (Interrupted(15, "stopped"), 143, ""),
            (None, 6, "killed"),
        ],
    )
    def test_watch_ends_with_the_exit_code_of_the_run(
        self, plifctl: Plifctl, folder: Path, error: BaseException | None, code: int, text: str
    ) -> None:
        run = make_run(folder, finished=False)
        until = threading.Event()
        thread = hold(run, until, error)
        timer = threading.Timer(0.3, until.set)
        timer.start()
        result = plifctl("watch", run.name)
        thread.join()
        assert result.code == code
        assert text in result.err
        assert [line.split("  ")[0] for line in result.out.splitlines()] == ["epoch 1/3", "epoch 2/3"]

    def test_watch_of_a_killed_run_that_was_stopped_before_ends_with_6(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder, finished=False)
        stopped = {**run.info(), "status": "running", "exit_code": 130}  # as 0.1.0 left it
        save_document(run.path / "run.json", stopped)
        assert plifctl("watch", run.name).code == 6

    def test_watch_of_a_finished_run_shows_its_epochs(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder)
        result = plifctl("watch", "last", "--json")
        assert result.code == 0
        tree = json.loads(result.out)
        assert (tree["run"], tree["status"], tree["exit_code"], tree["best_epoch"]) == (run.name, "finished", 0, 3)
        assert "epoch 3/3" in result.err

    @pytest.mark.subprocess
    def test_watch_stopped_by_ctrl_c_leaves_the_run_running(self, folder: Path, places: Path) -> None:
        import signal

        run = make_run(folder, finished=False)
        until = threading.Event()
        thread = hold(run, until, None)
        try:
            command = [sys.executable, "-m", "plifctl", "watch", "last"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("epoch 1/3")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 130
            assert f"stopped watching; {run.name} is still running" in err
            assert run.status() == "running"
        finally:
            until.set()
            thread.join()

    @pytest.mark.subprocess
    def test_watch_on_a_terminal_draws_the_panel(self, folder: Path, places: Path) -> None:
        make_run(folder)
        terminal, side = pty.openpty()
        clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
        command = [sys.executable, "-m", "plifctl", "watch", "last"]
        process = subprocess.Popen(
            command, env=clean | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=side, text=True
        )
        os.close(side)
        drawn, end = b"", time.monotonic() + 60
        while time.monotonic() < end:
            try:
                drawn += os.read(terminal, 65536)
            except OSError:  # the other side is closed
                break
        os.close(terminal)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out == ""
        text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn.decode())
        assert "3 of 3 epochs done" in text
        assert re.search(r"sn0 +5\.000 +\+1\.000 +▁▅█ +0\.1000 +5\.0e-01 +1\.0e-01", text)
        assert "best: test 75.00 %, epoch 3" in text


def foreign(folder: Path) -> Path:
    """A folder of another program, with files named as those of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("lr: 0.1\n")
    for name in ("result.json", "imported.json", "run.json"):
        (folder / name).write_text('{"accuracy": 1}\n')
    return folder


class TestWhichFoldersAreRuns:
    @pytest.mark.parametrize(
        "name", [".", "", " ", "..", "./", "hydra", "runs/hydra", "linked", "runs/linked", "elsewhere/big", "/"]
    )
    def test_rm_of_what_is_no_run_of_the_folder_removes_nothing(
        self, plifctl: Plifctl, folder: Path, places: Path, name: str
    ) -> None:
        make_run(folder)
        foreign(places)  # the current folder
        foreign(folder / "hydra")
        make_run(places / "elsewhere").path.rename(places / "elsewhere/big")
        (folder / "linked").symlink_to(places / "elsewhere/big")
        before = {path: path.read_bytes() for path in places.rglob("*") if path.is_file() and path.name != ".lock"}
        result = plifctl("runs", "rm", name, "--yes")
        assert result.code == 2
        assert result.err.startswith("error: ")
        after = {path: path.read_bytes() for path in places.rglob("*") if path.is_file() and path.name != ".lock"}
        assert after == before
        assert (folder / "linked").is_symlink()

    @pytest.mark.parametrize(
        "command",
        [
            ("runs", "show"),
            ("runs", "verify"),
            ("runs", "compare", "last"),
            ("watch",),
            ("eval",),
            ("export",),
            ("train", "--resume"),
        ],
    )
    @pytest.mark.parametrize("name", [".", "", "hydra", "runs/hydra"])
    def test_command_with_what_is_no_run_is_refused_and_locks_nothing(
        self, plifctl: Plifctl, folder: Path, places: Path, command: tuple[str, ...], name: str
    ) -> None:
        make_run(folder)
        foreign(places)
        foreign(folder / "hydra")
        out = ("x.pt",) if command == ("export",) else ()
        result = plifctl(*command, name, *out)
        assert result.code == 2, result.err
        assert "names no run" in result.err or "not a run of plifctl" in result.err
        assert not (places / ".lock").exists()
        assert not (folder / "hydra/.lock").exists()

    def test_folder_of_another_program_is_listed_as_damaged(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder)
        foreign(folder / "hydra")
        listed = {entry["run"]: entry["status"] for entry in json.loads(plifctl("runs", "--json").out)}
        assert listed == {run.name: "finished", "hydra": "damaged"}
        assert plifctl("runs", "verify").code == 0

    def test_pipes_named_as_documents_block_nothing(self, plifctl: Plifctl, folder: Path) -> None:
        run = make_run(folder)
        for name in ("run.json", "config.yaml", "imported.json"):
            (folder / "pipes").mkdir(exist_ok=True)
            os.mkfifo(folder / "pipes" / name)
        assert [entry["run"] for entry in json.loads(plifctl("runs", "--json").out)] == [run.name]
        assert "not a run of plifctl" in plifctl("runs", "show", "pipes").err
        assert plifctl("runs", "show", "x" * 5000).code == 2

    @pytest.mark.parametrize("name", ["run.json", "config.yaml", "env.json", "split.json"])
    def test_rm_of_a_damaged_run_removes_it(self, plifctl: Plifctl, folder: Path, name: str) -> None:
        run = make_run(folder)
        (run.path / name).write_text("{")
        assert plifctl("runs", "rm", run.name, "--yes").code == 0
        assert not run.path.exists()

    def test_last_is_the_run_that_began_last_whatever_its_name(self, plifctl: Plifctl, folder: Path) -> None:
        first, second = make_run(folder, "train.seed=1"), make_run(folder, "train.seed=2")
        first.path.rename(folder / "baseline")  # sorts after the others
        assert json.loads(plifctl("runs", "show", "last", "--json").out)["run"] == second.name
        assert json.loads(plifctl("watch", "last", "--json").out)["run"] == second.name
        assert [entry["run"] for entry in json.loads(plifctl("runs", "--json").out)] == ["baseline", second.name]
        assert plifctl("runs", "rm", "last", "--yes").code == 0
        assert [path.name for path in folder.iterdir()] == ["baseline"]

    def test_id_comes_before_a_path_of_the_same_name(self, plifctl: Plifctl, folder: Path, places: Path) -> None:
        run, other = make_run(folder, "train.seed=1"), make_run(places / "other", "train.seed=2")
        run.path.rename(folder / "mine")
        other.path.rename(places / "mine")
        assert json.loads(plifctl("runs", "show", "mine", "--json").out)["path"] == str(folder / "mine")
        assert json.loads(plifctl("runs", "show", "./mine", "--json").out)["path"] == "mine"

    def test_import_over_a_folder_of_ones_own_is_refused(self, plifctl: Plifctl, folder: Path, places: Path) -> None:
        (places / "logs").mkdir()
        (places / "logs/run-x-tag-test_acc.csv").write_text("Wall time,Step,Value\n1,0,0.5\n2,1,0.9\n")
        foreign(folder / "imported-x")
        result = plifctl("runs", "import", "logs")
        assert result.code == 2
        assert "exists and is not an imported run" in result.err
        assert plifctl("runs", "import", "logs", "--name", "x").code == 0
        (folder / "x/notes.txt").write_text("mine")
        result = plifctl("runs", "import", "logs", "--name", "x")
        assert result.code == 2
        assert "notes.txt" in result.err
        assert (folder / "x/notes.txt").read_text() == "mine"
