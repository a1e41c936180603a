"""Bits that flip: found when what they are in is read, and by verify wherever they are; no number changes unnoticed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults.sandbox import Sandbox, document

from plifctl.cache import Cache
from plifctl.cache.catalogue import verify_cache
from plifctl.errors import PlifctlError
from plifctl.runs import Run, load_checkpoint, verify_run

PREPARE = ("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw", "--json")
TRAIN = ("train", "demo", "--set", "train.batch_size=8", "--set", "T=4", "--epochs", 2, "--json")
Times = Callable[[int, int], int]
Told = Callable[[str], None]


def flip(path: Path, generator: random.Random) -> str:
    """Flips one bit of a file, and says which."""
    content = bytearray(path.read_bytes())
    at, bit = generator.randrange(len(content)), generator.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"{path.name}: bit {bit} of byte {at:,}"


def same(first: Any, second: Any) -> bool:
    """Whether two trees of values, arrays and tensors are alike, bit for bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray | torch.Tensor):
        return np.array_equal(first, second)
    return bool(first == second)


def found_when_read(read: Callable[[], Any], wanted: Any, name: str, what: str) -> bool:
    """Reads what has a flipped bit: an error must name the file; what is read must be what was written."""
    try:
        got = read()
    except PlifctlError as error:
        if name not in str(error):
            raise
        return True
    assert same(wanted, got), f"changed in silence: {what}"
    return False


def test_caches(sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    document(sandbox.run(*PREPARE))
    (path,) = sandbox.caches.rglob("*.h5")
    whole, beside = path.read_bytes(), path.with_name(f"{path.name}.sha256")
    summed = beside.read_bytes()

    def read() -> tuple[Any, ...]:
        with closing(Cache(path)) as cache:
            rows = np.arange(len(cache.labels))
            fields = dict(cache.key.fields)
            return cache.read(rows), cache.labels, cache.is_test, cache.sample_ids, fields, cache.notes, cache.counts

    wanted, found, flips = read(), 0, times(60, 500)
    for number in range(flips):
        what = flip(beside if number % 20 == 0 else path, generator)
        assert verify_cache(path), f"not found: {what}"
        found += found_when_read(read, wanted, path.name, what)
        path.write_bytes(whole)
        beside.write_bytes(summed)
    assert verify_cache(path) == []
    told(f"{flips} flips, all found by verify, {found} when read, none changed a number")


def readings(run: Run) -> dict[str, Callable[[], Any]]:
    """What is read of a run, by the file that it is in."""
    return {
        "checkpoints/last.pt": lambda: load_checkpoint(run.checkpoint("last")),
        "checkpoints/best.pt": lambda: load_checkpoint(run.checkpoint("best")),
        "result.json": lambda: run.record().model_dump(),
        "metrics.jsonl": run.metrics,
        "metrics.sha256": run.metrics,
        "config.yaml": run.config,
        "env.json": run.environment,
        "split.json": run.split,
        "run.json": run.info,
    }


def test_runs(sandbox: Sandbox, generator: random.Random, times: Times, told: Told) -> None:
    document(sandbox.run(*PREPARE))
    document(sandbox.run(*TRAIN))
    (path,) = sandbox.runs.iterdir()
    kept = sandbox.folder / "kept"
    shutil.copytree(path, kept)
    run = Run(path)
    wanted = {name: read() for name, read in readings(run).items()}
    assert verify_run(run) == []
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    flips, read_back, found = times(60, 500), 0, 0
    for number in range(flips):
        name = files[number % len(files)]
        what = flip(path / name, generator)
        assert verify_run(run), f"not found: {what}"
        if name in wanted:
            read_back += 1
            found += found_when_read(readings(run)[name], wanted[name], Path(name).name, what)
        shutil.copyfile(kept / name, path / name)
    assert verify_run(run) == []
    told(f"{flips} flips, all found by verify; of {read_back} in what is read, {found} found when read")


def test_records_of_the_registry(generator: random.Random, tmp_path: Path, times: Times, told: Told) -> None:
    from plifctl.paths import registry_dirs
    from plifctl.runs.records import read_record

    records = sorted((registry_dirs()[0] / "results").glob("*.json"))
    found = 0
    for number in range(times(50, 500)):
        path = tmp_path / records[number % len(records)].name
        shutil.copyfile(records[number % len(records)], path)
        wanted = read_record(path)
        what = flip(path, generator)
        found += found_when_read(partial(read_record, path), wanted, path.name, what)
    told(f"{found} flips found, the others changed nothing")
