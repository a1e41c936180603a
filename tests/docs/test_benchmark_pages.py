"""Parts of pages that are made of benchmarks' documents: tables of layers, of shares, and the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure, pages, picture
from benchmarks.measure import Figure


def layer(part: str, name: str, density: float, ours: float, dense: float, peer: str = "dense") -> Figure:
    figure = measure.within("t", "s", [ours] * 3, [dense] * 3, peer, None)
    return replace(figure, labels={"part": part, "layer": name, "active_inputs": density, "peer": peer})


LAYERS = [
    layer("forward", "conv", 0.2, 0.009, 0.01),
    layer("forward", "conv", 0.04, 0.002, 0.01),
    layer("forward", "fc", 0.04, 0.004, 0.016),
    layer("forward", "fc", 0.04, 0.004, 0.008, peer="library"),
    layer("weight gradient", "conv", 0.04, 0.003, 0.01),
]


def part(name: str, ours: float, dense: float | None = None, layer: str | None = None, **more: Any) -> Figure:
    alone = measure.below("t", "s", [ours], None)
    figure = alone if dense is None else measure.within("t", "s", [ours], [dense], "dense", None)
    labels = {"network": "net", "part": name, **more} | ({} if layer is None else {"layer": layer})
    return replace(figure, labels=labels)


def shares() -> list[Figure]:
    first: dict[str, Any] = {"layer": "conv0", "active_inputs": 0.09, "chosen": "dense"}
    second: dict[str, Any] = {"layer": "conv1", "active_inputs": 0.04, "chosen": "event-driven"}
    return [
        part("step", 0.06, 0.1, note="T=10"),
        part("optimizer", 0.005),
        part("forward", 0.02, 0.01, **first),
        part("scan forward", 0.004, **first),
        part("scan backward", 0.006, **first),
        part("forward", 0.01, 0.05, **second),
        part("rest", 0.025),
    ]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    return tmp_path


def write(path: Path, figures: list[Figure]) -> None:
    document = {
        "benchmark": "a benchmark",
        "quick": False,
        "hardware": {"cpu": "A CPU", "cores": 2, "memory_GiB": 8.0},
        "versions": {"torch": "2", "numba": "1", "python": "3", "plifctl": "0"},
        "figures": [figure.to_json() for figure in figures],
    }
    path.write_text(json.dumps(document), encoding="utf-8")


def rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if "|" in line]


@pytest.mark.parametrize("name", ["picture", "layers", "libraries", "shares", "formats", "readers"])
def test_block_without_its_document_is_empty(results: Path, name: str) -> None:
    assert pages.block(name) == ""


def test_layers_block_has_ratios_by_density_and_no_other_library(results: Path) -> None:
    write(results / "event_driven.json", LAYERS)
    found = pages.block("layers")
    assert rows(found) == [
        ["layer", "dense", "4%", "20%"],
        ["---", "--:", "--:", "--:"],
        ["conv", "10 ms", "0.20", "0.90"],
        ["fc", "16 ms", "0.25", ""],
        ["layer", "dense", "4%"],
        ["---", "--:", "--:"],
        ["conv", "10 ms", "0.30"],
    ]
    assert "at least 3 interleaved pairs" in found
    assert "A CPU, 2 cores" in found


def test_layers_block_shows_that_dense_times_of_a_row_differ(results: Path) -> None:
    write(
        results / "event_driven.json",
        [layer("forward", "conv", at, 0.01, dense) for at, dense in ((0.1, 0.05), (0.2, 0.128))],
    )
    assert rows(pages.block("layers"))[2] == ["conv", "50–128 ms", "0.20", "0.08"]


def test_libraries_block_has_other_libraries_only(results: Path) -> None:
    write(results / "event_libraries.json", LAYERS)
    assert rows(pages.block("libraries"))[2:] == [["fc", "4%", "4 ms", "8 ms, library", "0.50"]]
    write(results / "event_libraries.json", LAYERS[:3])
    assert pages.block("libraries") == ""


def test_readers_block_has_a_row_for_each_reader_and_for_formats_without_one(results: Path) -> None:
    beside = measure.within("decode EVT 3.0", "M events/s", [120.0] * 3, [80.0] * 3, "a reader", 1, sign=">=")
    alone = measure.below("decode EVT 2.1", "M events/s", [99.6], None)
    write(results / "prepare_readers.json", [beside, alone])
    assert rows(pages.block("readers"))[2:] == [
        ["EVT 3.0", "120 M events/s", "80 M events/s, a reader", "1.50 (1.50–1.50)", "≥ 1"],
        ["EVT 2.1", "100 M events/s", "–", "–", "–"],
    ]


def test_shares_block_counts_event_driven_times_of_chosen_layers_only(results: Path) -> None:
    write(results / "shares.json", shares())
    found = pages.block("shares")
    head = ["layer", "active %", "forward", "grad. W", "grad. x", "scan", "norm"]
    line = ["---", *["--:"] * 6]
    assert rows(found) == [
        *[head, line, ["conv0", "9.0", "10 (10.0)", "", "", "10 (10.0)", ""]],
        ["conv1", "4.0", "50 (50.0)", "", "", "", ""],
        *[head, line, ["conv0", "9.0", "10 (16.7)", "", "", "10 (16.7)", ""]],
        ["conv1 *", "4.0", "10 (16.7)", "", "", "", ""],
    ]
    assert "optimizer 5 (5.0), rest 25 (25.0), step 100 ms" in found
    assert "optimizer 5 (8.3), rest 25 (41.7), step 60 ms" in found


def test_formats_block_has_events_and_megabytes_a_second(results: Path) -> None:
    labels = {"format": "text", "events": 2_000_000, "bytes": 30_000_000}
    write(results / "formats.json", [replace(measure.below("t", "s", [0.1, 0.2, 0.4], None), labels=labels)])
    assert rows(pages.block("formats")) == [
        ["format", "bytes per event", "million events/s", "MB/s"],
        ["---", "--:", "--:", "--:"],
        ["text", "15.0", "10.0", "150"],
    ]


def test_picture_is_drawn_equally_each_time(tmp_path: Path) -> None:
    figures = [figure.to_json() for figure in LAYERS]
    for name in ("a.svg", "b.svg"):
        picture.draw(figures, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").stat().st_size > 5000
