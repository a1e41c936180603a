"""Machines without a home folder, a terminal, UTF-8 or the repository."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from factories import write_gestures
from faults.sandbox import Sandbox, document

import plifctl as package

ONLINE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # the tests themselves are offline
ROOT = Path(package.__file__).parents[1]
PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--json")
TRAIN = ("train", "demo", "--set", "train.batch_size=8", "--set", "T=4", "--epochs", 1, "--json")


def test_commands_without_a_home_folder_work(sandbox: Sandbox) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "USER", "LOGNAME"):
        sandbox.environment.pop(name, None)
    document(sandbox.run(*PREPARE, "--raw", "raw", HOME="/nonexistent"))
    document(sandbox.run(*TRAIN, HOME="/nonexistent"))
    del sandbox.environment["PLIFCTL_CACHE_DIR"]
    del sandbox.environment["PLIFCTL_RUNS_DIR"]  # otherwise in the current folder, which has these folders
    assert sandbox.run("runs", "--json", HOME="/nonexistent").code == 0


@pytest.mark.parametrize(
    "settings", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}]
)
def test_commands_without_utf8_work(sandbox: Sandbox, settings: dict[str, str]) -> None:
    document(sandbox.run(*PREPARE, "--raw", "raw", **settings))
    document(sandbox.run(*TRAIN, **settings))
    for command in (("show", "demo"), ("report", "--table", "4"), ("eval", "last"), ("runs", "show", "last"), ("ls",)):
        ended = sandbox.run(*command, **settings)
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err


def test_training_without_terminal_and_colour_prints_plain_text(sandbox: Sandbox) -> None:
    document(sandbox.run(*PREPARE, "--raw", "raw"))
    ended = sandbox.run(*TRAIN[:-1], NO_COLOR="1", TERM="dumb", FORCE_COLOR="0")
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out + ended.err
    assert "epoch 1/1" in ended.out + ended.err


NAMES = ("with spaces", "quo'te\"s", "новый день", "a;b&c|d $HOME `x`", "#%{}", "line\nbreak", "x" * 200)


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_commands_in_folders_with_unusual_names_work(tmp_path: Path, number: int, full: bool) -> None:
    name = NAMES[number]
    if not full and number not in (1, 2):
        pytest.skip("only in make faults: other names")
    write_gestures(tmp_path / name / "raw", events=60)
    sandbox = Sandbox(tmp_path / name)
    document(sandbox.run(*PREPARE, "--raw", sandbox.folder / "raw"))
    document(sandbox.run(*TRAIN))
    for command in (("eval", "last", "--json"), ("cache", "verify"), ("runs", "verify"), ("report", "--html", "page")):
        ended = sandbox.run(*command)
        assert ended.code == 0, ended.err
    ended = sandbox.run("train", "demo", "--set", "T=5")
    assert ended.code == 5
    assert "hint: " in ended.err


def test_read_only_current_folder_is_refused(sandbox: Sandbox) -> None:
    document(sandbox.run(*PREPARE, "--raw", "raw"))
    document(sandbox.run(*TRAIN))
    refusing = {"FAULTS_FOLDER": sandbox.folder, "FAULTS_AT": 1, "FAULTS_HOW": "EACCES"}
    for command in (("report", "--figure", "1b"), ("report", "--html", "page"), ("export", "last", "model.pt")):
        ended = sandbox.run(*command, **refusing)
        assert ended.code == 7, ended.err
        assert "permission denied" in ended.err
        assert "Traceback" not in ended.err


def test_wheel_and_sdist_installed_without_the_repository_work(full: bool, tmp_path: Path) -> None:
    """Wheel and sdist contain the registry and the page; both are built in a clean environment."""
    if not full:
        pytest.skip("only in make faults: installs packages")
    build = tmp_path / "build"
    venv.create(build, with_pip=True)
    python = build / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "build"], check=True, env=ONLINE)
    built = [python, "-m", "build", "--outdir", tmp_path / "dist", ROOT]
    subprocess.run(built, check=True, capture_output=True, env=ONLINE)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    wanted = {"experiments/demo.yaml", "tables/table-4.yaml", "datasets/gesture.yaml"}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {f"plifctl/_registry/{name}" for name in wanted} <= inside
    page = (
        *(f"{name}.js" for name in ("app", "chart", "report", "runs", "samples", "series")),
        "style.css",
        "template.html",
        "vendor/uPlot.iife.min.js",
        "vendor/LICENSE",
    )
    assert {f"plifctl/report/page/{name}" for name in page} <= inside
    with tarfile.open(sdist) as archive:
        names = {re.sub(r"^[^/]+/", "", name) for name in archive.getnames()}
    assert {f"registry/{name}" for name in wanted} <= names
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=True)
    python = clean / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, env=ONLINE)
    for command in (("ls",), ("check",), ("report", "--table", "all"), ("report", "--html", "page")):
        result = subprocess.run(
            [clean / "bin" / "plifctl", *command],
            cwd=tmp_path,
            env=ONLINE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
