"""Training and inference on two cores, compared with SpikingJelly and with the products alone: ``make bench-train``.

The networks, their weights and the batches are the same on both sides; that both compute the same is checked before
they are timed. SpikingJelly's ``step_mode`` m calls a layer once with the whole sequence, s once a time step.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import steps
from benchmarks.compiled import compiled
from benchmarks.measure import ROOT, Figure, Setting, below, interleaved, run, seconds, within
from benchmarks.worker import Job, Worker
from plifctl.training.process import keep_freed_memory

FASHION, GESTURE, NMNIST = "fashion-mnist-plif", "gesture-plif", "nmnist-plif"
REPEATED = "SpikingJelly, step_mode m"
ONCE = "SpikingJelly, step_mode m, first convolution once, freed memory kept"
SINGLE = "SpikingJelly, step_mode s, first convolution once"
PRODUCTS = "the convolutions and matrix products alone, each in its fastest layout"
DENSE = "ours, without event-driven layers"
SNNTORCH = "snnTorch, Leaky neurons in a loop over time"
FULL = "ours, memory: full"
CONTIGUOUS = "its convolutions and matrix products alone, contiguous as SpikingJelly has them"
_EACH_THEIR_OWN = "batch norm per time step; SpikingJelly's of step_mode m over time, as is its way"


def fashion(setting: Setting) -> Iterator[Figure]:
    """A training step of the Fashion-MNIST network, T = 8."""
    for step_mode, once in (("m", False), ("m", True), ("s", True)):
        steps.must_agree(FASHION, step_mode, once=once)  # type: ignore[arg-type]
    title = f"training step, {FASHION}, T=8, batch 16"
    theirs = Job("spikingjelly", "train", FASHION, 16)
    with Worker(Job("ours", "train", FASHION, 16, keep_memory=True)) as ours:
        yield _beside(setting, title, ours, theirs, REPEATED, 0.55, _EACH_THEIR_OWN)
        yield _beside(setting, title, ours, replace(theirs, once=True, keep_memory=True), ONCE, None, _EACH_THEIR_OWN)
        single = replace(theirs, step_mode="s", once=True)
        yield _beside(setting, title, ours, single, SINGLE, 0.45, "batch norm per time step on both sides")
        yield from _floors(setting, title, ours, theirs, 1.1)


def nmnist(setting: Setting) -> Iterator[Figure]:
    """A training step of the N-MNIST network, T = 10."""
    steps.must_agree(NMNIST, "m", once=False)
    title = f"training step, {NMNIST}, T=10, batch 16"
    theirs = Job("spikingjelly", "train", NMNIST, 16)
    with Worker(Job("ours", "train", NMNIST, 16, keep_memory=True)) as ours:
        yield _beside(setting, title, ours, theirs, REPEATED, 0.45, _EACH_THEIR_OWN)
        yield _beside(setting, title, ours, replace(theirs, who="snntorch"), SNNTORCH, None)
        yield from _floors(setting, title, ours, theirs, 0.9)


def _floors(setting: Setting, title: str, ours: Worker, job: Job, target: float | None) -> Iterator[Figure]:
    """Compares with the products alone, and with our own step without event-driven layers."""
    yield _beside(setting, title, ours, replace(job, who="products", keep_memory=True), PRODUCTS, target)
    yield _beside(setting, title, ours, replace(job, who="ours, dense", keep_memory=True), DENSE, None)


def gesture(setting: Setting) -> Iterator[Figure]:
    """A training step of the gesture network, T = 20."""
    steps.must_agree(GESTURE, "m", once=False)
    for size in (2,) if setting.quick else (2, 4):
        title = f"training step, {GESTURE}, T=20, batch {size}"
        theirs = Job("spikingjelly", "train", GESTURE, size)
        with Worker(Job("ours", "train", GESTURE, size, keep_memory=True)) as ours:
            yield _beside(setting, title, ours, theirs, REPEATED, 0.6, _EACH_THEIR_OWN)
            yield _beside(
                setting, title, ours, replace(theirs, who="contiguous products", keep_memory=True), CONTIGUOUS, 1.3
            )
            yield from _floors(setting, title, ours, theirs, 1.0)


def memory(setting: Setting) -> Iterator[Figure]:
    """Memory of that step, each measurement in a separate process."""
    for size in (2,) if setting.quick else (2, 4):
        found: tuple[list[tuple[float, float]], list[tuple[float, float]]] = [], []
        for _ in range(1 if setting.quick else 3):
            found[0].append(_held(Job("ours", "train", GESTURE, size, keep_memory=True)))
            found[1].append(_held(Job("spikingjelly", "train", GESTURE, size)))
        title = f"{GESTURE}, T=20, batch {size}"
        (more, their_more), (whole, their_whole) = ([[one[i] for one in who] for who in found] for i in (0, 1))
        note = "the most held in three steps, less what is held when all is imported and made"
        yield within(f"memory of a training step, {title}", "MiB", more, their_more, REPEATED, 0.5, note)
        yield within(f"memory of the whole process, {title}", "MiB", whole, their_whole, REPEATED, None)
        yield from _compact(setting, size, title, more, note)


def _compact(setting: Setting, size: int, title: str, full: list[float], note: str) -> Iterator[Figure]:
    """Memory and time with ``train.memory: compact``; results have the same bits."""
    jobs = [Job("ours", "train", GESTURE, size, keep_memory=True, memory=memory) for memory in ("compact", "full")]
    held = [_held(jobs[0])[0] for _ in full]
    yield within(f"memory of a training step, {title}, memory: compact", "MiB", held, full, FULL, 0.5, note)
    with Worker(jobs[0]) as compact, Worker(jobs[1]) as other:
        times = interleaved(compact, other, setting.pairs)
    yield within(f"training step, {title}, memory: compact", "s", *times, FULL, 1.15)


def inference(setting: Setting) -> Iterator[Figure]:
    """Networks in evaluation: batches, and one recording."""
    note = "batch norm folded into the convolutions in ours"
    for name, size in ((FASHION, 64), (NMNIST, 64), (GESTURE, 4)):
        if setting.quick and name == GESTURE:
            continue
        steps.must_evaluate_alike(name)
        title = f"inference, {name}, T={steps.experiment(name).T}, batch {size}"
        theirs = Job("spikingjelly", "infer", name, size)
        with Worker(Job("ours", "infer", name, size, keep_memory=True)) as ours:
            images = name == FASHION
            yield _beside(setting, title, ours, theirs, REPEATED, 0.3 if images else 0.15, note)
            if images:
                yield _beside(setting, title, ours, replace(theirs, once=True, keep_memory=True), ONCE, None, note)
            yield from _floors(setting, title, ours, theirs, None if images else 0.6)
    for name in (NMNIST,) if setting.quick else (NMNIST, GESTURE):
        title = f"inference, {name}, T={steps.experiment(name).T}, one recording"
        with Worker(Job("ours", "infer", name, 1, keep_memory=True)) as ours:
            dense = Job("ours, dense", "infer", name, 1, keep_memory=True)
            yield _beside(setting, title, ours, dense, DENSE, 0.4, note)


def growth(setting: Setting) -> Iterator[Figure]:
    """How a training step grows with T."""
    keep_freed_memory()
    spec = steps.experiment(FASHION)
    ours = steps.Ours(spec)
    batches = [steps.batch_of(spec, 16, T) for T in ((1, 2, 4, 8, 16) if setting.quick else (1, 2, 4, 8, 16, 32, 64))]
    T = np.array([batch.T for batch in batches])
    for batch in batches:
        ours.step(batch)
    found = np.array([[seconds(lambda b=batch: ours.step(b)) for batch in batches] for _ in range(setting.pairs)])
    medians = np.median(found, axis=0)
    note = ", ".join(f"T={steps_}: {1e3 * median:.1f} ms" for steps_, median in zip(T, medians, strict=True))
    title = f"training step, {FASHION}, batch 16"
    further = (np.diff(found, axis=1) / np.diff(T))[:, T[1:] > 8]
    yield Figure(
        f"{title}: time of each further step of T, T=8 to {T[-1]}",
        "s",
        list(further.max(1)),
        list(further.min(1)),
        "the same, smallest",
        list(further.max(1) / further.min(1)),
        "largest/smallest",
        ("<=", 1.1),
        note,
    )
    weights = 1 / medians  # so that each T counts by its relative deviation
    slope, start = np.polyfit(T, medians, 1, w=weights)
    away = 100 * np.abs(medians / (start + slope * T) - 1)
    line = f"{1e3 * start:.1f} ms + {1e3 * slope:.2f} ms × T, through the medians of every T"
    yield below(f"{title}: largest deviation from a straight line, T=8 on", "%", [float(away[T >= 8].max())], 10, line)


def norms(setting: Setting) -> Iterator[Figure]:
    """Batch statistics per time step against over time."""
    keep_freed_memory()
    for name, size in _networks(setting):
        yield _norms(setting, name, size)


def _norms(setting: Setting, name: str, size: int) -> Figure:
    batch = steps.batch_of(steps.experiment(name), size)
    per_step, over_time = (steps.Ours(steps.experiment(name, batch_norm=kind)) for kind in ("per-step", "over-time"))
    title = f"training step, {name}, T={batch.T}, batch {size}: batch norm per time step"
    mine, other = interleaved(lambda: per_step.step(batch), lambda: over_time.step(batch), setting.pairs)
    return within(title, "s", mine, other, "ours, over time", 1.05)


def _networks(setting: Setting) -> tuple[tuple[str, int], ...]:
    """Experiments and sizes of their batches."""
    return ((FASHION, 16),) if setting.quick else ((FASHION, 16), (GESTURE, 2))


def start(setting: Setting) -> Iterator[Figure]:
    """``plifctl train`` from the command to the checkpoint of the first step, second start."""
    with setting.folder() as folder:
        raw, cache = folder / "raw", folder / "cache"
        _plifctl("synthesize", raw)
        _plifctl("prepare", "synthetic-gesture", "--T", 8, "--raw", raw, "--cache-dir", cache)
        found = [_to_first_step(cache, folder / f"runs{number}") for number in range(1 + setting.pairs)]
    note = "experiment demo on the embedded data set; until the checkpoint after the first step is there"
    yield below("plifctl train to the first step, second time", "s", found[1:], 10, note)


def breakdown(setting: Setting) -> Iterator[Figure]:
    """Where our training step spends its time, by torch's profiler."""
    for name, size in _networks(setting):
        spec = steps.experiment(name)
        ours, batch = steps.Ours(spec), steps.batch_of(spec, size)
        shares: dict[str, list[float]] = defaultdict(list)
        for _ in range(2):
            ours.step(batch)
        others: dict[str, float] = {}
        for _ in range(setting.pairs):
            found, others = _profiled(lambda: ours.step(batch))  # noqa: B023 - called before the next
            for part, each in found.items():
                shares[part].append(each)
        largest = sorted(others.items(), key=lambda item: -item[1])[:8]
        for part, spent in shares.items():
            note = ", ".join(f"{op} {1e3 * s:.1f} ms" for op, s in largest) if part == "rest" else ""
            yield below(f"{name}, T={batch.T}, batch {size}: {part}", "s", spent, None, note)


