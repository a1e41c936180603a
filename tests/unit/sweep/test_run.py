"""The coordinator of a sweep, with an engine in memory: what is trained, by whom, and what a failure leaves."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_run
from sweeping import FakeEngine, Trainer, fail_task, sweep_options, train_task, write_log

from plifctl.config.lookup import load_experiment
from plifctl.config.overrides import is_modification
from plifctl.errors import CacheError, Interrupted, MachineError, RunError, UsageError
from plifctl.runs import Run, list_runs, load_records
from plifctl.runs.directory import write_config
from plifctl.runs.folders import ADDED, EXTERNAL_PREFIX
from plifctl.runs.records import record_text
from plifctl.sweep.dry_run import dry_run
from plifctl.sweep.engine import Job, Resources, Task
from plifctl.sweep.plan import Plan, PlanFile
from plifctl.sweep.planning import SweepOptions
from plifctl.sweep.progress import ProgressReader
from plifctl.sweep.run import run_sweep
from plifctl.sweep.status import SweepWatch

MakeEngine = Callable[..., FakeEngine]


def cache_of(letter: str) -> Any:
    """What a sweep needs of a cache; make_run trains on the content of the letter c."""
    return SimpleNamespace(content_digest=64 * letter, path=Path("x.h5"))


@pytest.fixture
def runs(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("plifctl.sweep.run._POLL_SECONDS", 0)
    monkeypatch.setattr("plifctl.sweep.caches.experiment_cache", lambda *_, **__: cache_of("c"))
    for module in ("run", "status"):
        monkeypatch.setattr(f"plifctl.sweep.{module}.authors_accuracies", dict)
    return places / "runs"


@pytest.fixture
def engine(runs: Path, monkeypatch: pytest.MonkeyPatch) -> MakeEngine:
    """Replaces the engines by one in memory, which is returned."""

    def make(trainers: dict[str, Trainer] | None = None, **options: Any) -> FakeEngine:
        made = FakeEngine(runs, trainers, **options)
        monkeypatch.setattr("plifctl.sweep.run.open_engine", lambda *_: made)
        return made

    return make


def states(plan: Plan) -> dict[int, str]:
    return {run.seed: run.state for run in plan.runs}


def test_sweep_trains_every_run_once_and_the_same_command_nothing(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1, 2, 3))
    first = engine()
    plan = run_sweep(options)
    assert states(plan) == {1: "finished", 2: "finished", 3: "finished"}
    assert first.submitted == [run.name for run in plan.runs]
    second = engine()
    assert states(run_sweep(options)) == states(plan)
    assert second.submitted == []


def test_engine_is_asked_all_the_time_and_files_rarely_however_long_reading_takes(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, polls, reads = [0.0], [], []

    def idle(fake: FakeEngine, task: Task) -> Job:
        if now[0] < 5000:
            fake.queue.append(task)
            return Job("running")
        return train_task(fake, task)

    fake = engine({"-s3-": idle})
    poll, read = fake.poll, ProgressReader.read
    fake.poll = lambda jobs: polls.append(now[0]) or poll(jobs)  # type: ignore[method-assign]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def read_slowly(*args: Any) -> Any:
        reads.append(now[0])
        sleep(60)
        return read(*args)

    monkeypatch.setattr(ProgressReader, "read", read_slowly)
    monkeypatch.setattr("plifctl.sweep.run._POLL_SECONDS", 0.5)
    for module in ("run", "progress"):
        clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
        monkeypatch.setattr(f"plifctl.sweep.{module}.time", clock)
    assert set(states(run_sweep(sweep_options(runs, seeds=(1, 2, 3)))).values()) == {"finished"}
    assert max(after - before for before, after in pairwise(polls)) <= 60.5
    assert 60 * len(reads) < now[0] / 5, "reading takes a small part of the time"


def test_failure_of_one_run_leaves_the_others_finished_and_is_tried_again(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1, 2, 3))
    engine({"-s2-": fail_task})
    plan = run_sweep(options)
    assert states(plan) == {1: "finished", 2: "failed", 3: "finished"}
    assert plan.runs[1].reason == "the loss is not finite"
    again = engine({"-s2-": lambda fake, task: Job("ended")})
    run_sweep(options)
    assert again.submitted == [plan.runs[1].name]


def test_interrupted_run_is_continued_by_the_same_command(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1, 2))

    def kill(fake: FakeEngine, task: Task) -> Job:
        train_task(fake, task, finished=False)
        return Job("ended", "here", "killed by SIGKILL", -9)

    engine({"-s1-": kill})
    plan = run_sweep(options)
    assert states(plan) == {1: "interrupted", 2: "finished"}
    assert plan.runs[0].reason == "killed by SIGKILL"
    again = engine({"-s1-": lambda fake, task: Job("ended")})
    run_sweep(options)
    assert again.submitted == [plan.runs[0].name]


def test_failure_of_an_earlier_job_is_not_the_reason_of_a_later_one(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1,))
    engine({"": fail_task})
    run_sweep(options)

    def refuse(fake: FakeEngine, task: Task) -> Job:
        write_log(task, "error: no cache\n")
        return Job("ended", "here", "exit code 5", 5)

    engine({"": refuse})
    assert run_sweep(options).runs[0].reason == "no cache"
    engine({"": lambda fake, task: Job("ended", "here", "killed by SIGKILL", -9)})
    assert run_sweep(options).runs[0].reason == "killed by SIGKILL"


def test_ctrl_c_cancels_what_is_queued_and_leaves_a_plan_that_says_so(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1, 2, 3))

    def interrupt(fake: FakeEngine, task: Task) -> Job:
        train_task(fake, task, finished=False)
        raise Interrupted(signal.SIGINT, "stopped by SIGINT")

    fake = engine({"-s2-": interrupt})
    with pytest.raises(Interrupted):
        run_sweep(options)
    plan = PlanFile(runs, next(iter(sweep_files(runs)))).load()
    assert states(plan) == {1: "finished", 2: "interrupted", 3: "missing"}
    assert (plan.host, plan.pid) == (None, None)
    assert len(fake.cancelled) == 2


def sweep_files(runs: Path) -> list[str]:
    return [path.stem for path in (runs / "sweeps").glob("*.json")]


def test_run_that_was_trained_under_another_name_is_part_of_the_sweep(runs: Path, engine: MakeEngine) -> None:
    make_run(runs, "train.seed=1", name="mine")
    fake = engine()
    plan = run_sweep(sweep_options(runs, seeds=(1, 2)))
    assert plan.runs[0].name == "mine"
    assert fake.submitted == [plan.runs[1].name]


def test_run_that_was_made_longer_is_not_taken_for_the_short_one(runs: Path, engine: MakeEngine) -> None:
    make_run(runs, "train.seed=1", name="mine", epochs=9)
    fake = engine()
    plan = run_sweep(sweep_options(runs, seeds=(1,)))
    assert fake.submitted == [plan.runs[0].name] != ["mine"]


@pytest.mark.parametrize("named", [True, False])
def test_run_whose_longer_training_has_not_ended_is_finished_by_the_result_that_it_keeps(
    runs: Path, engine: MakeEngine, named: bool
) -> None:
    options = sweep_options(runs, seeds=(1,))
    engine()
    name = run_sweep(options).runs[0].name if named else "mine"
    run = Run(runs / name) if named else make_run(runs, "train.seed=1", name=name)
    write_config(run.path, load_experiment("demo", ["train.epochs=9", "train.seed=1"]), "A")
    fake = engine()
    (planned,) = run_sweep(options).runs
    assert (planned.name, planned.state, planned.reason, fake.submitted) == (name, "finished", "", [])


def test_run_on_other_classes_is_not_part_of_the_sweep(runs: Path, engine: MakeEngine) -> None:
    run = make_run(runs, "train.seed=1", name="mine")
    experiment = load_experiment("demo", ["train.epochs=3", "train.seed=1"])
    dataset = experiment.spec.dataset
    others = dataset.model_copy(update={"classes": tuple(f"other-{name}" for name in dataset.classes)})
    write_config(run.path, replace(experiment, spec=experiment.spec.model_copy(update={"dataset": others})), "A")
    fake = engine()
    plan = run_sweep(sweep_options(runs, seeds=(1,)))
    assert fake.submitted == [plan.runs[0].name] != ["mine"]
    shutil.rmtree(runs / plan.runs[0].name)
    run.path.rename(runs / plan.runs[0].name)
    engine({"": lambda fake, task: Job("ended", "here", "exit code 3", 3)})
    (planned,) = run_sweep(sweep_options(runs, seeds=(1,))).runs
    assert planned.state == "failed"
    assert "other classes" in planned.reason


def test_run_is_started_with_the_epochs_and_the_seed_that_were_planned(runs: Path, engine: MakeEngine) -> None:
    def train(fake: FakeEngine, task: Task) -> Job:
        words = [word for option, word in pairwise(task.argv) if option == "--set"]
        assert words[-2:] == ["train.epochs=3", f"train.seed={load_experiment('demo').spec.train.seed}"]
        return train_task(fake, task)

    engine({"": train})
    (planned,) = run_sweep(sweep_options(runs)).runs
    assert planned.state == "finished"
    assert not any(map(is_modification, Run(runs / planned.name).record().overrides))


def test_run_of_somebody_else_hides_no_run_of_the_same_settings(runs: Path, engine: MakeEngine) -> None:
    make_run(runs, "train.seed=1", name="mine")
    (runs / "theirs").mkdir()
    (runs / "theirs" / ADDED).write_bytes(EXTERNAL_PREFIX)
    shutil.copy(runs / "mine/result.json", runs / "theirs")
    assert [record.origin for record in load_records(runs, ())] == ["trained", "added"]
    fake = engine()
    assert run_sweep(sweep_options(runs, seeds=(1,))).runs[0].name == "mine"
    assert fake.submitted == []


def test_run_that_stopped_early_under_another_name_is_part_of_the_sweep(runs: Path, engine: MakeEngine) -> None:
    run = make_run(runs, "train.seed=1", name="mine")
    write_config(run.path, load_experiment("demo", ["train.epochs=9", "train.seed=1"]), "A")
    stopped = run.record().model_copy(update={"stopped_early": True})
    (run.path / "result.json").write_text(record_text(stopped))
    fake = engine()
    plan = run_sweep(sweep_options(runs, seeds=(1,), set={"train.epochs": 9}))
    assert (plan.runs[0].name, plan.runs[0].state) == ("mine", "finished")
    assert fake.submitted == []
    assert run_sweep(sweep_options(runs, seeds=(1,))).runs[0].name != "mine"  # of three epochs


def test_two_sweeps_that_share_a_run_have_one_run(runs: Path, engine: MakeEngine) -> None:
    engine()
    first = run_sweep(sweep_options(runs, seeds=(1,), grid={"neuron.tau_0": (2, 4)}))
    fake = engine()
    second = run_sweep(sweep_options(runs, seeds=(1, 2), set={"neuron.tau_0": 4.0}))
    assert first.runs[1].name == second.runs[0].name
    assert fake.submitted == [second.runs[1].name]
    third = run_sweep(sweep_options(runs, seeds=(1,)))  # tau_0 is 2 anyway
    assert third.runs[0].name == first.runs[0].name
    assert len(list_runs(runs)) == 3


def test_run_that_another_process_trains_is_waited_for_and_counted_once(runs: Path, engine: MakeEngine) -> None:
    holder: list[Any] = []

    def find_it_taken(fake: FakeEngine, task: Task) -> Job:
        train_task(fake, task, finished=False)
        holder.append(Run(runs / task.name).lock())
        holder[0].acquire()
        return Job("ended", "here", "exit code 3", 3)

    fake = engine({"-s1-": find_it_taken})
    looks = 0

    def watch(found: Any) -> None:
        nonlocal looks
        if holder and (looks := looks + 1) == 3:  # the other process is killed: the run is ours again
            holder[0].release()
            shutil.rmtree(runs / found[0].run.name)
            fake.trainers = {}

    plan = run_sweep(sweep_options(runs, seeds=(1,)), watch)
    assert states(plan) == {1: "finished"}
    assert fake.submitted == [plan.runs[0].name] * 2


def test_run_without_a_cache_fails_alone_and_its_job_is_not_started(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(spec: Any, *_: Any, **__: Any) -> Any:
        built.append(spec.T)
        if spec.T == 4:
            raise CacheError("no raw data")
        return cache_of("c")

    monkeypatch.setattr("plifctl.sweep.caches.experiment_cache", build)
    fake = engine()
    plan = run_sweep(sweep_options(runs, seeds=(1, 2), grid={"T": (4, 8)}))
    assert {run.name: run.reason for run in plan.runs if run.state == "failed"} == {
        run.name: "no raw data" for run in plan.runs if run.values["T"] == 4
    }
    assert len(fake.submitted) == 2
    assert sorted(built) == [4, 8]  # each once


def test_finished_runs_of_other_data_are_named(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine()
    run_sweep(sweep_options(runs, seeds=(1, 2)))
    assert "other data" not in caplog.text
    monkeypatch.setattr("plifctl.sweep.caches.find_current_cache", lambda *_, **__: cache_of("d"))
    assert states(run_sweep(sweep_options(runs, seeds=(1, 2)))) == {1: "finished", 2: "finished"}
    assert "2 finished runs were trained on other data than x.h5 has now, e.g. demo-" in caplog.text


def test_finished_runs_of_another_training_version_are_named(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine()
    run_sweep(sweep_options(runs, seeds=(1, 2)))
    monkeypatch.setattr("plifctl.sweep.caches.TRAINING_VERSION", 99)
    dry_run(sweep_options(runs, seeds=(1, 2)))
    assert "training version" not in caplog.text  # all of one
    for start in (dry_run, run_sweep):
        caplog.clear()
        start(sweep_options(runs, seeds=(1, 2, 3)))
        assert "2 finished runs are of training version 5, which has no common mean with today's 99" in caplog.text


def test_run_folder_that_is_something_else_fails_alone(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1, 2, 3, 4))
    engine()
    names = [run.name for run in run_sweep(options).runs]
    for name in names:
        shutil.rmtree(runs / name)
    (runs / names[0]).write_text("a file")
    (runs / names[1]).mkdir()
    (runs / names[2]).symlink_to(runs / "nowhere")

    def refuse(fake: FakeEngine, task: Task) -> Job:
        write_log(task, f"error: {task.name}: not a run of plifctl\n")
        return Job("ended", "here", "exit code 2", 2)

    engine({"-s1-": refuse, "-s2-": refuse, "-s3-": refuse})
    plan = run_sweep(options)
    assert states(plan) == {1: "failed", 2: "failed", 3: "failed", 4: "finished"}
    assert "not a run" in plan.runs[0].reason
    assert (runs / names[0]).read_text() == "a file"


def test_commands_that_are_printed_name_the_runs_directory(runs: Path, engine: MakeEngine) -> None:
    folder = runs.parent / "other runs"
    options = sweep_options(folder, seeds=(1,))
    engine({"": lambda fake, task: Job("ended", "here", "exit code 3", 3)})
    name = run_sweep(options).runs[0].name
    make_run(folder, "neuron.tau_0=8", "train.seed=1", name=name)
    assert run_sweep(options).runs[0].reason.endswith(f"plifctl runs rm '{folder / name}'")
    assert PlanFile(folder, "demo").argument == f"demo --runs-dir '{folder}'"
    assert PlanFile(runs, "demo").argument == "demo"


def test_run_of_other_settings_under_the_name_is_failed_and_left_alone(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1,))
    engine()
    name = run_sweep(options).runs[0].name
    shutil.rmtree(runs / name)
    make_run(runs, "neuron.tau_0=8", "train.seed=1", name=name)
    engine({"": lambda fake, task: Job("ended", "here", "exit code 3", 3)})
    plan = run_sweep(options)
    assert plan.runs[0].state == "failed"
    assert "other settings" in plan.runs[0].reason
    assert plan.runs[0].reason.endswith(f"plifctl runs rm {name}")
    assert Run(runs / name).config().spec.neuron.tau_0 == 8


@pytest.mark.parametrize("document", ["config.yaml", "result.json", "metrics.jsonl", "run.json"])
def test_damaged_run_fails_alone(runs: Path, engine: MakeEngine, document: str) -> None:
    options = sweep_options(runs, seeds=(1, 2))
    engine()
    name = run_sweep(options).runs[0].name
    (runs / name / document).write_text("{")
    engine({"-s1-": lambda fake, task: Job("ended", "here", "exit code 6", 6)})
    plan = run_sweep(options)
    assert plan.runs[1].state == "finished"
    if document != "run.json":  # which a finished run no longer needs
        assert plan.runs[0].state == "failed"
        assert document in plan.runs[0].reason


def test_run_that_is_removed_after_its_training_is_said_to_be_gone(runs: Path, engine: MakeEngine) -> None:
    def train_and_remove(fake: FakeEngine, task: Task) -> Job:
        job = train_task(fake, task)
        (runs / task.name).rename(runs / "elsewhere")
        write_log(task, "best test accuracy: 50 %\n")
        return job

    engine({"": train_and_remove})
    plan = run_sweep(sweep_options(runs, seeds=(1,)))
    assert plan.runs[0].state == "failed"
    assert f"{runs / plan.runs[0].name} is not there; see {runs}" in plan.runs[0].reason
    again = engine()
    assert run_sweep(sweep_options(runs, seeds=(1,))).runs[0].name == "elsewhere"
    assert again.submitted == []


def test_second_process_of_a_sweep_is_refused_while_the_first_runs(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1,), sweep="my sweep")

    def run_again(fake: FakeEngine, task: Task) -> Job:
        with pytest.raises(UsageError, match="another process") as refused:
            run_sweep(options)
        assert "my sweep" in refused.value.hint
        assert PlanFile(runs, "my sweep").load().pid == os.getpid()
        return train_task(fake, task)

    engine({"": run_again})
    assert states(run_sweep(options)) == {1: "finished"}


def test_sweep_of_a_name_may_change_what_it_trains_after_a_kill(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1,), sweep="mine")
    engine()
    run_sweep(options)
    file = PlanFile(runs, "mine")
    plan = file.load()
    file.save(plan.with_runs([plan.runs[0].model_copy(update={"state": "running", "engine": "local", "job": "1"})]))
    assert states(run_sweep(sweep_options(runs, seeds=(2,), sweep="mine"))) == {2: "finished"}


def test_damaged_plan_is_refused_with_its_remedy_and_can_be_made_again(runs: Path, engine: MakeEngine) -> None:
    options = sweep_options(runs, seeds=(1,), sweep="mine")
    engine()
    run_sweep(options)
    path = runs / "sweeps/mine.json"
    path.write_text(path.read_text().replace("finished", "missing"))
    with pytest.raises(RunError, match="modified") as refused:
        run_sweep(options)
    assert "remove it" in refused.value.hint
    path.unlink()
    fake = engine()
    assert states(run_sweep(options)) == {1: "finished"}
    assert fake.submitted == []


def test_full_disk_for_the_plan_stops_no_training(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise MachineError("no space left on the disk")

    monkeypatch.setattr(PlanFile, "save", refuse)
    engine()
    assert states(run_sweep(sweep_options(runs, seeds=(1,)))) == {1: "finished"}
    assert "no space left" in caplog.text


def test_invalid_sweep_writes_nothing(runs: Path, engine: MakeEngine) -> None:
    engine()
    for fields in ({"experiments": ("dmo",)}, {"grid": {"neuron.tau": (1, 2)}}, {"sweep": "a/b"}, {"tables": ("99",)}):
        with pytest.raises(UsageError):
            run_sweep(sweep_options(runs, **fields))
    assert not runs.exists()


def test_batch_system_is_given_the_jobs_and_left_alone(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine(detached=True)
    options: SweepOptions = replace(sweep_options(runs, seeds=(1, 2)), engine="slurm", resources=Resources(time="1h"))
    monkeypatch.setattr("plifctl.sweep.jobs.open_engine", lambda *_: fake)
    plan = run_sweep(options)
    assert states(plan) == {1: "queued", 2: "queued"}
    assert [run.job for run in plan.runs] == [f"job-{run.name}" for run in plan.runs]
    run_sweep(options)
    assert len(fake.submitted) == 2
    assert fake.cancelled == []


@pytest.mark.parametrize("fault", ["damaged", "other settings"])
def test_batch_system_without_a_time_limit_is_refused_first_if_a_result_does_not_count(
    runs: Path, engine: MakeEngine, fault: str
) -> None:
    options = sweep_options(runs, seeds=(1, 2), sweep="mine")
    engine()
    name = run_sweep(options).runs[0].name
    by_slurm = replace(options, engine="slurm")
    engine(detached=True)
    assert states(run_sweep(by_slurm)) == {1: "finished", 2: "finished"}  # nothing to train needs no time
    if fault == "damaged":
        (runs / name / "result.json").write_text("{")
    else:
        shutil.rmtree(runs / name)
        make_run(runs, "neuron.tau_0=8", "train.seed=1", name=name)
    before = PlanFile(runs, "mine").load()
    for call in (dry_run, run_sweep):
        with pytest.raises(UsageError, match="SLURM needs a time limit"):
            call(by_slurm)
    assert PlanFile(runs, "mine").load() == before


def test_sweep_does_not_drop_runs_that_the_batch_system_still_has(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine(detached=True)
    monkeypatch.setattr("plifctl.sweep.jobs.open_engine", lambda *_: fake)
    run_sweep(replace(sweep_options(runs, seeds=(1, 2), sweep="mine"), engine="slurm", resources=Resources(time="1h")))
    with pytest.raises(UsageError, match="2 of its jobs may still be trained") as refused:
        run_sweep(
            replace(sweep_options(runs, seeds=(3,), sweep="mine"), engine="slurm", resources=Resources(time="1h"))
        )
    assert "plifctl sweep cancel mine" in refused.value.hint
    fake.queue.clear()
    assert states(
        run_sweep(
            replace(sweep_options(runs, seeds=(3,), sweep="mine"), engine="slurm", resources=Resources(time="1h"))
        )
    ) == {3: "queued"}


def test_sweep_is_not_given_to_another_engine_while_the_batch_system_has_jobs(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine(detached=True)
    monkeypatch.setattr("plifctl.sweep.jobs.open_engine", lambda *_: fake)
    options = sweep_options(runs, seeds=(1, 2), sweep="mine")
    run_sweep(replace(options, engine="slurm", resources=Resources(time="1h")))
    with pytest.raises(UsageError, match="another engine, and 2 of its jobs may still be trained") as refused:
        run_sweep(options)
    assert "plifctl sweep cancel mine" in refused.value.hint
    assert len(fake.submitted) == 2


def test_sweep_that_a_batch_system_has_finished_needs_it_no_more(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine(detached=True)
    options = sweep_options(runs, seeds=(1, 2), sweep="mine")
    submitted = run_sweep(replace(options, engine="slurm", resources=Resources(time="1h")))
    assert states(submitted) == {1: "queued", 2: "queued"}  # what the plan says for ever: the process has ended
    for task in fake.queue:
        train_task(fake, task)

    def refuse(*_: Any) -> None:
        raise MachineError("squeue not found")

    monkeypatch.setattr("plifctl.sweep.jobs.open_engine", refuse)
    assert SweepWatch("mine", runs).read().count("finished") == 2
    again = engine()
    assert states(run_sweep(options)) == {1: "finished", 2: "finished"}
    assert again.submitted == []


def test_jobs_that_a_batch_system_took_are_in_the_plan_though_it_does_not_answer_afterwards(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine(detached=True)
    poll = fake.poll

    def busy(jobs: Any) -> Any:
        if fake.submitted:
            raise MachineError("squeue failed: timed out")
        return poll(jobs)

    monkeypatch.setattr(fake, "poll", busy)
    options = sweep_options(runs, seeds=(1, 2), sweep="mine")
    with pytest.raises(MachineError, match="timed out"):
        run_sweep(replace(options, engine="slurm", resources=Resources(time="1h")))
    plan = PlanFile(runs, "mine").load()
    assert [run.job for run in plan.runs] == [f"job-{run.name}" for run in plan.runs]
    assert plan.pid is None


def test_outputs_of_runs_lie_in_the_runs_directory_wherever_an_engine_starts_them(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(runs.parent)
    fake = engine(detached=True)
    options = sweep_options(Path("runs"), seeds=(1,), sweep="mine")
    run_sweep(replace(options, engine="slurm", resources=Resources(time="1h")))
    assert [task.log.parent for task in fake.queue] == [runs / "sweeps/mine"]


def test_cancel_finds_this_process_before_the_sweep_is_planned(
    runs: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = sweep_options(runs, seeds=(1,), sweep="mine")
    engine()
    file, plan = PlanFile(runs, "mine"), run_sweep(options)
    file.save(plan.model_copy(update={"host": "here", "pid": 1}))  # of a process that was killed
    named = []
    monkeypatch.setattr("plifctl.sweep.run._check_dropped", lambda *_: named.append(file.load().pid))
    run_sweep(options)
    assert named == [os.getpid()]
