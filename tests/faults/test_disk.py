"""Full disks, read-only folders, removed files: the error names the path, and existing files stay unchanged."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from demo_runs import FIRING
from factories import write_gestures
from faults.sandbox import Ended, Sandbox, comparable_content, document, pick

PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw", "--json")
TRAIN = ("train", "demo", "--set", "train.batch_size=8", "--set", "T=4", *FIRING, "--epochs", 1, "--json")
MESSAGES = {
    "ENOSPC": "no space left on the disk",
    "EROFS": "read-only",
    "EACCES": "permission denied",
    "EIO": "Input/output",
}
Times = Callable[[int, int], int]
PrintSummary = Callable[[str], None]


def snapshot(folder: Path) -> dict[str, str]:
    """Returns the digest of every file except locks, which are empty."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_refused(ended: Ended, folder: Path) -> None:
    """Asserts an error of the machine: exit code 7, the path, no traceback."""
    assert ended.code == 7, (ended.code, ended.err)
    assert "Traceback" not in ended.err
    assert str(folder) in ended.err


def run_on_failing_disk(sandbox: Sandbox, error: str, at: int, *command: object) -> tuple[Ended, list[str]]:
    """Runs a command on a disk that fails from the n-th change on; also returns the changes that failed.

    Nothing fails where only files were to be removed from there on, which a failing disk still allows.
    """
    failed = sandbox.folder.with_name("failed")
    failed.write_text("")
    fault = {"FAULTS_FOLDER": sandbox.folder, "FAULTS_AT": at, "FAULTS_HOW": error, "FAULTS_REFUSED": failed}
    return sandbox.run(*command, **fault), failed.read_text().splitlines()


