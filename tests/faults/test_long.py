"""Long and large: memory, files and open handles stay as they are."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from faults.sandbox import Ended, Sandbox, document

NETWORK = """\
tiny:
  structure: "APk32s32-FC110-SN-APk10s10"
  dropout: 0.5
  batch_norm: per-step
"""
EXPERIMENT = """\
extends: _common
dataset: synthetic-gesture
network: tiny
T: 2
train: {normalise: none, batch_size: 22, epochs: 12, lr: 3e-3, cosine_period: 12}
variants:
  tiny:
    title: a tiny network
    neuron: {kind: plif, tau_0: 2.0}
"""
MANY = """\
name: many
title: very many recordings
layout: nmnist
kind: events
shape: [2, 34, 34]
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
samples: {train: 90000, test: 10000}
frames: {slicing: number, outside_events: refuse}
"""
Times = Callable[[int, int], int]
PrintSummary = Callable[[str], None]


def watch(process: subprocess.Popen[str], look: Callable[[int], None]) -> Ended:
    """Waits for a process, and calls ``look`` with its id while it runs."""
    with ThreadPoolExecutor(1) as reader:
        output = reader.submit(process.communicate)
        while process.poll() is None:
            with suppress(OSError, StopIteration):  # the process has just ended
                look(process.pid)
            time.sleep(0.05)
        out, err = output.result()
    return Ended(process.returncode, out, err)


def peak_of(pid: int) -> tuple[int, int]:
    """Returns the peak memory of a process, bytes, and its number of open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak.split()[1]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_prepare_of_many_samples_needs_little_memory_for_each(
    tmp_path: Path, times: Times, print_summary: PrintSummary
) -> None:
    """Memory grows only by the ids and labels of the samples."""
    peaks = []
    for count in (times(500, 10_000), times(2_000, 100_000)):
        sandbox = Sandbox(tmp_path / str(count))
        generator = np.random.default_rng(0)
        for number in range(count):
            split = "Train" if number % 10 else "Test"
            path = sandbox.folder / "raw" / split / str(number // 10 % 10) / f"{number:06}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            events = generator.integers(0, 34, (6, 5)).astype(np.uint8)
            events[:, 2] = 0
            path.write_bytes(events.tobytes())
        sandbox.register(datasets_many=MANY)
        seen = [0]
        process = sandbox.start(("prepare", "many", "--T", 2, "--raw", "raw", "--no-checksum", "--json"))
        samples = document(watch(process, lambda pid, seen=seen: seen.append(peak_of(pid)[0])))["samples"]
        peak = max(seen)
        assert samples["train"] + samples["test"] == count
        assert sandbox.leftovers() == []
        assert sandbox.run("cache", "verify").code == 0
        peaks.append((count, peak))
    (few, before), (many, after) = peaks
    print_summary(f"{few:,} samples in {before / 1e6:.0f} MB, {many:,} in {after / 1e6:.0f} MB")
    assert min(before, after) > 20e6  # measured: Python with numpy needs more
    assert after - before < 4000 * (many - few) + 50e6  # an id, a source, a digest, a row of a column: 4 kB is ample


def test_training_of_many_epochs_keeps_memory_and_files_constant(
    sandbox: Sandbox, times: Times, print_summary: PrintSummary
) -> None:
    sandbox.register(networks_tiny=NETWORK, experiments_tiny=EXPERIMENT)
    document(sandbox.run("prepare", "synthetic-gesture", "--T", 2, "--raw", "raw", "--json"))
    epochs = times(40, 1000)
    process = sandbox.start(("train", "tiny", "--epochs", epochs, "--checkpoint-every", 1, "--json"))
    handles: list[int] = []
    files: set[str] = set()

    def look(pid: int) -> None:
        if list(sandbox.runs.glob("*/checkpoints/best.pt")):
            handles.append(peak_of(pid)[1])
            files.update(path.name for path in sandbox.runs.rglob("*") if not path.name.endswith(".partial"))

    document(watch(process, look))
    (run,) = sandbox.runs.iterdir()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    early, late = rows[epochs // 4]["peak_rss_bytes"], rows[-1]["peak_rss_bytes"]
    print_summary(
        f"{epochs} epochs: {early / 1e6:.0f} MB after a quarter, {late / 1e6:.0f} at the end, {max(handles)} handles"
    )
    assert late - early < 20e6
    assert max(handles[len(handles) // 2 :]) <= max(handles[: len(handles) // 2]) + 2
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.pt", "best.pt"}
    assert len([name for name in files if name.startswith("events.out")]) == 1
    assert sandbox.leftovers() == []
