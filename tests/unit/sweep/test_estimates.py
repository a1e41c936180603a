"""Time and disk of runs, measured where one like it was trained, else computed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from factories import make_run

from plifctl.config.lookup import load_experiment
from plifctl.config.sweep import SweepSpec
from plifctl.errors import RunError
from plifctl.evaluation.step_cost import registry_samples
from plifctl.runs.documents import save_document
from plifctl.runs.metrics import MetricsFile
from plifctl.sweep.estimates import Estimate, estimate_runs
from plifctl.sweep.expansion import expand


@pytest.fixture(autouse=True)
def constant_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plifctl.training.step_times.products_per_second", lambda: 1e9)


def estimates(runs_dir: Path, **fields: Any) -> list[Estimate]:
    members = expand(SweepSpec.model_validate({"experiments": ("demo",), **fields}))
    found = estimate_runs(members, runs_dir, {})
    return [found[member.name] for member in members]


def samples_of(count: int, test: int) -> Any:
    """What an estimate needs of a cache."""
    return SimpleNamespace(
        labels=np.arange(count) % 11,
        is_test=np.arange(count) >= count - test,
        is_validation=np.zeros(count, bool),
        sample_ids=[f"s{row:03}" for row in range(count)],
        groups=None,
    )


def trained_on(samples: int, runs_dir: Path, *overrides: str, name: str) -> None:
    """Makes a run of so many training samples, whose epochs take a second; the first one took a minute more."""
    run = make_run(runs_dir, *overrides, name=name)
    save_document(run.path / "split.json", {**run.split(), "train": [f"s{row}" for row in range(samples)]})
    rows = run.metrics()
    rows[0]["seconds"] += 60
    metrics = MetricsFile(run.path)
    metrics.truncate(0)
    for row in rows:
        metrics.append(row)


def test_time_is_computed_where_nothing_like_it_was_trained(tmp_path: Path) -> None:
    short, long = estimates(tmp_path, grid={"train.epochs": (2, 4)})
    assert short.measured == ""
    assert short.seconds is not None
    assert long.seconds == pytest.approx(2 * short.seconds)


def test_time_of_a_part_of_the_samples_is_a_part_of_the_time(tmp_path: Path) -> None:
    part, whole = estimates(tmp_path, grid={"train.subset": (0.5, 1.0)})
    assert whole.seconds is not None
    assert part.seconds == pytest.approx(whole.seconds / 2, rel=0.05)


def test_time_is_unknown_where_the_number_of_samples_is(tmp_path: Path) -> None:
    spec = load_experiment("demo").spec
    own = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"samples": None})})
    assert registry_samples(own, "A") is None


def test_time_is_that_of_the_samples_in_the_cache(tmp_path: Path) -> None:
    samples = load_experiment("demo").spec.dataset.samples
    assert samples is not None
    part = samples_of(110, test=22)
    members = expand(SweepSpec.model_validate({"experiments": ("demo",), "set": {"train.batch_size": 1}}))
    name = members[0].name
    here = estimate_runs(members, tmp_path, {name: part})[name].seconds
    full = estimate_runs(members, tmp_path, {})[name].seconds
    assert here is not None
    assert full is not None
    assert here / full == pytest.approx(88 / samples.train)


def test_time_is_that_of_the_run_like_it_with_most_samples(tmp_path: Path) -> None:
    trained_on(80, tmp_path, "train.seed=7", name="g1")
    trained_on(50, tmp_path, name="smaller")
    same, other = estimates(tmp_path, seeds=(1,), set={"train.epochs": 10}, grid={"T": (8, 16)})
    samples = load_experiment("demo").spec.dataset.samples
    assert samples is not None
    assert (same.seconds, same.measured) == (pytest.approx(10 * samples.train / 80), "g1")
    assert other.measured == ""


def test_run_of_a_few_samples_is_no_measurement(tmp_path: Path) -> None:
    trained_on(20, tmp_path, name="smoke")
    assert estimates(tmp_path)[0].measured == ""
    (half,) = estimates(tmp_path, set={"train.subset": 0.3})
    assert half.measured == "smoke"


def test_measured_time_is_that_of_as_many_samples(tmp_path: Path) -> None:
    trained_on(44, tmp_path, name="g1")
    members = expand(SweepSpec.model_validate({"experiments": ("demo",), "set": {"train.epochs": 3}}))
    (found,) = estimate_runs(members, tmp_path, {members[0].name: samples_of(110, test=22)}).values()
    assert (found.seconds, found.measured) == (3 * 88 / 44, "g1")
    half, b = estimates(tmp_path, set={"train.epochs": 3, "train.subset": 0.5}, protocols=("A", "B"))
    assert half.measured == b.measured == "g1"
    assert half.seconds is not None
    assert b.seconds is not None
    assert b.seconds < half.seconds


def test_damaged_runs_are_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, name="demo-mine")
    (run.path / "metrics.jsonl").write_text("{")
    with pytest.raises(RunError):
        run.metrics()
    assert estimates(tmp_path)[0].measured == ""


def test_disk_is_that_of_the_checkpoints(tmp_path: Path) -> None:
    (small,) = estimates(tmp_path, set={"network.structure": "APk8s8-FC110-SN-APk10s10"})
    weights = 2 * 16 * 16 * 110
    assert weights * 4 * 4 <= small.nbytes <= weights * 4 * 4 * 1.1
