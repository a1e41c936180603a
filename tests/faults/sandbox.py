"""A folder in which commands run as separate processes, and are killed or made to fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

INJECTION = Path(__file__).parent / "injection"
CHANGING = ("seconds", "cpu_seconds", "samples_per_second", "peak_rss_bytes", "peak_gpu_bytes", "seal")
"""Fields of an epoch's row that differ between equal runs."""


def bounds_checked(folder: Path) -> dict[str, str]:
    """Returns the environment in which compiled loops check every index; their machine code is kept in a folder."""
    return {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder / "numba")}


@dataclass(frozen=True)
class Ended:
    """Result of a process; ``code`` is negative if a signal ended it."""

    code: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code < 0


class Sandbox:
    """Runs commands that use one folder only.

    Args:
        folder: The folder; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.program, self.under = folder, ["-m", "plifctl"], list[str]()
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLIFCTL_", "FAULTS_"))}
        self.environment = {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(INJECTION), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PLIFCTL_CACHE_DIR": str(self.caches),
            "PLIFCTL_RUNS_DIR": str(self.runs),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def caches(self) -> Path:
        return self.folder / "data_cache"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def register(self, **files: str) -> None:
        """Writes files of the user's registry folder, by kind and name: ``networks_tiny`` is networks/tiny."""
        own = self.folder / "registry"
        for name, text in files.items():
            path = own / f"{name.replace('_', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.environment["PLIFCTL_REGISTRY"] = str(own)

    def start(self, arguments: Sequence[object], **environment: object) -> subprocess.Popen[str]:
        """Starts ``plifctl`` with arguments."""
        return subprocess.Popen(
            [*self.under, sys.executable, *self.program, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | {name: str(value) for name, value in environment.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, seconds: float = 120, **environment: object) -> Ended:
        """Runs a command to its end."""
        process = self.start(arguments, **environment)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{arguments} hangs: {err[-1000:]}") from None
        return Ended(process.returncode, out, err)

    def changes(self, *arguments: object) -> int:
        """Runs a command without faults, and returns how often it changed the folder."""
        counted = self.folder.with_name(f"{self.folder.name}.changes")
        ended = self.run(*arguments, FAULTS_FOLDER=self.folder, FAULTS_COUNT=counted)
        assert ended.code == 0, ended.err
        return int(counted.read_text())

    def killed_at(self, change: int, *arguments: object) -> Ended:
        """Runs a command and kills it at its n-th change of the folder, if it gets that far."""
        return self.run(*arguments, FAULTS_FOLDER=self.folder, FAULTS_AT=change)

    def stopped_after(self, seconds: float, signum: int, *arguments: object) -> Ended:
        """Runs a command and sends it a signal after some seconds, if it is still running."""
        process = self.start(arguments)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < seconds:
            time.sleep(0.005)
        process.send_signal(signum)
        out, err = process.communicate(timeout=120)
        return Ended(process.returncode, out, err)

    def begun(self) -> list[Path]:
        """Returns the folders of runs, without those whose creation was killed."""
        return [path.parent for path in self.runs.glob("*/config.yaml") if path.parent.suffix != ".partial"]

    def leftovers(self) -> list[str]:
        """Returns files and folders that a finished command must not leave behind."""
        stray = (".partial", ".part", ".journal")
        return [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.name.endswith(stray)]

    def age(self) -> None:
        """Makes temporary files an hour older, so that they count as abandoned."""
        for path in self.folder.rglob("*.partial"):
            for part in (*path.rglob("*"), path):
                os.utime(part, (time.time() - 3600,) * 2)

    def clear(self) -> None:
        """Removes caches and runs."""
        for folder in (self.caches, self.runs):
            shutil.rmtree(folder, ignore_errors=True)


def document(ended: Ended) -> dict[str, Any]:
    """Returns the JSON document that a command printed."""
    assert ended.code == 0, ended.err
    tree: dict[str, Any] = json.loads(ended.out)
    return tree


def comparable_content(run: Path) -> dict[str, Any]:
    """Returns the content of a finished run that must not depend on interruptions: weights, metrics and record."""
    found: dict[str, Any] = {}
    for name in ("last", "best"):
        state = torch.load(run / f"checkpoints/{name}.pt", weights_only=True)
        found[name] = {key: value.numpy().tobytes() for key, value in state["model"].items()}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = [
        {key: value for key, value in json.loads(line).items() if key not in CHANGING} for line in lines
    ]
    record = json.loads((run / "result.json").read_text())
    # who trained which epochs is what interruptions change
    varying = ("run", "finished", "sessions", "cpu_seconds", "checksum")
    found["record"] = {key: value for key, value in record.items() if key not in varying}
    covered = {
        epoch for first, last in (one["epochs"] for one in record["sessions"]) for epoch in range(first, last + 1)
    }
    found["trained"] = sorted(covered)  # no epoch is missing
    return found


def pick(generator: random.Random, most: int, count: int) -> list[int]:
    """Returns ``count`` numbers from 1 to ``most``, spread over the range."""
    return [1 + int((index + generator.random()) * most / count) for index in range(count)]
