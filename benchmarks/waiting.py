"""How long the threads of a training spin before they sleep: ``.bench-venv/bin/python -m benchmarks.waiting``.

A step has some hundred parallel loops. A thread that waits for the next one, or for the end of one, spins for a while
and then sleeps. To wake it takes time, in virtual machines much; while it spins, no other program can use its core. So
a step is timed alone, and beside a program that keeps every core busy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.measure import Figure, Setting, interleaved, run, within
from benchmarks.worker import Job, Worker
from plifctl.training.process import WAITING

OTHERS = {
    "sleeping at once": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "a fifth of our spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(int(WAITING["GOMP_SPINCOUNT"]) // 5)},
    "5 times our spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(5 * int(WAITING["GOMP_SPINCOUNT"]))},
    "libgomp's own 300,000 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300000"},
}
EXPERIMENTS = ("nmnist-plif", "fashion-mnist-plif")


def alone(setting: Setting) -> Iterator[Figure]:
    """A training step, with no other program."""
    yield from _compare(setting, "alone")


def busy(setting: Setting) -> Iterator[Figure]:
    """The same beside a program on every core."""
    with _other_program():
        yield from _compare(setting, "beside a program on every core")


def _compare(setting: Setting, where: str) -> Iterator[Figure]:
    for name in EXPERIMENTS:
        job = Job("ours", "train", name, 16, keep_memory=True)
        with Worker(job, WAITING) as ours:
            for other, environment in OTHERS.items():
                with Worker(job, environment) as peer:
                    times = interleaved(ours, peer, setting.pairs)
                yield within(f"training step, {name}, batch 16, {where}", "s", *times, other, None)


@contextmanager
def _other_program() -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def main() -> None:
    """Measures and prints the figures."""
    run("how long waiting threads spin", {"alone": alone, "busy": busy}, recordings=False)


if __name__ == "__main__":
    main()
