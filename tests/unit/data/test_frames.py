"""Eq. S1 and its variants: by hand, against a plain loop, and what must hold for any events."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plifctl.config.choices import Slicing
from plifctl.data.events import EVENT
from plifctl.data.frames import CountOverflow, integrate_frames, slice_edges
from plifctl.errors import DamagedFileError

SLICINGS: list[Slicing] = ["number", "number-remainder", "time"]
times = st.lists(st.integers(0, 1000), max_size=60).map(sorted)


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
    with pytest.raises(CountOverflow, match="256 events") as error:
        integrate_frames(events, 1, "number", 1, 1)
    assert error.value.count == 256
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
