"""Full disks, closed folders, files that vanish: the error names the path, and what was there before is untouched."""

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
from faults.world import Ended, World, document, pick
from making import write_gestures

PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw", "--json")
TRAIN = ("train", "demo", "--set", "train.batch_size=8", "--set", "T=4", "--epochs", 1, "--json")
SAID = {
    "ENOSPC": "no space left on the disk",
    "EROFS": "read-only",
    "EACCES": "permission denied",
    "EIO": "Input/output",
}
Times = Callable[[int, int], int]
Told = Callable[[str], None]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file's digest, but of locks, which hold nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(ended: Ended, folder: Path) -> None:
    """A refusal of the system: exit code 7, the path, no traceback."""
    assert ended.code == 7, (ended.code, ended.err)
    assert "Traceback" not in ended.err
    assert str(folder) in ended.err


@pytest.mark.parametrize("error", list(SAID))
def test_nothing_can_be_written_from_some_moment_on(
    error: str, world: World, generator: random.Random, times: Times, told: Told
) -> None:
    changes = world.changes(*PREPARE)
    (cache,) = world.caches.rglob("*.h5")
    wanted = document(world.run(*PREPARE))["content_digest"]
    strikes = 0
    for at in pick(generator, changes, times(1, 12)):
        shutil.rmtree(world.caches)
        ended = world.run(*PREPARE, FAULTS_FOLDER=world.folder, FAULTS_AT=at, FAULTS_HOW=error)
        if ended.code != 0:  # a journal that cannot be removed hurts nobody
            refused(ended, world.folder)
            assert SAID[error] in ended.err
        strikes += 1
        assert document(world.run(*PREPARE))["content_digest"] == wanted
        assert world.run("cache", "verify").code == 0
    before = snapshot(cache.parent)
    train = world.changes(*TRAIN)
    for at in pick(generator, train, times(1, 12)):
        shutil.rmtree(world.runs)
        ended = world.run(*TRAIN, FAULTS_FOLDER=world.folder, FAULTS_AT=at, FAULTS_HOW=error)
        if ended.code != 0:
            refused(ended, world.folder)
        strikes += 1
        assert not list(world.runs.glob("*/result.json")) or ended.code == 0
        world.age()
        ended = world.run(*(("train", "--resume", "last") if world.begun() else TRAIN))
        assert ended.code == 0, ended.err
        assert world.run("runs", "verify").code == 0
    assert snapshot(cache.parent) == before
    told(f"{strikes} disks failed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_small_disk(small_disk: Path, tmp_path: Path, times: Times, told: Told) -> None:
    write_gestures(tmp_path / "raw", users=3, events=30_000)
    world = World(small_disk)
    (small_disk / "data_cache").mkdir()
    prepare = ("prepare", "synthetic-gesture", "--T", 16, "--raw", tmp_path / "raw", "--json")
    full = 0
    for free in range(0, 4 * 2**20, 2**22 // times(2, 30)):  # what else lies on the disk leaves ever less room
        (small_disk / "filler").write_bytes(bytes(min(free, 2**22 - 2**16)))
        ended = world.run(*prepare)
        if ended.code == 0:
            document(world.run("cache", "verify", "--json"))
        else:
            full += 1
            refused(ended, small_disk)
            assert "no space left" in ended.err
            assert not [path for path in world.leftovers() if not path.endswith(".journal")]
        shutil.rmtree(world.caches)
        world.caches.mkdir()
    told(f"{full} full disks")
    assert full


def test_recordings_that_vanish(world: World, generator: random.Random, times: Times, told: Told) -> None:
    write_gestures(world.folder / "raw", users=8, events=20_000)
    shutil.copytree(world.folder / "raw", world.folder / "kept")
    begun = time.monotonic()
    wanted = document(world.run(*PREPARE))["content_digest"]
    took = time.monotonic() - begun
    gone = 0
    for _ in range(times(2, 40)):
        world.clear()
        process = world.start(PREPARE)
        time.sleep(generator.uniform(0, took))
        for path in generator.sample(sorted((world.folder / "raw").iterdir()), 3):
            path.unlink()
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            assert document(Ended(0, out, err))["content_digest"] == wanted
        else:
            gone += 1
            assert process.returncode == 4, err
            assert "Traceback" not in err
        shutil.rmtree(world.folder / "raw")
        shutil.copytree(world.folder / "kept", world.folder / "raw")
        assert document(world.run(*PREPARE))["content_digest"] == wanted
    told(f"{gone} preparations whose recordings vanished")


def test_a_slow_disk(world: World) -> None:
    """Each change waits for the disk; nothing is given up, nothing comes out otherwise."""
    wanted = document(world.run(*PREPARE))["content_digest"]
    world.clear()
    slow = {"FAULTS_FOLDER": world.folder, "FAULTS_AT": 1, "FAULTS_HOW": "wait"}
    assert document(world.run(*PREPARE, **slow))["content_digest"] == wanted
    document(world.run(*TRAIN, **slow))
    assert world.run("runs", "verify").code == 0


@pytest.fixture
def unprivileged(world: World) -> World:
    """Commands that are refused what a user is refused; root, as CI often is, would not be."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv, which takes root's rights away, is not here")
        world.under = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return world


def test_folders_that_are_read_only(unprivileged: World) -> None:
    """A folder of somebody else's can be read from; what wants to write into it names it."""
    world = unprivileged
    wanted = document(world.run(*PREPARE))["content_digest"]
    document(world.run(*TRAIN))
    (cache,) = world.caches.rglob("*.h5")
    (run,) = world.begun()
    closed = [world.folder, *(path for path in world.folder.rglob("*") if path.is_dir())]
    before = snapshot(world.folder)
    for folder in closed:
        folder.chmod(0o555)
    try:
        assert document(world.run(*PREPARE))["content_digest"] == wanted  # it is there
        for command in (
            ("cache", "verify"),
            ("cache", "ls"),
            ("runs", "verify"),
            ("runs", "show", "last"),
            ("eval", "last"),
            ("report", "--table", "demo"),
        ):
            ended = world.run(*command)
            assert ended.code == 0, (command, ended.err)
        for command in (
            (*PREPARE, "--force"),
            ("prepare", "synthetic-gesture", "--T", 5, "--raw", "raw"),
            TRAIN,
            ("train", "--resume", "last", "--epochs", 2),
            ("cache", "rm", "synthetic-gesture"),
            ("runs", "rm", "--yes", run.name),
            ("report", "--html", world.folder / "page"),
        ):
            refused(world.run(*command), world.folder)
        cache.chmod(0)
        ended = world.run("eval", "last")
        assert (ended.code, f"{cache}: may not be read" in ended.err) == (5, True)
    finally:
        cache.chmod(0o644)
        for folder in closed:
            folder.chmod(0o755)
    assert snapshot(world.folder) == before


def test_a_recording_that_may_not_be_read(unprivileged: World) -> None:
    world = unprivileged
    locked = world.folder / "raw/user01_lab.aedat"
    locked.chmod(0)
    refused(world.run(*PREPARE), locked)
    assert not list(world.caches.rglob("*.h5"))
    locked.chmod(0o644)
    document(world.run(*PREPARE))
