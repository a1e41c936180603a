"""Headers of the known formats: what a file is by its first bytes."""

from __future__ import annotations

import re

_MAGIC = {
    b"#!AER-DAT1.0": "AEDAT 1.0",
    b"#!AER-DAT2.0": "AEDAT 2.0",
    b"#!AER-DAT3.1": "AEDAT 3.1",
    b"#!AER-DAT4.0": "AEDAT 4",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "numpy",
    b"Event Stream": "Event Stream",
    b"MATLAB 5.0 MAT-file": "MATLAB",
    **dict.fromkeys((b"% Data", b"% Date", b"% Version", b"% Height", b"% Width"), "Prophesee .dat"),
    **dict.fromkeys((b"% camera", b"% evt", b"% format", b"% date", b"% geometry"), "Prophesee EVT (.raw)"),
}
_MAGICS = tuple(_MAGIC)

SAVE_WITH_NUMPY = "save its events with numpy: np.savez(FILE, t=t, x=x, y=y, p=p), with t in µs and p 0 or 1"
"""Hint for a recording that cannot be read as it is."""

_EVT = re.compile(rb"^% *(?:evt +|format +EVT)(\d)", re.MULTILINE)
_EVT_RECORDER = re.compile(rb"^% *(?:plugin|integrator)_name ", re.MULTILINE)
_PERCENT_HEADER = re.compile(rb"\A(?:%[^\n]{0,400}\n){1,100}")


def format_of(data: bytes) -> str | None:
    """Returns the name of a file's format by its header; None for an unknown header."""
    if not data.startswith(_MAGICS):
        return None
    name = next(name for magic, name in _MAGIC.items() if data.startswith(magic))
    if not name.startswith("Prophesee"):
        return name
    header = percent_header(data)  # both of Prophesee's formats begin with lines of the same kind
    if version := _EVT.search(header):
        return f"Prophesee EVT {version[1].decode()} (.raw)"
    return "Prophesee EVT (.raw)" if _EVT_RECORDER.search(header) else name


def percent_header(data: bytes) -> bytes:
    """Returns the lines at the beginning of a file that begin with ``%``, of Prophesee's formats."""
    header = _PERCENT_HEADER.match(data)
    return header[0] if header else b""


_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r"
_TEXT_PREFIX = 4096


def is_text(data: bytes) -> bool:
    """Returns whether a file begins with nothing but printable ASCII: no events, whose times have zero bytes."""
    return bool(data) and not data[:_TEXT_PREFIX].translate(None, _TEXT)


def describe_content(data: bytes) -> str:
    """Returns a description of a file for messages: its format, or its first bytes."""
    if name := format_of(data):
        return f"a file of format {name}"
    if is_text(data):
        return f"a text file that begins with {data.splitlines()[0][:40].decode()!r}"
    return f"a file that begins with {data[:12]!r}" if data else "an empty file"
