"""Files that are not what they seem: an error that is documented, soon, and without taking memory that is not there."""

from __future__ import annotations

import random
import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from faults.formats import Format, all_formats

SECONDS = 2.0
MEMORY = 64 * 2**20
"""Bytes that reading any small file may take, beside twenty times its size."""

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
Times = Callable[[int, int], int]
Told = Callable[[str], None]


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    return all_formats(tmp_path_factory.mktemp("formats"))


NAMES = (
    *("aedat2", "aedat3", "aedat4-lz4", "aedat4-zstd", "atis", "dat", "npy", "npz", "idx", "cifar", "tar.gz", "zip"),
    *("checkpoint", "spikes", "record", "config", "metrics", "run", "manifest", "yaml", "csv", "board", "cache"),
)


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A file with one to four things wrong: bits, numbers at their limits, parts lost, doubled, or put elsewhere."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        if not data:
            return bytes(generator.randbytes(generator.randint(0, 9)))
        at = generator.randrange(len(data))
        end = min(len(data), at + generator.choice((1, 2, 4, 8, 16, len(data))))
        match generator.randrange(8):
            case 0:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x2E))
            case 2 | 3:
                form = generator.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
                number = generator.choice(NUMBERS) & (256 ** struct.calcsize(form) - 1)
                data[at : at + struct.calcsize(form)] = struct.pack(form, number)
            case 4:
                del data[at:]
            case 5:
                del data[at:end]
            case 6:
                data[at:at] = data[at:end]
            case _:
                other = generator.randrange(len(data))
                data[other:other] = generator.randbytes(generator.randint(1, 16))
    return bytes(data)


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
    files, refused = times(30, 100_000 if len(found.whole) < 10_000 else 20_000), 0
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
