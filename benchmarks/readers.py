"""Decoders of event recordings beside independent readers, from the file to arrays, one thread: part of ``prepare``.

The recordings are made here, since every reader must be able to read them: less than 16 s, since two of the readers do
not continue EVT 3.0's clock, without triggers, and from times of 0 on. Before anything is timed, the events of all
readers are compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Figure, Setting, below, interleaved, within
from plifctl.data.events import EVENT
from plifctl.data.formats.detect import decode_any

Reader = Callable[[Path], Any]
"""Returns the events of a file, an array or an object with one array a column."""

WIDTH, HEIGHT = 1280, 720
DAVIS_WIDTH, DAVIS_HEIGHT = 346, 260


@dataclass(frozen=True)
class Peer:
    """A reader of another library.

    Attributes:
        name: The library.
        read: Reads a file.
        columns: Names of t, x, y and p in what it returns.
        target: Our speed over its speed should be at least this; None: no target.
        mirrored: It mirrors x and y of a DAVIS.
    """

    name: str
    read: Reader
    columns: tuple[str, str, str, str]
    target: float | None = None
    mirrored: bool = False

    def column(self, found: Any, place: int) -> np.ndarray:
        """Returns t, x, y or p, place 0 to 3, of what :attr:`read` returned."""
        name = self.columns[place]
        column: np.ndarray = found[name] if isinstance(found, np.ndarray) else getattr(found, name)
        if self.mirrored and place in (1, 2):
            return (DAVIS_WIDTH, DAVIS_HEIGHT)[place - 1] - 1 - column
        return column


def measure(setting: Setting) -> Iterator[Figure]:
    """Millions of events a second, of each format and beside each reader that is installed."""
    n = 200_000 if setting.quick else 2_000_000
    with setting.folder() as folder:
        for name, (ending, content, peers) in _recordings(n).items():
            path = folder / f"recording{ending}"
            path.write_bytes(content)
            yield from _beside_peers(name, path, peers, setting)


def ours(path: Path) -> Any:
    """Reads and decodes a file."""
    return decode_any(path.read_bytes(), where="benchmark", invalid="drop").events


def _beside_peers(name: str, path: Path, peers: tuple[Peer, ...], setting: Setting) -> Iterator[Figure]:
    events = ours(path)
    note = f"{len(events):,} events, {path.stat().st_size / 1e6:.1f} MB"

    def speed(seconds: list[float]) -> list[float]:
        return [len(events) / 1e6 / one for one in seconds]

    for peer in peers:
        found = peer.read(path)
        if not all(np.array_equal(peer.column(found, place), events[key]) for place, key in enumerate("txyp")):
            sys.exit(f"{name}: our events and those of {peer.name} differ, so their times cannot be compared")
        mine, theirs = interleaved(lambda: ours(path), lambda read=peer.read: read(path), setting.pairs)
        yield within(
            f"decode {name}", "M events/s", speed(mine), speed(theirs), peer.name, peer.target, note, sign=">="
        )
    if not peers:
        mine, _ = interleaved(lambda: ours(path), lambda: None, setting.pairs)
        yield below(f"decode {name}", "M events/s", speed(mine), None, note)


def _recordings(n: int) -> dict[str, tuple[str, bytes, tuple[Peer, ...]]]:
    """Returns, by name, ending and content of files of about ``n`` events, and the other readers of each."""
    events = _scattered(n, WIDTH, HEIGHT)
    installed = {name: readers for name, readers in _PEERS.items() if find_spec(name) is not None}

    def peers(kind: str) -> tuple[Peer, ...]:
        return tuple(readers[kind] for readers in installed.values() if kind in readers)

    return {
        "EVT 2.0": (".raw", _evt2(events), peers("evt2")),
        "EVT 2.1": (".raw", _evt21(n // 3), ()),
        "EVT 3.0, single events": (".raw", _evt3(events), peers("evt3")),
        "EVT 3.0, vectors": (".raw", _evt3_vectors(n // 10), peers("evt3")),
        "Prophesee .dat": (".dat", _dat(events), peers("dat")),
        "AEDAT 2.0 of a DAVIS": (".aedat", _davis(_scattered(n, DAVIS_WIDTH, DAVIS_HEIGHT)), peers("davis")),
    }


def _scattered(n: int, width: int, height: int) -> np.ndarray:
    """Returns n events of random pixels, dtype EVENT, sorted by t, in 3 s."""
    rng = np.random.default_rng(2020)
    events = np.empty(n, EVENT)
    events["t"] = np.sort(rng.integers(0, 3_000_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, width, n), rng.integers(0, height, n), rng.integers(0, 2, n)
    return events


def _columns(events: np.ndarray) -> Iterator[np.ndarray]:
    return (events[name].astype(np.uint64) for name in "txyp")


def _changed(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[True], values[1:] != values[:-1]])


def _words(version: str, dtype: str, *parts: tuple[np.ndarray, np.ndarray | bool]) -> bytes:
    """Returns a file of words: of each row those of all parts in turn, where the mask of the part is true."""
    words = np.stack([part.astype(np.uint64) for part, _ in parts], axis=1)
    masks = np.stack([np.broadcast_to(mask, len(words)) for _, mask in parts], axis=1)
    name = {"2.0": "EVT2", "2.1": "EVT21", "3.0": "EVT3"}[version]
    header = f"% evt {version}\n% format {name};width={WIDTH};height={HEIGHT}\n% geometry {WIDTH}x{HEIGHT}\n"
    return header.encode() + words[masks].astype(dtype).tobytes()


def _evt2(events: np.ndarray) -> bytes:
    t, x, y, p = _columns(events)
    return _words("2.0", "<u4", (8 << 28 | t >> 6, _changed(t >> 6)), (p << 28 | (t & 63) << 22 | x << 11 | y, True))


def _evt21(n: int) -> bytes:
    """Returns n vectors of 32 pixels, a quarter of which have events."""
    t, x, y, p = _columns(_scattered(n, WIDTH - 31, HEIGHT))
    head = p << 28 | (t & 63) << 22 | x << 11 | y
    return _words("2.1", "<u8", ((8 << 28 | t >> 6) << 32, _changed(t >> 6)), (head << 32 | _quarter(n, 32), True))


def _evt3(events: np.ndarray) -> bytes:
    t, x, y, p = _columns(events)
    return _words("3.0", "<u2", *_evt3_state(t, y), (2 << 12 | p << 11 | x, True))


def _evt3_vectors(n: int) -> bytes:
    """Returns n times vectors of 12, 12 and 8 pixels in a row, a quarter of which have events."""
    t, x, y, p = _columns(_scattered(n, WIDTH - 31, HEIGHT))
    vectors = ((4 << 12 | _quarter(n, 12), True), (4 << 12 | _quarter(n, 12), True), (5 << 12 | _quarter(n, 8), True))
    return _words("3.0", "<u2", *_evt3_state(t, y), (3 << 12 | p << 11 | x, True), *vectors)


def _evt3_state(t: np.ndarray, y: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Returns the words that set time and row, and where they are needed."""
    return (8 << 12 | t >> 12, _changed(t >> 12)), (6 << 12 | t & 4095, _changed(t)), (y, _changed(y))


