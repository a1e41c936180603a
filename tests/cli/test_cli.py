"""The command line from raw recordings to tables on a tiny data set; exit codes, error messages and hints."""

import json
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_runs import FIRING, last_state, position, wait_for
from factories import write_gestures
from tiny_training import same_weights

import plifctl as package
from plifctl.errors import PlifctlError
from plifctl.runs import Run

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", "--set", "T=4", *FIRING, "--epochs", "2")


class TestPipeline:
    def test_prepare_train_validate_eval_report_work_in_sequence(
        self, plifctl: Plifctl, gestures: Path, places: Path
    ) -> None:
        result = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
        assert result.code == 0
        assert "22 training and 11 test samples (raw files not verified, set incomplete)" in result.out
        assert "warning: incomplete: 22 of 440" in result.err

        result = plifctl("train", "demo", *TINY)
        assert result.code == 0
        assert "accuracy A, maximum over test epochs:" in result.out
        assert "epoch 2/2  loss" in result.err
        assert "incomplete" in result.err
        (run,) = (places / "runs").iterdir()
        for name in ("run.json", "config.yaml", "env.json", "split.json", "metrics.jsonl", "result.json"):
            assert (run / name).is_file()
        assert list(run.glob("events.out.*"))
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2

        result = plifctl("validate", "demo", *TINY, "--json")
        assert result.code == 0
        assert json.loads(result.out)["protocol"] == "B"

        result = plifctl("eval", run.name, "--json")
        tree = json.loads(result.out)
        record = json.loads((run / "result.json").read_text())
        assert tree["accuracy"] == record["accuracy"]
        assert sum(map(sum, tree["confusion"])) == 11
        assert sum(map(any, zip(*tree["confusion"], strict=True))) > 1  # answers differ: TINY fires
        assert len(tree["layers"]) == 5
        assert "test accuracy" in plifctl("eval", run / "checkpoints/last.pt").out

        assert "finished" in plifctl("runs", "ls").out
        assert plifctl("report", "--table", "4").code == 0

    def test_prepare_of_an_existing_cache_and_dry_run_report_hit_and_miss(
        self, prepared: Plifctl, gestures: Path
    ) -> None:
        assert prepared("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).out.startswith("found:")
        result = prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures, "--dry-run")
        assert result.out.startswith("miss:")
        assert "T is 4, expected 5" in result.out
        assert (
            json.loads(
                prepared("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures, "--dry-run", "--json").out
            )["state"]
            == "hit"
        )
        plan = json.loads(prepared("train", "demo", *TINY, "--dry-run", "--json").out)
        assert (plan["train"], plan["test"], plan["steps_per_epoch"]) == (22, 11, 2)

    def test_train_prepare_builds_the_missing_cache(self, plifctl: Plifctl, gestures: Path) -> None:
        result = plifctl("train", "demo", *TINY, "--epochs", 1, "--prepare", "--raw", gestures)
        assert result.code == 0

    @pytest.mark.parametrize("command", [("train", "--prepare"), ("sweep", "run", "--jobs", 1)])
    def test_cache_built_before_a_training_is_in_the_named_cache_directory(
        self, plifctl: Plifctl, gestures: Path, places: Path, command: tuple[Any, ...]
    ) -> None:
        result = plifctl(*command, "demo", *TINY, "--epochs", 1, "--raw", gestures, "--cache-dir", places / "my caches")
        assert result.code == 0, result.err
        assert list((places / "my caches" / "synthetic-gesture").iterdir())
        assert not (places / "data_cache").exists()

    def test_resume_with_more_epochs_equals_one_long_training(self, prepared: Plifctl, places: Path) -> None:
        whole = prepared("train", "demo", *TINY, "--epochs", 3, "--json")
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        result = prepared("train", "--resume", "last", "--epochs", 3, "--json")
        assert result.code == 0
        longer, straight = json.loads(result.out), json.loads(whole.out)
        for key in ("accuracy", "best_epoch", "test_accuracy", "tau", "epochs"):
            assert longer[key] == straight[key]
        first, last = sorted((places / "runs").iterdir())
        assert same_weights(last_state(first), last_state(last))
        answers = Run(last).predictions()
        assert answers is not None
        assert len(set(answers.predicted.tolist())) > 1
        again = prepared("train", "--resume", "last")
        assert again.code == 0
        assert "is finished" in again.err

    def test_resume_with_other_settings_is_refused(self, prepared: Plifctl) -> None:
        assert prepared("train", "demo", *TINY).code == 0
        result = prepared("train", "--resume", "last", "--set", "train.lr=0.5")
        assert result.code == 3
        assert "train.lr: was 0.003, now 0.5" in result.err
        assert prepared("train", "--resume", "last", "--epochs", 1).code == 3
        assert prepared("validate", "--resume", "last").code == 3
        assert prepared("train", "--resume", "nothing").code == 2

    def test_resume_with_a_value_that_the_run_has_changes_nothing(self, prepared: Plifctl) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        before = json.loads(prepared("runs", "show", "last", "--json").out)["changes"]
        again = prepared("train", "--resume", "last", "--epochs", 2, "--set", "train.lr=3e-3", "--json")
        assert (again.code, json.loads(again.out)["overrides"]) == (
            0,
            ["train.batch_size=11", "T=4", "neuron.v_threshold=0.05", "train.epochs=2"],
        )
        after = json.loads(prepared("runs", "show", "last", "--json").out)["changes"]
        assert {one["key"] for one in after} == {one["key"] for one in before}

    def test_ls_show_check_list_entries_and_problems(
        self, plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "cifar10-plif-avgpool" in plifctl("ls").out
        entries = json.loads(plifctl("ls", "--json").out)
        only_logged = [entry["name"] for entry in entries if entry["reported_in"] == "authors' log"]
        variants = ("plif-tau16", "lif", "lif-tau16", "plif-avgpool")
        assert only_logged == [f"{dataset}-{variant}" for dataset in ("mnist", "nmnist") for variant in variants]
        assert json.loads(plifctl("ls", "datasets", "--json").out)[0]["name"] == "cifar10"
        result = plifctl("show", "gesture-plif", "--recipe", "authors")
        assert "number-remainder" in result.out
        assert "gesture.yaml:" in result.out
        assert json.loads(plifctl("show", "cifar10dvs", "--json").out)["spec"]["samples"]["train"] == 9000
        assert "all valid" in plifctl("check").out
        (places / "mine/networks").mkdir(parents=True)
        (places / "mine/networks/x.yaml").write_text("x:\n  structure: FC10\n  dropout: 2\n")
        monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "mine"))
        result = plifctl("check")
        assert result.code == 3
        assert "x.yaml:1:1" in result.out
        assert "batch_norm is missing" in result.out

    def test_show_of_the_recipe_paper_has_the_source_of_each_value(self, plifctl: Plifctl) -> None:
        rows = {line.split()[0]: line.split() for line in plifctl("show", "mnist-plif").out.splitlines()}
        assert rows["key"] == ["key", "value", "source", "from"]
        assert rows["train.loss"][:3] == ["train.loss", "mse-per-step", "text"]
        assert rows["train.epochs"][:3] == ["train.epochs", "1024", "authors"]
        assert rows["train.ties"][:3] == ["train.ties", "earliest", "choice"]
        assert json.loads(plifctl("show", "mnist-plif", "--json").out)["sources"]["train.drop_last"] == "authors"
        assert "source" not in plifctl("show", "mnist-plif", "--recipe", "authors").out.splitlines()[0]

    @pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex"])
    def test_report_in_each_format_has_the_reported_numbers(self, plifctl: Plifctl, form: str) -> None:
        result = plifctl("report", "--table", "all", "--format", form)
        assert result.code == 0
        assert "94.38" in result.out


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "code", "message", "hint"),
        [
            (("prepare", "imagenet"), 2, "unknown data set", "known:"),
            (("prepare", "gestur", "--T", 2), 2, "unknown data set", "did you mean gesture?"),
            (("prepare", "gesture"), 2, "event data sets need --T (number of frames)", "--T 20"),
            (("prepare", "gesture", "--T", 0), 2, "expected a whole number from 1 to 10000", ""),
            (("prepare", "gesture", "--T", 10001), 2, "expected a whole number from 1 to 10000", ""),
            (("prepare", "gesture", "--T", 2), 4, "no raw data of DVS128 Gesture", "--raw DIR"),
            (("train", "demo", "--set", "network=nope"), 2, "unknown network nope", "known:"),
            (("synthesize", "/proc/nowhere"), 7, "/proc/nowhere", ""),
            (("prepare", "gesture", "--T", 2, "--raw", "nowhere"), 4, "no such folder", "mkdir -p nowhere"),
            (("prepare", "gesture", "--T", 2, "--set", "frames.x=1"), 2, "unknown key", "mean frames.axes?"),
            (("prepare", "gesture", "--T", 2, "--recipe", "x"), 2, "'paper', 'authors'", "plifctl prepare --help"),
            (("train",), 2, "missing argument: EXPERIMENT", "plifctl train demo"),
            (("train", "demoo"), 2, "unknown experiment", "did you mean demo?"),
            (("train", "demo", "--set", "train.lrr=1"), 2, "unknown key", "did you mean train.lr?"),
            (("train", "demo", "--subset", 0), 2, "should be greater than 0", ""),
            (("train", "demo"), 5, "no cache of synthetic-gesture", "plifctl prepare synthetic-gesture --T 8"),
            (("train", "gesture-plif", "--recipe", "authors"), 5, "no cache", "--T 20 --recipe authors"),
            (("eval", "last"), 2, "no run 'last'", "plifctl train demo makes one"),
            (("eval", "x.pt"), 6, "no such checkpoint", "plifctl runs"),
            (("report", "--table", "7"), 2, "unknown table", "known: 1"),
            (("report", "--table", "1", "--format", "pdf"), 2, "unknown format", "known: csv"),
            (("ls", "cats"), 2, "unknown kind", "known: datasets"),
            (("show", "gesture-pliff"), 2, "unknown name", "did you mean gesture-plif?"),
            (("nonsense",), 2, "no such command", "plifctl --help"),
        ],
    )
    def test_bad_input_gives_exit_code_message_and_hint(
        self, plifctl: Plifctl, arguments: tuple[object, ...], code: int, message: str, hint: str
    ) -> None:
        result = plifctl(*arguments)
        assert result.code == code
        error, _, hints = result.err.partition("hint: ")  # an error repeats what was typed
        assert message in error
        assert hint in hints
        assert "Traceback" not in result.err
        assert result.out == ""

    def test_prepare_with_damaged_or_missing_raw_files_names_the_file(self, plifctl: Plifctl, gestures: Path) -> None:
        recording = gestures / "user02_lab.aedat"
        whole = recording.read_bytes()
        for content in (b"", whole[:-5], b"#!AER-DAT2.0\r\n" + bytes(8), b"\x1f\x8b nothing"):
            recording.write_bytes(content)
            result = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
            assert result.code == 4
            assert "user02_lab.aedat: byte" in result.err
        recording.unlink()
        result = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
        assert result.code == 4
        assert "user02_lab.aedat is missing" in result.err
        assert plifctl("train", "demo", "--set", "T=4").code == 5

    def test_prepare_with_another_checksum_is_refused_unless_accepted(
        self, plifctl: Plifctl, gestures: Path, tmp_path: Path
    ) -> None:
        with tarfile.open(tmp_path / "DvsGesture.tar.gz", "w:gz") as archive:
            archive.add(gestures, "DvsGesture")
        result = plifctl("prepare", "gesture", "--T", 4, "--raw", tmp_path)
        assert result.code == 4
        assert "the published file has 8a5c71fb11e24e5ca5b11866ca6c00a1" in result.err
        assert "add --no-checksum" in result.err
        result = plifctl("prepare", "gesture", "--T", 4, "--raw", tmp_path, "--no-checksum", "--json")
        assert json.loads(result.out)["verified"] is False

    def test_train_with_a_cache_of_another_T_names_the_command(self, prepared: Plifctl) -> None:
        result = prepared("train", "demo")
        assert result.code == 5
        assert "T is 4, expected 8" in result.err
        assert "hint: plifctl prepare synthetic-gesture --T 8" in result.err

    def test_train_on_a_damaged_cache_is_refused(self, prepared: Plifctl, places: Path) -> None:
        (path,) = (places / "data_cache/synthetic-gesture").glob("*.h5")
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = bytes(b ^ 0xFF for b in data[middle : middle + 2000])
        path.write_bytes(data)
        result = prepared("train", "demo", *TINY)
        assert result.code == 5
        assert "--force" in result.err
        assert not list((places / "runs").glob("*/result.json"))

    def test_eval_of_a_checkpoint_of_another_network_is_refused(self, prepared: Plifctl, places: Path) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        (run,) = (places / "runs").iterdir()
        path = run / "checkpoints/best.pt"
        state = torch.load(path, weights_only=True)
        state["model"]["fc0.weight"] = torch.zeros(3, 3)
        torch.save(state, path)
        result = prepared("eval", run.name)
        assert result.code == 6
        assert "another network" in result.err
        path.write_bytes(b"nothing")
        assert prepared("eval", run.name).code == 6

    def test_train_on_a_missing_device_is_refused(self, prepared: Plifctl) -> None:
        result = prepared("train", "demo", *TINY, "--device", "cuda:77")
        assert result.code == 2
        assert "--device cpu" in result.err

    def test_prepare_images_with_T_notes_that_T_is_not_used(self, plifctl: Plifctl, tmp_path: Path) -> None:
        result = plifctl("prepare", "mnist", "--T", 8, "--raw", tmp_path, "--no-download")
        assert "cached once for all T" in result.err

    def test_prepare_on_a_full_disk_is_a_machine_error(
        self, plifctl: Plifctl, gestures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.posix_fallocate", full)
        result = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
        assert result.code == 7
        assert "no space left" in result.err

    @pytest.mark.slow
    @pytest.mark.subprocess
    @pytest.mark.parametrize("limit", [2**12, 2**14, 2**15, 2**20])
    def test_prepare_beyond_the_file_size_limit_leaves_no_partial_file(
        self, gestures: Path, places: Path, limit: int
    ) -> None:
        # HDF5 itself crashes if it cannot write; a limit of the system shows whether it was called
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        code = limited + "import plifctl.cli; plifctl.cli.main()"
        arguments = ["prepare", "synthetic-gesture", "--T", "4", "--raw", str(gestures)]
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100)
        assert result.returncode == 7, result.stderr
        assert "the file would exceed the size limit" in result.stderr
        assert not list((places / "data_cache").rglob("*.h5")) + list((places / "data_cache").rglob("*.partial"))
        result = subprocess.run(
            [sys.executable, "-m", "plifctl", *arguments], capture_output=True, text=True, timeout=100
        )
        assert result.returncode == 0, result.stderr
        assert not list((places / "data_cache").rglob("*.journal"))


