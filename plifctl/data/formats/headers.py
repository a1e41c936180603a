"""Headers of the known formats: what a file is by its first bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

from plifctl.errors import DamagedFileError, RawDataError

_MAGIC = {
    b"#!AER-DAT1.0": "AEDAT 1.0",
    b"#!AER-DAT2.0": "AEDAT 2.0",
    b"#!AER-DAT3.1": "AEDAT 3.1",
    b"#!AER-DAT4.0": "AEDAT 4",
    b"\x1f\x8b\x08": "gzip",  # and its only method; events of ATIS may begin with the first two
    b"PK\x03\x04": "zip",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "numpy",
    b"Event Stream": "Event Stream",
    **dict.fromkeys((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"), "MATLAB"),
    **dict.fromkeys((b"% Data", b"% Date", b"% Version", b"% Height", b"% Width"), "Prophesee .dat"),
    **dict.fromkeys((b"% camera", b"% evt", b"% format", b"% date", b"% geometry"), "Prophesee EVT (.raw)"),
}

Size = tuple[int, int]
"""Width and height of a sensor, pixels."""

SAVE_WITH_NUMPY = "save its events with numpy: np.savez(FILE, t=t, x=x, y=y, p=p), with t in µs and p 0 or 1"
"""Hint for a recording that cannot be read as it is."""

_EVT = re.compile(rb"^% *(?:evt +|format +EVT)(\d)\.?(\d?)", re.MULTILINE)
_EVT_RECORDER = re.compile(rb"^% *(?:plugin|integrator)_name ", re.MULTILINE)
_EVT_INDEX = re.compile(rb"^% *index_version ", re.MULTILINE)
_PERCENT_HEADER = re.compile(rb"\A(?:%[^\n]{0,400}\n){1,100}")


METAVISION_INDEX = "Metavision index (.tmp_index)"
"""The places of times in the recording beside it: no recording, though its header repeats that of the recording."""


def format_of(data: bytes) -> str | None:
    """Returns the name of a file's format by its header; None for an unknown header."""
    name = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if not data.startswith(b"% "):
        return name
    header = percent_header(data)  # all of Prophesee's formats begin with lines of the same kind
    if _EVT_INDEX.search(header):
        return METAVISION_INDEX
    if version := _EVT.search(header):
        return f"Prophesee EVT {version[1].decode()}.{version[2].decode() or 0} (.raw)"
    return "Prophesee EVT (.raw)" if _EVT_RECORDER.search(header) else name


def percent_header(data: bytes) -> bytes:
    """Returns the lines at the beginning of a file that begin with ``%``, of Prophesee's formats."""
    header = _PERCENT_HEADER.match(data)
    return header[0] if header else b""


def end_of_header_line(data: bytes, at: int, where: str) -> int:
    """Returns the position after a header line.

    Args:
        data: The file.
        at: Position of the line.
        where: Name of the file.

    Raises:
        DamagedFileError: The file ends within the line.
    """
    end = data.find(b"\n", at)
    if end < 0:
        raise cut_off_header(at, where)
    return end + 1


def cut_off_header(at: int, where: str) -> DamagedFileError:
    """Returns the error for a header line at a position that does not end."""
    return DamagedFileError(f"{where}: byte {at}: a header line without a line feed; the file is cut off")


def count_items(data: bytes, start: int, nbytes: int, where: str, item: str = "an event") -> int:
    """Returns how many items of one size a file has.

    Args:
        data: The file.
        start: Position of the first item.
        nbytes: Size of an item.
        where: Name of the file.
        item: What an item is, for the message.

    Raises:
        DamagedFileError: The file ends within an item.
    """
    count, rest = divmod(len(data) - start, nbytes)
    if rest:
        raise DamagedFileError(
            f"{where}: byte {len(data) - rest}: {rest} bytes left, {item} has {nbytes}; the file is cut off"
        )
    return count


def unknown_source(source: int, known: Iterable[int], where: str) -> RawDataError:
    """Returns the error for a source of events that a recording does not have.

    Args:
        source: The number that the data set's YAML states.
        known: The numbers that there are.
        where: Name of the file.
    """
    numbers = [str(number) for number in sorted(known)]
    return RawDataError(
        f"{where}: no source {source} of events, expected {' or '.join(numbers) or 'none: there are no events'}",
        hint=f"state in the data set's YAML: source: {numbers[0]}"
        if numbers
        else "omit source: in the data set's YAML",
    )


