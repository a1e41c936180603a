"""Training steps on one GPU, compared with SpikingJelly with each of its backends: ``make bench-gpu``.

Weights and batches are the same on both sides, and that both compute the same is checked before they are timed. Without
a GPU the script runs on the CPU at tiny sizes, to show that it works; it says that its figures then mean nothing.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import bf16x3, peers, steps
from benchmarks.compiled import compiled
from benchmarks.measure import Benchmark, Figure, Setting, below, interleaved, run, seconds, within
from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CacheError
from plifctl.evaluation.summary import summarize_experiment
from plifctl.snn.kernels import spiking_stage
from plifctl.snn.losses import loss_function
from plifctl.training.cuda_graph import GraphedStep
from plifctl.training.kernel_selection import select_kernel
from plifctl.training.layer_metrics import LayerMetrics
from plifctl.training.optimizer import Optimizer, autocast, float32_products
from plifctl.training.process import is_out_of_memory

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
KERNEL: Kernel = "triton" if GPU else "auto"
NETWORKS = ("fashion-mnist-plif", "nmnist-plif", "gesture-plif") if GPU else ("mnist-plif",)
"""Measured first: an image network, and those of event frames."""

OTHER_NETWORKS = ("cifar10-plif", "cifar10dvs-plif", "mnist-plif") if GPU else ()
SIZES = ((128, 1 / 1.2), (16, 1 / 3)) if GPU else ((2, 1 / 3),)
"""Batch sizes, and the target of each compared with SpikingJelly's best backend."""

MEMORY = 1 / 2
"""Target of our memory, compared with SpikingJelly's least."""

BACKENDS = ("cuda", "triton", "torch")
STEPS = 10 if GPU else 1
"""Repetitions timed together; nothing waits for the GPU between them."""

BLOCK_SECONDS = 0.25 if GPU else 0.0
"""Training steps are timed in blocks of about this time, at most :data:`STEPS` steps."""
NOTHING = "" if GPU else "NO FIGURE OF A GPU: run on the CPU, to see that the script works"


class Ours:
    """Training as ``plifctl train --kernel triton --graph`` does it."""

    def __init__(self, spec: ExperimentSpec) -> None:
        self.spec = spec
        self.model = steps.network(spec).to(DEVICE)
        self.model.kernel = KERNEL
        self.optimizer = Optimizer(self.model, spec.train, DEVICE, graph=True)
        self.optimizer.begin_epoch(0)
        self.layer_metrics = LayerMetrics(self.model)
        self._loss = loss_function(spec.train)
        self._graphed_step = GraphedStep(self._step, DEVICE)

    def step(self, batch: steps.Batch, targets: Tensor) -> None:
        """Runs one step without waiting for the GPU."""
        self._graphed_step(batch.x, targets, batch.keys)

    def _step(self, x: Tensor, targets: Tensor, keys: Tensor) -> None:
        with float32_products(self.spec.train, DEVICE):
            with autocast(self.spec.train, DEVICE):
                rates = self.model(x, self.spec.T, keys=keys)
            self.optimizer.backward(self._loss(rates, targets))
            self.optimizer.step(self.layer_metrics.add_gradients())


class Theirs:
    """Training as SpikingJelly's examples do it, with one of its backends.

    Args:
        spec: The experiment.
        step_mode: ``m`` or ``s``.
        backend: One of :data:`BACKENDS`.
        graph: Forward and backward in a CUDA graph, as an option of its ``train_classify``.
    """

    def __init__(self, spec: ExperimentSpec, step_mode: steps.StepMode, backend: str, *, graph: bool = False) -> None:
        self.spec = spec
        self._peer = steps.SpikingJelly(steps.network(spec), spec, step_mode, once=False)
        self._peer.model.to(DEVICE)
        self._graph = graph
        self._work = GraphedStep(self._both_ways, DEVICE) if graph else self._both_ways
        peers.choose_backend(DEVICE, backend)

    def step(self, batch: steps.Batch, targets: Tensor) -> None:
        """Runs one step without waiting for the GPU, although its examples read the loss."""
        self._peer.optimizer.zero_grad(set_to_none=not self._graph)
        self._work(batch.x, batch.labels, batch.keys)
        self._peer.optimizer.step()

    def _both_ways(self, x: Tensor, labels: Tensor, keys: Tensor) -> None:
        with float32_products(self.spec.train, DEVICE):
            with autocast(self.spec.train, DEVICE):
                rates = self._peer.rates(steps.Batch(x, labels, keys, self.spec.T))
            self._peer.loss(rates.float(), labels).backward()  # type: ignore[no-untyped-call]


