"""Facts of one recording: from its header alone, or decoded."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import BinaryIO

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.columns import ADD_POLARITY, AS_USUAL, UnstatedReadingError
from plifctl.data.formats.detect import READABLE, decode_any, summarise_any
from plifctl.data.formats.headers import (
    HEADER_BYTES,
    METAVISION_INDEX,
    describe_content,
    format_of,
    guess_content,
    is_text,
)
from plifctl.data.inspection.facts import EventFacts, Finding, RecordingFacts
from plifctl.data.inspection.findings import ATIS, RECORDING_ENDINGS, ending_of, find_peculiarities
from plifctl.errors import DamagedFileError, RawDataError

_NUMPY_NAMES = {"numpy": "numpy .npy", "zip": "numpy .npz"}


def summarise_recording(name: str, file: BinaryIO, nbytes: int, reading: ReadingSpec = AS_USUAL) -> RecordingFacts:
    """Returns what a file states about itself, without decoding events.

    Args:
        name: Its name.
        file: The file, at its beginning.
        nbytes: Its size.
        reading: What it does not say about itself.
    """
    head = file.read(HEADER_BYTES)
    file.seek(0)
    format_name = format_of(head)
    if format_name == METAVISION_INDEX:
        return RecordingFacts(name, nbytes, "other", format_name, findings=(_unknown(head),))
    if format_name is None and _is_atis(name, head):
        format_name = ATIS
    if format_name is not None:
        shown = _NUMPY_NAMES.get(format_name, format_name)
        return RecordingFacts(name, nbytes, "recording", shown, summarise_any(file, reading))
    looks = guess_content(head)
    described = describe_content(head)
    if (looks is None or should_be_recording(name, looks)) and nbytes:
        return RecordingFacts(name, nbytes, "unread", looks or described)
    return RecordingFacts(name, nbytes, "other", looks or described, findings=(_unknown(head),))


def _unknown(head: bytes) -> Finding:
    message = f"{describe_content(head)}; expected a recording of a known format: {READABLE}"
    hint = ADD_POLARITY if guess_content(head) == "text with 3 columns of numbers" else ""
    return Finding("problem", "unreadable", message, hint)


def inspect_recording(name: str, data: bytes, reading: ReadingSpec = AS_USUAL) -> tuple[RecordingFacts, Events]:
    """Decodes a file; returns its facts, and its events: none if it cannot be decoded.

    Args:
        name: Its name.
        data: Its content.
        reading: What it does not say about itself.
    """
    facts = summarise_recording(name, io.BytesIO(data), len(data), reading)
    if facts.kind == "other":
        return facts, Events.empty(0)
    try:
        decoded, reading, assumed = _decode(name, data, reading)
    except RawDataError as error:
        return _refused(facts, data, error), Events.empty(0)
    shown = facts.format
    if facts.kind == "unread":  # text, or a recording without a header under an unusual name
        shown = "text" if shown.startswith("text") else ATIS
    events = EventFacts.of(decoded, facts.summary.sensor)
    findings = (*assumed, *find_peculiarities(name, shown, facts.summary, events, reading))
    facts = replace(facts, kind="recording", format=shown, events=events, reading=reading, findings=findings)
    return facts, decoded.events


def _refused(facts: RecordingFacts, data: bytes, error: RawDataError) -> RecordingFacts:
    """Returns the facts of a file that cannot be decoded."""
    name, finding = facts.name, Finding("problem", "unreadable", str(error).removeprefix(f"{facts.name}: "), error.hint)
    if data.startswith(b"PK") and ending_of(name) != ".npz":
        return replace(facts, kind="other", format="a zip archive", findings=(finding,))
    if facts.kind == "unread" and not is_text(data):  # it was tried as ATIS
        finding = _unknown(data[:HEADER_BYTES])
    should_be = facts.kind == "recording" or should_be_recording(name, facts.format)
    return replace(facts, kind="unreadable" if should_be else "other", findings=(finding,))


def _decode(name: str, data: bytes, reading: ReadingSpec) -> tuple[Decoded, ReadingSpec, list[Finding]]:
    """Decodes a file with the most tolerant choices; where it does not say how it is read, with the best guess.

    Returns:
        Its events, how they were read, and what had to be assumed.

    Raises:
        RawDataError: It cannot be decoded.
    """
    try:
        decoded = decode_any(data, where=name, invalid="drop", outside="drop", reading=reading)
    except UnstatedReadingError as error:
        return _decode_by_guess(name, data, reading, error)
    except DamagedFileError:
        raise
    except RawDataError as error:  # all events are marked invalid
        decoded = decode_any(data, where=name, invalid="keep", reading=reading)
        return decoded, reading, [Finding("problem", "all-invalid", str(error).removeprefix(f"{name}: "), error.hint)]
    return decoded, reading, []


def _decode_by_guess(
    name: str, data: bytes, reading: ReadingSpec, error: UnstatedReadingError
) -> tuple[Decoded, ReadingSpec, list[Finding]]:
    stated = reading.model_dump(exclude_defaults=True)
    guess = {} if error.guess is None else error.guess.model_dump(exclude_defaults=True)
    new = {key: value for key, value in guess.items() if key not in stated}
    if not new:
        raise error
    try:
        decoded, used, assumed = _decode(name, data, ReadingSpec.model_validate({**stated, **new}))
    except RawDataError:
        raise error from None
    read_as = ", ".join(f"{key}: {_as_yaml(value)}" for key, value in new.items())
    message = f"{str(error).removeprefix(f'{name}: ')}; read with the best guess"
    return decoded, used, [Finding("assumed", "reading", message, f"if it is right, state it: {read_as}"), *assumed]


def _as_yaml(value: object) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)


def _is_atis(name: str, head: bytes) -> bool:
    return ending_of(name) == ".bin" and bool(head) and not is_text(head)


def should_be_recording(name: str, looks: str) -> bool:
    """Returns whether a file of no known format has the name of a recording, or is a table of numbers."""
    return (
        ending_of(name) in RECORDING_ENDINGS
        or re.fullmatch(r"text with ([4-9]|\d\d) columns of numbers", looks) is not None
    )
