"""The ATIS format of N-MNIST: 5 bytes per event, no header.

x, y, then 24 bits big-endian: polarity in bit 23, time in µs in bits 0–22. An event with y = 240 is an overflow
mark: it adds 2^13 µs to the times that follow. In files without such marks the clock overflows after 2^23 µs (8.4 s),
and its times are continued.
"""

from __future__ import annotations

import numpy as np

from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import describe_content, format_of
from plifctl.errors import DamagedFileError

_EVENT_BYTES = 5
_CLOCK_BITS = 23


def decode_atis(data: bytes, *, where: str) -> Decoded:
    """Decodes an ATIS file; overflow marks are not events and not counted as dropped.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events; none is dropped.

    Raises:
        DamagedFileError: The file is empty, has another format, or is cut off within an event (a cut between two events
            cannot be detected).

    Source: the reader published with N-MNIST (Orchard et al. 2015).
    """
    if not data or format_of(data):  # ATIS has no header: only other formats can be told apart
        raise DamagedFileError(
            f"{where}: byte 0: {describe_content(data)}, expected ATIS events of {_EVENT_BYTES} bytes"
        )
    count, rest = divmod(len(data), _EVENT_BYTES)
    if rest:
        raise DamagedFileError(
            f"{where}: byte {len(data) - rest}: {rest} bytes left, an ATIS event has {_EVENT_BYTES}; "
            "the file is cut off, or of another format"
        )
    from plifctl.data.formats.loops import decode_atis_events

    events = Events.empty(count)
    found, ascending = decode_atis_events(np.frombuffer(data, np.uint8), *events.columns)
    events = events if found == count else events[:found]
    clock_bits = _CLOCK_BITS if found == count else None  # overflow marks make the times complete
    return sort_by_time(events, where, ascending=ascending, clock_bits=clock_bits)
