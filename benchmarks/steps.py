"""Timed by ``benchmarks.train_cpu``: our training steps, SpikingJelly's, and their products alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numba
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from benchmarks import peers
from plifctl.config import structure
from plifctl.config.choices import Kernel, Memory
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.snn.functional import predict
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.losses import loss_function
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.layer_metrics import LayerMetrics
from plifctl.training.optimizer import Optimizer
from plifctl.training.trainer import build_model

THREADS = 2

StepMode = Literal["m", "s"]
_CPU = torch.device("cpu")
_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def limit_threads() -> None:
    """Gives torch and numba two threads each."""
    torch.set_num_threads(THREADS)
    numba.set_num_threads(THREADS)


def experiment(
    name: str, *, batch_norm: str | None = None, dropout: float | None = None, memory: Memory = "full"
) -> ExperimentSpec:
    """Returns a shipped experiment, with changes of its network and of the training's memory if given."""
    changes: Mapping[str, str | float | None] = {
        "network.batch_norm": batch_norm,
        "network.dropout": dropout,
        "train.memory": memory,
    }
    overrides = [f"{key}={value}" for key, value in changes.items() if value is not None]
    return load_registry().experiment(name, overrides=overrides).spec


@dataclass(frozen=True)
class Batch:
    """A synthetic batch: inputs of the experiment's shape, whose values do not affect the time.

    Attributes:
        x: Normalised images ``[N, C, H, W]``, or frames ``[N, T, C, H, W]`` of event counts, most of them 0.
        labels: int64 ``[N]``.
        keys: int64 ``[N]``, for our dropout masks.
        T: Number of time steps.
    """

    x: Tensor
    labels: Tensor
    keys: Tensor
    T: int


def batch_of(spec: ExperimentSpec, size: int, T: int | None = None) -> Batch:
    """Returns a batch for an experiment, with its own T unless another is given."""
    steps = T or spec.T
    random = torch.Generator().manual_seed(2020)
    shape = spec.framing.shape
    if spec.dataset.kind == "images":
        x = torch.randn(size, *shape, generator=random)
    else:
        x = torch.poisson(torch.full((size, steps, *shape), 0.05), generator=random)
    labels = torch.randint(len(spec.dataset.classes), (size,), generator=random)
    return Batch(x, labels, hash_keys(torch.arange(size)), steps)


def network(spec: ExperimentSpec) -> SpikingNetwork:
    """Returns an experiment's network in training mode, every layer of which fires.

    With initial weights, the linear layers hardly fire; six times the weights give one spike in seven.
    """
    model = build_model(spec, torch.device("cpu")).train()
    with torch.no_grad():
        for layer in model.layers.values():
            if isinstance(layer, nn.Linear):
                layer.weight *= 6
    return model


