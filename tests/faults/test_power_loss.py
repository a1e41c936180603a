"""Power failures at any moment: no wrong number counts as ok, and no good checkpoint is lost."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.power_loss import Moment, Recording, recording, restore

from plifctl.cache.catalogue import verify_cache
from plifctl.pipeline.run_files import verify_runs
from plifctl.pipeline.runs import list_entries
from plifctl.runs import list_runs, load_checkpoint

Plifctl = Callable[..., Any]
TRAIN = ("demo", "--set", "train.batch_size=11", "--set", "T=4", "--epochs", 3, "--checkpoint-every", 1)
VARIANTS = (2, 12)
"""Random states of each moment, in a short and in a full run, besides the one without all unsynchronised changes."""


@pytest.fixture
def folder(places: Path, gestures: Path) -> Path:
    """The folder in which everything is recorded."""
    for name in ("data_cache", "runs"):
        (places / name).mkdir(exist_ok=True)
    return places


def check_states(
    recorded: Recording, into: Path, generator: random.Random, variants: int, check: Callable[[Moment, Path], None]
) -> int:
    """Calls ``check`` with the states after a power failure at each moment; returns their number."""
    count = 0
    for moment in recorded.moments:
        for choice in (None, *[generator] * variants):
            restore(moment, into, choice)
            check(moment, into)
            count += 1
    return count


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_power_failure_in_a_training_loses_no_good_checkpoint_and_shows_no_wrong_number(
    verb: str,
    plifctl: Plifctl,
    folder: Path,
    gestures: Path,
    tmp_path: Path,
    generator: random.Random,
    times: Callable[[int, int], int],
    print_summary: Callable[[str], None],
) -> None:
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    with recording(folder / "runs") as recorded:
        assert plifctl(verb, *TRAIN).code == 0
    (run,) = list_runs(folder / "runs")
    wanted, rows = run.record(), run.metrics()
    best = {"epoch": 0, "step": 0}  # of the newest checkpoint that was certainly on the disk
    finished = 0

    def position(path: Path) -> tuple[int, int]:
        progress = load_checkpoint(path)["progress"]
        return progress["epoch"], progress["step"]

    def check(moment: Moment, into: Path) -> None:
        nonlocal finished
        runs = list_runs(into)
        assert len(list_entries(into)) == len(runs)
        for name, problems in verify_runs(runs_dir=into):
            finished += 1
            (found,) = runs
            assert name == found.name
            if not problems:
                assert found.record() == wanted
                assert found.metrics() == rows
        known = (best["epoch"], best["step"])
        if known == (0, 0) and not any(one.checkpoint("last").exists() for one in runs):
            return
        (found,) = runs
        now = position(found.checkpoint("last"))
        assert now >= known, "an older good checkpoint is gone"
        assert len(found.metrics()) >= now[0], "the checkpoint cannot be resumed"
        if len(found.metrics()) and found.checkpoint("best").exists():
            load_checkpoint(found.checkpoint("best"))

    states = 0
    for moment in recorded.moments:
        restore(moment, tmp_path / "state", None)
        for one in list_runs(tmp_path / "state"):
            if one.checkpoint("last").exists():  # synchronised in every respect
                best["epoch"], best["step"] = max((best["epoch"], best["step"]), position(one.checkpoint("last")))
        single = Recording(recorded.root, [moment])
        states += check_states(single, tmp_path / "state", generator, times(*VARIANTS), check)
    resumed = 0
    for moment in generator.sample(recorded.moments, times(2, 60)):
        restore(moment, tmp_path / "state", generator)
        if not (found := list_runs(tmp_path / "state")):
            continue
        assert plifctl(verb, "--resume", found[0].path, "--json").code == 0
        record = found[0].record()
        assert (record.accuracy, record.test_accuracy, record.tau) == (
            wanted.accuracy,
            wanted.test_accuracy,
            wanted.tau,
        )
        resumed += 1
    print_summary(
        f"{states} states of {len(recorded.moments)} moments, {finished} of them finished; {resumed} runs resumed"
    )
    assert finished
    assert (best["epoch"], best["step"]) == (3, 0)


def test_power_failure_in_prepare_leaves_no_wrong_cache(
    plifctl: Plifctl,
    folder: Path,
    gestures: Path,
    tmp_path: Path,
    generator: random.Random,
    times: Callable[[int, int], int],
    print_summary: Callable[[str], None],
) -> None:
    command = ("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures, "--json")
    with recording(folder / "data_cache") as first:
        wanted = json.loads(plifctl(*command).out)["content_digest"]
    with recording(folder / "data_cache") as again:
        assert plifctl(*command, "--force").code == 0
    counts = {"ok": 0}

    def check(moment: Moment, into: Path) -> None:
        found = list(into.glob("*/*.h5"))
        for path in found:
            assert verify_cache(path) == []
            counts["ok"] += 1
        entries = plifctl("cache", "ls", "--json", "--cache-dir", into)
        digests = [entry["content_digest"] for entry in json.loads(entries.out) if entry["state"] == "ok"]
        assert digests == [wanted] * len(found)
        if moment in again.moments:
            assert found, "the old cache is gone"

    states = sum(check_states(one, tmp_path / "state", generator, times(*VARIANTS), check) for one in (first, again))
    print_summary(f"{states} states, {counts['ok']} of them with a cache")
    assert counts["ok"]
    restore(first.moments[-1], folder / "data_cache", None)
    assert json.loads(plifctl(*command).out)["content_digest"] == wanted


def test_power_failure_in_report_leaves_the_old_page_or_the_new_one(
    plifctl: Plifctl,
    folder: Path,
    tmp_path: Path,
    generator: random.Random,
    times: Callable[[int, int], int],
) -> None:
    page = folder / "page"
    assert plifctl("report", "--html", page).code == 0
    old = {path.name: path.read_bytes() for path in page.iterdir()}
    shutil.copytree(page, tmp_path / "old")
    with recording(page) as recorded:
        assert plifctl("report", "--html", page, "--include-modified").code == 0
    new = {path.name: path.read_bytes() for path in page.iterdir()}

    def check(moment: Moment, into: Path) -> None:
        for name in old:
            assert (into / name).read_bytes() in (old[name], new[name])

    assert check_states(recorded, tmp_path / "state", generator, times(*VARIANTS), check) > 3


def test_power_failure_without_synchronisation_is_found(tmp_path: Path, generator: random.Random) -> None:
    """The recorder finds the fault that it is made for: a rename of a file whose content is not on the disk."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("old")
    with recording(root) as recorded:
        (root / "b").write_text("new")
        (root / "b").replace(root / "a")
    found = set()
    for _ in range(60):
        restore(recorded.moments[-1], tmp_path / "state", generator)
        found.add((tmp_path / "state/a").read_text())
    assert {"old", "new", ""} <= found
    restore(recorded.moments[-1], tmp_path / "state", None)
    assert (tmp_path / "state/a").read_text() == "old"
