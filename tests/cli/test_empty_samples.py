"""Samples without events, as a user meets them: named by every command that uses them, never silently samples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plifctl as package
from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3

Plifctl = Callable[..., Any]
EMPTY = "warning: empty: 5 of 33 samples have a label but no events (5 training, 0 test)"
CUT = "warning: user01_lab.aedat: cut short: its last event is at 5"


@pytest.fixture
def cut(plifctl: Plifctl, gestures: Path) -> Plifctl:
    """The command line with a cache of gestures, of which one recording ends after its sixth window."""
    recording = gestures / "user01_lab.aedat"
    events = decode_aedat3(recording.read_bytes(), where="", invalid="keep").events.structured()
    recording.write_bytes(encode_aedat3(events[events["t"] < 600_000]))
    built = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
    assert built.code == 0
    assert EMPTY in built.err
    assert CUT in built.err
    return plifctl


def test_prepare_again_and_dry_run_repeat_the_notes(cut: Plifctl, gestures: Path) -> None:
    for options in ((), ("--dry-run",)):
        again = cut("-q", "prepare", "synthetic-gesture", "--T", 4, "--raw", gestures, *options)
        assert again.err.count(EMPTY) == again.err.count(CUT) == 1


def test_prepare_of_a_set_without_events_is_refused(plifctl: Plifctl, gestures: Path) -> None:
    table = gestures / "user03_lab_labels.csv"
    head, *lines = table.read_text().splitlines()
    table.write_text("\n".join([head, *(f"{line.split(',')[0]},{10**12},{10**12 + 60_000}" for line in lines)]))
    result = plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
    assert result.code == 4
    assert "0 events in all 11 samples of the test set" in result.err
    assert "user03_lab.aedat: the labels look like those of another clock or recording" in result.err
    assert "hint: correct the labels or replace the recordings" in result.err


def test_train_and_report_repeat_the_notes(cut: Plifctl, places: Path) -> None:
    trained = cut("train", "demo", "--set", "train.batch_size=11", "--set", "T=4", "--epochs", "2")
    assert trained.code == 0
    assert EMPTY in trained.err
    assert CUT in trained.err
    (run,) = (places / "runs").iterdir()
    assert json.loads((run / "result.json").read_text())["data"]["without_events"] == 5
    assert (
        "5 samples without events"
        in cut("report", "--table", "selection", "--include-modified", "--format", "markdown").out
    )


def test_show_sample_marks_an_empty_sample(cut: Plifctl) -> None:
    shown = cut("show-sample", "synthetic-gesture", "--T", 4, "--sample", "user01_lab/07")
    assert "user01_lab/07 · shrink (class 7) · NO EVENTS: an empty sample · training set" in shown.out
    assert "NO EVENTS" not in cut("show-sample", "synthetic-gesture", "--T", 4, "--sample", "user01_lab/05").out


def test_cache_show_and_export_name_the_empty_samples(cut: Plifctl, places: Path) -> None:
    shown = cut("cache", "show", "synthetic-gesture")
    assert "samples without events  5 of 33 (15.15 %)" in shown.out
    assert "user01_lab/06, user01_lab/07, user01_lab/08, user01_lab/09, user01_lab/10" in shown.out
    tree = json.loads(cut("cache", "show", "synthetic-gesture", "--json").out)
    assert tree["empty_samples"] == [f"user01_lab/{k:02}" for k in range(6, 11)]
    exported = cut("cache", "export", "synthetic-gesture", "--to", "spikingjelly", "--out", places / "out")
    assert EMPTY in exported.err


def test_dataset_logs_the_notes(cut: Plifctl, caplog: pytest.LogCaptureFixture) -> None:
    package.dataset("synthetic-gesture", T=4, split="train")
    assert EMPTY.removeprefix("warning: ") in caplog.text
