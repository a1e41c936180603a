"""The commands on caches of own recordings: without an official split, with validation samples, with a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_files import atis_recording

Plifctl = Callable[..., Any]

YAML = """\
name: own
title: own recordings
layout: {layout}
kind: events
shape: [2, 34, 34]
classes: [a, b]
raw: ../../data
{more}recipes:
  paper:
    frames: {{slicing: number, outside_events: refuse, invalid_events: drop}}
"""


@pytest.fixture
def write(places: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes recordings, and the YAML of their data set in a registry of the user."""

    def write(layout: str, *names: str, more: str = "") -> None:
        for n, name in enumerate(names, 5):
            path = places / "data" / f"{name}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(atis_recording(n))
        yaml = places / "registry/datasets/own.yaml"
        yaml.parent.mkdir(parents=True)
        yaml.write_text(YAML.format(layout=layout, more=more))
        monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "registry"))

    return write


def test_commands_on_recordings_without_a_split_name_no_other(plifctl: Plifctl, write: Callable[..., None]) -> None:
    write("class-folders", "a/1", "a/2", "b/1")
    prepared = plifctl("prepare", "own", "--T", 2)
    assert prepared.code == 0, prepared.err
    assert "3 samples without an official split, " in prepared.out
    assert json.loads(plifctl("prepare", "own", "--T", 2, "--json").out)["samples"] == {"train": 3, "test": 0}
    lines = [line.split() for line in plifctl("cache", "show", "own/T2").out.splitlines()]
    assert ["class", "train"] in lines
    assert ["all", "3"] in lines
    shown = plifctl("show-sample", "own", "--T", 2, "--count", 3)
    assert shown.out.splitlines()[0] == "a/1 · a (class 0) · 5 events"
    refused = plifctl("show-sample", "own", "--T", 2, "--split", "test")
    assert (refused.code, refused.err.splitlines()[-1]) == (2, "hint: it has train samples")
    assert plifctl("cache", "verify", "own/T2", "--raw", "data").code == 0
    exported = plifctl("cache", "export", "own/T2", "--to", "npz", "--out", "frames")
    assert exported.out.startswith("3 samples written to frames")
    assert sorted(path.name for path in Path("frames").iterdir() if path.is_dir()) == ["train"]


def test_commands_on_recordings_with_validation_samples_name_three_splits(
    plifctl: Plifctl, write: Callable[..., None]
) -> None:
    write("folders", "train/a/1", "train/b/1", "train/b/2", "val/a/1", "test/b/1")
    prepared = plifctl("prepare", "own", "--T", 2)
    assert "3 training, 1 validation and 1 test samples, " in prepared.out
    assert [line for line in prepared.err.splitlines() if line.startswith("warning")] == [
        "warning: no validation samples of class b",
        "warning: no test samples of class a",
    ]
    found = json.loads(plifctl("prepare", "own", "--T", 2, "--json").out)
    assert found["samples"] == {"train": 3, "validation": 1, "test": 1}
    lines = [line.split() for line in plifctl("cache", "show", "own/T2").out.splitlines()]
    assert ["class", "train", "validation", "test"] in lines
    assert ["all", "3", "1", "1"] in lines
    shown = plifctl("show-sample", "own", "--T", 2, "--split", "validation", "--json")
    assert [sample["split"] for sample in json.loads(shown.out)["samples"]] == ["validation"]
    assert plifctl("cache", "export", "own/T2", "--to", "tonic", "--out", "frames").code == 0
    assert sorted(path.name for path in Path("frames").iterdir() if path.is_dir()) == ["test", "train", "validation"]


def test_commands_on_recordings_with_a_table_name_groups(plifctl: Plifctl, write: Callable[..., None]) -> None:
    write("label-table", "1", "deep/2", more="labels: {file: t.csv, recording: file, label: word, group: who}\n")
    Path("data/t.csv").write_text("file,word,who\n1,a,anna\n2,c,bob\n")
    refused = plifctl("prepare", "own", "--T", 2)
    assert refused.code == 4
    assert "data/t.csv, line 3: class 'c', expected a class" in refused.err.replace("data: t.csv", "data/t.csv")
    Path("data/t.csv").write_text("file,word,who\n1,a,anna\n2,b,bob\n")
    assert "2 samples without an official split" in plifctl("prepare", "own", "--T", 2).out
    shown = plifctl("show-sample", "own", "--T", 2, "--count", 2)
    assert shown.out.splitlines()[:2] == [
        "1 · a (class 0) · 5 events · group anna",
        "deep/2 · b (class 1) · 6 events · group bob",
    ]
