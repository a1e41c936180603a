"""Settings of the process, each in a process of its own."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from plifctl.training.process import processor_name

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


@pytest.mark.subprocess
@pytest.mark.slow
def test_keep_freed_memory_reuses_pages() -> None:
    output = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    if output[0] == "False":
        pytest.skip("the C library is not glibc")
    assert int(output[1]) < 2**26 // 4096 // 10  # without it every round maps all pages of a tensor


PEAK = """
import subprocess, sys
memory = b"x" * 10**9
child = "from plifctl.training.process import peak_memory; print(peak_memory())"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.subprocess
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_peak_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    output = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    assert 10**7 < int(output) < 10**9


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz \nflags\t: fpu\n", "Some CPU @ 2 GHz"),
        ("processor : 0\n", "riscv"),
        (
            "cpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nstepping\t: 7\n",
            "Intel(R) Xeon(R) CPU @ 2.20GHz (family 6, model 85, stepping 7)",
        ),
    ],
)
def test_processor_name_has_the_numbers_that_linux_states(
    cpuinfo: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **options: cpuinfo)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv")
    assert processor_name() == expected


WAIT = """
import os, sys
from plifctl.training.process import wait_passively
wait_passively()
print("torch" in sys.modules, os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.subprocess
@pytest.mark.parametrize(("policy", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_wait_passively_before_torch_keeps_the_users_policy(
    policy: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    output = subprocess.run([sys.executable, "-c", WAIT], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", expected]


DEFERRED = """
import gc, time
from plifctl.training.process import defer_collection
class Cycle:
    def __del__(self): print("released")
defer_collection(0.1)
cycle = Cycle()
cycle.itself = cycle
del cycle
first, deadline = gc.isenabled(), time.monotonic() + 20
while not gc.isenabled() and time.monotonic() < deadline:
    time.sleep(0.01)
print(first, gc.isenabled(), gc.get_freeze_count() > 0)
"""


@pytest.mark.subprocess
def test_deferred_collection_is_off_at_first_on_later_and_complete_at_exit() -> None:
    output = subprocess.run([sys.executable, "-c", DEFERRED], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "True", "True", "released"]
