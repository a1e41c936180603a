"""Invalid files: a documented error, in limited time and memory."""

from __future__ import annotations

import logging
import random
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from faults.checksummed_formats import formats_with_repacked
from faults.formats import Format
from faults.mutation import MEMORY, SECONDS, mutate_bytes

Times = Callable[[int, int], int]
PrintSummary = Callable[[str], None]


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    return formats_with_repacked(tmp_path_factory.mktemp("formats"))


PLAIN = (
    *("aedat2", "aedat2-davis", "aedat3", "aedat3-reset", "aedat4", "aedat4-lz4", "aedat4-zstd", "atis", "dat"),
    *("dat-1", "evt-2.0", "evt-2.1", "evt-3.0", "npy-structured", "npy", "npz", "npy-fields"),
    *("npy-columns", "text", "text-rpg"),
    *("hdf5", "hdf5-records", "hdf5-blosc", "idx", "cifar", "tar.gz", "zip"),
    *(
        "checkpoint",
        "spikes",
        "predictions",
        "record",
        "controls",
        "config",
        "metrics",
        "metrics, repacked",
        "checksums",
        "run",
        "manifest",
    ),
    *("yaml", "csv", "board", "cache"),
)
PACKED = (
    *("npz", "zip", "checkpoint", "spikes", "predictions", "record", "controls"),
    *("run", "tar.gz", "config", "board", "cache"),
)
NAMES = (*PLAIN, *(f"{name}, repacked" for name in PACKED))


class TooSlowError(BaseException):
    """Reading took too long; no code takes it for an error of the file."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Fails if the block takes more processor time, or waits for very long; other processes may slow it down.

    Raises:
        TooSlowError: It does.
    """

    def late(signum: int, frame: FrameType | None) -> None:
        raise TooSlowError

    limits = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 30 * seconds))
    before = [signal.signal(number, late) for number, _, _ in limits]
    for _, timer, most in limits:
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def test_names_of_formats_are_complete_and_each_can_be_read(formats: dict[str, Format]) -> None:
    assert tuple(formats) == NAMES
    for found in formats.values():
        found.read(found.valid)


@pytest.fixture
def without_logs() -> Iterator[None]:
    """Nothing is logged: pytest would keep the messages about every file to the end."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("without_logs")
@pytest.mark.parametrize("name", NAMES)
def test_randomly_mutated_files_raise_documented_errors_within_limits(
    name: str,
    formats: dict[str, Format],
    generator: random.Random,
    times: Times,
    print_summary: PrintSummary,
    tmp_path: Path,
) -> None:
    found = formats[name]
    files, refused = times(30, 100_000), 0
    for number in range(files):
        content = mutate_bytes(found.valid, generator)
        measured = number % 10 == 0
        if measured:
            tracemalloc.start()
        limit = 20 * SECONDS if measured else SECONDS  # tracing memory is slow
        try:
            try:
                with time_limit(limit):
                    found.read(content)
            except TooSlowError:  # once more: the first file of a kind may have compiled the loops that read it
                with time_limit(limit):
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
    print_summary(f"{files} files, {refused} refused, the others read")
    assert refused
