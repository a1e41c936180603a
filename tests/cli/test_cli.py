"""The command line as a user meets it: the whole way on a tiny data set, every exit code, every error's remedy."""

import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import write_gestures

import plifctl as package
from plifctl.errors import PlifctlError

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", "--set", "T=4", "--epochs", "2")


@pytest.fixture
def prepared(plifctl: Plifctl, gestures: Path) -> Plifctl:
    """The command line with a cache of the tiny gestures, T = 4."""
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    return plifctl


class TestTheWay:
    def test_prepare_train_validate_eval_report(self, plifctl: Plifctl, gestures: Path, places: Path) -> None:
        said = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
        assert said.code == 0
        assert "22 training and 11 test samples (not verified, incomplete)" in said.out
        assert "warning: incomplete: 22 of 440" in said.err

        said = plifctl("train", "demo", *TINY)
        assert said.code == 0
        assert "best test accuracy:" in said.out
        assert "epoch 2/2  loss" in said.err
        assert "incomplete" in said.err
        (run,) = (places / "runs").iterdir()
        for name in ("run.json", "config.yaml", "env.json", "split.json", "metrics.jsonl", "result.json"):
            assert (run / name).is_file()
        assert list(run.glob("events.out.*"))
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2

        said = plifctl("validate", "demo", *TINY, "--json")
        assert said.code == 0
        assert json.loads(said.out)["protocol"] == "B"

        said = plifctl("eval", run.name, "--json")
        tree = json.loads(said.out)
        record = json.loads((run / "result.json").read_text())
        assert tree["accuracy"] == record["accuracy"]
        assert sum(map(sum, tree["confusion"])) == 11
        assert len(tree["layers"]) == 5
        assert "test accuracy" in plifctl("eval", run / "checkpoints/last.pt").out

        assert "finished" in plifctl("runs", "ls").out
        assert plifctl("report", "--table", "4").code == 0

    def test_a_hit_and_a_dry_run(self, prepared: Plifctl, gestures: Path) -> None:
        assert prepared("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).out.startswith("found:")
        said = prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures, "--dry-run")
        assert said.out.startswith("miss:")
        assert "T is 4, expected 5" in said.out
        assert (
            json.loads(
                prepared("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures, "--dry-run", "--json").out
            )["state"]
            == "hit"
        )
        plan = json.loads(prepared("train", "demo", *TINY, "--dry-run", "--json").out)
        assert (plan["train"], plan["test"], plan["steps_per_epoch"]) == (22, 11, 2)

    def test_train_prepares_when_asked(self, plifctl: Plifctl, gestures: Path) -> None:
        said = plifctl("train", "demo", *TINY, "--epochs", 1, "--prepare", "--raw", gestures)
        assert said.code == 0

    def test_more_epochs_later_and_finished_runs(self, prepared: Plifctl, places: Path) -> None:
        whole = prepared("train", "demo", *TINY, "--epochs", 3, "--json")
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        said = prepared("train", "--resume", "last", "--epochs", 3, "--json")
        assert said.code == 0
        longer, straight = json.loads(said.out), json.loads(whole.out)
        for key in ("accuracy", "best_epoch", "test_accuracy", "tau", "epochs"):
            assert longer[key] == straight[key]
        first, last = sorted((places / "runs").iterdir())
        weights = [torch.load(run / "checkpoints/last.pt", weights_only=True)["model"] for run in (first, last)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        again = prepared("train", "--resume", "last")
        assert again.code == 0
        assert "is finished" in again.err

    def test_resume_refuses_other_settings(self, prepared: Plifctl) -> None:
        assert prepared("train", "demo", *TINY).code == 0
        said = prepared("train", "--resume", "last", "--set", "train.lr=0.5")
        assert said.code == 3
        assert "train.lr: was 0.003, now 0.5" in said.err
        assert prepared("train", "--resume", "last", "--epochs", 1).code == 3
        assert prepared("validate", "--resume", "last").code == 3
        assert prepared("train", "--resume", "nothing").code == 2

    def test_the_registry(self, plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "cifar10-plif-avgpool" in plifctl("ls").out
        assert json.loads(plifctl("ls", "datasets", "--json").out)[0]["name"] == "cifar10"
        said = plifctl("show", "gesture-plif", "--recipe", "authors")
        assert "number-remainder" in said.out
        assert "gesture.yaml:" in said.out
        assert json.loads(plifctl("show", "cifar10dvs", "--json").out)["spec"]["samples"]["train"] == 9000
        assert "all valid" in plifctl("check").out
        (places / "mine/networks").mkdir(parents=True)
        (places / "mine/networks/x.yaml").write_text("x:\n  structure: FC10\n  dropout: 2\n")
        monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "mine"))
        said = plifctl("check")
        assert said.code == 3
        assert "x.yaml:1:1" in said.out
        assert "batch_norm is missing" in said.out

    @pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex"])
    def test_every_format(self, plifctl: Plifctl, form: str) -> None:
        said = plifctl("report", "--table", "all", "--format", form)
        assert said.code == 0
        assert "94.38" in said.out


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "code", "message", "hint"),
        [
            (("prepare", "imagenet"), 2, "unknown data set", "known:"),
            (("prepare", "gestur", "--T", 2), 2, "unknown data set", "did you mean gesture?"),
            (("prepare", "gesture"), 2, "event data sets need --T (number of frames)", "--T 20"),
            (("prepare", "gesture", "--T", 0), 2, "expected 1 to 10000", ""),
            (("prepare", "gesture", "--T", 10001), 2, "expected 1 to 10000", ""),
            (("prepare", "gesture", "--T", 2), 4, "no raw data of DVS128 Gesture", "--raw DIR"),
            (("train", "demo", "--set", "network=nope"), 2, "unknown network nope", "known:"),
            (("synthesize", "/proc/nowhere"), 7, "/proc/nowhere", ""),
            (("prepare", "gesture", "--T", 2, "--raw", "nowhere"), 4, "no such folder", "--raw"),
            (("prepare", "gesture", "--T", 2, "--set", "frames.x=1"), 2, "unknown key frames.x", "frames."),
            (("prepare", "gesture", "--T", 2, "--recipe", "x"), 2, "Invalid value for '--recipe'", "authors"),
            (("train",), 2, "missing argument: EXPERIMENT", "plifctl train demo"),
            (("train", "demoo"), 2, "unknown experiment", "demo"),
            (("train", "demo", "--set", "train.lrr=1"), 2, "unknown key", "train.lr"),
            (("train", "demo", "--subset", 0), 2, "train.subset", ""),
            (("train", "demo"), 5, "no cache of synthetic-gesture", "plifctl prepare synthetic-gesture --T 8"),
            (("train", "gesture-plif", "--recipe", "authors"), 5, "no cache", "--T 20 --recipe authors"),
            (("eval", "last"), 2, "no run 'last'", "plifctl train demo makes one"),
            (("eval", "x.pt"), 6, "no such checkpoint", ""),
            (("report", "--table", "7"), 2, "unknown table", "known: 1"),
            (("report", "--table", "1", "--format", "pdf"), 2, "unknown format", ""),
            (("ls", "cats"), 2, "unknown kind", ""),
            (("show", "gesture-pliff"), 2, "unknown name", "gesture-plif"),
            (("nonsense",), 2, "No such command", ""),
        ],
    )
    def test_it_is_said(
        self, plifctl: Plifctl, arguments: tuple[object, ...], code: int, message: str, hint: str
    ) -> None:
        said = plifctl(*arguments)
        assert said.code == code
        assert message in said.err
        assert hint in said.err
        assert "Traceback" not in said.err
        assert said.out == ""

    def test_raw_files_missing_empty_truncated_foreign(self, plifctl: Plifctl, gestures: Path) -> None:
        recording = gestures / "user02_lab.aedat"
        whole = recording.read_bytes()
        for content in (b"", whole[:-5], b"#!AER-DAT2.0\r\n" + bytes(8), b"\x1f\x8b nothing"):
            recording.write_bytes(content)
            said = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
            assert said.code == 4
            assert "user02_lab.aedat: byte" in said.err
        recording.unlink()
        said = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
        assert said.code == 4
        assert "user02_lab.aedat is missing" in said.err
        assert plifctl("train", "demo", "--set", "T=4").code == 5

    def test_a_different_checksum(self, plifctl: Plifctl, gestures: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "DvsGesture.tar.gz", "w:gz") as archive:
            archive.add(gestures, "DvsGesture")
        said = plifctl("prepare", "gesture", "--T", 4, "--raw", tmp_path)
        assert said.code == 4
        assert "the published file has 8a5c71fb11e24e5ca5b11866ca6c00a1" in said.err
        assert "add --no-checksum" in said.err
        said = plifctl("prepare", "gesture", "--T", 4, "--raw", tmp_path, "--no-checksum", "--json")
        assert json.loads(said.out)["verified"] is False

    def test_a_cache_made_for_another_T(self, prepared: Plifctl) -> None:
        said = prepared("train", "demo")
        assert said.code == 5
        assert "T is 4, expected 8" in said.err
        assert "hint: plifctl prepare synthetic-gesture --T 8" in said.err

    def test_a_damaged_cache_is_never_trained_on(self, prepared: Plifctl, places: Path) -> None:
        (path,) = (places / "data_cache/synthetic-gesture").glob("*.h5")
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = bytes(b ^ 0xFF for b in data[middle : middle + 2000])
        path.write_bytes(data)
        said = prepared("train", "demo", *TINY)
        assert said.code == 5
        assert "--force" in said.err
        assert not list((places / "runs").glob("*/result.json"))

    def test_a_checkpoint_of_another_network(self, prepared: Plifctl, places: Path) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        (run,) = (places / "runs").iterdir()
        path = run / "checkpoints/best.pt"
        state = torch.load(path, weights_only=True)
        state["model"]["fc0.weight"] = torch.zeros(3, 3)
        torch.save(state, path)
        said = prepared("eval", run.name)
        assert said.code == 6
        assert "another network" in said.err
        path.write_bytes(b"nothing")
        assert prepared("eval", run.name).code == 6

    def test_a_device_that_is_not_there(self, prepared: Plifctl) -> None:
        said = prepared("train", "demo", *TINY, "--device", "cuda:77")
        assert said.code == 2
        assert "--device cpu" in said.err

    def test_static_images_have_no_T_in_their_cache(self, plifctl: Plifctl, tmp_path: Path) -> None:
        said = plifctl("prepare", "mnist", "--T", 8, "--raw", tmp_path, "--no-download")
        assert "cached once for all T" in said.err

    def test_a_full_disk_is_named(self, plifctl: Plifctl, gestures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.posix_fallocate", full)
        said = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
        assert said.code == 7
        assert "no space left" in said.err

    @pytest.mark.slow
    @pytest.mark.subprocess
    @pytest.mark.parametrize("limit", [2**12, 2**14, 2**15, 2**20])
    def test_no_room_for_a_file_ends_cleanly(self, gestures: Path, places: Path, limit: int) -> None:
        # HDF5 itself crashes when it cannot write; only a limit that the system holds shows whether it came to that
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        code = limited + "import plifctl.cli; plifctl.cli.main()"
        arguments = ["prepare", "synthetic-gesture", "--T", "4", "--raw", str(gestures)]
        said = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100)
        assert said.returncode == 7, said.stderr
        assert "the file would exceed the size limit" in said.stderr
        assert not list((places / "data_cache").rglob("*.h5")) + list((places / "data_cache").rglob("*.partial"))
        said = subprocess.run(
            [sys.executable, "-m", "plifctl", *arguments], capture_output=True, text=True, timeout=100
        )
        assert said.returncode == 0, said.stderr
        assert not list((places / "data_cache").rglob("*.journal"))


