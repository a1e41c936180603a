"""Fixtures that every test may use."""

import atexit
import gc
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from factories import write_gestures

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported; make test-gpu says 0

# Read when torch and numba are imported, here and by processes that tests start. pytest runs a worker for each core, so
# that a test has one thread of torch's; numba may start two, as some tests compare one with two. PASSIVE: threads that
# wait do not spin, which on shared cores makes them several times as fast.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["PLIFCTL_KERNEL_TRIALS"] = "off"  # on a machine with a GPU, a training in a test tries no kernels

# What torch and pytest itself allocate before the first test stays to the end, and looking through it for garbage takes
# longer than collecting the tests. Tests' own garbage is collected as usual; at exit everything is.
gc.disable()
atexit.register(gc.unfreeze)


def pytest_collection_finish() -> None:
    """Takes the objects of imported modules and collected tests out of garbage collection."""
    gc.freeze()
    gc.enable()


os.fsync = lambda _: None  # waiting for the disk tests nothing; tests/faults/power_loss.py records the calls

hypothesis.settings.register_profile("plifctl", deadline=None)  # an example is slow when the machine is busy
hypothesis.settings.load_profile("plifctl")

_HERE = Path(__file__).parent
_DIRECTORY_MARKS = {
    "faults": (pytest.mark.slow, pytest.mark.subprocess),
    "browser": (pytest.mark.browser, pytest.mark.subprocess),
    "cluster": (pytest.mark.cluster, pytest.mark.slow, pytest.mark.subprocess),
    "gpu": (pytest.mark.gpu,),
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what is true of whole directories, and tests that read the real recordings."""
    if _HERE in item.path.parents:
        for mark in _DIRECTORY_MARKS.get(item.path.relative_to(_HERE).parts[0], ()):
            item.add_marker(mark)
    if "shared" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.real)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the batteries of faults; pytest knows those of the outermost conftest only."""
    parser.addoption("--full", action="store_true", help="Faults: the whole batteries, hours rather than seconds.")
    parser.addoption("--seed", default="0", help="Faults: of the random numbers.")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what the batteries of faults did, also those of other processes (xdist)."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == "summary" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings beside the checkout; the test is skipped where there is none."""
    if not (_SHARED / "data").is_dir():
        pytest.skip("the real recordings (../shared/data) are not here")
    return _SHARED


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing beyond this machine can be reached, by no test and by nothing that it starts."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _use_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAW_DIR", "REGISTRY", "DEVICE"):
        monkeypatch.delenv(f"PLIFCTL_{name}", raising=False)
    monkeypatch.setenv("PLIFCTL_CACHE_DIR", str(folder / "data_cache"))
    monkeypatch.setenv("PLIFCTL_RUNS_DIR", str(folder / "runs"))
    monkeypatch.chdir(folder)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data_cache/ and runs/ of its own, and nothing of the user's environment."""
    _use_places(tmp_path, monkeypatch)
    return tmp_path


@dataclass
class CommandResult:
    """What a command left on the screen, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def plifctl(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., CommandResult]]:
    """Runs the command line in this process."""
    from plifctl.cli import main
    from plifctl.training.process import stop_signals

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back afterwards, as the handlers are
    handlers = {number: signal.getsignal(number) for number in stop_signals()}

    def run(*arguments: object) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["plifctl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        code = end.value.code
        return CommandResult(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    yield run
    logging.getLogger("plifctl").handlers.clear()  # the command's; a test of the library prints nothing
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def made_folders() -> dict[Callable[..., None], Path]:
    """The folders that :func:`made_once` copies, by the function that filled them."""
    return {}


@pytest.fixture
def made_once(
    plifctl: Callable[..., CommandResult],
    places: Path,
    made_folders: dict[Callable[..., None], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Callable[..., None]], None]:
    """Copies into the test's folder what a function leaves in one; the first test that needs it calls the function.

    The function takes the command line and the folder, which is the working directory.
    """

    def fill(make: Callable[..., None]) -> None:
        if make not in made_folders:
            folder = tmp_path_factory.mktemp("made")
            with pytest.MonkeyPatch.context() as monkeypatch:
                _use_places(folder, monkeypatch)
                make(plifctl, folder)
            made_folders[make] = folder
        shutil.copytree(made_folders[make], places, dirs_exist_ok=True)

    return fill


@pytest.fixture
def gestures(tmp_path: Path) -> Path:
    """A tiny set of gestures: 22 training samples, 11 for testing."""
    write_gestures(tmp_path / "raw")
    return tmp_path / "raw"
