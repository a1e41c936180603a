"""Statistics of a cache on the terminal: tables with small histograms."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plifctl.cli import console

if TYPE_CHECKING:
    from plifctl.cache.statistics import Channel, Distribution, EventStatistics, Statistics

_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*%#"  # nothing to most, in nine steps
_BAR = 30  # columns of the longest bar


def print_statistics(stats: Statistics, classes: Sequence[str] = ()) -> None:
    """Writes statistics to stdout.

    Args:
        stats: What to write.
        classes: Names of the classes, where they are known.
    """
    if stats.events is not None:
        _print_events(stats.events)
    if stats.channels is not None:
        _print_channels(stats.channels)
    _print_classes(stats, classes)


def _print_channels(splits: Mapping[str, Sequence[Channel]]) -> None:
    rows = [
        (f"{split} {index}", *(f"{value:.4f}" for value in (channel.mean, channel.std, channel.min, channel.max)))
        for split, channels in splits.items()
        for index, channel in enumerate(channels)
    ]
    console.emit_table(("channel (pixels are 0 to 1)", "mean", "std", "min", "max"), rows)
    console.emit("")


def _print_events(events: EventStatistics) -> None:
    rows = [
        ("events per sample", *_numbers(events.per_sample)),
        ("events per frame", *_numbers(events.per_slice)),
        ("duration (ms)", *_numbers(events.duration_us, unit=1000)),
    ]
    columns = ("", "min", "quartile 1", "median", "quartile 3", "max", "mean", "histogram, min to max")
    console.emit_table(columns, rows)
    console.emit("")
    facts: list[tuple[str, str]] = [
        ("events framed", f"{events.framed:,}"),
        ("events left out", f"{events.left_out:,}"),
        ("share of ON events", "-" if events.on_share is None else _percent(events.on_share)),
        ("samples without events", _of(events.empty_samples, events.per_sample.n)),
        ("frames without events", _of(events.empty_slices, events.slices)),
        ("pixels that saw an event", f"{_percent(events.nonzero_share)} (of each frame and polarity)"),
        ("most events in a pixel", f"{events.largest_count:,}"),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.emit(f"{name:{width}}  {value}")
    console.emit("")


def _print_classes(stats: Statistics, names: Sequence[str]) -> None:
    block, most = _drawable("█", "#"), max(1, *map(sum, zip(*stats.classes.values(), strict=True)))
    rows: list[tuple[object, ...]] = []
    for name, train, test in stats.by_class(names):
        rows.append((name, f"{train:,}", f"{test:,}", block * round(_BAR * (train + test) / most)))
    rows.append(("all", f"{stats.samples['train']:,}", f"{stats.samples['test']:,}", ""))
    console.emit_table(("class", "train", "test", ""), rows)


def _numbers(found: Distribution, unit: int = 1) -> list[str]:
    values = [value / unit for value in (found.min, found.q1, found.median, found.q3, found.max, found.mean)]
    digits = 0 if found.max / unit >= 100 else 1
    return [*(f"{value:,.{digits}f}" for value in values), sparkline(found.counts)]


def sparkline(counts: Sequence[int]) -> str:
    """Returns a histogram in one line; what is not zero is seen, however small."""
    steps, most = _drawable(_BLOCKS, _ASCII), max(1, *counts)
    return "".join(steps[-(-(len(steps) - 1) * count // most)] for count in counts)


def _drawable(text: str, plain: str) -> str:
    """Returns ``text``, or ``plain`` where stdout's encoding has no such characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return plain
    return text


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({_percent(part / whole)})" if whole else "")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
