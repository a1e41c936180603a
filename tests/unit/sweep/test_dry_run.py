"""What a sweep would do; nothing is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_run
from sweeping import sweep_options

from plifctl.config.choices import Engine
from plifctl.sweep.dry_run import dry_run
from plifctl.sweep.engine import Resources


@pytest.fixture(autouse=True)
def constant_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plifctl.training.step_times.products_per_second", lambda: 1e9)


def test_dry_run_writes_nothing_even_where_nothing_is(places: Path) -> None:
    found = dry_run(sweep_options(places / "runs", seeds=(1, 2)))
    assert not [*places.iterdir()]
    assert found.status.count("missing") == 2
    assert found.seconds == pytest.approx(sum(estimate.seconds for estimate in found.estimates.values()))
    json.dumps(found.to_json())


def test_dry_run_counts_what_is_left(places: Path) -> None:
    make_run(places / "runs", "train.seed=1", name="demo-mine")
    make_run(places / "runs", "train.seed=2", epochs=1, name="demo-short")
    found = dry_run(sweep_options(places / "runs", seeds=(1, 2)))
    assert (found.status.count("finished"), found.status.count("missing")) == (1, 1)
    (missing,) = found.status.unfinished
    assert found.seconds == found.estimates[missing.run.name].seconds
    assert found.nbytes == next(iter(found.estimates.values())).nbytes


@pytest.mark.parametrize(
    ("engine", "visible", "jobs", "at_once"),
    [("local", "", None, 1), ("local", "", 3, 3), ("local", "0,1", None, 2), ("slurm", "", None, 1), ("ray", "", 4, 4)],
)
def test_dry_run_counts_the_runs_at_once(
    places: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, visible: str, jobs: int | None, at_once: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    resources = Resources(jobs=jobs, time="1h" if engine == "slurm" else None)
    options = replace(sweep_options(places / "runs", seeds=range(5)), engine=engine, resources=resources)
    assert dry_run(options).at_once == at_once
    few = replace(options, spec=sweep_options(places / "runs", seeds=(1,)).spec)
    assert dry_run(few).at_once == 1


def test_dry_run_names_each_missing_cache_once_and_its_command(places: Path) -> None:
    found = dry_run(sweep_options(places / "runs", seeds=(1, 2), grid={"T": (4, 8)}))
    assert [(cache.T, cache.path, cache.runs) for cache in found.caches] == [(4, None, 2), (8, None, 2)]
    assert all(f"--T {cache.T}" in cache.command for cache in found.caches)
    assert all("--cache-dir" in cache.command for cache in found.caches)
