"""Mutation guided by code coverage: files that reach new code are mutated again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from faults.sandbox import bounds_checked
from faults.test_hostile import NAMES

pytestmark = pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is missing (make faults installs it)")

QUICK = ("aedat4", "npz, repacked")
"""Formats of a short run."""

RUNS = 25_000
"""Files that a process reads; the next one continues with its corpus, so that memory has a low limit."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrizes by all formats in a full battery."""
    metafunc.parametrize("name", NAMES if metafunc.config.getoption("--full") else QUICK)


def test_files_mutated_by_code_coverage_raise_documented_errors_only(
    name: str, full: bool, print_summary: Callable[[str], None], pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    seed, branches, kept = 1 + 10 * int(pytestconfig.getoption("--seed")), "", ""
    parts = [RUNS] * 4 if full else [500]
    for number, runs in enumerate(parts):
        command = [sys.executable, "-m", "faults.fuzz", name, "--runs", runs, "--seed", seed + number]
        ended = subprocess.run(
            [*map(str, command), "--place", str(tmp_path / "place")],
            env=os.environ | bounds_checked(tmp_path) | {"PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        done = re.search(r"DONE\s+cov: (\d+) .*corp: (\d+)/", ended.stderr)
        assert done is not None, ended.stderr[-3000:]
        assert f"Done {runs} runs" in ended.stderr
        branches, kept = done[1], done[2]
    print_summary(f"{sum(parts)} files, {branches} branches reached, {kept} files that reached new ones")