HEADER_BYTES = 2**13
"""The first bytes of a file, which suffice to tell its format."""

_CONTROL = bytes({*range(0x20), 0x7F} - {*b"\t\n\r"})
_TEXT_PREFIX = 4096


def is_text(data: bytes) -> bool:
    """Returns whether a file begins with printable UTF-8: no events, whose times have zero bytes."""
    prefix = data[:_TEXT_PREFIX]
    if not prefix or len(prefix.translate(None, _CONTROL)) < len(prefix):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(prefix, len(data) <= _TEXT_PREFIX)
    except UnicodeDecodeError:
        return False
    return True


_LOOKS_LIKE: tuple[tuple[str, bytes, int], ...] = (
    ("a ROS bag", b"#ROSBAG V", 0),
    ("a ROS 2 recording (MCAP)", b"\x89MCAP0", 0),
    ("an SQLite database, as ROS 2 bags are", b"SQLite format 3", 0),
    ("an MP4 video", b"ftyp", 4),
    ("an AVI video", b"AVI ", 8),
    ("a Matroska or WebM video", b"\x1aE\xdf\xa3", 0),
    ("a PNG picture", b"\x89PNG", 0),
    ("a JPEG picture", b"\xff\xd8\xff", 0),
    ("a GIF picture", b"GIF8", 0),
    ("a TIFF picture", b"II*\0", 0),
    ("a tar archive", b"ustar", 257),
    ("a file packed by bzip2", b"BZh", 0),
    ("a file packed by xz", b"\xfd7zXZ", 0),
    ("a file packed by Zstandard", b"\x28\xb5\x2f\xfd", 0),
    ("a 7z archive", b"7z\xbc\xaf\x27\x1c", 0),
    ("a RAR archive", b"Rar!", 0),
    ("a Parquet table", b"PAR1", 0),
    ("an Arrow table", b"ARROW1", 0),
    ("a PDF document", b"%PDF", 0),
    *((f"a Python pickle (protocol {protocol})", bytes((0x80, protocol)), 0) for protocol in range(2, 6)),
    ("text in UTF-16", b"\xff\xfe", 0),
    ("text in UTF-16", b"\xfe\xff", 0),
)
"""What a file may be that is not read, by the bytes at an offset."""


def guess_content(data: bytes) -> str | None:
    r"""Returns what a file looks like that is of no known format, with an article; None if its beginning tells nothing.

    Example:
        >>> guess_content(b"#ROSBAG V2.0"), guess_content(b"0.1 34 17 1\n0.2 35 17 0\n")
        ('a ROS bag', 'text with 4 columns of numbers')
    """
    for looks, mark, at in _LOOKS_LIKE:
        if data.startswith(mark, at):
            return looks
    if not is_text(data):
        return None
    lines = [line for line in data[:_TEXT_PREFIX].splitlines() if not line.startswith((b"#", b"%"))]
    numbers = [_count_numbers(line) for line in lines[1:-1] or lines]
    same = numbers and numbers[0] and len(set(numbers)) == 1
    return f"text with {numbers[0]} column{'s' if numbers[0] > 1 else ''} of numbers" if same else "text"


def _count_numbers(line: bytes) -> int:
    """Returns how many numbers a line consists of; 0 if it contains anything else."""
    words = re.split(rb"[\s,;]+", line.strip())
    try:
        return len([float(word) for word in words if word.lower() not in (b"true", b"false")])
    except ValueError:
        return 0


def describe_content(data: bytes) -> str:
    """Returns a description of a file for messages: its format, what it looks like, or its first bytes."""
    if name := format_of(data):
        return f"a file of format {name}"
    if is_text(data):
        first = data.removeprefix(codecs.BOM_UTF8).splitlines() or [b""]
        return f"a text file that begins with {first[0][:40].decode(errors='replace')!r}"
    if looks := guess_content(data):
        return f"a file that begins with {data[:12]!r} and looks like {looks}"
    return f"a file that begins with {data[:12]!r}" if data else "an empty file"