def steps_in(precision: str, networks: tuple[str, ...]) -> Benchmark:
    """Training steps of networks in a precision."""

    def measured(setting: Setting) -> Iterator[Figure]:
        for name in networks[:1] if setting.quick else networks:
            try:
                peers.choose_backend(DEVICE, "torch")
                steps.must_agree(name, "m", once=False, device=DEVICE, kernel=KERNEL)
            except (SystemExit, RuntimeError) as error:  # the other networks are measured
                print(f"left out: {name}: {error}", file=sys.stderr)
                continue
            for size, target in SIZES:
                yield from _beside(setting, _spec(name, precision), size, target)

    return measured


def _spec(name: str, precision: str) -> ExperimentSpec:
    spec = steps.experiment(name)
    return spec.model_copy(update={"train": spec.train.model_copy(update={"precision": precision})})


def _beside(setting: Setting, spec: ExperimentSpec, size: int, target: float) -> Iterator[Figure]:
    """Our step compared with SpikingJelly's best backend and with its single steps; memory; the lower bound."""
    while size:
        try:
            yield from _of_size(setting, spec, size, target)
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if GPU:
            torch.cuda.empty_cache()
        size //= 2  # of both sides


def _of_size(setting: Setting, spec: ExperimentSpec, size: int, target: float) -> Iterator[Figure]:
    made = steps.batch_of(spec, size)
    batch = steps.Batch(made.x.to(DEVICE), made.labels.to(DEVICE), made.keys.to(DEVICE), made.T)
    targets = steps.one_hot(batch.labels, len(spec.dataset.classes))
    title = f"training step, {spec.name}, {spec.train.precision}, T={spec.T}, batch {size}"
    kinds = {backend: partial(Theirs, spec, "m", backend) for backend in BACKENDS}
    memory, peaks, once, missing = _memory(partial(Ours, spec), batch, targets), {}, {}, []
    for backend, make in kinds.items():
        try:
            peaks[backend] = _memory(make, batch, targets)
            once[backend] = _Timed(make(), batch, targets).step_seconds
        except peers.NoBackend as error:
            missing.append(f"{backend}: {error}")
    best = min(once, key=once.__getitem__)  # only the fastest is measured carefully
    note = "; ".join([*(f"{backend} {1e3 * value:.3g} ms" for backend, value in once.items()), *missing])
    if GPU:
        what = "what a side and its second step hold at most, the batch not counted"
        yield within(f"memory, {title}", "MiB", [memory], [min(peaks.values())], "SpikingJelly's least", MEMORY, what)
    mine, theirs = _Timed(Ours(spec), batch, targets), _Timed(kinds[best](), batch, targets)
    own, other = _interleaved(setting, mine, theirs)
    yield within(title, "s", own, other, f"SpikingJelly, step_mode m, backend {best}", target, note)
    spent = [float(np.median(own))]
    yield within(f"floor, {title}", "s", spent, [_floor(spec, size)], "its bytes or its flops alone", 2.5)
    del theirs
    try:
        graphed = _Timed(Theirs(spec, "m", best, graph=True), batch, targets)
        captured = f"SpikingJelly, step_mode m, backend {best}, forward and backward in a CUDA graph"
        yield within(title, "s", *_interleaved(setting, mine, graphed), captured, None)
        del graphed
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        print(f"left out: {title}, SpikingJelly in a CUDA graph: {error}", file=sys.stderr)
    if size == min(size for size, _ in SIZES):
        single = _Timed(Theirs(spec, "s", "torch"), batch, targets)
        yield within(title, "s", *_interleaved(setting, mine, single), "SpikingJelly, step_mode s", 0.1)


class _Timed:
    """A side whose steps are timed in blocks.

    Attributes:
        step_seconds: Seconds of a step, measured once.
    """

    def __init__(self, side: Ours | Theirs, batch: steps.Batch, targets: Tensor) -> None:
        self._work = partial(side.step, batch, targets)
        self._steps = 1
        for _ in range(5 if GPU else 1):  # kernels are compiled, a graph is recorded
            self._work()
        _wait()
        self.step_seconds = seconds(self)
        self._steps = max(1, min(STEPS, round(BLOCK_SECONDS / self.step_seconds)))

    def __call__(self) -> None:
        for _ in range(self._steps):
            self._work()
        _wait()

    def per_step(self, blocks: list[float]) -> list[float]:
        """Returns the seconds of a step from those of blocks."""
        return [value / self._steps for value in blocks]


