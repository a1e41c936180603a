"""What can be downloaded, apart from how: that needs a library for the network, which takes a while to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: What it is called on the disk, whatever its addresses call it.
        urls: Addresses, to be tried in this order; none where it must be got by hand.
        md5: Its published checksum.
        nbytes: Its size where that is known, to be told; not compared with anything.
        page: Where a person finds it.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    nbytes: int | None = None
    page: str = ""