@pytest.mark.parametrize("error", list(MESSAGES))
def test_failing_disk_is_reported_and_leaves_nothing_incomplete(
    error: str, sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    changes = sandbox.changes(*PREPARE)
    (cache,) = sandbox.caches.rglob("*.h5")
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    strikes, refused = 0, {"prepare": 0, "train": 0}
    for at in pick(generator, changes * times(3, 4) // 4, times(1, 12)):
        shutil.rmtree(sandbox.caches)
        ended, failed = run_on_failing_disk(sandbox, error, at, *PREPARE)
        if failed:
            assert_refused(ended, sandbox.folder)
            assert MESSAGES[error] in ended.err
        assert failed or ended.code == 0, ended.err
        strikes, refused["prepare"] = strikes + 1, refused["prepare"] + bool(failed)
        assert document(sandbox.run(*PREPARE))["content_digest"] == wanted
        assert sandbox.run("cache", "verify").code == 0
    before = snapshot(cache.parent)
    train = sandbox.changes(*TRAIN)
    for at in pick(generator, train * times(3, 4) // 4, times(1, 12)):
        shutil.rmtree(sandbox.runs)
        ended, failed = run_on_failing_disk(sandbox, error, at, *TRAIN)
        if failed:
            assert_refused(ended, sandbox.folder)
        assert failed or ended.code == 0, ended.err
        strikes, refused["train"] = strikes + 1, refused["train"] + bool(failed)
        assert not list(sandbox.runs.glob("*/result.json")) or ended.code == 0
        sandbox.age()
        ended = sandbox.run(*(("train", "--resume", "last") if sandbox.begun() else TRAIN))
        assert ended.code == 0, ended.err
        assert sandbox.run("runs", "verify").code == 0
    assert snapshot(cache.parent) == before
    print_summary(f"{strikes} disks failed, {sum(refused.values())} of them while something was written")
    assert all(refused.values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_prepare_on_a_full_disk_is_refused(
    small_disk: Path, tmp_path: Path, times: Times, print_summary: PrintSummary
) -> None:
    write_gestures(tmp_path / "raw", users=3, events=30_000)
    sandbox = Sandbox(small_disk)
    (small_disk / "data_cache").mkdir()
    prepare = ("prepare", "synthetic-gesture", "--T", 16, "--raw", tmp_path / "raw", "--json")
    full = 0
    for free in range(0, 4 * 2**20, 2**22 // times(2, 30)):  # other files leave less and less space
        (small_disk / "filler").write_bytes(bytes(min(free, 2**22 - 2**16)))
        ended = sandbox.run(*prepare)
        if ended.code == 0:
            document(sandbox.run("cache", "verify", "--json"))
        else:
            full += 1
            assert_refused(ended, small_disk)
            assert "no space left" in ended.err
            assert not [path for path in sandbox.leftovers() if not path.endswith(".journal")]
        shutil.rmtree(sandbox.caches)
        sandbox.caches.mkdir()
    print_summary(f"{full} full disks")
    assert full


def test_prepare_with_recordings_removed_is_refused(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    write_gestures(sandbox.folder / "raw", users=8, events=20_000)
    shutil.copytree(sandbox.folder / "raw", sandbox.folder / "kept")
    begun = time.monotonic()
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    took = time.monotonic() - begun
    sandbox.clear()
    missing = sandbox.folder / "raw/user02_lab.aedat"
    missing.unlink()
    ended = sandbox.run(*PREPARE)
    assert (ended.code, f"{missing.name} is missing" in ended.err) == (4, True), ended.err
    shutil.copy(sandbox.folder / "kept" / missing.name, missing)
    gone = 0
    for _ in range(times(2, 40)):
        sandbox.clear()
        process = sandbox.start(PREPARE)
        time.sleep(generator.uniform(0, took))
        for path in generator.sample(sorted((sandbox.folder / "raw").iterdir()), 3):
            path.unlink()
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            assert document(Ended(0, out, err))["content_digest"] == wanted
        else:
            gone += 1
            assert process.returncode == 4, err
            assert "Traceback" not in err
        shutil.rmtree(sandbox.folder / "raw")
        shutil.copytree(sandbox.folder / "kept", sandbox.folder / "raw")
        assert document(sandbox.run(*PREPARE))["content_digest"] == wanted
    print_summary(f"{gone} preparations whose recordings were removed")


def test_slow_disk_gives_the_same_result(sandbox: Sandbox) -> None:
    """Every change of the folder is delayed; the results are the same."""
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    sandbox.clear()
    slow = {"FAULTS_FOLDER": sandbox.folder, "FAULTS_AT": 1, "FAULTS_HOW": "wait"}
    assert document(sandbox.run(*PREPARE, **slow))["content_digest"] == wanted
    for delay in ({}, slow):
        document(sandbox.run(*TRAIN, **delay))
    assert sandbox.run("runs", "verify").code == 0
    prompt, delayed = sorted(sandbox.begun())
    assert comparable_content(delayed) == comparable_content(prompt)


@pytest.fixture
def unprivileged(sandbox: Sandbox) -> Sandbox:
    """Runs commands with a user's permissions, also if the tests run as root, as in many CI systems."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv, which drops the rights of root, is not installed")
        sandbox.under = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return sandbox


def test_read_only_folders_can_be_read_and_are_named_when_written(unprivileged: Sandbox) -> None:
    """A read-only folder can be used for reading; errors of writing name it."""
    sandbox = unprivileged
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    document(sandbox.run(*TRAIN))
    (cache,) = sandbox.caches.rglob("*.h5")
    (run,) = sandbox.begun()
    closed = [sandbox.folder, *(path for path in sandbox.folder.rglob("*") if path.is_dir())]
    before = snapshot(sandbox.folder)
    for folder in closed:
        folder.chmod(0o555)
    try:
        assert document(sandbox.run(*PREPARE))["content_digest"] == wanted  # the cache exists
        for command in (
            ("cache", "verify"),
            ("cache", "ls"),
            ("runs", "verify"),
            ("runs", "show", "last"),
            ("eval", "last"),
            ("report", "--table", "demo"),
        ):
            ended = sandbox.run(*command)
            assert ended.code == 0, (command, ended.err)
        for command in (
            (*PREPARE, "--force"),
            ("prepare", "synthetic-gesture", "--T", 5, "--raw", "raw"),
            TRAIN,
            ("train", "--resume", "last", "--epochs", 2),
            ("cache", "rm", "synthetic-gesture"),
            ("runs", "rm", "--yes", run.name),
            ("report", "--html", sandbox.folder / "page"),
        ):
            assert_refused(sandbox.run(*command), sandbox.folder)
        cache.chmod(0)
        ended = sandbox.run("eval", "last")
        assert (ended.code, f"{cache}: permission denied" in ended.err) == (5, True)
    finally:
        cache.chmod(0o644)
        for folder in closed:
            folder.chmod(0o755)
    assert snapshot(sandbox.folder) == before


def test_prepare_with_an_unreadable_recording_names_it(unprivileged: Sandbox) -> None:
    sandbox = unprivileged
    locked = sandbox.folder / "raw/user01_lab.aedat"
    locked.chmod(0)
    assert_refused(sandbox.run(*PREPARE), locked)
    assert not list(sandbox.caches.rglob("*.h5"))
    locked.chmod(0o644)
    document(sandbox.run(*PREPARE))
