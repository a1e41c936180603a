"""Statistics of a cache on the terminal: tables with small histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plifctl.cli import console
from plifctl.cli.sparkline import encodable, histogram

if TYPE_CHECKING:
    from plifctl.cache.statistics import Channel, Distribution, EventStatistics, Statistics

_BAR_WIDTH = 30  # of the longest bar, terminal columns


def print_statistics(stats: Statistics, classes: Sequence[str] = ()) -> None:
    """Prints statistics.

    Args:
        stats: The statistics.
        classes: Class names, if known.
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
    console.emit_table(("channel (pixels 0 to 1)", "mean", "std", "min", "max"), rows)
    console.emit("")


def _print_events(events: EventStatistics) -> None:
    rows = [
        ("events per sample", *_summary(events.per_sample)),
        ("events per frame", *_summary(events.per_slice)),
        ("duration (ms)", *_summary(events.duration_us, unit=1000)),
    ]
    columns = ("", "min", "quartile 1", "median", "quartile 3", "max", "mean", "histogram, min to max")
    console.emit_table(columns, rows)
    console.emit("")
    facts = [
        ("events framed", f"{events.framed:,}"),
        ("events not framed", f"{events.left_out:,}"),
        ("share of ON events", "-" if events.on_share is None else _percent(events.on_share)),
        ("samples without events", _ratio(events.empty_samples, events.per_sample.n)),
        ("frames without events", _ratio(events.empty_slices, events.slices)),
        ("pixels with events", f"{_percent(events.nonzero_share)} (of each frame and polarity)"),
        ("maximum in a pixel", f"{events.largest_count:,}"),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.emit(f"{name:{width}}  {value}")
    console.emit("")


def _print_classes(stats: Statistics, names: Sequence[str]) -> None:
    block, longest = encodable("█", "#"), max(1, *map(sum, zip(*stats.classes.values(), strict=True)))
    rows = [
        (name, *(f"{count:,}" for count in counts), block * round(_BAR_WIDTH * sum(counts) / longest))
        for name, counts in stats.by_class(names)
    ]
    rows.append(("all", *(f"{stats.samples[split]:,}" for split in stats.splits), ""))
    console.emit_table(("class", *stats.splits, ""), rows)


def _summary(values: Distribution, unit: int = 1) -> list[str]:
    numbers = (values.min, values.q1, values.median, values.q3, values.max, values.mean)
    digits = 0 if values.max / unit >= 100 else 1
    return [*(f"{number / unit:,.{digits}f}" for number in numbers), histogram(values.counts)]


def _ratio(part: int, total: int) -> str:
    return f"{part:,} of {total:,}" + (f" ({_percent(part / total)})" if total else "")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
