"""Many processes on one cache and one run: no corruption, no deadlock, correct messages."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

from faults.sandbox import Sandbox, comparable_content, document

PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw", "--json")
TRAIN = ("train", "demo", "--set", "train.batch_size=8", "--set", "T=4", "--epochs", 1, "--json")
Times = Callable[[int, int], int]
PrintSummary = Callable[[str], None]


def wait_for_all(processes: list[subprocess.Popen[str]], seconds: float = 180) -> list[tuple[int, str, str]]:
    """Waits for all processes; one that takes longer hangs."""
    last = time.monotonic() + seconds
    found = []
    for process in processes:
        try:
            out, err = process.communicate(timeout=max(1, last - time.monotonic()))
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            raise AssertionError(f"{process.args} hangs") from None
        found.append((process.returncode, out, err))
    return found


def test_several_prepare_at_once_give_one_cache(sandbox: Sandbox, times: Times) -> None:
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    for _ in range(times(1, 10)):
        sandbox.clear()
        for code, out, err in wait_for_all([sandbox.start(PREPARE) for _ in range(times(3, 8))]):
            assert code == 0, err
            assert json.loads(out)["content_digest"] == wanted
        assert sandbox.run("cache", "verify").code == 0
        assert sandbox.leftovers() == []


def test_cache_built_used_and_removed_at_once_stays_intact(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    document(sandbox.run(*TRAIN))
    (run,) = sandbox.runs.iterdir()
    learnt = comparable_content(run)
    codes: dict[str, int] = {}
    removed = 0
    for _ in range(times(1, 12)):
        commands: list[tuple[object, ...]] = [
            PREPARE,
            (*PREPARE, "--force"),
            TRAIN,
            TRAIN,
            ("cache", "rm", "synthetic-gesture"),
            ("cache", "verify"),
            ("cache", "ls", "--json"),
            ("eval", "last", "--json"),
        ]
        generator.shuffle(commands)
        processes = []
        for command in commands[: times(5, 8)]:
            processes.append(sandbox.start(command))
            time.sleep(generator.uniform(0, 0.3))
        for process, (code, _, err) in zip(processes, wait_for_all(processes), strict=True):
            # 2, 5: the cache had just been removed; 6: eval of a run without a checkpoint yet
            assert code in (0, 2, 5) or "no best checkpoint yet" in err, (process.args, code, err)
            assert "Traceback" not in err, err
            codes[str(code)] = codes.get(str(code), 0) + 1
            removed += code == 0 and "rm" in process.args
        assert document(sandbox.run(*PREPARE))["content_digest"] == wanted
        assert sandbox.run("cache", "verify").code == 0
    for finished in (path.parent for path in sandbox.runs.glob("*/result.json")):
        assert comparable_content(finished) == learnt
    print_summary(f"exit codes {codes}, {removed} times removed")


def test_second_training_of_a_run_is_refused(sandbox: Sandbox, times: Times, print_summary: PrintSummary) -> None:
    """Of two trainings started at once, one is refused and the other continues."""
    document(sandbox.run(*PREPARE))
    document(sandbox.run(*TRAIN))
    (run,) = sandbox.runs.iterdir()
    metrics, pairs = run / "metrics.jsonl", times(1, 10)
    for _ in range(pairs):
        before = metrics.stat().st_size
        pair = [sandbox.start(("train", "--resume", "last", "--epochs", 100_000, "--json")) for _ in range(2)]
        until = time.monotonic() + 120
        while all(process.poll() is None for process in pair) or metrics.stat().st_size == before:
            assert time.monotonic() < until, "neither is refused, or neither trains"
            time.sleep(0.02)
        (alive,) = (process for process in pair if process.poll() is None)
        alive.send_signal(signal.SIGINT)
        ended = sorted(wait_for_all(pair))
        assert [code for code, _, _ in ended] == [3, 130]
        assert "another process is training this run" in ended[0][2]
        epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1))
        assert sandbox.run("runs", "verify").code == 0
    print_summary(f"of each of {pairs} pairs one refused")


def test_lock_of_a_killed_process_blocks_no_other(sandbox: Sandbox) -> None:
    """The lock file of a killed process locks nothing."""
    wanted = document(sandbox.run(*PREPARE))["content_digest"]
    sandbox.clear()
    process = sandbox.start((*PREPARE, "--force"))
    while process.poll() is None and not list(sandbox.caches.rglob(".*.lock")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert document(sandbox.run(*PREPARE))["content_digest"] == wanted
