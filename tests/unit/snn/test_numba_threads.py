"""Parallel loops in several Python threads, and in forked processes, with each threading layer of numba."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, signal, threading
import numba, torch
from plifctl.snn.kernels.cpu import deviations_of_rows

rows, pivot = torch.rand(4, 8, 64, 16, 8), torch.zeros(4, 8)
wanted = deviations_of_rows(rows, pivot)

def repeat(times):
    for _ in range(times):
        assert (deviations_of_rows(rows, pivot) == wanted).all()

threads = [threading.Thread(target=repeat, args=(300,)) for _ in range(2)]
for thread in threads:
    thread.start()
codes = set()
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        repeat(1)
        os._exit(0)
    codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for thread in threads:
    thread.join()
print(numba.threading_layer(), codes)
"""


@pytest.mark.subprocess
def test_loops_in_two_threads_and_in_a_child_run_without_openmp() -> None:
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}  # which numba takes without libgomp
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stdout) == (0, "workqueue {0}\n"), done.stderr
