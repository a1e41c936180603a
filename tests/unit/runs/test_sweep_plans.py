"""Which sweeps a run belongs to, from the plans in the runs directory."""

import json
import logging
from pathlib import Path

import pytest

from plifctl.runs.documents import add_checksum
from plifctl.runs.sweep_plans import sweeps_by_run


def write_plan(runs_dir: Path, name: str, *runs: str) -> Path:
    path = runs_dir / "sweeps" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(add_checksum({"definition": {}, "runs": [{"name": run} for run in runs]})))
    return path


def test_run_of_two_sweeps_has_both_names(tmp_path: Path) -> None:
    write_plan(tmp_path, "one", "a", "b")
    write_plan(tmp_path, "two", "b")
    assert sweeps_by_run(tmp_path) == {"a": ("one",), "b": ("one", "two")}
    assert sweeps_by_run(tmp_path / "nowhere") == {}


def test_damaged_plan_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_plan(tmp_path, "whole", "a")
    damaged = write_plan(tmp_path, "damaged", "b")
    damaged.write_text(damaged.read_text().replace('"b"', '"c"'))
    (tmp_path / "sweeps" / "strange.json").write_text(json.dumps(add_checksum({"definition": 1, "runs": [3]})))
    with caplog.at_level(logging.WARNING, "plifctl"):
        assert sweeps_by_run(tmp_path) == {"a": ("whole",)}
    assert ["damaged.json" in caplog.text, "strange.json: damaged" in caplog.text] == [True, True]
