"""Windows of labels against the events of their recording, by numbers worked out by hand."""

import numpy as np
import pytest

from plifctl.data.datasets.label_windows import EventSpan, Window, describe_windows

SECOND = 1_000_000
WINDOWS: list[Window] = [(k * SECOND, k * SECOND + 500_000) for k in range(1, 6)]
"""Five windows of half a second, from 1.0 to 5.5 s."""


def span(windows: list[Window], t: np.ndarray) -> EventSpan:
    return EventSpan.of(t, np.searchsorted(t, np.array(windows)).tolist())


def described(windows: list[Window], t: np.ndarray) -> str | None:
    return describe_windows("a.aedat", windows, span(windows, t))


def every(step: int, start: int, end: int) -> np.ndarray:
    return np.arange(start, end, step)


def test_describe_windows_full_of_events_finds_nothing() -> None:
    assert described(WINDOWS, every(100, 0, 6 * SECOND)) is None
    assert described(WINDOWS, every(100, SECOND, 5_500_000)) is None  # the recording ends with its last window


def test_describe_windows_with_pauses_at_both_ends_of_each_finds_nothing() -> None:
    t = np.concatenate([every(1000, start + 100_000, end - 100_000) for start, end in WINDOWS])
    assert described(WINDOWS, t) is None


def test_describe_windows_of_a_recording_that_ends_inside_them_says_cut_short() -> None:
    assert described(WINDOWS, every(100, 0, 3_200_000)) == (
        "a.aedat: cut short: its last event is at 3,199,900 µs, its last window ends at 5,500,000 µs; "
        "windows 03 to 04 after it contain no events, window 02 only a part"
    )


def test_describe_windows_of_a_recording_that_ends_inside_its_last_window_says_cut_short() -> None:
    assert described(WINDOWS, every(100, 0, 5_450_000)) == (
        "a.aedat: cut short: its last event is at 5,449,900 µs, its last window ends at 5,500,000 µs; "
        "window 04 only a part"
    )


def test_describe_windows_of_a_recording_that_begins_inside_them_says_begins_late() -> None:
    assert described(WINDOWS, every(100, 2_250_000, 6 * SECOND)) == (
        "a.aedat: begins late: its first event is at 2,250,000 µs, its first window begins at 1,000,000 µs; "
        "window 00 before it contains no events, window 01 only a part"
    )


def test_describe_windows_of_a_clock_that_began_earlier_are_not_taken_for_ns() -> None:
    later = [(1000 * SECOND + start, 1000 * SECOND + end) for start, end in WINDOWS]  # as ns they would last 0.5 ms
    text = described(later, every(100, 0, 6 * SECOND))
    assert text is not None
    assert text.startswith("a.aedat: the labels look like those of another clock or recording")
    in_ns = [(1000 * start, 1000 * end) for start, end in WINDOWS]
    assert str(described(in_ns, every(100, 0, 6 * SECOND))).startswith("a.aedat: the labels look like ns instead of µs")


def test_describe_windows_without_events_between_others_names_them() -> None:
    t = np.concatenate([every(100, 0, 2 * SECOND), every(100, 4 * SECOND, 6 * SECOND)])
    assert described(WINDOWS, t) == ("a.aedat: no events in windows 01 to 02 (its events lie from 0 to 5,999,900 µs)")


@pytest.mark.parametrize(
    ("divisor", "unit", "where"),
    [(1000, "ms", "from 1,000 to 5,500"), (SECOND, "s", "from 1 to 6")],
)
@pytest.mark.parametrize("first", [0, 900_000])
def test_describe_windows_in_another_unit_names_it(divisor: int, unit: str, where: str, first: int) -> None:
    windows = [(round(start / divisor), -(-end // divisor)) for start, end in WINDOWS]
    text = described(windows, every(100, first, 6 * SECOND))
    assert text is not None
    assert text.startswith(f"a.aedat: the labels look like {unit} instead of µs: its windows lie {where}, its events ")
    assert text.endswith("windows 00 to 04 contain no events") == (unit == "s" or first > 0)


def test_describe_windows_in_nanoseconds_names_them() -> None:
    text = described([(1000 * start, 1000 * end) for start, end in WINDOWS], every(100, 0, 6 * SECOND))
    assert text is not None
    assert "look like ns instead of µs" in text


@pytest.mark.parametrize("shift", [1_600_000_000 * SECOND, -10 * SECOND])
def test_describe_windows_of_another_clock_says_so(shift: int) -> None:
    windows = [(start + shift, end + shift) for start, end in WINDOWS]
    assert described(windows, every(100, 0, 6 * SECOND)) == (
        "a.aedat: the labels look like those of another clock or recording: its windows lie from "
        f"{SECOND + shift:,} to {5_500_000 + shift:,}, its events from 0 to 5,999,900 µs; "
        "windows 00 to 04 contain no events"
    )


def test_describe_windows_of_a_recording_without_events_says_so() -> None:
    assert described(WINDOWS, np.empty(0, np.int64)) == "a.aedat: contains no events"


def test_describe_windows_that_overlap_ignores_those_that_the_cut_does_not_reach() -> None:
    windows = [(0, SECOND), (0, SECOND), (500_000, 1_500_000)]
    assert described(windows, every(100, 0, 1_500_000)) is None
    text = described(windows, every(100, 0, 1_200_000))
    assert text is not None
    assert text.endswith("window 02 only a part")
