"""A part of the GPU benchmark that fails is a missed target, and the parts after it are measured."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from benchmarks import train_gpu
from benchmarks.measure import Figure, Setting, below


def test_part_that_fails_is_a_missed_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def part(setting: Setting) -> Iterator[Figure]:
        yield below("first", "s", [3.0], 2.0)
        raise RuntimeError("an illegal memory access was encountered")

    first, failure = train_gpu._judged("scan", part)(Setting(None, tmp_path, quick=True, kept=tmp_path))
    assert first.passed is (False if train_gpu.GPU else None)
    assert (failure.name, failure.passed) == ("errors that ended scan", False)
    assert "illegal memory access" in failure.note
    assert "scan ended" in capsys.readouterr().err