def _interleaved(setting: Setting, mine: _Timed, theirs: _Timed) -> tuple[list[float], list[float]]:
    """Returns the seconds of a step of both sides; fewer pairs of slow steps, so that every part finds time."""
    pairs = setting.pairs if max(mine.step_seconds, theirs.step_seconds) < 0.5 else 3
    own, other = interleaved(mine, theirs, pairs)
    return mine.per_step(own), theirs.per_step(other)


def _memory(make: Callable[[], Ours | Theirs], batch: steps.Batch, targets: Tensor) -> float:
    """Returns the peak GPU memory, MiB, of one side and one of its steps; a replayed step would not show it."""
    gc.collect()  # frees the memory of the other side now, not later
    before = torch.cuda.memory_allocated() if GPU else 0
    side = make()
    side.step(batch, targets)  # the optimiser creates its state in the first step
    _wait()
    if not GPU:
        return math.nan
    torch.cuda.reset_peak_memory_stats()
    side.step(batch, targets)
    _wait()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _wait() -> None:
    if GPU:
        torch.cuda.synchronize()


@cache
def _bandwidth() -> float:
    """Bytes a second that a copy reads and writes together."""
    source = torch.empty(2**28 if GPU else 2**22, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    found = interleaved(_often(lambda: target.copy_(source)), lambda: None, 5)[0]
    return 2 * STEPS * source.numel() / float(np.median(found))


@cache
def _flops(precision: str) -> float:
    """Operations a second of a large matrix product."""
    size = 8192 if GPU else 256
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(size, size, device=DEVICE, dtype=kind) for _ in range(2))
    found = interleaved(_often(lambda: one @ other), lambda: None, 5)[0]
    return 2.0 * STEPS * size**3 / float(np.median(found))


def _often(work: Callable[[], object]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(STEPS):
            work()
        _wait()

    return repeated


def _floor(spec: ExperimentSpec, size: int) -> float:
    """Returns a lower bound of a step, seconds: its bytes at the speed of a copy, or its flops at that of a product."""
    layers = summarize_experiment(spec)
    values, flops, first = 0, 0, True
    before = math.prod(spec.framing.shape) * (1 if spec.dataset.kind == "images" else spec.T)
    for number, layer in enumerate(layers):
        after = math.prod(layer.shape) * layer.runs
        if layer.name.startswith(("conv", "fc")):
            passes = 2 if first else 3  # the gradient of the input is not needed
            values += passes * (before + after)
            flops += passes * 2 * layer.operations * layer.runs
            first = False
        elif layer.name.startswith("sn"):
            pooled = after
            with suppress(IndexError):
                if layers[number + 1].name.startswith("pool"):
                    pooled = math.prod(layers[number + 1].shape) * layers[number + 1].runs
            norm = layers[number - 1].name.startswith("bn")
            values += 5 * before + 3 * pooled if norm else 3 * before + 2 * pooled  # docs/concepts.md, kernels
        before = after
    width = 2 if spec.train.precision == "bf16" else 4
    return max(size * values * width / _bandwidth(), size * flops / _flops(spec.train.precision))


def selection(setting: Setting) -> Iterator[Figure]:
    """What ``--kernel auto`` chooses: the time of a step with each candidate, by the trials of a training."""
    if not GPU:
        print("left out: the choice of a kernel needs a GPU", file=sys.stderr)
        return
    spec = _spec(NETWORKS[0], "tf32")
    chosen = select_kernel(spec, DEVICE)
    definition = chosen.seconds.get("definition", math.nan)
    for name, value in chosen.seconds.items():
        note = f"chosen: {chosen.describe()}" if name == chosen.label else ""
        yield within(f"step with {name}, {spec.name}, tf32", "s", [value], [definition], "the definition", None, note)
    for name, reason in chosen.left_out.items():
        print(f"left out by the trials: {name}: {reason}", file=sys.stderr)


def scan(setting: Setting) -> Iterator[Figure]:
    """The scan alone, forward and backward, as a share of the speed of a copy."""
    shape = (8, 16, 128, 56, 56) if GPU else (2, 2, 8, 8, 8)
    layer = next(iter(steps.network(steps.experiment("fashion-mnist-plif")).spiking_layers().values())).to(DEVICE)
    for kind in (torch.float32, torch.bfloat16) if GPU else (torch.float32,):
        x = torch.randn(shape, device=DEVICE).to(kind, memory_format=torch.preserve_format)
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).requires_grad_()
        grad = torch.ones_like(x)

        def work(x: Tensor = x, grad: Tensor = grad) -> None:
            spikes = spiking_stage(x, len(x), layer.dynamics(x), kernel=KERNEL).pooled
            torch.autograd.grad(spikes, x, grad)

        copied = _bandwidth()
        found = [
            STEPS * 5 * x.numel() * x.itemsize / s / 1e9
            for s in interleaved(_often(work), lambda: None, setting.pairs)[0]
        ]
        title = f"scan alone, forward and backward, {kind}, {'×'.join(map(str, shape))}"
        note = "bytes: X, spikes; X, their gradient, X's"
        yield within(title, "GB/s", found, [copied / 1e9] * len(found), "a copy", 0.8, note, sign=">=")


