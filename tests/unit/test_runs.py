"""Run directories: status from what is there, records, checkpoints."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import plifctl as package
from plifctl import runs
from plifctl.errors import CheckpointError, Interrupted, ResumeError, RunError, UsageError
from plifctl.registry import load_registry
from plifctl.runs import Run, RunRecorder, create_run, find_run, load_checkpoint, load_records

RESOLVED = load_registry().experiment("demo", overrides=["train.epochs=2"])


def make(folder: Path) -> Run:
    parts: dict[str, Any] = {"cache": {"content_digest": "c"}, "split": {"train": ["a"]}, "environment": {"torch": "2"}}
    return create_run(folder, RESOLVED, "A", **parts)


def test_a_new_run_can_be_read_back(tmp_path: Path) -> None:
    run = make(tmp_path)
    config = run.config()
    assert config.spec == RESOLVED.spec
    assert (config.experiment, config.protocol, config.overrides) == ("demo", "A", ("train.epochs=2",))
    assert run.name.endswith(f"-demo-{RESOLVED.spec.digest[:12]}-s2020")
    assert "origins:" in (run.path / "config.yaml").read_text(encoding="utf-8")


def test_runs_of_one_second_do_not_meet(tmp_path: Path) -> None:
    assert len({make(tmp_path).name for _ in range(3)}) == 3


def test_status_is_what_is_there(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert run.status() == "killed"  # nobody holds it, and it did not say how it ended
    recorder = RunRecorder(run, RESOLVED.spec)
    with recorder.live():
        recorder.begin(RESOLVED, 0)
        assert run.status() == "running"
    assert run.status() == "killed"
    with pytest.raises(RunError), recorder.live():
        raise RunError("x")
    assert run.status() == "failed"
    with pytest.raises(ZeroDivisionError), recorder.live():
        raise ZeroDivisionError  # a bug of ours is no stop that somebody asked for
    assert run.status() == "failed"
    with pytest.raises(Interrupted), recorder.live():
        raise Interrupted(2, "x")
    assert run.status() == "stopped"
    (run.path / "result.json").write_text("{}")
    assert run.status() == "finished"


def test_a_run_has_one_trainer(tmp_path: Path) -> None:
    run = make(tmp_path)
    second = RunRecorder(run, RESOLVED.spec).live()
    with RunRecorder(run, RESOLVED.spec).live(), pytest.raises(ResumeError, match="another process"):
        second.__enter__()


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n')
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')  # the power failed here
    recorder = RunRecorder(run, RESOLVED.spec)
    with recorder.live():
        recorder.begin(RESOLVED, 2)
        assert run.metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl:2: damaged"):
        run.metrics()
    for line in (b"\xff", b"[]", b"{}"):
        (run.path / "metrics.jsonl").write_bytes(line + b'\n{"epoch": 2}\n')
        with pytest.raises(RunError, match=r"metrics.jsonl:1: damaged"):
            run.metrics()
    (run.path / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"run.json: damaged"):
        run.info()


def test_finding(tmp_path: Path) -> None:
    first, last = make(tmp_path), make(tmp_path)
    assert find_run("last", tmp_path).name == last.name
    assert find_run(str(first.path), tmp_path / "elsewhere").name == first.name
    assert find_run(first.name, tmp_path).name == first.name
    with pytest.raises(UsageError, match="2 runs fit"):
        find_run("demo", tmp_path)
    with pytest.raises(UsageError, match="no run 'x'"):
        find_run("x", tmp_path)


def test_checkpoints(tmp_path: Path) -> None:
    run = make(tmp_path)
    recorder = RunRecorder(run, RESOLVED.spec)
    recorder.save("best", {"model": {"w": torch.ones(2)}})
    assert recorder.load_best()["model"]["w"].tolist() == [1, 1]
    path = run.checkpoint("best")
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"best.pt: damaged"):
            load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such"):
        load_checkpoint(run.checkpoint("last"))


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"spec": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "touched").exists()


def test_damaged_records_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make(tmp_path)
    (run.path / "result.json").write_text("{")
    with caplog.at_level("WARNING", logger=runs.__name__):
        assert load_records(tmp_path, []) == []
    assert "result.json: not a result record" in caplog.text
    with pytest.raises(RunError):
        run.record()


def test_a_run_says_what_code_it_is_of() -> None:
    described = runs.describe_machine("cpu", 1)
    assert re.fullmatch(rf"{re.escape(package.__version__)}(\+\w+(-dirty)?)?", described["plifctl"])
    assert {"python", "torch", "numpy", "platform", "device", "threads"} <= set(described)
