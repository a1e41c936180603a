"""Random mutation of a file, and limits of time and memory for reading it."""

from __future__ import annotations

import random
import struct

SECONDS = 2
MEMORY = 64 * 2**20
"""Memory, bytes, that reading a file may take in addition to twenty times its size."""

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutate_bytes(content: bytes, generator: random.Random) -> bytes:
    """Returns a file with one to four faults: flipped bits, extreme numbers, parts removed, doubled or inserted."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        if not data:
            return bytes(generator.randbytes(generator.randint(0, 9)))
        at = generator.randrange(len(data))
        end = min(len(data), at + generator.choice((1, 2, 4, 8, 16, len(data))))
        match generator.randrange(8):
            case 0:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x2E))
            case 2 | 3:
                form = generator.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
                number = generator.choice(_NUMBERS) & (256 ** struct.calcsize(form) - 1)
                data[at : at + struct.calcsize(form)] = struct.pack(form, number)
            case 4:
                del data[at:]
            case 5:
                del data[at:end]
            case 6:
                data[at:at] = data[at:end]
            case _:
                other = generator.randrange(len(data))
                data[other:other] = generator.randbytes(generator.randint(1, 16))
    return bytes(data)