def epoch(setting: Setting) -> Iterator[Figure]:
    """An epoch of Fashion-MNIST in full, test included, from its cache."""
    from plifctl import paths
    from plifctl.cache import find_cache, raw_independent_key
    from plifctl.training.batches import BatchLoader
    from plifctl.training.splits import make_split
    from plifctl.training.trainer import Trainer

    for precision in ("tf32", "bf16"):
        spec = _spec("fashion-mnist-plif", precision)
        title = f"epoch of Fashion-MNIST, batch 16, {precision}"
        try:
            cache = find_cache(raw_independent_key(spec.framing), paths.cache_dir(), prepare="")
        except CacheError as error:
            print(f"left out: {title}: {error}; plifctl prepare fashion-mnist", file=sys.stderr)
            return
        train = spec.train.model_copy(update={"epochs": 3, **({} if GPU else {"subset": 0.001})})
        spec = spec.model_copy(update={"train": train})
        split = make_split("A", spec, cache)
        loader = BatchLoader(cache, spec, DEVICE, data_in="device" if GPU else "memory")
        told = _EpochTimes()
        Trainer(spec, loader, split, told, kernel=KERNEL, graph=True).run()
        _wait()
        ended = [*told.ended, time.perf_counter()]
        yield below(title, "s", [ended[2] - ended[1]], 8, "the third epoch")


class _EpochTimes:
    """A recorder that stores the end time of each epoch."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """Nothing."""

    def on_epoch(self, row: object) -> None:
        """Stores the time."""
        self.ended.append(time.perf_counter())

    def on_saved_epoch(self, row: object) -> None:
        """Nothing."""

    def save(self, name: str, state: object) -> None:
        """Nothing."""

    def load_best(self) -> dict[str, object]:
        """Not called, because every epoch is tested."""
        raise AssertionError

    def stop_signal(self) -> None:
        """Never requests a stop."""


def _judged(name: str, part: Benchmark) -> Benchmark:
    """Returns a benchmark whose targets apply on a GPU only, and whose failure is a missed target, not the end."""

    def measured(setting: Setting) -> Iterator[Figure]:
        try:
            for figure in part(setting):
                yield figure if GPU else replace(figure, target=None, note=f"{NOTHING}; {figure.note}".rstrip("; "))
        except Exception as error:  # torch, Triton and SpikingJelly raise many types; the other parts are measured
            reason = f"{type(error).__name__}: {error}"
            print(f"{name} ended: {reason}", file=sys.stderr)
            yield below(f"errors that ended {name}", "", [1.0], 1.0, reason)

    return measured


if __name__ == "__main__":
    device = torch.cuda.get_device_name() if GPU else "no GPU: tiny sizes on the CPU, figures of nothing"
    parts = {  # in order of worth: the time may end
        "steps-tf32": steps_in("tf32", NETWORKS),
        "selection": selection,
        "steps-bf16": steps_in("bf16", NETWORKS),
        "bf16x3": bf16x3.products(DEVICE),
        "scan": scan,
        "compiled": compiled(DEVICE, KERNEL, (torch.float32, torch.bfloat16) if GPU else (torch.float32,)),
        "epoch": epoch,
        "others-tf32": steps_in("tf32", OTHER_NETWORKS),
        "others-bf16": steps_in("bf16", OTHER_NETWORKS),
    }
    run(f"training on {device}", {name: _judged(name, part) for name, part in parts.items()}, recordings=False)
