"""Training with two processes: files, output, signals and errors."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plifctl.runs import find_run

Plifctl = Callable[..., Any]
pytestmark = [pytest.mark.slow, pytest.mark.subprocess, pytest.mark.cluster]
ROOT = Path(__file__).resolve().parents[2]
STRUCTURE = "APk8s8-c4k3s1-BN-SN-MPk4s4-FC22-SN-FC110-SN-APk10s10"
TRAIN = (
    "train",
    "demo",
    "--set",
    f"network.structure={STRUCTURE}",
    "--set",
    "T=2",
    "--set",
    "train.batch_size=5",
    "--set",
    "train.drop_last=false",
    "--set",
    "neuron.v_threshold=0.3",
)


@pytest.fixture
def prepared(plifctl: Plifctl, gestures: Path) -> Plifctl:
    assert plifctl("prepare", "synthetic-gesture", "--T", 2, "--raw", gestures).code == 0
    return plifctl


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(
    *arguments: str, second: dict[str, str] | None = None, script: Path | None = None
) -> list[subprocess.Popen[str]]:
    """Starts two processes as srun does, of the command or a script.

    ``second`` changes the environment of the second one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    step = {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, *(("-m", "plifctl") if script is None else (str(script),)), *arguments],
            env=environment() | step | {"SLURM_PROCID": str(rank)} | (second if rank and second else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]


def wait_for_all(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    result = [process.communicate(timeout=150) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, result, strict=True)]


def wait_for_checkpoint(places: Path, processes: list[subprocess.Popen[str]]) -> None:
    """Waits until a checkpoint exists."""
    until = time.monotonic() + 120
    while not list((places / "runs").glob("*/checkpoints/last.pt")):
        assert time.monotonic() < until, "no checkpoint was written"
        assert all(process.poll() is None for process in processes), wait_for_all(processes)
        time.sleep(0.05)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_train_by_torchrun_gives_the_output_of_one_process(prepared: Plifctl, places: Path) -> None:
    assert prepared(*TRAIN, "--epochs", 1).code == 0
    (one,) = (places / "runs").iterdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "plifctl"]
    result = subprocess.run(
        [*command, *TRAIN, "--epochs", "1", "--json"], env=environment(), capture_output=True, text=True, timeout=150
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)  # one document
    (two,) = set((places / "runs").iterdir()) - {one}
    assert result.stderr.count("epoch 1/1  loss") == 1
    assert record["environment"]["ranks"] == json.loads((two / "env.json").read_text())["ranks"] == 2
    assert json.loads((one / "env.json").read_text())["ranks"] == 1
    assert rows(two)[0]["loss"] == pytest.approx(rows(one)[0]["loss"], rel=1e-5)
    assert rows(two)[0]["tau"] == pytest.approx(rows(one)[0]["tau"], rel=1e-5)
    assert find_run(two.name, places / "runs").status() == "finished"


def test_signal_to_any_rank_stops_all_and_any_number_resumes(prepared: Plifctl, places: Path) -> None:
    epochs = 12
    two = start(*TRAIN, "--epochs", str(epochs), "--checkpoint-every", "1")
    wait_for_checkpoint(places, two)
    two[1].send_signal(signal.SIGTERM)
    first, second = wait_for_all(two)
    assert (first[0], second[0]) == (143, 143)
    assert "the state is saved" in first[2]
    assert second[1:] == ("", "")
    (run,) = (places / "runs").iterdir()
    assert find_run(run.name, places / "runs").status() == "stopped"
    assert prepared("train", "--resume", "last").code == 0  # 2 → 1
    assert [row["epoch"] for row in rows(run)] == list(range(1, epochs + 1))
    again = start("train", "--resume", "last", "--epochs", str(epochs + 1))  # 1 → 2
    assert [code for code, _, _ in wait_for_all(again)] == [0, 0]
    assert [row["epoch"] for row in rows(run)] == list(range(1, epochs + 2))
    assert json.loads((run / "result.json").read_text())["environment"]["ranks"] == 2
    first, second = wait_for_all(start("train", "--resume", "last", "--cache-dir", str(places / "elsewhere")))
    assert (first[0], second[0], "is finished" in first[2]) == (0, 0, True)


def test_callback_that_stops_returns_the_run_on_every_rank(prepared: Plifctl, places: Path) -> None:
    script = (
        "import plifctl\n"
        f"changes = {[text for option, text in zip(TRAIN[2::2], TRAIN[3::2], strict=True) if option == '--set']}\n"
        "run = plifctl.train('demo', epochs=9, overrides=changes, on_epoch=lambda row: False)\n"
        "print(run.name)\n"
    )
    (places / "stop.py").write_text(script)
    result = wait_for_all(start(script=places / "stop.py"))
    (run,) = (places / "runs").iterdir()
    assert [(code, out.strip()) for code, out, _ in result] == [(0, run.name)] * 2


def test_rank_that_dies_fails_the_run(prepared: Plifctl, places: Path) -> None:
    two = start(*TRAIN, "--epochs", "1000", "--checkpoint-every", "1")
    wait_for_checkpoint(places, two)
    two[1].kill()
    first, second = wait_for_all(two)
    assert (first[0], second[0]) == (6, -signal.SIGKILL)
    assert "error: rank 1 of 2 died" in first[2]
    (run,) = (places / "runs").iterdir()
    assert find_run(run.name, places / "runs").status() == "failed"


def test_error_of_one_rank_is_the_exit_code_of_all(prepared: Plifctl, places: Path) -> None:
    two = start(*TRAIN, "--epochs", "1", "--json", second={"PLIFCTL_CACHE_DIR": str(places / "elsewhere")})
    first, second = wait_for_all(two)
    assert (first[0], second[0]) == (5, 5)
    assert "error: rank 1: no cache of synthetic-gesture" in first[2]
    assert json.loads(first[1])["error"]["exit_code"] == 5
    assert second[1:] == ("", "")
    assert not list((places / "runs").glob("*"))