def every_error(base: type[PlifctlError] = PlifctlError) -> list[type[PlifctlError]]:
    return [base, *(e for sub in base.__subclasses__() for e in every_error(sub))]


def test_exit_codes_are_the_documented_ones() -> None:
    drawn = (Path(package.__file__).parent / "errors.py").read_text(encoding="utf-8").split('"""')[1]
    for error in every_error():
        (line,) = [line for line in drawn.splitlines() if f" {error.__name__} " in line]
        if error.__name__ != "Interrupted":
            assert line.split(error.__name__)[1].split()[0] == str(error.exit_code)


def start(places: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plifctl", *arguments]
    return subprocess.Popen(command, cwd=places, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.subprocess
class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_training_stops_with_a_checkpoint_and_goes_on(
        self, prepared: Plifctl, places: Path, number: signal.Signals, code: int
    ) -> None:
        process = start(places, "train", "demo", "--set", "train.batch_size=2", "--set", "T=4", "--epochs", "50")
        wait_for(
            lambda: (
                list((places / "runs").glob("*/metrics.jsonl"))
                and list((places / "runs").glob("*/checkpoints/last.pt"))
            )
        )
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert "hint: go on with: plifctl train --resume" in err
        assert "stopped" in prepared("runs", "ls").out
        (run,) = (places / "runs").iterdir()
        done = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]
        assert done["epoch"] >= 1

    def test_a_killed_training_is_not_finished_and_goes_on(self, prepared: Plifctl, places: Path) -> None:
        process = start(places, "train", "demo", *TINY, "--epochs", "4")
        wait_for(lambda: list((places / "runs").glob("*/checkpoints/last.pt")))
        process.kill()
        process.communicate()
        if "finished" not in prepared("runs", "ls").out:
            assert "killed" in prepared("runs", "ls").out
        said = prepared("train", "--resume", "last", "--json")
        assert said.code == 0
        straight = json.loads(prepared("train", "demo", *TINY, "--epochs", 4, "--json").out)
        assert json.loads(said.out)["test_accuracy"] == straight["test_accuracy"]

    def test_preparing_stops_clean(self, places: Path) -> None:
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
    def test_it_writes_a_folder_again_but_no_other(self, plifctl: Plifctl, gestures: Path, places: Path) -> None:
        before = {path.name: path.read_bytes() for path in gestures.iterdir()}
        said = plifctl("synthesize", gestures)  # real recordings look like this
        assert said.code == 2
        assert "not part of the embedded data set" in said.err
        assert {path.name: path.read_bytes() for path in gestures.iterdir()} == before

    @pytest.mark.subprocess
    def test_stopped_it_leaves_nothing_and_can_begin_again(self, places: Path) -> None:
        process = start(places, "synthesize", "sim")
        wait_for(lambda: list(places.glob(".sim.*.partial/user03*")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert list(places.glob("*sim*")) + list(places.glob(".sim*")) == []


class TestJson:
    def test_an_error_is_a_document_too(self, plifctl: Plifctl) -> None:
        for arguments, code in ((("eval", "nope"), 2), (("train", "demo"), 5), (("prepare", "gesture", "--T", 2), 4)):
            said = plifctl(*arguments, "--json")
            assert said.code == code
            error = json.loads(said.out)["error"]
            assert error["exit_code"] == code
            assert error["message"] in said.err

    def test_report_and_synthesize(self, plifctl: Plifctl, places: Path) -> None:
        assert json.loads(plifctl("report", "--table", "all", "--table", "demo", "--json").out)[-1]["table"] == "demo"
        said = plifctl("check", "--json")
        assert json.loads(said.out) == {"problems": []}


def test_quiet_and_verbose(plifctl: Plifctl, gestures: Path) -> None:
    said = plifctl("-q", "prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
    assert "reading" not in said.err
    assert "warning: incomplete" in said.err
    said = plifctl("-v", "eval", "nope")
    assert "Traceback" in said.err
    assert "error: no run 'nope'" in said.err
    assert "Traceback" not in plifctl("eval", "nope").err


def test_one_damaged_run_hides_no_other(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    first, second = sorted((places / "runs").iterdir())
    (first / "config.yaml").write_text("experiment: [")
    said = prepared("runs", "ls")
    assert said.code == 0
    assert "damaged" in said.out
    assert second.name in said.out


def test_a_failing_resume_takes_nothing_away(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    (run,) = (places / "runs").iterdir()
    whole = {name: (run / name).read_bytes() for name in ("result.json", "config.yaml", "metrics.jsonl")}
    (run / "checkpoints/last.pt").write_bytes(b"nothing")
    said = prepared("train", "--resume", "last", "--epochs", 3)
    assert said.code == 6
    assert {name: (run / name).read_bytes() for name in whole} == whole


class TestResumeAsks:
    def test_no_other_recipe_and_no_fewer_epochs(self, prepared: Plifctl) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 2).code == 0
        said = prepared("train", "--resume", "last", "--recipe", "authors")
        assert said.code == 3
        assert "recipe: was paper, now authors" in said.err
        said = prepared("train", "demo", "--resume", "last")  # epochs stay those of the run
        assert said.code == 0
        assert "is finished" in said.err
        said = prepared("train", "mnist-plif", "--resume", "last")
        assert said.code == 3

    def test_the_cache_of_the_run_is_the_one_that_counts(self, prepared: Plifctl, gestures: Path, places: Path) -> None:
        assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
        write_gestures(gestures, users=4)
        assert prepared("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
        assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
        said = prepared("eval", "last", "--json")
        assert json.loads(said.out)["samples"] == 11
        record = json.loads(next((places / "runs").glob("*/result.json")).read_text())
        older = next(p for p in (places / "data_cache").rglob("*.h5") if content_of(p) == record["data"]["cache"])
        older.unlink()
        said = prepared("train", "--resume", "last", "--epochs", 3)
        assert said.code == 3
        assert "trained on a cache of content" in said.err
        assert "warning: trained on a cache of content" in prepared("eval", "last").err


def content_of(path: Path) -> str:
    from plifctl.cache import Cache

    return Cache(path).content_digest


def test_a_set_T_holds_for_both_protocols(plifctl: Plifctl) -> None:
    for given, wanted in (((), "--T 20"), (("--set", "T=5"), "--T 5")):
        said = plifctl("validate", "nmnist-plif", "--recipe", "authors", *given)
        assert said.code == 5
        assert f"hint: plifctl prepare nmnist {wanted} --recipe authors" in said.err


def test_raw_without_prepare_is_no_use(prepared: Plifctl, gestures: Path) -> None:
    said = prepared("train", "demo", *TINY, "--raw", gestures)
    assert said.code == 2
    assert "--prepare" in said.err


def test_a_hit_needs_the_key_and_a_whole_file(prepared: Plifctl, gestures: Path, places: Path) -> None:
    folder = places / "data_cache/synthetic-gesture"
    (four,) = folder.glob("*.h5")
    prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures)
    (five,) = set(folder.glob("*.h5")) - {four}
    five.write_bytes(four.read_bytes())
    for content in (five.read_bytes(), b"", b"junk"):
        five.write_bytes(content)
        for option in ("--dry-run", "--json"):
            said = prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures, option)
            assert said.code == 5
            assert "--T 5" in said.err
            assert "--force" in said.err
    assert prepared("prepare", "synthetic-gesture", "--T", 5, "--raw", gestures, "--force").code == 0


def test_a_dry_run_writes_nothing(plifctl: Plifctl, gestures: Path, places: Path) -> None:
    before = sorted(places.rglob("*"))
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures, "--dry-run").code == 0
    assert sorted(places.rglob("*")) == before


def test_networks_that_share_a_name_with_a_data_set_can_be_shown(plifctl: Plifctl) -> None:
    assert "layout" in plifctl("show", "gesture").out
    assert "structure" in plifctl("show", "gesture", "--kind", "network").out


def test_a_data_set_of_ones_own_from_raw_files_to_evaluation(
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
    assert plifctl("eval", "last").code == 0  # a checkpoint stands alone
    assert plifctl("train", "--resume", "last", "--epochs", 2).code == 0  # and so does a run
    assert plifctl("train", "own").code == 2


def test_a_run_without_its_last_state_is_not_begun_anew(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--epochs", 1).code == 0
    (run,) = (places / "runs").iterdir()
    (run / "checkpoints/last.pt").unlink()
    whole = {name: (run / name).read_bytes() for name in ("result.json", "metrics.jsonl", "checkpoints/best.pt")}
    said = prepared("train", "--resume", "last", "--epochs", 2)
    assert said.code == 6
    assert "last.pt: missing" in said.err
    assert {name: (run / name).read_bytes() for name in whole} == whole
