"""Remarks on recordings become notes of the cache, also of a build that was interrupted, and prepare warns of them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from factories import build_cache
from raw_files import encode_atis, open_events

from plifctl.cache import Cache
from plifctl.cache.framing import SampleFramer
from plifctl.config.lookup import load_registry
from plifctl.data.events import EVENT, Events
from plifctl.data.remarks import Remark
from plifctl.data.source import RawSource
from plifctl.pipeline.prepare import PrepareOptions, prepare

pytestmark = pytest.mark.usefixtures("places")

MINE = """\
name: mine
title: mine
layout: folders
kind: events
shape: [2, 34, 34]
classes: [a, b]
samples: {train: 2, test: 2}
recipes:
  paper:
    frames: {slicing: number, outside_events: refuse, invalid_events: drop}
"""
BACK = (
    "times go back: 3 events earlier than the one before, by up to 400 µs, "
    "in train/b/0 and 1 more recording; they were sorted by time"
)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four recordings: one goes back once by 100 µs, another twice, by 400 and by 1 µs."""
    (tmp_path / "registry/datasets").mkdir(parents=True)
    (tmp_path / "registry/datasets/mine.yaml").write_text(MINE)
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "registry"))
    times = {
        "train/a": (0, 1000, 900, 2000),
        "train/b": (500, 100, 200, 199),
        "test/a": (1, 2, 3),
        "test/b": (1, 1, 1),
    }
    for name, ts in times.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        events = np.array([(t, k, k, k % 2) for k, t in enumerate(ts)], EVENT)
        (tmp_path / "data" / name / "0.bin").write_bytes(encode_atis(events))
    return tmp_path / "data"


def prepared(mine: Path, caplog: pytest.LogCaptureFixture) -> tuple[Cache, bool, list[str]]:
    """The cache, whether it was built, and the warnings."""
    caplog.clear()
    found = prepare(PrepareOptions("mine", T=2, source=RawSource(mine), cache_dir=mine.parent / "caches"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return found.cache, found.built, warnings


def test_prepare_of_times_that_go_back_counts_them_in_notes_and_warns(
    mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, built, warnings = prepared(mine, caplog)
    assert (built, cache.notes, warnings) == (True, (BACK,), [BACK])
    again, built, warnings = prepared(mine, caplog)
    assert (built, again.notes, warnings) == (False, (BACK,), [BACK])


def test_cache_resumed_from_a_journal_keeps_the_remarks(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, folder = open_events("mine", mine), mine.parent / "caches"
    with monkeypatch.context() as broken:
        broken.setattr("plifctl.cache.build.CacheBuilder._write", _fail)
        with pytest.raises(OSError, match="full"):
            build_cache(raw, 2, folder)
    monkeypatch.setattr(type(raw), "recordings", lambda self: iter(()))  # nothing is decoded again
    assert build_cache(raw, 2, folder).notes == (BACK,)


def _fail(*_: object) -> None:
    raise OSError("disk full")


def notes_of(mine: Path, name: str, xs: list[int]) -> tuple[str, ...]:
    """Notes of the cache, read with outside_events=drop, after the x of one recording were set."""
    events = np.array([(2000 * k, x, k % 34, 1) for k, x in enumerate(xs)], EVENT)
    for place, other in enumerate(("train/a", "train/b", "test/a", "test/b"), 1):
        (mine / other / "0.bin").write_bytes(encode_atis(events if other == name else events[-place:]))
    options = PrepareOptions("mine", T=2, overrides=("frames.outside_events=drop",), source=RawSource(mine))
    return prepare(options).cache.notes


@pytest.mark.parametrize(("outside", "notes"), [(2, 0), (3, 1)])
def test_prepare_that_leaves_out_more_than_a_tenth_says_so(mine: Path, outside: int, notes: int) -> None:
    found = notes_of(mine, "test/b", [200] * outside + [5] * (20 - outside))
    assert len(found) == notes
    for note in found:
        assert note.startswith("more than a tenth left out: 3 events, up to 15 % of a recording, in test/b/0")


def test_cache_of_implausible_durations_says_so() -> None:
    framer = SampleFramer(load_registry().dataset("nmnist").with_T(2), 2, np.uint8, "none")
    step = {"short": 90, "long": 400_000_001, "right": 1000}
    found = {
        name: framer.frame("a", b"", Events.of(np.array([(k * us, 1, 1, 1) for k in range(10)], EVENT)), 10).remarks
        for name, us in step.items()
    }
    assert found == {"short": (Remark("short"),), "long": (Remark("long", largest=3600),), "right": ()}
