"""Cache statistics on the terminal."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plifctl.cache import Cache
from plifctl.cache.statistics import Channel, Statistics, compute_statistics
from plifctl.cli.sparkline import histogram, sparkline
from plifctl.cli.statistics import print_statistics


@pytest.fixture
def cache(plifctl: Callable[..., Any], gestures: Path, places: Path) -> Cache:
    """The tiny gestures, T = 4: 33 samples of 400 events."""
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    (path,) = (places / "data_cache/synthetic-gesture").glob("*.h5")
    return Cache(path)


def test_print_statistics_of_events_prints_distributions_and_classes(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"gesture {letter}" for letter in "abcdefghijk"]
    print_statistics(compute_statistics(cache), names)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["events", "per", "sample", *["400"] * 6, "█"] in lines
    assert ["events", "per", "frame", *["100"] * 6, "█"] in lines
    assert ["events", "framed", "13,200"] in lines
    assert ["samples", "without", "events", "0", "of", "33", "(0.00", "%)"] in lines
    assert ["frames", "without", "events", "0", "of", "132", "(0.00", "%)"] in lines
    assert ["3", "gesture", "d", "2", "1", "█" * 30] in lines
    assert ["all", "22", "11"] in lines


def test_print_statistics_of_images_prints_channels_of_each_split(capsys: pytest.CaptureFixture[str]) -> None:
    channels = {"train": (Channel(0.5, 0.25, 0.0, 1.0),), "test": (Channel(0.125, 0.1, 0.0, 0.75),)}
    print_statistics(Statistics({"train": 3, "test": 1}, {"train": (3,), "test": (1,)}, None, channels), ["0", "1"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "0", "0.5000", "0.2500", "0.0000", "1.0000"] in lines
    assert ["test", "0", "0.1250", "0.1000", "0.0000", "0.7500"] in lines
    assert ["1", "0", "0"] in lines, "a class without samples is listed, its name not twice"


def test_histogram_shows_small_counts() -> None:
    assert histogram([0, 1, 800, 400, 799]) == " ▁█▄█"
    assert histogram([0]) == " "


def test_print_statistics_to_ascii_terminal_uses_plain_characters(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert histogram([0, 1, 800, 400]) == " .#="
    assert sparkline([1.0, None, 2.0, 3.0], 8) == ". +#"
    print_statistics(compute_statistics(cache))
    stdout.flush()
    written = stdout.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "#" * 30 in written
