"""Raw recordings to frames on disk, compared with SpikingJelly and tonic: ``make bench-prepare``.

Measures decoders, the framing of events, the path from raw files to a finished cache, the cache's size, and the
command when the cache exists.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import material, peers, readers
from benchmarks.measure import ROOT, Figure, Setting, below, faster, interleaved, run, within

WORKERS = 2


def decode(setting: Setting) -> Iterator[Figure]:
    """AEDAT 3.1 from the file to events, on one core."""
    from plifctl.data.formats.aedat3 import decode_aedat3

    recordings = sorted((setting.shared / "DvsGesture").glob("*.aedat"))
    contents = [path.read_bytes() for path in recordings]
    theirs = peers.spikingjelly()

    def ours(data: bytes) -> np.ndarray:
        return decode_aedat3(data, where="benchmark").events

    events = 0
    for path, data in zip(recordings, contents, strict=True):
        expected, found = theirs.load_aedat_v3(path), ours(data)
        _must_equal(all(np.array_equal(found[name], expected[name]) for name in "txyp"), "AEDAT 3.1 events")
        events += len(found)
    what = f"{len(recordings)} files, {events:,} events, {sum(map(len, contents)) / 1e6:.1f} MB"
    mine, peer = interleaved(
        lambda: _each(ours, contents), lambda: _each(theirs.load_aedat_v3, recordings), setting.pairs
    )
    yield faster("decode AEDAT 3.1", mine, peer, "SpikingJelly load_aedat_v3", 100, what)

    def read(path: Path) -> np.ndarray:
        return np.fromfile(path, np.uint8)

    def read_and_decode(path: Path) -> np.ndarray:
        return ours(path.read_bytes())

    mine, peer = interleaved(lambda: _each(read_and_decode, recordings), lambda: _each(read, recordings), setting.pairs)
    note = f"{what}; each file's memory is free for the next, as in prepare"
    yield within("read and decode AEDAT 3.1 against read", "s", mine, peer, "np.fromfile", 3, note)


def frames(setting: Setting) -> Iterator[Figure]:
    """Events to T frames, on one core, with frames compared bit for bit."""
    from tonic.transforms import ToFrame

    from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3
    from plifctl.data.frames import integrate_frames

    theirs = peers.spikingjelly()
    for n, side, T in ((4_000, 34, 10), (200_000, 128, 20)):
        events = moving_edge(n, side)
        # everyone's events as their own readers return them; SpikingJelly has one type for N-MNIST, one for AEDAT 3.1
        own = decode_aedat3(encode_aedat3(events), where="benchmark").events
        columns = peers.as_columns(events, np.uint32 if side == 34 else np.int64)
        structured = peers.as_tonic(events)
        to_frame = ToFrame(sensor_size=(side, side, 2), n_event_bins=T)

        def ours(events=own, T=T, side=side) -> np.ndarray:
            return integrate_frames(events, T, "number-remainder", side, side)

        def spikingjelly(columns=columns, T=T, side=side) -> np.ndarray:
            return theirs.integrate_events_by_fixed_frames_number(columns, "number", T, side, side)

        def tonic(to_frame=to_frame, structured=structured) -> np.ndarray:
            return to_frame(structured)

        _must_equal(np.array_equal(ours(), spikingjelly()), "frames")
        _must_equal(np.array_equal(ours(), tonic()), "frames")  # T divides n: no remainder for tonic to drop
        name = f"{n:,} events to {T} frames {side}×{side}"
        mine, peer = interleaved(ours, spikingjelly, setting.pairs)
        yield faster(name, mine, peer, "SpikingJelly", 5)
        mine, peer = interleaved(ours, tonic, setting.pairs)
        yield faster(name, mine, peer, "tonic ToFrame", 20)


def gesture(setting: Setting) -> Iterator[Figure]:
    """Gesture recordings to a finished cache."""
    recordings, part = (40, 5) if setting.quick else (200, 10)
    yield from _end_to_end(setting, "gesture", 20, recordings, part, samples_each=10, target=50)


def nmnist(setting: Setting) -> Iterator[Figure]:
    """N-MNIST zips to a finished cache."""
    recordings, part = (4_000, 500) if setting.quick else (20_000, 1_000)
    yield from _end_to_end(setting, "nmnist", 10, recordings, part, samples_each=1, target=15)


def hit(setting: Setting) -> Iterator[Figure]:
    """``plifctl prepare`` when the cache exists, over as many files as N-MNIST has."""
    count = 6_000 if setting.quick else 60_000
    with setting.folder() as folder:
        material.nmnist_files(setting.shared, folder / "NMNIST", count, events=5)
        command = [sys.executable, "-m", "plifctl", "prepare", "nmnist", "--T", "10", "--json"]
        command += ["--raw", str(folder / "NMNIST"), "--cache-dir", str(folder / "cache")]
        states = []
        seconds = []
        for _ in range(1 + setting.pairs):
            start = time.perf_counter()
            result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            seconds.append(time.perf_counter() - start)
            if result.returncode:
                sys.exit(f"{' '.join(command)}\n{result.stderr}")
            states.append(json.loads(result.stdout)["state"])
    _must_equal(states == ["built"] + ["found"] * setting.pairs, "what prepare says of the cache")
    yield below(f"plifctl prepare, cache there, {count:,} files", "s", seconds[1:], 1.0, "the whole command")
    yield below(f"plifctl prepare, no cache, {count:,} files", "s", seconds[:1], None, "files of five events each")


def moving_edge(n: int, side: int) -> np.ndarray:
    """Returns n events of a blurred edge that sways over a square sensor, dtype EVENT, sorted by t."""
    from plifctl.data.events import EVENT

    rng = np.random.default_rng(2020)
    events = np.empty(n, EVENT)
    events["t"] = np.sort(rng.integers(0, 1_500_000, n))
    centre = side * (0.5 + 0.3 * np.sin(events["t"] / 2e5))
    events["x"] = np.clip(rng.normal(centre, side / 10), 0, side - 1)
    events["y"] = np.clip(rng.normal(side / 2, side / 5, n), 0, side - 1)
    events["p"] = rng.integers(0, 2, n)
    return events


def _end_to_end(
    setting: Setting, name: str, T: int, recordings: int, part: int, *, samples_each: int, target: float
) -> Iterator[Figure]:
    """Time, memory and size of preparing: ours all ``recordings``, SpikingJelly ``part`` of them, scaled."""
    make = {"gesture": material.gesture_folder, "nmnist": material.nmnist_zips}[name]
    title = {"gesture": "gesture folder", "nmnist": "N-MNIST zips"}[name]
    scale = recordings / part
    mine: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    with setting.folder() as folder:
        whole, quarter, some = (
            (folder / str(count), make(setting.shared, folder / str(count), count))
            for count in (recordings, recordings // 4, part)
        )
        same = _built("ours", name, T, *some)  # also triggers the one-time compilation
        small = _built("ours", name, T, *quarter)
        for _ in range(3 if setting.quick else 5):
            mine.append(_built("ours", name, T, *whole))
            theirs.append(_built("spikingjelly", name, T, *some))
    samples = recordings * samples_each
    scaled = (
        f"SpikingJelly's data set class, {WORKERS} threads, its default compression, on {part * samples_each:,} "
        f"samples; its times × {scale:g}"
    )
    what = f"prepare {title}, {samples:,} samples, T={T}, {WORKERS} workers"
    yield faster(
        what, _of(mine, "seconds"), [scale * s for s in _of(theirs, "seconds")], "SpikingJelly", target, scaled
    )
    yield faster(
        f"{what}, with interpreter start",
        _of(mine, "wall"),
        # its start does not grow with the samples
        [scale * run["seconds"] + run["wall"] - run["seconds"] for run in theirs],
        "SpikingJelly",
        None,
    )
    peaks = [peak / 2**20 for peak in _of(mine, "peak")]
    yield below(f"prepare {title}: peak memory", "MiB", peaks, 1024)
    yield within(
        f"prepare {title}: peak memory flat",
        "MiB",
        peaks[:1],
        [small["peak"] / 2**20],
        "ours, a quarter of the samples",
        1.5,
        "memory that grows with the samples would make it 4",
    )
    yield within(
        f"cache of {part * samples_each:,} {title} samples: size",
        "MB",
        [same["bytes"] / 1e6],
        [theirs[0]["bytes"] / 1e6],
        "SpikingJelly, compressed npz",
        1,
    )


def _built(who: str, name: str, T: int, raw: Path, counts: tuple[int, int]) -> dict[str, Any]:
    """Prepares in a process of its own; returns what ``benchmarks.build`` prints, and ``wall``: seconds in all."""
    out = raw.with_name(f"out-{who}")
    command = [sys.executable, "-m", "benchmarks.build", who, name, raw, out, T, *counts, WORKERS]
    start = time.perf_counter()
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd=ROOT)
    wall = time.perf_counter() - start
    if result.returncode:
        sys.exit(f"{who}, {name}: {result.stderr or result.stdout}")
    subprocess.run(["rm", "-rf", str(out)], check=True)
    os.sync()  # otherwise the next one waits for these writes
    return {**json.loads(result.stdout), "wall": wall}


def _each(work: Callable[[Any], object], items: Sequence[Any]) -> None:
    for item in items:
        work(item)


def _of(runs: list[dict[str, Any]], what: str) -> list[float]:
    return [run[what] for run in runs]


def _must_equal(equal: bool, what: str) -> None:
    if not equal:
        sys.exit(f"{what}: ours and the peer's differ, so their times cannot be compared")


if __name__ == "__main__":
    run(
        "raw recordings to frames on disk",
        {
            "decode": decode,
            "readers": readers.measure,
            "frames": frames,
            "gesture": gesture,
            "nmnist": nmnist,
            "hit": hit,
        },
    )
