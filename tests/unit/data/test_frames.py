"""Eq. S1 and its variants: by hand, against a plain loop, and what must hold for any events."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plifctl.config.choices import Slicing
from plifctl.data.events import EVENT
from plifctl.data.frames import CountOverflow, Slices, count_slices, integrate_frames, slice_events
from plifctl.errors import DamagedFileError

SLICINGS: list[Slicing] = ["number", "number-remainder", "time"]
times = st.lists(st.integers(0, 1000), max_size=60).map(sorted)


def slice_edges(t: np.ndarray, T: int, slicing: Slicing) -> np.ndarray:
    """The edges of slices that follow each other."""
    starts, stops = slice_events(t, T, slicing)
    assert (starts[1:] == stops[:-1]).all()
    return np.append(starts, stops[-1])


@pytest.mark.parametrize(
    ("slicing", "edges"),
    [("number", [0, 2, 5, 8]), ("number-remainder", [0, 2, 4, 8]), ("time", [0, 4, 5, 8])],
)
def test_slice_edges_by_hand(slicing: Slicing, edges: list[int]) -> None:
    t = np.array([0, 1, 2, 3, 40, 80, 85, 90])  # spans of 30 µs
    assert slice_edges(t, 3, slicing).tolist() == edges


@pytest.mark.parametrize("slicing", SLICINGS)
def test_slice_edges_of_few_or_no_events_leave_slices_empty(slicing: Slicing) -> None:
    assert np.diff(slice_edges(np.array([5, 6]), 5, slicing)).sum() == 2
    assert slice_edges(np.array([], np.int64), 4, slicing).tolist() == [0] * 5
    assert slice_edges(np.array([7, 7, 7]), 1, slicing).tolist() == [0, 3]


@given(times, st.integers(1, 20), st.sampled_from(SLICINGS))
def test_slice_edges_ascend_and_cover_all_events(t: list[int], T: int, slicing: Slicing) -> None:
    edges = slice_edges(np.array(t, np.int64), T, slicing)
    assert len(edges) == T + 1
    assert edges[0] == 0
    assert edges[-1] == len(t)
    assert (np.diff(edges) >= 0).all()


@given(times.filter(lambda t: len(t) > 1 and t[0] < t[-1]), st.integers(1, 20))
def test_slice_edges_by_time_equal_the_definition(t: list[int], T: int) -> None:
    edges = slice_edges(np.array(t), T, "time")
    found = np.repeat(np.arange(T), np.diff(edges))
    expected = [min(T - 1, (time - t[0]) * T // (t[-1] - t[0])) for time in t]
    assert found.tolist() == expected


@settings(max_examples=50, deadline=None)
@given(times, st.integers(1, 7), st.sampled_from(SLICINGS), st.integers(0, 2**32 - 1))
def test_integrate_frames_equals_a_plain_loop(t: list[int], T: int, slicing: Slicing, seed: int) -> None:
    height, width = 3, 5
    rng = np.random.default_rng(seed)
    events = np.empty(len(t), EVENT)
    events["t"] = t
    for name, end in (("x", width), ("y", height), ("p", 2)):
        events[name] = rng.integers(0, end, len(t))
    expected = np.zeros((T, 2, height, width), np.uint8)
    edges = slice_edges(events["t"], T, slicing)
    for j in range(T):
        for event in events[edges[j] : edges[j + 1]]:
            expected[j, event["p"], event["y"], event["x"]] += 1
    found = integrate_frames(events, T, slicing, height, width)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == len(t)


@pytest.mark.parametrize(("x", "y", "p"), [(-1, 0, 0), (5, 0, 0), (0, 3, 0), (0, -1, 1), (0, 0, 2)])
def test_integrate_frames_event_outside_error_names_it(x: int, y: int, p: int) -> None:
    events = np.array([(0, 1, 1, 1), (1, x, y, p)], EVENT)
    with pytest.raises(DamagedFileError, match=r"rec: event 1 of 2 .*outside the sensor of 5×3"):
        integrate_frames(events, 2, "number", 3, 5, where="rec")


def test_integrate_frames_count_over_255_raises_overflow() -> None:
    events = np.zeros(256, EVENT)
    with pytest.raises(CountOverflow, match=r"^256 events"):
        integrate_frames(events, 1, "number", 1, 1)
    assert integrate_frames(events, 1, "number", 1, 1, dtype=np.uint16).max() == 256


def test_integrate_frames_255_fits_a_byte_and_256_does_not() -> None:
    for n, fits in ((255, True), (256, False)):
        events = np.zeros(n, EVENT)
        if fits:
            assert integrate_frames(events, 1, "number", 2, 2)[0, 0, 0, 0] == 255
        else:
            with pytest.raises(CountOverflow):
                integrate_frames(events, 1, "number", 2, 2)
            assert integrate_frames(events, 1, "number", 2, 2, dtype=np.uint16)[0, 0, 0, 0] == 256


def plain_slices(t: list[int], T: int, duration: int, overlap: int) -> list[list[int]]:
    """Indices of the events of each slice, by the definition of slices of a fixed duration."""
    begins = [t[0] + j * (duration - overlap) if t else 0 for j in range(T)]
    return [[k for k, time in enumerate(t) if begin <= time < begin + duration] for begin in begins]


def indices(slices: Slices) -> list[list[int]]:
    return [list(range(start, stop)) for start, stop in zip(*slices, strict=True)]


durations = st.tuples(st.integers(1, 200), st.integers(0, 199)).filter(lambda one: one[1] < one[0])


@given(times, st.integers(1, 20), durations)
def test_slices_of_a_duration_equal_the_definition(t: list[int], T: int, lengths: tuple[int, int]) -> None:
    duration, overlap = lengths
    found = slice_events(np.array(t, np.int64), T, "duration-first", duration_us=duration, overlap_us=overlap)
    expected = plain_slices(t, T, duration, overlap)
    assert indices(found) == expected
    assert found.total == sum(map(len, expected))


@given(times.filter(lambda t: len(t) > 0), durations)
def test_slices_of_a_duration_contain_all_events_then_they_are_empty(t: list[int], lengths: tuple[int, int]) -> None:
    duration, overlap = lengths
    n = count_slices(np.array(t), duration, overlap)
    assert set().union(*plain_slices(t, n, duration, overlap)) == set(range(len(t)))
    assert plain_slices(t, n + 3, duration, overlap)[n:] == [[], [], []]
    assert n == 1 or t[0] + (n - 1) * (duration - overlap) <= t[-1]
    found = slice_events(np.array(t), n, "duration", duration_us=duration, overlap_us=overlap)
    assert indices(found) == plain_slices(t, n, duration, overlap)


@pytest.mark.parametrize(
    ("overlap", "slices"),
    [
        (0, [[0, 1], [2], [3], [4, 5]]),  # 5 to 15, 15 to 25, 25 to 35, 35 to 45
        (3, [[0, 1], [1, 2], [3], []]),  # 5 to 15, 12 to 22, 19 to 29, 26 to 36
        (9, [[0, 1], [1, 2], [1, 2], [1, 2]]),  # 5 to 15, 6 to 16, 7 to 17, 8 to 18
    ],
)
def test_slices_of_a_duration_by_hand(overlap: int, slices: list[list[int]]) -> None:
    t = np.array([5, 14, 15, 25, 36, 44, 45])
    assert indices(slice_events(t, 4, "duration-first", duration_us=10, overlap_us=overlap)) == slices


@pytest.mark.parametrize("slicing", ["duration", "duration-first"])
def test_slices_of_a_duration_of_no_events_and_of_one_are_empty_beyond(slicing: Slicing) -> None:
    assert indices(slice_events(np.array([], np.int64), 3, slicing, duration_us=7, overlap_us=3)) == [[], [], []]
    assert indices(slice_events(np.array([9]), 3, slicing, duration_us=7, overlap_us=3)) == [[0], [], []]
    assert count_slices(np.array([], np.int64), 7, 3) == 1


@pytest.mark.parametrize("duration", [1, 2**62, 2**80])
def test_slices_of_extreme_durations_do_not_overflow(duration: int) -> None:
    t = np.array([0, 1, 2**61])
    first = [[0], [1], []] if duration == 1 else [[0, 1, 2], [], []]
    assert indices(slice_events(t, 3, "duration-first", duration_us=duration)) == first
    many = slice_events(t, 10_000, "duration-first", duration_us=2**60, overlap_us=2**60 - 1)
    assert indices(many)[:3] == [[0, 1], [1], []]
    assert many.stops[-1] == 2


def test_slices_of_a_duration_that_leave_events_out_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="3 slices of 5 µs are too few"):
        slice_events(np.array([0, 15]), 3, "duration", duration_us=5)


@settings(max_examples=50, deadline=None)
@given(times, st.integers(1, 7), durations, st.integers(0, 2**32 - 1))
def test_integrate_frames_of_overlapping_slices_counts_an_event_in_each(
    t: list[int], T: int, lengths: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    events = np.zeros(len(t), EVENT)
    events["t"], events["x"] = t, rng.integers(0, 5, len(t))
    expected = np.zeros((T, 2, 3, 5), np.uint8)
    for j, chosen in enumerate(plain_slices(t, T, *lengths)):
        for event in events[chosen]:
            expected[j, 0, 0, event["x"]] += 1
    duration, overlap = lengths
    found = integrate_frames(events, T, "duration-first", 3, 5, duration_us=duration, overlap_us=overlap)
    np.testing.assert_array_equal(found, expected)
