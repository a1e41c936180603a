"""Flipped bits: found when the data are read, and by verify in any place; no number changes unnoticed."""

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
PrintSummary = Callable[[str], None]


def flip(path: Path, generator: random.Random) -> str:
    """Flips one bit of a file, and returns which."""
    content = bytearray(path.read_bytes())
    at, bit = generator.randrange(len(content)), generator.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"{path.name}: bit {bit} of byte {at:,}"


def same(first: Any, second: Any) -> bool:
    """Returns whether two trees of values, arrays and tensors are equal, bit for bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray | torch.Tensor):
        return np.array_equal(first, second)
    return bool(first == second)


def is_detected_on_read(read: Callable[[], Any], wanted: Any, name: str, what: str) -> bool:
    """Reads data with a flipped bit: returns whether an error names the file; otherwise the data must be unchanged."""
    try:
        got = read()
    except PlifctlError as error:
        if name not in str(error):
            raise
        return True
    assert same(wanted, got), f"changed silently: {what}"
    return False


def test_flipped_bit_in_a_cache_is_found(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    document(sandbox.run(*PREPARE))
    (path,) = sandbox.caches.rglob("*.h5")
    original, beside = path.read_bytes(), path.with_name(f"{path.name}.sha256")
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
        found += is_detected_on_read(read, wanted, path.name, what)
        path.write_bytes(original)
        beside.write_bytes(summed)
    assert verify_cache(path) == []
    print_summary(f"{flips} flips, all found by verify, {found} when read, none changed a number")


def readers_of(run: Run) -> dict[str, Callable[[], Any]]:
    """Returns the reader of each file of a run."""
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


def test_flipped_bit_in_a_run_is_found(
    sandbox: Sandbox, generator: random.Random, times: Times, print_summary: PrintSummary
) -> None:
    document(sandbox.run(*PREPARE))
    document(sandbox.run(*TRAIN))
    (path,) = sandbox.runs.iterdir()
    kept = sandbox.folder / "kept"
    shutil.copytree(path, kept)
    run = Run(path)
    wanted = {name: read() for name, read in readers_of(run).items()}
    assert verify_run(run) == []
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    flips, read_back, found = times(60, 500), 0, 0
    for number in range(flips):
        name = files[number % len(files)]
        what = flip(path / name, generator)
        assert verify_run(run), f"not found: {what}"
        if name in wanted:
            read_back += 1
            found += is_detected_on_read(readers_of(run)[name], wanted[name], Path(name).name, what)
        shutil.copyfile(kept / name, path / name)
    assert verify_run(run) == []
    print_summary(f"{flips} flips, all found by verify; of {read_back} in files that are read, {found} found when read")


def test_flipped_bit_in_a_record_of_the_registry_is_found(
    generator: random.Random, tmp_path: Path, times: Times, print_summary: PrintSummary
) -> None:
    from plifctl.paths import registry_dirs
    from plifctl.runs.records import read_record

    records = sorted((registry_dirs()[0] / "results").glob("*.json"))
    found = 0
    for number in range(times(50, 500)):
        path = tmp_path / records[number % len(records)].name
        shutil.copyfile(records[number % len(records)], path)
        wanted = read_record(path)
        what = flip(path, generator)
        found += is_detected_on_read(partial(read_record, path), wanted, path.name, what)
    print_summary(f"{found} flips found, the others changed nothing")
