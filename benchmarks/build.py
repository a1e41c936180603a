"""Prepares a data set once in a separate process, and prints time and memory as JSON; started by ``prepare.py``.

python -m benchmarks.build ours|spikingjelly gesture|nmnist RAW OUT T TRAIN TEST WORKERS
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Builds and prints ``seconds`` (after imports), ``bytes`` (of the finished frames) and ``peak`` (bytes)."""
    who, name, raw, out, *numbers = sys.argv[1:]
    T, train, test, workers = map(int, numbers)
    build = {"ours": _ours, "spikingjelly": _spikingjelly}[who]
    seconds, nbytes = build(name, Path(raw), Path(out), T, (train, test), workers)
    print(json.dumps({"seconds": seconds, "bytes": nbytes, "peak": _peak()}))


def _peak() -> int:
    """Returns the peak memory in bytes; getrusage would return the parent's peak if that was higher."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _ours(name: str, raw: Path, out: Path, T: int, counts: tuple[int, int], workers: int) -> tuple[float, int]:
    from benchmarks.material import sized
    from plifctl.cache import CacheBuilder
    from plifctl.cache.framing import warm_up
    from plifctl.config.dataset import Framing
    from plifctl.data.datasets import open_raw
    from plifctl.data.source import RawSource

    warm_up()  # imported late: numba, and its cached machine code
    dataset, frames = sized(name, counts, "number-remainder")
    framing = Framing(dataset=dataset, frames=frames).with_T(T)
    start = time.perf_counter()
    source = RawSource(raw, verify=False, workers=workers)
    with CacheBuilder(framing, out, workers=workers) as builder:  # as plifctl prepare does
        cache = builder.finish(open_raw(framing, source, make_handler=builder.make_sample_handler))
    seconds = time.perf_counter() - start
    if len(cache.labels) != sum(counts):
        sys.exit(f"{len(cache.labels)} samples cached, {sum(counts)} expected")
    return seconds, cache.path.stat().st_size


def _spikingjelly(name: str, raw: Path, out: Path, T: int, counts: tuple[int, int], workers: int) -> tuple[float, int]:
    os.environ["SJ_MAX_THREADS_NUMBER_FOR_DATASETS_PREPROCESS"] = str(workers)
    from benchmarks import peers

    peers.spikingjelly()
    peers.spikingjelly_root(name, raw, out)
    start = time.perf_counter()
    peers.spikingjelly_dataset(name, out, T, train=True)  # converts both splits
    seconds = time.perf_counter() - start
    frames = list((out / f"frames_number_{T}_split_by_number").rglob("*.npz"))
    if len(frames) != sum(counts):
        sys.exit(f"{len(frames)} samples written, {sum(counts)} expected")
    return seconds, sum(path.stat().st_size for path in frames)


if __name__ == "__main__":
    main()
