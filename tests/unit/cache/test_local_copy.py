"""A copy of a cache on the machine's own disk."""

import os
import threading
import time
from pathlib import Path
from shutil import copyfile

import h5py
import numpy as np
import pytest
from factories import build_cache
from filelock import FileLock

from plifctl.cache import Cache, copy_cache
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, MachineError, UsageError
from plifctl.units import format_bytes


@pytest.fixture
def cache(gestures: Path, tmp_path: Path) -> Cache:
    framing = load_registry().dataset("synthetic-gesture")
    return build_cache(open_raw(framing, RawSource(gestures)), 2, tmp_path / "c")


def test_copy_has_the_name_and_content_of_the_cache(cache: Cache, tmp_path: Path) -> None:
    found = copy_cache(cache, tmp_path / "local")
    assert found.path == tmp_path / "local" / cache.path.relative_to(tmp_path / "c")
    np.testing.assert_array_equal(found.read(np.arange(33)), cache.read(np.arange(33)))
    assert found.content_digest == cache.content_digest


def test_copying_is_announced_with_the_size_of_the_cache(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "plifctl"):
        copy_cache(cache, tmp_path / "local")
    (message,) = caplog.messages
    assert f"({format_bytes(cache.path.stat().st_size)})" in message


def test_copy_is_made_once(cache: Cache, tmp_path: Path) -> None:
    first = copy_cache(cache, tmp_path / "local")
    stamp = first.path.stat()
    assert copy_cache(cache, tmp_path / "local").path.stat().st_ino == stamp.st_ino
    assert [path.name for path in first.path.parent.glob("[!.]*")] == [cache.path.name]


def test_copies_at_once_are_one(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count(source: Path, target: Path) -> None:
        made.append(target)
        copyfile(source, target)

    monkeypatch.setattr("plifctl.cache.local_copy.shutil.copyfile", count)
    threads = [threading.Thread(target=copy_cache, args=(cache, tmp_path / "local")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_copy_that_another_process_makes_is_waited_for_with_a_message(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "local" / cache.path.relative_to(tmp_path / "c")
    target.parent.mkdir(parents=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        thread = threading.Thread(target=copy_cache, args=(cache, tmp_path / "local"))
        thread.start()
        deadline = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        said = list(caplog.messages)
    thread.join()
    assert said == [f"another process copies {target.name} to {target.parent}; waiting for it"]
    assert target.is_file()


@pytest.mark.parametrize("content", [b"", b"no cache", None])
def test_what_is_no_copy_of_the_cache_is_replaced(cache: Cache, tmp_path: Path, content: bytes | None) -> None:
    first = copy_cache(cache, tmp_path / "local")
    first.close()
    first.path.write_bytes(content if content is not None else bytes(first.path.stat().st_size))
    assert copy_cache(cache, tmp_path / "local").content_digest == cache.content_digest


@pytest.mark.parametrize("folder", ["c", "c/../c", "link"])
def test_copy_to_where_the_cache_is_is_the_cache(cache: Cache, tmp_path: Path, folder: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "c")
    assert copy_cache(cache, tmp_path / folder) is cache


def test_copy_to_a_file_or_over_a_folder_is_refused(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        copy_cache(cache, tmp_path / "file")
    (tmp_path / "local" / cache.path.parent.name / cache.path.name).mkdir(parents=True)
    with pytest.raises(UsageError, match="a folder"):
        copy_cache(cache, tmp_path / "local")


def test_full_disk_leaves_no_part_of_a_copy(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(source: Path, target: Path) -> None:
        target.write_bytes(b"part")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("plifctl.cache.local_copy.shutil.copyfile", fill)
    with pytest.raises(MachineError, match="no space left"):
        copy_cache(cache, tmp_path / "local")
    assert not [path for path in (tmp_path / "local").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_damaged_copy_is_found_when_it_is_read_and_named_as_a_copy(cache: Cache, tmp_path: Path) -> None:
    first = copy_cache(cache, tmp_path / "local")
    first.close()
    with h5py.File(first.path) as file:
        chunk = file["frames"].id.get_chunk_info(5)
    content = bytearray(first.path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    first.path.write_bytes(content)
    with pytest.raises(CacheError) as refused:
        copy_cache(cache, tmp_path / "local").read(np.arange(33))
    assert f"rm {first.path}" in refused.value.hint