_PARTS = {
    "convolutions and matrix products": re.compile(r"conv|dnnl|::(mm|addmm|bmm|matmul|linear)$", re.IGNORECASE),
    "optimizer": re.compile(r"adam|Optimizer\."),
    "batch norm in torch": re.compile(r"batch_?norm", re.IGNORECASE),
    "pooling in torch": re.compile(r"pool", re.IGNORECASE),
    "neurons, backward": re.compile(r"^\w*[a-z]Backward$"),  # torch's own end in a number
    "neurons, forward": re.compile(r"^_[A-Z]\w*$"),
}
"""Names of the profiler's events; autograd functions of ours go by the names of their classes."""


def _profiled(work: Callable[[], object]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns seconds by part, and those of the rest by operation."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        begun = time.perf_counter()
        work()
        whole = time.perf_counter() - begun
    parts, others = dict.fromkeys(_PARTS, 0.0), {}
    for event in profiler.key_averages():
        part = next((part for part, names in _PARTS.items() if names.search(event.key)), None)
        if part is None:
            others[event.key] = event.self_cpu_time_total / 1e6
        else:
            parts[part] += event.self_cpu_time_total / 1e6
    return {**parts, "rest": whole - sum(parts.values()), "whole step, profiled": whole}, others


def _beside(
    setting: Setting, title: str, ours: Worker, peer: Job, peer_name: str, target: float | None, note: str = ""
) -> Figure:
    """A worker of ours compared with one for a peer's job."""
    with Worker(peer) as theirs:
        mine, other = interleaved(ours, theirs, setting.pairs)
        note = theirs.note or note
    return within(title, "s", mine, other, peer_name, target, note)


def _held(job: Job) -> tuple[float, float]:
    """Returns the peak in MiB, above the start and in total."""
    with Worker(job) as worker:
        for _ in range(3):
            worker()
        peak = worker.peak()
        return (peak - worker.before) / 2**20, peak / 2**20


def _plifctl(*words: Any) -> None:
    command = [sys.executable, "-m", "plifctl", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")


def _to_first_step(cache: Path, runs: Path) -> float:
    """Seconds until a training has written its checkpoint after the first step; it is killed then."""
    words = ["train", "demo", "--checkpoint-every", "1", "--cache-dir", str(cache), "--runs-dir", str(runs)]
    begun = time.perf_counter()
    command = [sys.executable, "-m", "plifctl", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as training:
        while not any(runs.glob("*/checkpoints/last.pt")):
            if training.poll() is not None:
                sys.exit(f"plifctl {' '.join(words)}\n{training.stderr and training.stderr.read()}")
            time.sleep(0.005)
        took = time.perf_counter() - begun
        training.send_signal(signal.SIGKILL)
    return took


if __name__ == "__main__":
    steps.limit_threads()
    keep_freed_memory()  # as plifctl train does; what is measured beside others has processes of its own
    run(
        f"training and inference, {steps.THREADS} threads, float32",
        {
            "fashion": fashion,
            "nmnist": nmnist,
            "gesture": gesture,
            "memory": memory,
            "inference": inference,
            "growth": growth,
            "norms": norms,
            "start": start,
            "breakdown": breakdown,
            "compiled": compiled(torch.device("cpu"), "fused"),
        },
        recordings=False,
    )