def _quarter(n: int, bits: int) -> np.ndarray:
    """Returns n numbers of some bits, a quarter of which are set."""
    rng = np.random.default_rng(bits)
    return rng.integers(0, 2**bits, n, np.uint64) & rng.integers(0, 2**bits, n, np.uint64)


def _dat(events: np.ndarray) -> bytes:
    t, x, y, p = _columns(events)
    header = f"% Data file containing CD events.\n% Version 2\n% Height {HEIGHT}\n% Width {WIDTH}\n".encode()
    return header + bytes((12, 8)) + np.stack([t, p << 28 | y << 14 | x], axis=1).astype("<u4").tobytes()


def _davis(events: np.ndarray) -> bytes:
    t, x, y, p = _columns(events)
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS346\r\n"
    return header + np.stack([y << 22 | x << 12 | p << 11, t], axis=1).astype(">u4").tobytes()


def _faery(path: Path) -> Any:
    import faery

    return faery.events_stream_from_file(path).to_array()


def _evt3_library(path: Path) -> Any:
    import evt3

    return evt3.decode_file(str(path))


def _expelliarmus(encoding: str) -> Reader:
    def read(path: Path) -> Any:
        from expelliarmus import Wizard

        return Wizard(encoding=encoding).read(path)

    return read


def _tonic(path: Path) -> Any:
    from tonic.io import read_davis_346

    return read_davis_346(str(path))[2]


_PEERS: Mapping[str, Mapping[str, Peer]] = {
    "faery": {
        "evt2": Peer("faery", _faery, ("t", "x", "y", "on"), target=1),
        "evt3": Peer("faery", _faery, ("t", "x", "y", "on"), target=1),
        "dat": Peer("faery", _faery, ("t", "x", "y", "on")),
    },
    "evt3": {"evt3": Peer("evt3", _evt3_library, ("timestamp", "x", "y", "polarity"), target=1)},
    "expelliarmus": {
        "evt2": Peer("expelliarmus", _expelliarmus("evt2"), ("t", "x", "y", "p"), target=1),
        "dat": Peer("expelliarmus", _expelliarmus("dat"), ("t", "x", "y", "p")),
    },
    "tonic": {"davis": Peer("tonic", _tonic, ("t", "x", "y", "p"), mirrored=True)},
}
"""Readers of other libraries, by library and format. expelliarmus reads EVT 3.0 incorrectly."""
