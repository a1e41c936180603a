"""The plan of a sweep: its file, its lock, its name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import planned_run

from plifctl.config.sweep import SweepSpec
from plifctl.errors import MachineError, RunError, UsageError
from plifctl.sweep.plan import Plan, PlanFile, sweep_names


def plan(name: str = "mine") -> Plan:
    spec = SweepSpec(experiments=("demo",), grid={"T": (4, 8)})
    runs = (planned_run("a"), planned_run("b"))
    return Plan(name=name, command="plifctl sweep run", definition=spec, created=1.0, updated=1.0, runs=runs)


@pytest.mark.parametrize("name", ["mine", "my sweep", "ünï", "v1.2+x", "a" * 100])
def test_plan_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    file = PlanFile(tmp_path, name)
    file.save(plan(name))
    read = file.load()
    assert read.updated > 1
    assert read.model_copy(update={"updated": 1.0}) == plan(name)
    assert sweep_names(tmp_path) == [name]
    assert json.loads(file.path.read_text())["runs"][0]["name"] == "a"


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a/b", "../x", ".hidden", "a\n", "a ", "a" * 101, "é" * 60, "-x"),
        *("run", "result", "x.json", "x.lock"),
    ],
)
def test_name_that_cannot_be_that_of_a_sweep_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name of a sweep"):
        PlanFile(tmp_path, name)
    assert not [*tmp_path.iterdir()]


def test_load_without_a_plan_names_similar_sweeps(tmp_path: Path) -> None:
    PlanFile(tmp_path, "table-4").save(plan("table-4"))
    with pytest.raises(UsageError, match="no sweep 'table-5'") as refused:
        PlanFile(tmp_path, "table-5").load()
    assert refused.value.hint == "did you mean table-4?"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"definition": 1, "runs": []}'])
def test_load_of_a_damaged_plan_says_how_to_make_it_again(tmp_path: Path, content: str) -> None:
    file = PlanFile(tmp_path, "mine")
    file.save(plan())
    file.path.write_text(content)
    with pytest.raises(RunError, match=r"mine.json"):
        file.load()


def test_save_into_a_full_or_forbidden_folder_is_an_error_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plifctl.sweep.plan.files.write_json", refuse)
    with pytest.raises(MachineError, match="no space left"):
        PlanFile(tmp_path, "mine").save(plan())


def test_sweep_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    file, other = PlanFile(tmp_path, "mine"), PlanFile(tmp_path, "mine")
    assert not file.is_held()
    assert not file.path.parent.exists()  # asking writes nothing
    with file.locked():
        assert other.is_held()
        with pytest.raises(UsageError, match="another process"), other.locked():
            pass
    assert not other.is_held()


@pytest.mark.subprocess
def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from plifctl.sweep.plan import PlanFile\n"
        "with PlanFile(pathlib.Path(sys.argv[1]), 'mine').locked(): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert not PlanFile(tmp_path, "mine").is_held()


def test_sweep_names_are_the_latest_last_and_of_plans_only(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        file = PlanFile(tmp_path, name)
        file.save(plan(name))
        os.utime(file.path, (1000 - age, 1000 - age))
        file.folder.mkdir()
    (tmp_path / "sweeps/.new.json.abcdefgh.partial").touch()
    assert sweep_names(tmp_path) == ["old", "new"]
