"""plifctl sweep on a real SLURM: what was cancelled is trained by the same command, and nothing else is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster.tasks import wait_until

from plifctl.runs import Run

SMALL = ("network.structure=APk8s8-c4k3s1-BN-SN-FC110-SN-APk10s10", "T=4", "train.batch_size=2", "train.epochs=20")
SWEEP = ("demo", "--seeds", "1-4", "--name", "four", *(word for text in SMALL for word in ("--set", text)))
ENGINE = ("--engine", "slurm", "--gpus", "0", "--cpus", "1", "--time", "10m", "--array", "2")


def run(*words: str) -> str:
    command = [sys.executable, "-m", "plifctl", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def states() -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads(run("sweep", "status", "four", "--json"))["runs"]}


def test_cancelled_job_of_an_array_is_trained_again_by_the_same_command(
    slurm: None, places: Path, gestures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sweep", "run", *SWEEP, "--raw", str(gestures), *ENGINE)
    run(*words)
    first = states()
    assert [entry["state"] in ("queued", "running") for entry in first.values()] == 4 * [True]
    name, entry = next(iter(first.items()))
    wait_until(lambda: states()[name]["epoch"] > 0)
    subprocess.run(["scancel", entry["job"]], check=True)
    wait_until(lambda: states()[name]["state"] == "interrupted")
    run(*words)
    again = states()
    assert [name for name in first if again[name]["job"] != first[name]["job"]] == [name]
    wait_until(lambda: all(entry["state"] == "finished" for entry in states().values()))
    trained = Run(places / "runs" / name)
    assert trained.record().epochs == 20
    assert len(trained.sessions()) == 2  # it continued
    run(*words)
    assert {name: entry["job"] for name, entry in states().items()} == {name: e["job"] for name, e in again.items()}
