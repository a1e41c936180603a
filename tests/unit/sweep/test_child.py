import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plifctl.sweep.child import start_child, stop_child, wait_for_child
from plifctl.sweep.engine import Task

pytestmark = pytest.mark.subprocess


def task(folder: Path, code: str) -> Task:
    return Task("run", (sys.executable, "-c", code), folder / "logs" / "run.log")


def wait_for(text: str, log: Path) -> None:
    end = time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "expected"), [("pass", 0), ("raise SystemExit(7)", 7), ("os.kill(os.getpid(), 9)", 137)]
)
def test_wait_for_child_returns_the_exit_code(tmp_path: Path, code: str, expected: int) -> None:
    assert wait_for_child(start_child(task(tmp_path, f"import os; {code}"), {})) == expected


def test_start_child_appends_both_streams_to_the_log(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['WORD'], os.getcwd()); print('error', file=sys.stderr)"
    for word in ("first", "second"):
        wait_for_child(start_child(task(tmp_path, code), {"WORD": word}, tmp_path))
    lines = task(tmp_path, "").log.read_text().splitlines()
    assert sorted(lines) == ["error", "error", f"first {tmp_path}", f"second {tmp_path}"]


def test_child_and_its_children_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("raise SystemExit(9)")
    code = "import subprocess, sys, statistics; subprocess.run([sys.executable, '-c', 'import statistics'], check=True)"
    assert wait_for_child(start_child(task(tmp_path, code), {}, tmp_path)) == 0


def test_stop_child_waits_for_what_it_does_on_sigterm(tmp_path: Path) -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved", flush=True), sys.exit(143)))
print("started", flush=True)
time.sleep(60)
"""
    run = task(tmp_path, code)
    child = start_child(run, {})
    wait_for("started", run.log)
    assert stop_child(child, 60) == 143
    assert "saved" in run.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stop_child_kills_one_that_does_not_end_with_its_children(tmp_path: Path) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    print("started", os.getpid(), flush=True)
time.sleep(60)
"""
    run = task(tmp_path, code)
    child = start_child(run, {})
    wait_for("started", run.log)
    assert stop_child(child, 0.1) == 137
    status = Path(f"/proc/{run.log.read_text().split()[1]}/status")
    end = time.monotonic() + 60
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def test_child_ignores_the_warning_signal_and_no_signal_is_blocked(tmp_path: Path) -> None:
    code = "import signal; print(signal.getsignal(signal.SIGUSR2), signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    run = task(tmp_path, code)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        wait_for_child(start_child(run, {}))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert run.log.read_text().split() == ["1", "set()"]  # SIG_IGN


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_child_gets_sigterm_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    code = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("saved", flush=True))
print("started", flush=True)
time.sleep(9)
"""
    run = task(tmp_path, code)
    starter = f"""
import pathlib, time
from plifctl.sweep.child import start_child
from plifctl.sweep.engine import Task
start_child(Task("run", {run.argv!r}, pathlib.Path({str(run.log)!r})), {{}})
time.sleep(60)
"""
    run.log.parent.mkdir()
    run.log.touch()
    with subprocess.Popen([sys.executable, "-c", starter]) as process:
        wait_for("started", run.log)
        process.kill()
    wait_for("saved", run.log)