def every_error(base: type[PlifctlError] = PlifctlError) -> list[type[PlifctlError]]:
    return [base, *(e for sub in base.__subclasses__() for e in every_error(sub))]


def test_exit_codes_are_those_documented_in_errors() -> None:
    drawn = (Path(package.__file__).parent / "errors.py").read_text(encoding="utf-8").split('"""')[1]
    for error in every_error():
        (line,) = [line for line in drawn.splitlines() if f" {error.__name__} " in line]
        if error.__name__ != "Interrupted":
            assert line.split(error.__name__)[1].split()[0] == str(error.exit_code)


def start(places: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plifctl", *arguments]
    return subprocess.Popen(command, cwd=places, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.subprocess
class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_train_stopped_by_a_signal_writes_a_checkpoint(
        self, prepared: Plifctl, places: Path, number: signal.Signals, code: int
    ) -> None:
        process = start(places, "train", "demo", "--set", "train.batch_size=2", "--set", "T=4", "--epochs", "50")
        wait_for(
            lambda: (
                list((places / "runs").glob("*/metrics.jsonl"))
                and list((places / "runs").glob("*/checkpoints/last.pt"))
            )
        )
        (run,) = (places / "runs").iterdir()
        written, before = (run / "checkpoints/last.pt").stat().st_mtime_ns, position(run)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert "hint: to continue: plifctl train --resume" in err
        assert "stopped" in prepared("runs", "ls").out
        assert (run / "checkpoints/last.pt").stat().st_mtime_ns > written
        epoch, step = position(run)
        assert (epoch, step) > before
        assert step > 0  # within an epoch: those that epochs end with have step 0
        assert f"stopped in epoch {epoch + 1}, after step {step}; the state is saved" in err

    def test_train_killed_is_not_finished_and_can_be_resumed(self, prepared: Plifctl, places: Path) -> None:
        process = start(places, "train", "demo", *TINY, "--epochs", "4")
        wait_for(lambda: list((places / "runs").glob("*/checkpoints/last.pt")))
        process.kill()
        process.communicate()
        if "finished" not in prepared("runs", "ls").out:
            assert "killed" in prepared("runs", "ls").out
        result = prepared("train", "--resume", "last", "--json")
        assert result.code == 0
        straight = json.loads(prepared("train", "demo", *TINY, "--epochs", 4, "--json").out)
        assert json.loads(result.out)["test_accuracy"] == straight["test_accuracy"]
        first, last = map(Run, sorted((places / "runs").iterdir()))
        assert same_weights(last_state(first.path), last_state(last.path))
        resumed, whole = first.predictions(), last.predictions()
        assert resumed is not None
        assert whole is not None
        assert resumed.predicted.tolist() == whole.predicted.tolist()
        assert len(set(whole.predicted.tolist())) > 1

    def test_prepare_stopped_by_a_signal_is_resumed(self, places: Path) -> None:
        write_gestures(places / "many", users=40, events=20_000)
        process = start(places, "prepare", "synthetic-gesture", "--T", "300", "--raw", str(places / "many"))
        folder = places / "data_cache/synthetic-gesture"
        wait_for(lambda: any(path.stat().st_size > 10_000 for path in folder.glob(".*.journal")))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "stopped by SIGINT" in err
        assert not [*folder.glob("*.h5"), *folder.glob(".*.partial")]
        again = start(places, "prepare", "synthetic-gesture", "--T", "300", "--raw", str(places / "many"))
        _, err = again.communicate(timeout=60)
        assert again.returncode == 0
        assert re.search(r"resuming: \d+ of 440 samples were framed before", err)
        assert not list(folder.glob(".*.journal"))


class TestSynthesize:
    def test_synthesize_into_a_foreign_folder_is_refused(self, plifctl: Plifctl, gestures: Path, places: Path) -> None:
        before = {path.name: path.read_bytes() for path in gestures.iterdir()}
        result = plifctl("synthesize", gestures)  # real recordings look like this
        assert result.code == 2
        assert "not part of an embedded data set" in result.err
        assert {path.name: path.read_bytes() for path in gestures.iterdir()} == before

    @pytest.mark.subprocess
    @pytest.mark.slow
    def test_synthesize_stopped_by_a_signal_leaves_nothing(self, places: Path) -> None:
        process = start(places, "synthesize", "sim")
        wait_for(lambda: list(places.glob(".sim.*.partial/user03*")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert list(places.glob("*sim*")) + list(places.glob(".sim*")) == []


class TestJson:
    def test_error_with_json_is_one_document(self, plifctl: Plifctl) -> None:
        for arguments, code in ((("eval", "nope"), 2), (("train", "demo"), 5), (("prepare", "gesture", "--T", 2), 4)):
            result = plifctl(*arguments, "--json")
            assert result.code == code
            error = json.loads(result.out)["error"]
            assert error["exit_code"] == code
            assert error["message"] in result.err

    @pytest.mark.parametrize(
        ("typed", "message", "hint"),
        [
            ("ls --jsom", "no such option", "plifctl ls --help"),
            ("ls --format json", "no such option", "use --json\nplifctl ls --help"),
            ("cache lss", "no such command 'lss'", "plifctl cache --help"),
            ("train demo --epochs x", "invalid value for '--epochs'", "plifctl train --help"),
        ],
    )
    def test_mistyped_command_with_json_is_one_document(
        self, plifctl: Plifctl, typed: str, message: str, hint: str
    ) -> None:
        result = plifctl(*typed.split(), "--json")
        error = json.loads(result.out)["error"]
        assert (result.code, error["exit_code"], error["hint"]) == (2, 2, hint)
        assert error["message"].startswith(message)
        assert f"error: {message}" in result.err

    def test_report_and_check_with_json_print_one_document(self, plifctl: Plifctl, places: Path) -> None:
        assert json.loads(plifctl("report", "--table", "all", "--table", "demo", "--json").out)[-1]["table"] == "demo"
        result = plifctl("check", "--json")
        assert json.loads(result.out) == {"problems": []}


def test_quiet_hides_progress_and_verbose_shows_tracebacks(plifctl: Plifctl, gestures: Path) -> None:
    result = plifctl("-q", "prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
    assert "reading" not in result.err
    assert "warning: incomplete" in result.err
    result = plifctl("-v", "eval", "nope")
    assert "Traceback" in result.err
    assert "error: no run 'nope'" in result.err
    assert "Traceback" not in plifctl("eval", "nope").err


def test_runs_ls_with_a_damaged_run_lists_the_others(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    first, second = sorted((places / "runs").iterdir())
    (first / "config.yaml").write_text("experiment: [")
    result = prepared("runs", "ls")
    assert result.code == 0
    assert "damaged" in result.out
    assert second.name in result.out


def test_resume_that_fails_keeps_the_result(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    (run,) = (places / "runs").iterdir()
    whole = {name: (run / name).read_bytes() for name in ("result.json", "config.yaml", "metrics.jsonl")}
    (run / "checkpoints/last.pt").write_bytes(b"nothing")
    result = prepared("train", "--resume", "last", "--epochs", 3)
    assert result.code == 6
    assert {name: (run / name).read_bytes() for name in whole} == whole


class TestResume:
    def test_resume_with_another_recipe_or_experiment_is_refused(self, prepared: Plifctl) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 2).code == 0
        result = prepared("train", "--resume", "last", "--recipe", "authors")
        assert result.code == 3
        assert "recipe: was paper, now authors" in result.err
        result = prepared("train", "demo", "--resume", "last")  # epochs stay those of the run
        assert result.code == 0
        assert "is finished" in result.err
        result = prepared("train", "mnist-plif", "--resume", "last")
        assert result.code == 3

    @pytest.mark.slow
    def test_resume_uses_the_cache_that_the_run_was_trained_on(
        self, prepared: Plifctl, gestures: Path, places: Path
    ) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        write_gestures(gestures, users=4)
        assert prepared("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
        assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
        result = prepared("eval", "last", "--json")
        assert json.loads(result.out)["samples"] == 11
        record = json.loads(next((places / "runs").glob("*/result.json")).read_text())
        older = next(p for p in (places / "data_cache").rglob("*.h5") if content_of(p) == record["data"]["cache"])
        older.unlink()
        result = prepared("train", "--resume", "last", "--epochs", 3)
        assert result.code == 3
        assert "trained on a cache of content" in result.err
        assert "warning: trained on a cache of content" in prepared("eval", "last").err


def content_of(path: Path) -> str:
    from plifctl.cache import Cache

    return Cache(path).content_digest


def test_validate_with_T_set_uses_it_instead_of_the_protocols(plifctl: Plifctl) -> None:
    for given, wanted in (((), "--T 20"), (("--set", "T=5"), "--T 5")):
        result = plifctl("validate", "nmnist-plif", "--recipe", "authors", *given)
        assert result.code == 5
        assert f"hint: plifctl prepare nmnist {wanted} --recipe authors" in result.err


def test_train_raw_without_prepare_is_refused(prepared: Plifctl, gestures: Path) -> None:
    result = prepared("train", "demo", *TINY, "--raw", gestures)
    assert result.code == 2
    assert "--prepare" in result.err


def test_prepare_with_a_renamed_or_damaged_cache_is_refused_without_force(
    prepared: Plifctl, gestures: Path, places: Path
) -> None:
    folder = places / "data_cache/synthetic-gesture"
    (four,) = folder.glob("*.h5")
    prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures)
    (five,) = set(folder.glob("*.h5")) - {four}
    five.write_bytes(four.read_bytes())
    for content in (five.read_bytes(), b"", b"junk"):
        five.write_bytes(content)
        for option in ("--dry-run", "--json"):
            result = prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures, option)
            assert result.code == 5
            assert "--T 5" in result.err
            assert "--force" in result.err
    assert prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures, "--force").code == 0


def test_prepare_dry_run_writes_nothing(plifctl: Plifctl, gestures: Path, places: Path) -> None:
    before = sorted(places.rglob("*"))
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures, "--dry-run").code == 0
    assert sorted(places.rglob("*")) == before


def test_show_kind_selects_between_equal_names(plifctl: Plifctl) -> None:
    assert "layout" in plifctl("show", "gesture").out
    assert "structure" in plifctl("show", "gesture", "--kind", "network").out
    head, first, *_ = plifctl("show", "gesture", "--kind", "network").out.splitlines()
    assert head.split() == ["key", "value", "from"]
    assert re.fullmatch(r"name +gesture +networks/gesture\.yaml:\d+:1", first)


def test_own_data_set_from_raw_files_to_evaluation_works(
    plifctl: Plifctl, gestures: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (Path(package.__file__).parent.parent / "registry/datasets/synthetic-gesture.yaml").read_text()
    (places / "mine/datasets").mkdir(parents=True)
    (places / "mine/datasets/mine.yaml").write_text(shipped.replace("name: synthetic-gesture", "name: mine"))
    (places / "mine/experiments").mkdir()
    (places / "mine/experiments/mine.yaml").write_text(
        "extends: _common\ndataset: mine\nnetwork: demo\nT: 4\n"
        "train: {normalise: none, epochs: 1, batch_size: 11}\n"
        "variants: {own: {title: own, neuron: {kind: plif, tau_0: 2.0}}}\n"
    )
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "mine"))
    assert plifctl("check").code == 0
    assert plifctl("prepare", "mine", "--T", 4, "--raw", gestures).code == 0
    assert plifctl("train", "own").code == 0
    monkeypatch.delenv("PLIFCTL_REGISTRY")
    assert plifctl("eval", "last").code == 0  # a checkpoint needs no registry
    assert plifctl("train", "--resume", "last", "--epochs", 2).code == 0  # nor does a run
    assert plifctl("train", "own").code == 2


def test_resume_of_a_finished_run_without_its_checkpoint_is_refused(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    (run,) = (places / "runs").iterdir()
    (run / "checkpoints/last.pt").unlink()
    whole = {name: (run / name).read_bytes() for name in ("result.json", "metrics.jsonl", "checkpoints/best.pt")}
    result = prepared("train", "--resume", "last", "--epochs", 2)
    assert result.code == 6
    assert "last.pt: missing" in result.err
    assert {name: (run / name).read_bytes() for name in whole} == whole
