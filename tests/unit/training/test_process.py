"""What is freed is kept: measured from outside, in a process of its own."""

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from plifctl.training.process import keep_freed_memory
kept = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
rounds = []
for _ in range(20):
    before = faults()
    torch.ones(2**24)
    rounds.append(faults() - before)
print(kept, min(rounds))
"""


def test_a_tensor_takes_the_pages_of_the_one_before() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "False":
        pytest.skip("the C library is not glibc")
    assert int(said[1]) < 2**26 // 4096 // 10  # without it every round asks for all of a tensor's pages
