"""Compiled loops never leave their arrays: tests of decoders, in full of kernels too, with every index checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.sandbox import bounds_checked

_TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_compiled_loops_stay_inside_their_arrays(tmp_path: Path, full: bool) -> None:
    tested = ["unit/data/formats", "unit/data/test_frames.py", "faults/test_hostile.py"]
    tested += ["unit/snn"] if full else []
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tested],
        env=os.environ | bounds_checked(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        cwd=_TESTS,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]


def test_an_index_outside_its_array_is_found(tmp_path: Path) -> None:
    code = "import numpy as np; from plifctl.jit import compiled; compiled()(lambda x: x[3])(np.zeros(2))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | bounds_checked(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "index is out of bounds" in ended.stderr
