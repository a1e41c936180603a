"""The command line of benchmarks: figures are on the disk as soon as they are measured, and time can end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.measure import Figure, Setting, below


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(measure, "metadata_of", lambda package: "1")

    def call(*arguments: object, parts: Any) -> object:
        monkeypatch.setattr(measure.sys, "argv", ["train_gpu.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            measure.run("figures", parts, recordings=False)
        return end.value.code

    return call


def test_run_results_are_on_disk_before_the_next_figure(run: Any, tmp_path: Path) -> None:
    file, seen = tmp_path / "results" / "train_gpu.jsonl", []

    def part(setting: Setting) -> Iterator[Figure]:
        yield below("first", "s", [1.0], 2.0)
        seen.append([json.loads(line) for line in file.read_text().splitlines()])
        yield below("second", "s", [3.0], 2.0)

    assert run("--results", tmp_path / "results", parts={"one": part}) == 1  # the second misses its target
    (machine, first), lines = seen[0], file.read_text().splitlines()
    assert machine["hardware"]["cores"] >= 1
    assert (first["name"], first["passed"]) == ("first", True)
    assert [json.loads(line)["name"] for line in lines[1:]] == ["first", "second"]
    run("--results", tmp_path / "results", parts={"one": part})
    assert len(file.read_text().splitlines()) == 6  # appended


def test_run_after_its_minutes_starts_no_figure(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[str] = []

    def part(setting: Setting) -> Iterator[Figure]:
        for name in ("first", "second"):
            started.append(name)
            yield below(name, "s", [1.0], None)

    assert run("--minutes", 0, "--json", parts={"one": part, "two": part}) == 0
    output = capsys.readouterr()
    assert started == ["first"]
    assert "the time is over in one" in output.err
    assert [figure["name"] for figure in json.loads(output.out)["figures"]] == ["first"]
