"""What the user should know about a recording: what its file does not say, and what is unusual about its events."""

from __future__ import annotations

from collections.abc import Iterator

from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats import evt
from plifctl.data.formats.columns import AS_USUAL
from plifctl.data.formats.headers import Size
from plifctl.data.formats.summary import Summary
from plifctl.data.inspection.facts import EventFacts, Finding, FindingKind
from plifctl.data.remarks import MAX_LEFT_OUT, RemarkKind, describe_remarks

ATIS = "ATIS"
"""Format of recordings without a header."""

_ENDINGS = {
    "AEDAT 1.0": (".dat", ".aedat"),
    "AEDAT 2.0": (".aedat", ".aedat2"),
    "AEDAT 3.1": (".aedat", ".aedat3"),
    "AEDAT 4": (".aedat4", ".aedat"),
    "Prophesee .dat": (".dat",),
    "numpy .npy": (".npy",),
    "numpy .npz": (".npz",),
    "HDF5": (".h5", ".hdf5"),
    "MATLAB": (".mat",),
    "Event Stream": (".es",),
    ATIS: (".bin",),
    **dict.fromkeys(evt.FORMATS, (".raw",)),
}
"""Usual endings of the names of recordings."""

RECORDING_ENDINGS = {ending for endings in _ENDINGS.values() for ending in endings}
"""Endings that only recordings are expected to have."""

_MANY_EVENTS = 100
"""So many events of one polarity are no coincidence."""

_STATE_UNIT = "state it: time_unit: us, ms or s"
_REMEDIES: dict[RemarkKind, str] = {
    "unit": _STATE_UNIT,
    "long": _STATE_UNIT,
    "short": _STATE_UNIT,
}


_KINDS: dict[RemarkKind, FindingKind] = {
    "unit": "assumed",
    **dict.fromkeys(("left-out", "long", "short", "unknown"), "problem"),
}


def is_davis_camera(camera: str) -> bool:
    """Returns whether a camera is a DAVIS, by its name."""
    return "davis" in camera.lower()


def ending_of(name: str) -> str:
    """Returns the ending of a file's name, in small letters with its dot; empty if it has none."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if stem and dot else ""


def find_peculiarities(
    name: str, format_name: str, summary: Summary, events: EventFacts, reading: ReadingSpec = AS_USUAL
) -> Iterator[Finding]:
    """Yields what the user should know about a recording that was decoded.

    Args:
        name: Its name.
        format_name: Its format.
        summary: What it states about itself.
        events: Facts of its events.
        reading: What the user stated about it.
    """
    yield from _about_format(name, format_name)
    if not events.n_events:
        yield Finding("problem", "empty", "it contains no events")
        return
    yield from _about_sensor(events, summary.sensor)
    if events.n_dropped:
        yield _about_dropped(format_name, events)
    for remark in events.remarks:
        (sentence,) = describe_remarks([(name, remark)])
        yield Finding(_KINDS.get(remark.kind, "note"), remark.kind, sentence, _REMEDIES.get(remark.kind, ""))
    if format_name == "AEDAT 2.0" and not (reading.flip_x or reading.flip_y):
        flips = "flip_x: true and flip_y: true" if is_davis_camera(summary.camera) else "flip_y: true"
        yield Finding(
            "assumed",
            "orientation",
            "row 0 is at the top; jAER, which writes AEDAT 2.0, counts rows from the bottom",
            f"if the picture (--out) is upside down: {flips}",
        )
    if events.n_on in (0, events.n_events) and events.n_events >= _MANY_EVENTS:
        yield Finding(
            "problem", "polarity", f"all events are {'on' if events.n_on else 'off'}; is the column of p another one?"
        )


def _about_format(name: str, format_name: str) -> Iterator[Finding]:
    ending = ending_of(name)
    usual = _ENDINGS.get(format_name, (ending,))
    if format_name == ATIS and ending in usual:
        yield Finding(
            "assumed", "no-header", "it has no header, and is named .bin: events of 5 bytes, as those of N-MNIST (ATIS)"
        )
    elif format_name == ATIS:
        yield Finding(
            "assumed",
            "no-header",
            "it has no header, and can be read as events of 5 bytes, as those of N-MNIST (ATIS)",
            "rename it: recordings without a header must be named .bin",
        )
    elif ending not in usual and any(ending in endings for endings in _ENDINGS.values()):
        yield Finding(
            "assumed", "ending", f"the name ends in {ending}, but the header says {format_name}: the header counts"
        )


def sensor_finding(what: str, seen: Size) -> Finding:
    """Returns the finding that the size of the sensor is not stated, by what events need."""
    width, height = seen
    hint = f"state that of your camera, height first: shape: [2, {height}, {width}]"
    return Finding("assumed", "sensor", f"{what} {width} × {height}", hint)


def _about_sensor(events: EventFacts, stated: Size | None) -> Iterator[Finding]:
    assert events.seen is not None, "there are events"
    width, height = events.seen
    if stated is None:
        yield sensor_finding("the file does not state the size of the sensor; its events need", events.seen)
    elif events.n_outside:
        few = events.n_outside <= MAX_LEFT_OUT * events.n_events
        yield Finding(
            "problem",
            "outside",
            f"{events.n_outside:,} of {events.n_events:,} events lie outside the sensor of {stated[0]} × {stated[1]}: "
            f"x reaches {width - 1}, y {height - 1}",
            "to leave them out: frames.outside_events: drop" if few else f"to keep them: shape: [2, {height}, {width}]",
        )


def _about_dropped(format_name: str, events: EventFacts) -> Finding:
    dropped, total = f"{events.n_dropped:,}", f"{events.n_events + events.n_dropped:,}"
    if format_name == "AEDAT 3.1":
        return Finding(
            "problem",
            "invalid",
            f"{dropped} of {total} events are marked invalid (valid bit 0), and are left out",
            "to keep them: frames.invalid_events: keep",
        )
    what = "words are no events" if format_name == "AEDAT 2.0" else "events at the beginning are incomplete"
    return Finding("note", "invalid", f"{dropped} of {total} {what}, and are left out")
