"""Processes killed at any moment: the same command again loses nothing and uses nothing incomplete."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serving
import torch
from factories import idx_files
from faults.sandbox import Ended, Sandbox, comparable_content, document, pick

from plifctl.data.datasets.idx import Mnist

PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw", "--json")
FIRING = ("--set", "train.batch_size=8", "--set", "T=4", "--set", "neuron.v_threshold=0.05")
"""With the threshold of the demo, a network of three epochs would not fire: all its answers would be equal."""
TINY = (*FIRING, "--epochs", 3, "--checkpoint-every", 1, "--json")
LOG = "run-FashionMNIST_init_tau_2.0_use_plif_True_use_max_pool_True_T_8_detach_reset_True-tag-test_accuracy.csv"
Times = Callable[[int, int], int]
PrintSummary = Callable[[str], None]


def prepared(sandbox: Sandbox) -> dict[str, Any]:
    sandbox.age()
    tree = document(sandbox.run(*PREPARE))
    assert sandbox.run("cache", "verify").code == 0
    assert sandbox.leftovers() == []
    return tree


def test_prepare_killed_anywhere_gives_the_same_cache(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    changes = sandbox.changes(*PREPARE)
    (cache,) = sandbox.caches.rglob("*.h5")
    whole = cache.read_bytes()
    begun = time.monotonic()
    wanted = document(sandbox.run(*PREPARE, "--force"))["content_digest"]
    took = time.monotonic() - begun
    assert sandbox.leftovers() == []
    killed = 0
    for at in pick(generator, changes, times(3, 40)):
        sandbox.clear()
        killed += sandbox.killed_at(at, *PREPARE).killed
        assert prepared(sandbox)["content_digest"] == wanted
    for _ in range(times(1, 40)):
        sandbox.clear()
        for _ in range(2):  # the second resumes the first
            killed += sandbox.stopped_after(generator.uniform(0, took), signal.SIGKILL, *PREPARE).killed
        assert prepared(sandbox)["content_digest"] == wanted
    assert len(cache.read_bytes()) == len(whole)
    print_summary(f"{killed} kills, {changes} changes of the folder to choose from")
    assert killed


def test_prepare_force_killed_keeps_the_old_cache_until_the_new_one_is_complete(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    """``--force`` replaces a cache; the old one stays until the new one is complete."""
    wanted = prepared(sandbox)["content_digest"]
    changes = sandbox.changes(*PREPARE, "--force")
    killed = 0
    for at in pick(generator, changes, times(2, 30)):
        killed += sandbox.killed_at(at, *PREPARE, "--force").killed
        there = documents(sandbox.run("cache", "ls", "--json"))
        assert [entry["content_digest"] for entry in there if entry["state"] == "ok"] == [wanted]
        assert sandbox.run("cache", "verify").code == 0
    assert prepared(sandbox)["content_digest"] == wanted
    print_summary(f"{killed} kills")
    assert killed


def train_with_kills(
    sandbox: Sandbox, verb: str, strike: Callable[[Sandbox, tuple[object, ...]], Ended], most: int
) -> int:
    """Kills a training repeatedly, resuming it each time, then lets it finish; returns the number of kills."""
    kills = 0
    for number in range(most + 1):
        runs = sandbox.begun()
        assert len(runs) <= 1, "a killed command left two runs"
        command: tuple[object, ...] = (verb, "--resume", "last", "--json") if runs else (verb, "demo", *TINY)
        ended = strike(sandbox, command) if number < most else sandbox.run(*command)
        if not ended.killed:
            assert ended.code == 0, ended.err
            break
        kills += 1
        sandbox.age()
        for entry in documents(sandbox.run("runs", "ls", "--json")):
            finished = (sandbox.runs / entry["run"] / "result.json").is_file()
            assert entry["status"] == ("finished" if finished else "killed"), entry
    assert sandbox.run("runs", "verify").code == 0
    assert sandbox.leftovers() == []
    return kills


def documents(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def train_uninterrupted(sandbox: Sandbox, verb: str) -> tuple[dict[str, Any], int, float]:
    """Returns the result of an uninterrupted training, its number of changes of the folder, and its seconds."""
    prepared(sandbox)
    begun = time.monotonic()
    changes = sandbox.changes(verb, "demo", *TINY)
    took = time.monotonic() - begun
    return comparable_content(only_run(sandbox)), changes, took


def only_run(sandbox: Sandbox) -> Path:
    (run,) = sandbox.begun()
    return run


def remove_runs(sandbox: Sandbox) -> None:
    shutil.rmtree(sandbox.runs)


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_training_killed_anywhere_and_resumed_gives_the_same_result(
    verb: str, sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    wanted, changes, took = train_uninterrupted(sandbox, verb)
    killed = 0
    # the last changes may not be reached: a faster training writes its progress less often
    for at in (changes // 2, *pick(generator, changes, times(0, 40))):
        remove_runs(sandbox)
        killed += train_with_kills(sandbox, verb, lambda sandbox, command, at=at: sandbox.killed_at(at, *command), 1)
        assert comparable_content(only_run(sandbox)) == wanted, f"killed at change {at}"
    for _ in range(times(1, 10)):
        remove_runs(sandbox)
        killed += train_with_kills(
            sandbox,
            verb,
            lambda sandbox, command: sandbox.stopped_after(generator.uniform(0, took), signal.SIGKILL, *command),
            3,
        )
        assert comparable_content(only_run(sandbox)) == wanted
    print_summary(f"{killed} kills, {changes} changes of the folder to choose from")
    assert killed


def test_longer_training_killed_anywhere_keeps_the_result_until_the_longer_one_is_written(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    """The folder always has a complete result, of 2 epochs or of 3; the same command again gives that of 3."""
    prepared(sandbox)
    document(sandbox.run("train", "demo", *FIRING, "--epochs", 2, "--json"))
    finished = sandbox.folder / "finished"
    shutil.copytree(sandbox.runs, finished)
    longer = ("train", "--resume", "last", "--epochs", 3, "--json")
    changes, killed = sandbox.changes(*longer), 0
    wanted = comparable_content(only_run(sandbox))
    for at in pick(generator, changes, times(1, 40)):
        remove_runs(sandbox)
        shutil.copytree(finished, sandbox.runs)
        killed += sandbox.killed_at(at, *longer).killed
        shown = document(sandbox.run("runs", "show", "last", "--json"))
        record = json.loads((only_run(sandbox) / "result.json").read_text())
        assert record["epochs"] in (2, 3), f"killed at change {at}"
        assert sandbox.run("runs", "verify").code == 0, f"killed at change {at}"
        if shown["status"] == "finished":
            assert shown["kept_result"] is None
        else:
            assert (shown["status"], shown["kept_result"]["accuracy"]) == ("killed", record["accuracy"])
        (table,) = json.loads(sandbox.run("report", "--table", "selection", "--include-modified", "--json").out)
        last = 100 * record["test_accuracy"][record["epochs"] - 1]
        assert [
            entry["result"]
            for entry in table["entries"]
            if (entry["row"], entry["column"]) == (record["run"], "last (epoch)")
        ] == [pytest.approx(last, abs=0.01)]
        sandbox.age()
        assert document(sandbox.run(*longer))["epochs"] == 3
        assert comparable_content(only_run(sandbox)) == wanted, f"killed at change {at}"
        assert sandbox.run("runs", "verify", "last").code == 0
        assert sandbox.leftovers() == []
    print_summary(f"{killed} kills, {changes} changes of the folder to choose from")
    assert killed


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_training_killed_and_resumed_with_other_bits_reports_the_model_of_its_epoch(
    verb: str, sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    """Each process computes other numbers, as on a GPU: record, history and best checkpoint still say the same."""
    _, changes, _ = train_uninterrupted(sandbox, verb)
    sandbox.program = [str(Path(__file__).with_name("nudged.py"))]
    killed = 0
    for at in pick(generator, changes, times(1, 40)):
        remove_runs(sandbox)
        seeds = iter(range(100 * at + 1, 100 * at + 100))

        def strike(sandbox: Sandbox, command: tuple[object, ...], at: int = at, seeds: Any = seeds) -> Ended:
            sandbox.environment["FAULTS_NUDGE"] = str(next(seeds))
            return sandbox.killed_at(at, *command)

        killed += train_with_kills(sandbox, verb, strike, 3)
        run = only_run(sandbox)
        record = json.loads((run / "result.json").read_text())
        best = torch.load(run / "checkpoints/best.pt", weights_only=True)
        row = json.loads((run / "metrics.jsonl").read_text().splitlines()[record["best_epoch"] - 1])
        selecting = row["test_accuracy"] if verb == "train" else row["validation_accuracy"]
        assert (best["epoch"], best["accuracy"]) == (record["best_epoch"], selecting), f"killed at change {at}"
        answer = document(sandbox.run("eval", run.name, "--json"))
        assert answer["accuracy"] == record["accuracy"], f"killed at change {at}"
    print_summary(f"{killed} kills, {changes} changes of the folder to choose from")
    assert killed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_training_stopped_by_a_signal_and_resumed_gives_the_same_result(
    signum: signal.Signals, sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    """A training that is stopped writes a checkpoint first, and prints how to resume."""
    wanted, _, took = train_uninterrupted(sandbox, "train")
    # checkpoints after epochs and on signals only
    begin: tuple[object, ...] = ("train", "demo", *FIRING, "--epochs", 3)
    stopped = 0
    for _ in range(times(1, 10)):
        remove_runs(sandbox)
        for number in range(3):
            command = ("train", "--resume", "last") if sandbox.begun() else begin
            if number:
                ended, trained = stopped_somewhere(sandbox, generator.uniform(0.3 * took, took), signum, command)
            else:
                ended, trained = stopped_at_the_first_step(sandbox, signum, command), True
            if finished(sandbox):
                assert number, "finished although it was stopped"
                assert ended.code in (0, 128 + signum, -signum), ended.err
                break
            if trained:  # −signum is the code before Python installed its handlers
                assert ended.code == 128 + signum, ended.err
                assert "hint: to continue: plifctl train --resume" in ended.err
                progress = torch.load(only_run(sandbox) / "checkpoints/last.pt", weights_only=True)["progress"]
                where = f"in epoch {progress['epoch'] + 1}, after step {progress['step']}"
                assert progress["step"] > 0  # checkpoints after epochs have step 0
                assert f"stopped {where}; the state is saved" in ended.err
                stopped += 1
            else:
                assert ended.code in (128 + signum, -signum), ended.err
        if not finished(sandbox):
            assert sandbox.run("train", "--resume", "last").code == 0
        assert comparable_content(only_run(sandbox)) == wanted
    print_summary(f"{stopped} stops")


def finished(sandbox: Sandbox) -> bool:
    return any(sandbox.runs.glob("*/result.json"))


def stopped_at_the_first_step(sandbox: Sandbox, signum: int, command: tuple[object, ...]) -> Ended:
    """Runs a training and sends it a signal as soon as it begins to train."""
    process, end = sandbox.start(command), time.monotonic() + 60
    while not any('"pid"' in (run / "run.json").read_text() for run in sandbox.begun()):
        assert process.poll() is None
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def stopped_somewhere(sandbox: Sandbox, seconds: float, signum: int, command: tuple[object, ...]) -> tuple[Ended, bool]:
    """Runs a resumed training and sends it a signal after some seconds; also returns whether it had begun to train."""
    info = only_run(sandbox) / "run.json"
    before = json.loads(info.read_text())["pid"]
    ended = sandbox.stopped_after(seconds, signum, *command)
    return ended, json.loads(info.read_text())["pid"] != before


def test_prepare_killed_during_a_download_is_resumed(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    """A partial download is kept and resumed; in the end all files are complete."""
    files = {f"/{name}": content for name, content in idx_files().items()}
    (sandbox.folder / "mnist").mkdir()
    command = ("prepare", "mnist", "--raw", "mnist", "--json")
    sandbox.program = [str(Path(__file__).with_name("mirrored.py"))]
    with serving.serving() as server:
        server.files = files
        names = {part: f"/{names[0]}" for part, names in Mnist.part_files.items()}
        mirror = {part: [[server.url + name], [hashlib.md5(files[name]).hexdigest()]] for part, name in names.items()}
        sandbox.environment |= {"FAULTS_MIRROR": json.dumps(mirror), "no_proxy": "127.0.0.1"}

        def remove_all() -> None:
            sandbox.clear()
            for path in (sandbox.folder / "mnist").iterdir():
                path.unlink()

        changes = sandbox.changes(*command)
        begun = time.monotonic()
        wanted = document(sandbox.run(*command, "--force"))["content_digest"]
        took, killed = time.monotonic() - begun, 0
        strikes = [lambda at=at: sandbox.killed_at(at, *command) for at in pick(generator, changes, times(2, 30))]
        strikes += [
            lambda: sandbox.stopped_after(generator.uniform(0.2 * took, took), signal.SIGKILL, *command)
        ] * times(1, 20)
        for strike in strikes:
            remove_all()
            for name in names.values():  # sometimes the server drops the connection within a file
                server.ways[name] = [serving.drop(generator.randrange(5000))] * generator.randrange(2)
            killed += strike().killed
            server.ways.clear()
            sandbox.age()
            assert document(sandbox.run(*command))["content_digest"] == wanted
            found = {f"/{path.name}": path.read_bytes() for path in (sandbox.folder / "mnist").iterdir()}
            assert {name: found[name] for name in files} == files
            assert sandbox.run("cache", "verify").code == 0
            assert sandbox.leftovers() == []
    print_summary(f"{killed} kills, {changes} changes of the folder to choose from")
    assert killed


def test_report_and_import_killed_anywhere_leave_complete_files(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    """Pages, figures and imported runs are the old or the new version; the same command again writes the new one."""
    sandbox.runs.mkdir()
    logs = sandbox.folder / "logs"
    logs.mkdir()
    rows = "".join(f"{number}.5,{number},0.{90 + number}\n" for number in range(9))
    (logs / LOG).write_text(f"Wall time,Step,Value\n{rows}")
    commands: tuple[tuple[object, ...], ...] = (
        ("runs", "import", "logs"),
        ("report", "--html", "page"),
        ("report", "--figure", "1b", "--out", "figure.svg"),
    )
    killed = 0
    for command in commands:
        changes = sandbox.changes(*command)
        before = written(sandbox)
        assert before
        for at in pick(generator, changes, times(1, 10)):
            killed += sandbox.killed_at(at, *command).killed
            assert {name for name in written(sandbox) if ".partial" not in name} == set(before)
            sandbox.age()
            ended = sandbox.run(*command)
            assert ended.code == 0, ended.err
            assert set(written(sandbox)) == set(before)
            assert sandbox.leftovers() == []
        assert sandbox.run("runs", "verify").code == 0
    print_summary(f"{killed} kills")
    assert killed


def written(sandbox: Sandbox) -> dict[str, bytes]:
    """Returns the content of every file of the folder except locks."""
    files = (path for path in sandbox.folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(sandbox.folder)): path.read_bytes() for path in files}
