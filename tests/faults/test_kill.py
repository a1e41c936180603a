"""Killed at any moment, and the same command again: nothing is lost, nothing half done is taken for whole."""

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
from factories import idx_files
from faults.sandbox import Ended, Sandbox, document, pick, what_was_learnt

from plifctl.data.datasets.idx import Mnist

PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw", "--json")
TINY = ("--set", "train.batch_size=8", "--set", "T=4", "--epochs", 3, "--checkpoint-every", 1, "--json")
LOG = "run-FashionMNIST_init_tau_2.0_use_plif_True_use_max_pool_True_T_8_detach_reset_True-tag-test_accuracy.csv"
Times = Callable[[int, int], int]
Told = Callable[[str], None]


def prepared(sandbox: Sandbox) -> dict[str, Any]:
    sandbox.age()
    tree = document(sandbox.run(*PREPARE))
    assert sandbox.run("cache", "verify").code == 0
    assert sandbox.leftovers() == []
    return tree


def test_prepare(sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
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
        killed += sandbox.killed_at(at, *PREPARE).struck
        assert prepared(sandbox)["content_digest"] == wanted
    for _ in range(times(1, 40)):
        sandbox.clear()
        for _ in range(2):  # the second goes on where the first was
            killed += sandbox.stopped_after(generator.uniform(0, took), signal.SIGKILL, *PREPARE).struck
        assert prepared(sandbox)["content_digest"] == wanted
    assert len(cache.read_bytes()) == len(whole)
    told(f"{killed} kills, {changes} changes of the folder each could strike")
    assert killed


def test_prepare_again_over_what_is_there(sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    """``--force`` replaces a cache: until the new one is whole the old one is there."""
    wanted = prepared(sandbox)["content_digest"]
    changes = sandbox.changes(*PREPARE, "--force")
    killed = 0
    for at in pick(generator, changes, times(2, 30)):
        killed += sandbox.killed_at(at, *PREPARE, "--force").struck
        there = documents(sandbox.run("cache", "ls", "--json"))
        assert [entry["content_digest"] for entry in there if entry["state"] == "ok"] == [wanted]
        assert sandbox.run("cache", "verify").code == 0
    assert prepared(sandbox)["content_digest"] == wanted
    told(f"{killed} kills")


def carry_on(sandbox: Sandbox, verb: str, strike: Callable[[Sandbox, tuple[object, ...]], Ended], most: int) -> int:
    """Strikes a training again and again, each time going on from where it was; then lets it end."""
    struck = 0
    for number in range(most + 1):
        runs = sandbox.begun()
        assert len(runs) <= 1, "a killed command left two runs"
        command: tuple[object, ...] = (verb, "--resume", "last", "--json") if runs else (verb, "demo", *TINY)
        ended = strike(sandbox, command) if number < most else sandbox.run(*command)
        if not ended.struck:
            assert ended.code == 0, ended.err
            break
        struck += 1
        sandbox.age()
        for entry in documents(sandbox.run("runs", "ls", "--json")):
            finished = (sandbox.runs / entry["run"] / "result.json").is_file()
            assert entry["status"] == ("finished" if finished else "killed"), entry
    assert sandbox.run("runs", "verify").code == 0
    assert sandbox.leftovers() == []
    return struck


def documents(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def undisturbed(sandbox: Sandbox, verb: str) -> tuple[dict[str, Any], int, float]:
    """What a training comes to that nobody disturbs; its changes of the folder; seconds."""
    prepared(sandbox)
    begun = time.monotonic()
    changes = sandbox.changes(verb, "demo", *TINY)
    took = time.monotonic() - begun
    return what_was_learnt(the_run(sandbox)), changes, took


def the_run(sandbox: Sandbox) -> Path:
    (run,) = sandbox.begun()
    return run


def forget(sandbox: Sandbox) -> None:
    shutil.rmtree(sandbox.runs)


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_train(verb: str, sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    wanted, changes, took = undisturbed(sandbox, verb)
    killed = 0
    for at in pick(generator, changes, times(1, 40)):
        forget(sandbox)
        killed += carry_on(sandbox, verb, lambda sandbox, command, at=at: sandbox.killed_at(at, *command), 1)
        assert what_was_learnt(the_run(sandbox)) == wanted, f"killed at change {at}"
    for _ in range(times(1, 10)):
        forget(sandbox)
        killed += carry_on(
            sandbox,
            verb,
            lambda sandbox, command: sandbox.stopped_after(generator.uniform(0, took), signal.SIGKILL, *command),
            3,
        )
        assert what_was_learnt(the_run(sandbox)) == wanted
    told(f"{killed} kills, {changes} changes of the folder each could strike")
    assert killed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(signum: signal.Signals, sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    """Asked to stop, a training writes a checkpoint first, and says how to go on."""
    wanted, _, took = undisturbed(sandbox, "train")
    stopped = 0
    for _ in range(times(1, 10)):
        forget(sandbox)
        for _ in range(3):
            runs = sandbox.begun()
            command: tuple[object, ...] = ("train", "--resume", "last") if runs else ("train", "demo", *TINY)
            ended = sandbox.stopped_after(generator.uniform(0.3 * took, took), signum, *command)
            assert ended.code in (0, 128 + signum, -signum), ended.err  # the last: before Python was ready for it
            stopped += ended.code != 0
            if list(sandbox.runs.glob("*/result.json")):
                break
        if not list(sandbox.runs.glob("*/result.json")):
            runs = sandbox.begun()
            command = ("train", "--resume", "last") if runs else ("train", "demo", *TINY)
            assert sandbox.run(*command).code == 0
        assert what_was_learnt(the_run(sandbox)) == wanted
    told(f"{stopped} stops")


def test_a_download(sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    """What is there of a file is kept and gone on with; in the end each is whole, or the cache is not made."""
    files = {f"/{name}": content for name, content in idx_files().items()}
    (sandbox.folder / "mnist").mkdir()
    command = ("prepare", "mnist", "--raw", "mnist", "--json")
    sandbox.program = [str(Path(__file__).with_name("mirrored.py"))]
    with serving.serving() as server:
        server.files = files
        names = {part: f"/{names[0]}" for part, names in Mnist.part_files.items()}
        mirror = {part: [[server.url + name], [hashlib.md5(files[name]).hexdigest()]] for part, name in names.items()}
        sandbox.environment |= {"FAULTS_MIRROR": json.dumps(mirror), "no_proxy": "127.0.0.1"}

        def anew() -> None:
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
            anew()
            for name in names.values():  # now and then a server that falls silent within a file
                server.ways[name] = [serving.drop(generator.randrange(5000))] * generator.randrange(2)
            killed += strike().struck
            server.ways.clear()
            sandbox.age()
            assert document(sandbox.run(*command))["content_digest"] == wanted
            found = {f"/{path.name}": path.read_bytes() for path in (sandbox.folder / "mnist").iterdir()}
            assert {name: found[name] for name in files} == files
            assert sandbox.run("cache", "verify").code == 0
            assert sandbox.leftovers() == []
    told(f"{killed} kills, {changes} changes of the folder each could strike")
    assert killed


def test_report_and_import(sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    """Pages, figures, imported runs: each is the old one or the new one, and the same command makes the new one."""
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
            killed += sandbox.killed_at(at, *command).struck
            assert {name for name in written(sandbox) if ".partial" not in name} == set(before)
            sandbox.age()
            ended = sandbox.run(*command)
            assert ended.code == 0, ended.err
            assert set(written(sandbox)) == set(before)
            assert sandbox.leftovers() == []
        assert sandbox.run("runs", "verify").code == 0
    told(f"{killed} kills")
    assert killed


def written(sandbox: Sandbox) -> dict[str, bytes]:
    """Every file of the folder, but locks."""
    files = (path for path in sandbox.folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(sandbox.folder)): path.read_bytes() for path in files}