def settled(spec: ExperimentSpec) -> SpikingNetwork:
    """Returns :func:`network` with running statistics of a batch; with the initial ones, nothing fires."""
    model, batch = network(spec), batch_of(spec, 16 if spec.dataset.kind == "images" else 4)
    updates = batch.T if spec.network.batch_norm == "per-step" else 1
    with torch.no_grad():
        for _ in range(-(-240 // updates)):
            model(batch.x, batch.T, keys=batch.keys)
    return model


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Returns float32 ``[N, classes]``."""
    return F.one_hot(labels, classes).to(torch.float32)


class Ours:
    """Training as :class:`plifctl.training.trainer.Trainer` does it.

    Args:
        spec: The experiment.
    """

    def __init__(self, spec: ExperimentSpec) -> None:
        self.spec = spec
        self.model = network(spec)
        self.optimizer = Optimizer(self.model, spec.train, torch.device("cpu"))
        self.layer_metrics = LayerMetrics(self.model)
        self._loss = loss_function(spec.train)
        self._classes = len(spec.dataset.classes)

    def step(self, batch: Batch) -> int:
        """Runs one step with everything that Trainer does in it; returns the number of correct predictions."""
        rates = self.model(batch.x, batch.T, keys=batch.keys)
        loss = self._loss(rates, one_hot(batch.labels, self._classes))
        self.optimizer.backward(loss)
        right = (predict(rates) == batch.labels).sum()
        self.optimizer.step(self.layer_metrics.add_gradients())
        if self.optimizer.failure()[0] or not math.isfinite(loss.item()):
            sys.exit("a gradient or the loss is not finite")
        return int(right)


class SnnTorch:
    """Training as snnTorch's tutorials do it: a loop over time steps through layers with a state each.

    Its Leaky neurons with a learnable decay are not the paper's, so results differ; layers and sizes are the same.

    Args:
        ours: The network whose layers are rebuilt.
        spec: The experiment.
    """

    def __init__(self, ours: SpikingNetwork, spec: ExperimentSpec) -> None:
        self.model = peers.snntorch_network(ours)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=spec.train.lr)
        self._voters, self._classes = ours.voters, len(spec.dataset.classes)

    def step(self, batch: Batch) -> float:
        """Runs one step; returns the loss."""
        self.optimizer.zero_grad()
        rates = peers.snntorch_rates(self.model, batch.x, batch.T, self._voters)
        loss = F.mse_loss(rates, one_hot(batch.labels, self._classes).expand_as(rates))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()


class SpikingJelly:
    """Training as SpikingJelly's examples do it.

    Args:
        ours: The network whose layers and weights are copied.
        spec: The experiment.
        step_mode: ``m`` or ``s``, see :func:`benchmarks.peers.spikingjelly_network`.
        once: See :func:`benchmarks.peers.spikingjelly_rates`.
    """

    def __init__(self, ours: SpikingNetwork, spec: ExperimentSpec, step_mode: StepMode, *, once: bool) -> None:
        self.model = peers.spikingjelly_network(ours, step_mode)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=spec.train.lr)
        self._once = once
        self._classes = len(spec.dataset.classes)

    def rates(self, batch: Batch) -> Tensor:
        """The votes ``[T, N, classes]``."""
        return peers.spikingjelly_rates(self.model, batch.x, batch.T, once=self._once)

    def loss(self, rates: Tensor, labels: Tensor) -> Tensor:
        """The MSE at each step to the one-hot target, averaged over steps."""
        return F.mse_loss(rates, one_hot(labels, self._classes).to(rates).expand_as(rates))

    def step(self, batch: Batch) -> float:
        """Runs one step; returns the number of correct predictions."""
        self.optimizer.zero_grad()
        rates = self.rates(batch)
        loss = self.loss(rates, batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        loss.item()
        return (rates.mean(0).argmax(1) == batch.labels).float().sum().item()


def must_agree(
    name: str, step_mode: StepMode, *, once: bool, device: torch.device = _CPU, kernel: Kernel = "auto"
) -> None:
    """Ends the benchmark unless ours and SpikingJelly compute the same in training, of two samples.

    In float64, in which no spike depends on rounding: all votes are equal, loss and gradients to 1e-6. Both run without
    dropout, because they draw masks differently, and with the batch norm of the ``step_mode``.

    Args:
        name: The experiment.
        step_mode: Of SpikingJelly.
        once: Of SpikingJelly.
        device: Where both run.
        kernel: Kernel of ours.
    """
    spec = experiment(name, batch_norm="over-time" if step_mode == "m" else "per-step", dropout=0.0)
    batch = batch_of(spec, size=2, T=4)
    ours = network(spec)
    ours.kernel = kernel
    theirs = SpikingJelly(ours, spec, step_mode, once=once)
    double = Batch(batch.x.to(device).double(), batch.labels.to(device), batch.keys.to(device), batch.T)
    rates = ours.double().to(device)(double.x, double.T, keys=double.keys)
    theirs.model.double().to(device)
    expected = theirs.rates(double)
    targets = one_hot(double.labels, len(spec.dataset.classes)).to(rates)
    losses = loss_function(spec.train)(rates, targets), theirs.loss(expected, double.labels)
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    rates, expected = rates.detach(), expected.detach()
    gradients = {key.removeprefix("layers.").replace(".a", ".w"): p.grad for key, p in ours.named_parameters()}
    wanted = {key: p.grad for key, p in theirs.model.named_parameters()}
    different = [key for key in wanted if not _close(gradients[key], wanted[key])]
    if not _close(rates, expected) or not _close(*losses) or different:
        sys.exit(
            f"{name}, step_mode {step_mode}: ours votes {float(rates.mean()):.6f} on average with a loss of "
            f"{losses[0]:.9f}, SpikingJelly {float(expected.mean()):.6f} with {losses[1]:.9f}; gradients that differ: "
            f"{', '.join(different) or 'none'}: their times cannot be compared"
        )
    if not 0.0 < float(expected.mean()) < 1.0:
        sys.exit(f"{name}: votes of {float(expected.mean())} on average say nothing")


def must_evaluate_alike(name: str) -> None:
    """Ends the benchmark unless ours, folded, and SpikingJelly vote the same in evaluation, in float64."""
    from plifctl.snn.bn_folding import fold_batch_norm

    spec = experiment(name)
    trained = settled(spec)
    theirs = SpikingJelly(trained, spec, "m", once=False)
    theirs.model.double().eval()
    batch = batch_of(spec, 4)
    double = Batch(batch.x.double(), batch.labels, batch.keys, batch.T)
    with torch.no_grad():
        rates, expected = fold_batch_norm(trained.double())(double.x, double.T), theirs.rates(double)
    if not _close(rates, expected) or not 0.0 < float(expected.mean()) < 1.0:
        sys.exit(
            f"{name}, in evaluation: ours votes {float(rates.mean()):.6f} on average, "
            f"SpikingJelly {float(expected.mean()):.6f}: their times cannot be compared"
        )


def _close(ours: Tensor | None, theirs: Tensor | None) -> bool:
    """Returns whether they differ by less than 1e-6 of the largest; votes are so coarse that they are then equal."""
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= 1e-6 * theirs.abs().max())


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product of a training step: forward, weight gradient, input gradient.

    Attributes:
        name: Name of the layer.
        layout: Memory layout.
        parts: A function for each of the three; the first layer has no input gradient.
    """

    name: str
    layout: str
    parts: Mapping[str, Callable[[], object]]

    def __call__(self) -> None:
        """Computes them all."""
        for part in self.parts.values():
            part()


def products(spec: ExperimentSpec, size: int, T: int) -> Iterator[list[Product]]:
    """Yields for each layer with weights its products in every memory layout, on the shapes of a training step.

    Inputs are 15 % ones, like spikes, else zeros.
    """
    shape: tuple[int, ...] = spec.framing.shape
    layers = structure.parse_structure(spec.network.structure)
    images = size if spec.dataset.kind == "images" else size * T  # static images pass the first layers once
    counts = {"conv": 0, "fc": 0}
    for layer, after in zip(layers, structure.shapes_after(layers, shape, len(spec.dataset.classes)), strict=True):
        first = not sum(counts.values())
        if isinstance(layer, structure.Conv):
            yield [_conv(f"conv{counts['conv']}", layer, images, shape, after, layout, first) for layout in _LAYOUTS]
            counts["conv"] += 1
        elif isinstance(layer, structure.Linear):
            yield [_linear(f"fc{counts['fc']}", layer, images, math.prod(shape), first)]
            counts["fc"] += 1
        elif layer == structure.Plain("spiking"):
            images = size * T
        shape = after


def _conv(
    name: str,
    layer: structure.Conv,
    images: int,
    shape: tuple[int, ...],
    after: tuple[int, ...],
    layout: str,
    first: bool,
) -> Product:
    memory = _LAYOUTS[layout]
    kernel = (layer.channels, shape[0], layer.kernel, layer.kernel)
    x = _spikes(images, *shape).contiguous(memory_format=memory)
    weight = (torch.randn(kernel) / math.sqrt(math.prod(kernel[1:]))).contiguous(memory_format=memory)
    grad = torch.randn(images, *after).contiguous(memory_format=memory)
    stride, padding = [layer.stride] * 2, [layer.kernel // 2] * 2

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, mask
        )

    parts: dict[str, Callable[[], object]] = {
        "forward": lambda: F.conv2d(x, weight, stride=stride, padding=padding),
        "weight gradient": lambda: backward([False, True, False]),
        "input gradient": lambda: backward([True, False, False]),
    }
    return Product(name, layout, _without_input_gradient(parts) if first else parts)


def _linear(name: str, layer: structure.Linear, images: int, features: int, first: bool) -> Product:
    x = _spikes(images, features)
    weight = torch.randn(layer.features, features) / math.sqrt(features)
    grad = torch.randn(images, layer.features)
    parts: dict[str, Callable[[], object]] = {
        "forward": lambda: F.linear(x, weight),
        "weight gradient": lambda: grad.t() @ x,
        "input gradient": lambda: grad @ weight,
    }
    return Product(name, "contiguous", _without_input_gradient(parts) if first else parts)


def _spikes(*shape: int) -> Tensor:
    return (torch.rand(shape) < 0.15).float()


def _without_input_gradient(parts: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    return {part: call for part, call in parts.items() if part != "input gradient"}
