"""Faults of stdout and stderr, and closed terminals: none of them ends a training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from demo_runs import position

Plifctl = Callable[..., Any]
TINY = ("train", "demo", "--set", "train.batch_size=11", "--set", "T=4", "--epochs", "2")
LONG = ("train", "demo", "--set", "train.batch_size=2", "--set", "T=4", "--epochs", "500")
pytestmark = pytest.mark.subprocess
pty: Any = pytest.importorskip("pty")


@pytest.fixture
def folder(prepared: Plifctl, places: Path) -> Path:
    """A folder with a cache of the tiny gestures, T = 4."""
    return places


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def wait_for_a_checkpoint(folder: Path, screen: int) -> None:
    """Waits for the first checkpoint, and reads what the terminal shows: a full terminal blocks the process."""
    os.set_blocking(screen, False)
    end = time.monotonic() + 60
    while not list((folder / "runs").glob("*/checkpoints/last.pt")):
        assert time.monotonic() < end, "timed out"
        with suppress(BlockingIOError):
            os.read(screen, 2**16)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&1 | true", ">&- 2>&-"])
def test_train_with_a_stderr_that_fails_finishes(folder: Path, redirection: str) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = " ".join([sys.executable, "-m", "plifctl", *TINY, redirection])
    script = f"set -o pipefail; {command}"
    ended = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads((only_run(folder) / "result.json").read_text())["epochs"] == 2


def test_train_with_a_closed_stderr_writes_no_message_into_its_files(folder: Path) -> None:
    """A closed descriptor 2 would be that of the next file opened, and messages of libraries would go there."""
    script = "import os, sys; from plifctl.cli import main\ntry: main()\nfinally: print(os.readlink('/proc/self/fd/2'))"
    ended = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" ls 2>&-', sys.executable, script], cwd=folder, capture_output=True, text=True
    )
    assert ended.stdout.splitlines()[-1] == "/dev/null"


def in_terminal(folder: Path, *command: str) -> tuple[subprocess.Popen[bytes], int]:
    """Starts a command in a terminal of its own; returns it, and the side of the terminal that can be closed."""
    screen, terminal = pty.openpty()
    script = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command], cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    return process, screen


@pytest.mark.slow
def test_train_in_a_closed_terminal_writes_a_checkpoint_and_exits_with_129(folder: Path, plifctl: Plifctl) -> None:
    process, screen = in_terminal(folder, sys.executable, "-m", "plifctl", *LONG)
    wait_for_a_checkpoint(folder, screen)
    run = only_run(folder)
    last = run / "checkpoints/last.pt"
    written, before = last.stat().st_mtime_ns, position(run)
    os.close(screen)
    process.send_signal(signal.SIGHUP)  # a shell sends one more to its jobs
    assert process.wait(60) == 129
    info = json.loads((only_run(folder) / "run.json").read_text())
    assert (info["status"], info["exit_code"]) == ("stopped", 129)
    assert last.stat().st_mtime_ns > written
    assert position(run) > before
    assert position(run)[1] > 0  # within an epoch: those that epochs end with have step 0


@pytest.mark.slow
def test_train_under_nohup_survives_a_closed_terminal(folder: Path) -> None:
    process, screen = in_terminal(folder, "sh", "-c", f"trap '' HUP; exec {sys.executable} -m plifctl {' '.join(LONG)}")
    wait_for_a_checkpoint(folder, screen)
    os.close(screen)
    rows = only_run(folder) / "metrics.jsonl"
    before, end = len(rows.read_text().splitlines()), time.monotonic() + 60
    while len(rows.read_text().splitlines()) < before + 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


@pytest.mark.parametrize("arguments", [("ls",), ("--help",), ("runs", "show", "nothing", "--json")])
@pytest.mark.slow
def test_command_with_a_full_stdout_fails_with_its_own_code(folder: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "plifctl", *arguments], cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == (2 if "nothing" in arguments else 7)
    assert "Traceback" not in ended.stderr
