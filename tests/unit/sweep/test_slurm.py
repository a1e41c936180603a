"""The engine of SLURM with a squeue that prints what the test says; tests/cluster has it with a real SLURM."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plifctl.errors import MachineError, UsageError
from plifctl.sweep.engine import Job, Resources, Task
from plifctl.sweep.slurm import SlurmEngine, minutes

pytestmark = pytest.mark.subprocess


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces squeue by a script with the given output, messages and exit code."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def replace(output: str = "", messages: str = "", code: int = 0) -> None:
        script = tmp_path / "squeue"
        script.write_text(f"#!/bin/sh\nprintf '%s' '{output}'\necho '{messages}' >&2\nexit {code}\n")
        script.chmod(0o755)

    return replace


@pytest.fixture
def engine(tmp_path: Path) -> SlurmEngine:
    (tmp_path / "mine/slurm").mkdir(parents=True)
    return SlurmEngine(Resources(), tmp_path / "mine")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("12_0|PENDING||Priority", Job("queued")),
        ("12_0|PENDING||BeginTime", Job("queued", reason="BeginTime")),
        ("12_0|REQUEUED|n1|None", Job("queued")),
        ("12_0|RUNNING|n1|None", Job("running", "n1")),
        ("12_0|COMPLETING|n1|None", Job("running", "n1")),  # perhaps on its way back to the queue
        ("12_0|TIMEOUT|n1|TimeLimit", Job("ended", "n1", "TIMEOUT")),
        ("12_0|NODE_FAIL|n1|None", Job("ended", "n1", "NODE_FAIL")),
        ("12_1|RUNNING|n1|None", Job("ended", reason="SLURM does not know it any more")),
        ("12_0|RUNNING|n1|None|another|mine", Job("ended", reason="SLURM does not know it any more")),  # a stranger's
    ],
)
def test_poll_reads_the_state_from_squeue(
    engine: SlurmEngine, squeue: Callable[..., None], row: str, expected: Job
) -> None:
    squeue(row if row.count("|") > 3 else f"{row}|mine")
    assert engine.poll({"run": "12_0"}) == {"run": expected}


def test_poll_reads_the_exit_code_of_a_job_that_squeue_has_forgotten(
    engine: SlurmEngine, squeue: Callable[..., None], tmp_path: Path
) -> None:
    squeue(messages="slurm_load_jobs error: Invalid job id specified", code=1)
    (tmp_path / "mine/slurm/12_0_0_result.pkl").write_bytes(pickle.dumps(("success", (7, "n1"))))
    (tmp_path / "mine/slurm/12_1_0_log.err").write_text("slurmstepd: error: *** JOB 13 ON n2 CANCELLED AT 1 ***\n")
    assert engine.poll({"a": "12_0", "b": "12_1"}) == {
        "a": Job("ended", "n1", "exit code 7", 7),
        "b": Job("ended", reason="JOB 13 ON n2 CANCELLED AT 1"),
    }


def test_poll_is_an_error_if_slurm_does_not_answer(engine: SlurmEngine, squeue: Callable[..., None]) -> None:
    squeue(messages="slurm_load_jobs error: Unable to contact slurm controller (connect failure)", code=1)
    with pytest.raises(MachineError, match=r"squeue failed: .*Unable to contact"):
        engine.poll({"run": "12_0"})


def test_poll_without_slurm_names_the_command(engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="squeue not found"):
        engine.poll({"run": "12_0"})


@pytest.mark.parametrize("option", ["job-name", "job_name"])
def test_another_name_of_the_jobs_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match="have the name of the sweep"):
        SlurmEngine(Resources(options={option: "x"}), tmp_path)


def test_cancel_leaves_a_job_of_the_same_number_and_another_name_alone(
    engine: SlurmEngine, squeue: Callable[..., None], tmp_path: Path
) -> None:
    squeue("12_0|RUNNING|n1|None|yours\n12_1|RUNNING|n1|None|mine\n")
    scancel = tmp_path / "scancel"
    scancel.write_text('#!/bin/sh\necho "$@" > "$0.log"\n')
    scancel.chmod(0o755)
    engine.cancel({"a": "12_0", "b": "12_1"})
    assert (tmp_path / "scancel.log").read_text() == "12_1\n"


def test_submit_without_a_time_limit_is_refused(engine: SlurmEngine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="time limit") as error:
        engine.submit([Task("run", ("true",), tmp_path / "log")])
    assert error.value.hint.startswith("--time 24h")


def submitted(folder: Path, monkeypatch: pytest.MonkeyPatch, **resources: Any) -> dict[str, str | None]:
    """Returns the options of sbatch in the script that is submitted, each by its name; the last one counts."""
    for name, text in (("srun", ""), ("sinfo", "echo gpu:1"), ("sbatch", "echo Submitted batch job 12")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    engine = SlurmEngine(Resources(time="1h", **resources), folder / "mine")
    assert engine.submit([Task("run", ("true",), folder / "log")]) == {"run": "12"}
    script = next((folder / "mine/slurm").glob("*.sh"))
    found = [
        line.split()[1].removeprefix("--").partition("=")
        for line in script.read_text().splitlines()
        if "#SBATCH" in line
    ]
    assert len({name for name, _, _ in found}) == len(found)
    return {name: value for name, _, value in found}


def test_options_of_slurm_take_the_place_of_ours_however_they_are_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine/slurm").mkdir(parents=True)
    stated = {"gpus-per-node": "a100:1", "cpus-per-task": "8", "partition": "big"}
    found = submitted(tmp_path, monkeypatch, gpus=1, cpus=4, options=stated)
    assert {name: found[name] for name in stated} == stated
    assert found["time"] == "60"


def test_variables_of_sbatch_are_used_unless_an_option_says_otherwise_or_this_is_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCOUNT", "PARTITION"):
        monkeypatch.setenv(f"SBATCH_{name}", "of-profile")
    for job, expected in ((None, "of-profile"), ("7", None)):
        folder = tmp_path / expected if expected else tmp_path / "job"
        (folder / "mine/slurm").mkdir(parents=True)
        if job is not None:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        found = submitted(folder, monkeypatch, options={"partition": "big", "gres": "gpu:a100:1"})
        assert (found.get("account"), found["partition"]) == (expected, "big")
        assert ("gpus-per-node" in found, found["gres"]) == (False, "gpu:a100:1")


@pytest.mark.parametrize("time", ["", "24", "h", "0m", "1:30", "-1h"])
def test_minutes_of_what_is_no_duration_is_refused(time: str) -> None:
    with pytest.raises(UsageError, match="expected a duration"):
        minutes(time)


@pytest.mark.parametrize(("module", "library"), [("slurm", "submitit"), ("ray", "ray")])
def test_missing_library_names_the_command(monkeypatch: pytest.MonkeyPatch, module: str, library: str) -> None:
    monkeypatch.delitem(sys.modules, f"plifctl.sweep.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=f"{library} is not installed") as error:
        __import__(f"plifctl.sweep.{module}")
    assert error.value.hint == f"pip install {library}"
