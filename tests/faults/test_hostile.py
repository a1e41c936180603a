"""Files that are not what they seem: an error that is documented, soon, and without taking memory that is not there."""

from __future__ import annotations

import random
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from faults.checksummed_formats import every_format
from faults.formats import Format
from faults.mutation import MEMORY, SECONDS, mutated

Times = Callable[[int, int], int]
Told = Callable[[str], None]


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    return every_format(tmp_path_factory.mktemp("formats"))


PLAIN = (
    *("aedat2", "aedat3", "aedat4", "aedat4-lz4", "aedat4-zstd", "atis", "dat", "npy", "npz", "idx", "cifar", "tar.gz"),
    *("zip", "checkpoint", "spikes", "record", "config", "metrics", "metrics, beneath", "checksums", "run", "manifest"),
    *("yaml", "csv", "board", "cache"),
)
PACKED = ("npz", "zip", "checkpoint", "spikes", "record", "run", "tar.gz", "config", "board", "cache")
NAMES = (*PLAIN, *(f"{name}, beneath" for name in PACKED))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises where the block takes longer."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_every_format_is_here(formats: dict[str, Format]) -> None:
    assert tuple(formats) == NAMES
    for found in formats.values():
        found.read(found.whole)


@pytest.mark.parametrize("name", NAMES)
def test_mutated_files(
    name: str, formats: dict[str, Format], generator: random.Random, times: Times, told: Told, tmp_path: Path
) -> None:
    found = formats[name]
    files, refused = times(30, 100_000), 0
    for number in range(files):
        content = mutated(found.whole, generator)
        measured = number % 10 == 0
        if measured:
            tracemalloc.start()
        try:
            with within(20 * SECONDS if measured else SECONDS):  # to trace memory takes its time
                found.read(content)
        except found.documented:
            refused += 1
        except BaseException:
            (tmp_path / "culprit").write_bytes(content)
            print(f"the file is {tmp_path / 'culprit'}")
            raise
        finally:
            if measured:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
        if measured:
            assert peak < MEMORY + 20 * len(content), f"{peak:,} bytes for {len(content):,}"
    told(f"{files} files, {refused} refused, the others read")
    assert refused
