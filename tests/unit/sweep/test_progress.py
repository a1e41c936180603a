"""State and progress of a run of a sweep, by its own files and what the engine knows of its job."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_run
from sweeping import planned_run

from plifctl import files
from plifctl.cli.sweep_table import status_table
from plifctl.config.lookup import load_registry
from plifctl.config.sweep import SweepSpec
from plifctl.runs import Run
from plifctl.runs.authors import load_authors
from plifctl.runs.directory import RunConfig
from plifctl.runs.documents import add_checksum
from plifctl.sweep.engine import Job
from plifctl.sweep.logs import begin_log, last_error
from plifctl.sweep.plan import Plan, PlanFile, PlannedRun
from plifctl.sweep.progress import ProgressReader, RunProgress, authors_accuracies

ENDED = Job("ended", "here", "exit code 6", 6)


def read(runs_dir: Path, run: PlannedRun, job: Job | None = None, authors: Any = None) -> RunProgress:
    spec = SweepSpec(experiments=("demo",))
    plan = Plan(name="s", command="", definition=spec, created=1.0, updated=1.0, runs=(run,))
    jobs = {} if job is None else {run.name: job}
    (found,) = ProgressReader(PlanFile(runs_dir, "s"), authors).read(plan, jobs)
    return found


def trained(runs_dir: Path, *, finished: bool, **options: Any) -> PlannedRun:
    spec = make_run(runs_dir, name="a", finished=finished, **options).config().spec
    return planned_run("a", digest=spec.digest, seed=spec.train.seed, protocol=options.get("protocol", "A"))


@pytest.mark.parametrize(
    ("job", "state", "reason"),
    [
        (None, "missing", ""),
        (Job("queued", reason="QOS limit"), "queued", ""),
        (Job("running", "node1"), "running", ""),
        (ENDED, "failed", "exit code 6"),
        (Job("ended", "here", "killed by SIGKILL", -9), "failed", "killed by SIGKILL"),
        (Job("ended", "here", "", 0), "failed", "is not there; see "),
        (Job("ended", "here", "exit code 143", 143), "missing", ""),  # stopped before its first step
        (Job("ended", "here", "killed by SIGTERM", -15), "missing", ""),
        (Job("ended", "here", "exit code 130", 130), "missing", ""),
        (Job("ended", reason="cancelled"), "missing", ""),  # in Ray's queue
        (Job("ended", "node1", "CANCELLED"), "missing", ""),  # in that of SLURM
        (Job("ended", "node1", "TIMEOUT"), "failed", "TIMEOUT"),
    ],
)
def test_state_of_a_run_without_files_is_that_of_its_job(
    tmp_path: Path, job: Job | None, state: str, reason: str
) -> None:
    found = read(tmp_path, planned_run(), job)
    assert found.state == state
    assert reason in found.run.reason
    assert (found.epoch, found.accuracy) == (0, None)


@pytest.mark.parametrize(
    ("job", "state"),
    [(None, "interrupted"), (Job("queued"), "queued"), (Job("running"), "running"), (ENDED, "interrupted")],
)
def test_state_of_a_killed_run_is_that_of_its_next_job(tmp_path: Path, job: Job | None, state: str) -> None:
    run = trained(tmp_path, finished=False)
    info = (tmp_path / "a/run.json").read_text()
    assert '"running"' in info
    assert read(tmp_path, run, job).state == state


def test_finished_run_is_finished_whatever_its_job_says(tmp_path: Path) -> None:
    run = trained(tmp_path, finished=True)
    for job in (None, Job("queued"), Job("running"), ENDED):
        found = read(tmp_path, run, job)
        assert (found.state, found.epoch, found.accuracy, found.run.reason) == ("finished", 3, 0.75, "")
        assert found.seconds_left == 0


def test_run_of_protocol_b_shows_validation_accuracy_until_it_is_finished(tmp_path: Path) -> None:
    accuracies = ((0.9, 0.7), (0.95, 0.72), (0.91, 0.8))  # tested after every epoch
    found = read(tmp_path, trained(tmp_path, finished=False, protocol="B", accuracies=accuracies))
    assert (found.accuracy, found.accuracy_of, found.epoch) == (0.95, "validation", 3)
    assert found.to_json()["accuracy_of"] == "validation"
    columns, (row,) = status_table([found])
    assert row[columns.index("accuracy %")] == "95.00 val"


def test_accuracy_of_a_finished_run_has_no_mark(tmp_path: Path) -> None:
    found = read(tmp_path, trained(tmp_path, finished=True, protocol="B"))
    assert (found.accuracy, found.accuracy_of) == (0.75, "test")
    columns, (row,) = status_table([found])
    assert row[columns.index("accuracy %")] == "75.00"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"digest": "x"}, "other settings"),
        ({"protocol": "B"}, "other settings"),
        ({"seed": 7}, "seed"),
        ({"epochs": 2}, "3 epochs"),
    ],
)
def test_run_of_other_settings_is_failed_and_not_counted(
    tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    run = trained(tmp_path, finished=True).model_copy(update=change)
    found = read(tmp_path, run)
    assert (found.state, found.accuracy) == ("failed", None)
    assert difference in found.run.reason


def test_run_of_recordings_elsewhere_is_failed_unless_they_were_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, finished=True)
    config = Run(tmp_path / run.name).config()
    dataset = config.spec.dataset.model_copy(update={"raw": str(tmp_path / "monday")})
    config = replace(config, spec=config.spec.model_copy(update={"dataset": dataset}))
    monkeypatch.setattr(Run, "config", lambda _: config)
    planned = run.model_copy(update={"raw": str(tmp_path / "tuesday")})
    assert read(tmp_path, planned).state == "finished"  # Monday's are no longer where they were
    (tmp_path / "monday").mkdir()
    found = read(tmp_path, planned)
    assert (found.state, f"has the recordings {tmp_path / 'monday'}" in found.run.reason) == ("failed", True)
    assert read(tmp_path, run.model_copy(update={"raw": str(tmp_path / "monday")})).state == "finished"


def test_run_that_is_being_trained_is_running_without_a_job(tmp_path: Path) -> None:
    run = trained(tmp_path, finished=False)
    with Run(tmp_path / "a").lock():
        assert read(tmp_path, run).state == "running"
        assert read(tmp_path, run, ENDED).state == "running"
    assert read(tmp_path, run).state == "interrupted"


@pytest.mark.parametrize("document", ["config.yaml", "metrics.jsonl", "result.json"])
def test_damaged_run_is_failed_by_the_name_of_the_file(tmp_path: Path, document: str) -> None:
    run = trained(tmp_path, finished=True)
    (tmp_path / "a" / document).write_bytes(b"\xff{")
    found = read(tmp_path, run)
    assert found.state == "failed"
    assert document in found.run.reason


def test_authors_accuracy_is_their_best_by_the_same_epoch_of_unmodified_runs(tmp_path: Path) -> None:
    authors = {("demo", "A"): {1: 0.2, 2: 0.5, 9: 0.9}}
    run = trained(tmp_path, finished=True)
    assert read(tmp_path, run, authors=authors).authors is None  # on a part of the samples
    complete_cache(tmp_path / "a")
    assert read(tmp_path, run, authors=authors).authors == 0.5
    modified = make_run(tmp_path, "neuron.tau_0=8", name="b").config().spec
    complete_cache(tmp_path / "b")
    other = planned_run("b", digest=modified.digest, seed=modified.train.seed)
    assert read(tmp_path, other, authors=authors).authors is None


def test_authors_accuracy_is_not_beside_a_run_whose_experiment_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, finished=True)
    complete_cache(tmp_path / "a")
    monkeypatch.setattr(RunConfig, "digest", "d" * 64)
    assert read(tmp_path, run, authors={("demo", "A"): {1: 0.2}}).authors is None


def test_authors_accuracy_of_protocol_b_is_beside_a_test_accuracy_only(tmp_path: Path) -> None:
    authors = {("demo", "B"): {1: 0.2, 3: 0.4}}
    run = trained(tmp_path, finished=False, protocol="B")
    complete_cache(tmp_path / "a")
    found = read(tmp_path, run, authors=authors)
    assert (found.accuracy, found.authors) == (0.75, None)  # validation accuracy


def complete_cache(path: Path) -> None:
    info = Run(path).info()
    files.write_json(path / "run.json", add_checksum({**info, "cache": {**info["cache"], "complete": True}}))


def test_failure_before_the_first_step_is_remembered_by_the_plan(tmp_path: Path) -> None:
    failed = planned_run(state="failed", reason="no cache")
    assert read(tmp_path, failed).run == failed
    assert read(tmp_path, failed, Job("queued")).state == "queued"
    assert read(tmp_path, planned_run(state="finished")).state == "missing"
    make_run(tmp_path, name="a")
    spec = Run(tmp_path / "a").config().spec
    assert read(tmp_path, failed.model_copy(update={"digest": spec.digest})).state == "finished"


def test_authors_accuracies_are_those_of_the_registry() -> None:
    curve = authors_accuracies()["gesture-plif", "A"]
    assert min(curve) == 1
    assert list(curve.values()) == sorted(curve.values())  # the best so far
    records = [run.record() for run in load_authors(load_registry().folders)]
    validated = [record for record in records if record is not None and record.protocol == "B"]
    assert len(validated) == 2
    for record in validated:  # chosen by validation, as their result, not by tests
        curve = authors_accuracies()[record.experiment, "B"]
        assert curve[max(curve)] == record.accuracy < max(record.tests.values())


def test_metrics_are_read_again_only_when_they_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, finished=False)
    spec = SweepSpec(experiments=("demo",))
    plan = Plan(name="s", command="", definition=spec, created=1.0, updated=1.0, runs=(run,))
    reader = ProgressReader(PlanFile(tmp_path, "s"))
    reader.read(plan, {})
    checksums = tmp_path / "a/metrics.sha256"
    text = checksums.read_text()
    checksums.write_text("".join(text.splitlines(keepends=True)[:-1]))  # a row whose checksum is not written yet
    assert reader.read(plan, {})[0].epoch == 2
    checksums.write_text(text)
    assert reader.read(plan, {})[0].epoch == 3
    monkeypatch.setattr("plifctl.runs.directory.MetricsFile.read", lambda *_, **__: pytest.fail("read again"))
    assert reader.read(plan, {})[0].epoch == 3


def test_finished_run_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, finished=True)
    spec = SweepSpec(experiments=("demo",))
    plan = Plan(name="s", command="", definition=spec, created=1.0, updated=1.0, runs=(run,))
    reader = ProgressReader(PlanFile(tmp_path, "s"))
    first = reader.read(plan, {})
    with monkeypatch.context() as patch:
        patch.setattr("plifctl.files.read_regular", lambda *_: pytest.fail("read again"))
        assert reader.read(plan, {run.name: ENDED}) == first
        assert reader.unfinished(plan.runs) == []
    changed = plan.with_runs([run.model_copy(update={"epochs": 5})])
    assert reader.read(changed, {})[0].state == "failed"  # of other settings
    assert reader.read(plan, {}) == first
    (tmp_path / "a/result.json").unlink()
    assert reader.read(plan, {})[0].state == "interrupted"
    assert reader.unfinished(plan.runs) == [run]


def test_last_error_is_that_of_the_latest_job(tmp_path: Path) -> None:
    log = tmp_path / "sweeps/s/a.log"
    assert last_error(log) == ""
    begin_log(log, "plifctl train demo \udcff")  # a name that is not UTF-8
    assert last_error(log) == ""
    with log.open("a") as file:
        file.write("epoch 1\nerror: first\nerror: the cause\nhint: do this\n")
    assert last_error(log) == "the cause"
    begin_log(log, "plifctl train demo")
    with log.open("a") as file:
        file.write("Traceback\nKeyError: 'x'\nhint: none\n")
    assert last_error(log) == "KeyError: 'x'"


def test_last_error_of_a_long_output_is_its_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    begin_log(log, "x")
    with log.open("ab") as file:
        file.write(b"\xff" * 100_000 + b"\nerror: the end\n")
    assert last_error(log) == "the end"
    assert begin_log(tmp_path / "a.log/b.log", "x") is None  # a file in place of the folder
