"""Compares an implementation of the spiking layers with the definition, on small inputs of a network's own layers.

The spiking stage alone is compared: batch norm, neurons and pooling, forward and backward, in training and evaluation.

| numbers | spikes | gradients |
|---|---|---|
| float64 | equal | equal to 1e-9 |
| float32 | equal, except where the potential is within 1e-5 of the threshold | equal to 1e-5 where spikes agree |
| bfloat16, float16 | as float32, which they are computed in | equal to the rounding of the gradient |

Gradients of parameters are sums over many values, which float32 rounds: they are compared to 1e-3. The number of spikes
must be that of the spikes; running statistics equal those of the definition as gradients do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plifctl.config import structure
from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.network import NeuronSpec
from plifctl.snn.functional import Dynamics, charge, reset
from plifctl.snn.kernels import StageOutput, held_dropout, spiking_stage
from plifctl.snn.layers import BatchNorm, Pool
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.cuda_graph import GraphedStep
from plifctl.training.optimizer import HALF_TYPES

StageFunction = Callable[[Tensor, int, Dynamics, BatchNorm | None, Pool | None, Kernel], StageOutput]

NEAR_THRESHOLD = 1e-5
"""Distance of a float32 potential from the threshold within which rounding decides about the spike."""

_SAMPLES, _MAX_CHANNELS, _MAX_SIDE, _MAX_FEATURES = 3, 40, 11, 700
"""Sizes of the inputs: more than one tile of a kernel, not a multiple of it, and small enough for the definition."""

_MAX_STEPS = 6
"""Time steps: torch.compile unrolls them, which takes long; our kernels run the same loop for any number."""

_GRAPH_CALLS = 5
"""The warm-up calls of :class:`GraphedStep`, the recording, and a replay."""

_GRADIENT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
_PARAMETER_TOLERANCE = {torch.float64: 1e-9}


class DifferenceError(Exception):
    """An implementation differs from the definition; the message says where, and by how much."""


@dataclass(frozen=True)
class StageCase:
    """A stage of a network, at a reduced size.

    Attributes:
        shape: ``(C, H, W)`` or ``(F,)`` of one sample.
        T: Number of time steps, also reduced.
        norm: Kind of batch norm; None: none.
        pool: Kind and size of pooling; None: none.
        static: The input is the same at every step.
    """

    shape: tuple[int, ...]
    T: int
    norm: str | None
    pool: tuple[str, int] | None
    static: bool

    def __str__(self) -> str:
        parts = ["batch norm"] * (self.norm is not None) + ["neurons"]
        parts += [f"{self.pool[0]} pooling"] if self.pool is not None else []
        return f"{', '.join(parts)} on {'×'.join(map(str, self.shape))}"


def stage_cases(spec: ExperimentSpec) -> list[StageCase]:
    """Returns the stages of an experiment's network, each kind once."""
    layers = structure.parse_structure(spec.network.structure)
    shape: tuple[int, ...] = spec.framing.shape
    found: dict[StageCase, None] = {}
    static = spec.dataset.kind == "images"
    spiking, norm = structure.Plain("spiking"), structure.Plain("batch-norm")
    for number, after in enumerate(structure.shapes_after(layers, shape, len(spec.dataset.classes))):
        if layers[number] == spiking:
            following = layers[number + 1] if number + 1 < len(layers) else None
            pool = None
            if isinstance(following, structure.Pool) and following.kernel == following.stride:
                pool = (following.mode, following.kernel)
            kind = spec.network.batch_norm if number and layers[number - 1] == norm else None
            size = _reduced(shape, pool[1] if pool else 1)
            found[StageCase(size, min(spec.T, _MAX_STEPS), kind, pool, static)] = None
            static = False
        shape = after
    return list(found)


def _reduced(shape: tuple[int, ...], window: int) -> tuple[int, ...]:
    if len(shape) == 1:
        return (min(shape[0], _MAX_FEATURES),)
    side = max(_MAX_SIDE, 2 * window + 3)  # also values that no window contains
    return (min(shape[0], _MAX_CHANNELS), min(shape[1], side), min(shape[2], side - 2))


def check_kernel(
    spec: ExperimentSpec,
    device: torch.device,
    kernel: Kernel,
    *,
    graph: bool = False,
    run_stage: StageFunction = spiking_stage,
) -> None:
    """Compares a kernel with the definition on an experiment's stages.

    Args:
        spec: The experiment: its layers, neurons, T and precision.
        device: Where both run.
        kernel: The kernel.
        graph: Replay the kernel's work from a CUDA graph.
        run_stage: What runs the stage with this kernel.

    Raises:
        DifferenceError: They differ by more than the tolerances.
    """
    half = HALF_TYPES.get(spec.train.precision)
    for case in stage_cases(spec):
        for dtype in filter(None, (torch.float64, torch.float32, half)):
            check = _StageCheck(spec.neuron, case, device, dtype, kernel, graph, run_stage)
            for training in (True, False) if case.norm is not None else (True,):
                check(training=training)
    _check_dropout(device, kernel)


def _check_dropout(device: torch.device, kernel: Kernel) -> None:
    x, keys = torch.ones(2, 5, 1031, device=device), torch.arange(5, device=device) * 3**39 - 2**62
    expected, found = (held_dropout(x, keys, 3, 0.3, one) for one in ("eager", kernel))
    if not torch.allclose(found, expected, rtol=1e-6, atol=0):
        raise DifferenceError("dropout masks differ from the definition's")


@dataclass(frozen=True)
class _StageCheck:
    """The comparison of one stage in one number format."""

    neuron: NeuronSpec
    case: StageCase
    device: torch.device
    dtype: torch.dtype
    kernel: Kernel
    graph: bool
    run_stage: StageFunction

    def __call__(self, *, training: bool) -> None:
        exact = self.dtype == torch.float64
        expected = self._results("eager", training=training, pooled=True)
        found = self._results(self.kernel, training=training, pooled=True)
        fired = expected["spike count"]
        if exact:
            self._require_equal_spikes(found["spikes"], expected["spikes"])
        else:
            fired = self._require_explained_spikes(found["spikes"], training=training)
        if float(found["spike count"]) != float(fired):
            raise self._difference(
                f"the number of spikes is {float(found['spike count']):,}, expected {float(fired):,}"
            )
        self._compare_values(found, expected)

    def _require_equal_spikes(self, found: Tensor, expected: Tensor) -> None:
        if self.case.pool is not None and self.case.pool[0] == "average":
            different = (found - expected).abs() > 1e-9
        else:
            different = found != expected
        self._refuse_spikes(different)

    def _refuse_spikes(self, wrong: Tensor) -> None:
        if bool(wrong.any()):
            raise self._difference(f"spikes differ from the definition's: {int(wrong.sum()):,} of {wrong.numel():,}")

    def _require_explained_spikes(self, pooled: Tensor, *, training: bool) -> Tensor:
        """Spikes before pooling differ first at the threshold, and the pooled ones are those after pooling.

        Returns:
            Number of spikes before pooling.
        """
        found = self._results(self.kernel, training=training, pooled=False)["spikes"]
        potentials, expected = self._potentials(training=training)
        different = found.float() != expected
        first = different & (different.cumsum(0) == 1)  # later ones follow from it
        distance = (potentials - self._layers()[0].dynamics(potentials).v_threshold).abs()
        self._refuse_spikes(first & ~(distance < NEAR_THRESHOLD))
        pool = self._layers()[2]
        wanted = found.float() if pool is None else pool(found.float())
        if not torch.allclose(pooled.float(), wanted, rtol=0, atol=1e-2 if self.dtype.itemsize < 4 else 1e-6):
            raise self._difference("pooled spikes are not those of the spikes before pooling")
        return found.double().sum()

    def _compare_values(self, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
        same = (found["spikes"].float() == expected["spikes"].float()).transpose(0, 2).flatten(1).all(1)
        if self.dtype == torch.float64:
            same[:] = True
        for name, wanted in expected.items():
            if name in ("spikes", "spike count"):
                continue
            value, wanted = found[name].double(), wanted.double()
            if name.startswith("running"):
                tolerance = _GRADIENT_TOLERANCE[torch.promote_types(self.dtype, torch.float32)]
            elif name == "gradient of x":
                # a channel knows nothing of the others
                value, wanted = value.transpose(0, 2)[same], wanted.transpose(0, 2)[same]
                tolerance = _GRADIENT_TOLERANCE[self.dtype]
            elif bool(same.all()):
                tolerance = _PARAMETER_TOLERANCE.get(self.dtype, 1e-3)
            else:
                continue
            if not value.numel():
                continue
            scale = float(wanted.abs().max())
            worst = float((value - wanted).abs().max())
            if not worst <= tolerance * scale + 1e-12:  # also refuses NaN
                raise self._difference(
                    f"{name} differs from the definition's by {worst / (scale or 1):.1e} of its largest "
                    f"value, expected at most {tolerance:.1e}"
                )

    def _difference(self, what: str) -> DifferenceError:
        return DifferenceError(f"{what}; {self.case}, {str(self.dtype).removeprefix('torch.')}")

    def _drawn(self, seed: int, *size: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def _input(self) -> Tensor:
        steps = 1 if self.case.static else self.case.T
        return (1.5 * self._drawn(1, steps, _SAMPLES, *self.case.shape) + 0.5).to(self.device, self.dtype)

    def _layers(self) -> tuple[SpikingLayer, BatchNorm | None, Pool | None]:
        """Returns the layers of the stage, the same values at each call; parameters are at least float32."""
        real = torch.promote_types(self.dtype, torch.float32)
        spiking = SpikingLayer(self.neuron, self.case.shape)
        if spiking.a is not None:
            spiking.a.data += 0.5 * self._drawn(2, *spiking.a.shape).to(spiking.a.dtype)
        norm = None
        if self.case.norm is not None:
            norm = BatchNorm(self.case.shape[0], per_step=self.case.norm == "per-step")
            norm.weight.data = 1.5 + 0.3 * self._drawn(3, self.case.shape[0])
            norm.bias.data = 0.3 * self._drawn(4, self.case.shape[0])
            norm.to(self.device, real)
        pool = None if self.case.pool is None else Pool(*self.case.pool, self.case.pool[1])
        return spiking.to(self.device, real), norm, pool

    def _results(self, kernel: Kernel, *, training: bool, pooled: bool) -> dict[str, Tensor]:
        """Returns spikes, their number, running statistics, and of pooled spikes all gradients, by name.

        They are those of a recorded graph if the check is of one.
        """
        spiking, norm, pool = self._layers()
        pool = pool if pooled else None
        modules: list[torch.nn.Module] = [spiking] + ([norm.train(training)] if norm is not None else [])
        names = ["x", *(name for module in modules for name, _ in module.named_parameters())]
        labels = [f"gradient of {name}" for name in names]
        run_stage = spiking_stage if kernel == "eager" else self.run_stage
        found: dict[str, Tensor] = {}

        def work(x: Tensor) -> None:
            x = x.detach().requires_grad_()
            if norm is not None:
                norm.reset_running_stats()  # a recorded graph has several calls
            output, count, _ = run_stage(x, self.case.T, spiking.dynamics(x), norm, pool, kernel)
            wanted = [x, *(p for module in modules for p in module.parameters())]
            grads: tuple[Tensor | None, ...] = (None,) * len(wanted)
            if pooled:
                upstream = self._upstream(output)
                grads = torch.autograd.grad((output * upstream).sum(), wanted, allow_unused=True)
            statistics = (
                [] if norm is None else [("running mean", norm.running_mean), ("running variance", norm.running_var)]
            )
            results = [
                ("spikes", output.detach()),
                ("spike count", count),
                *statistics,
                *zip(labels, grads, strict=True),
            ]
            for name, value in results:
                if value is not None and name in found:
                    found[name].copy_(value)
                elif value is not None:
                    found[name] = value.clone()

        if self.graph and kernel == self.kernel:
            recorded = GraphedStep(work, self.device)
            for _ in range(_GRAPH_CALLS):
                recorded(self._input())
        else:
            work(self._input())
        return found

    def _upstream(self, output: Tensor) -> Tensor:
        """Returns a gradient of the output that half precision represents; made on the device, as a graph needs it."""
        place = torch.arange(output.numel(), device=output.device)
        return ((place * 7919 % 251 - 125) / 128).to(output.dtype).view(output.shape)

    def _potentials(self, *, training: bool) -> tuple[Tensor, Tensor]:
        """Returns the definition's potentials before firing, and its spikes before pooling, ``[T, N, ...]``."""
        spiking, norm, _ = self._layers()
        x = self._input()
        with torch.no_grad():
            x = x.float() if x.dtype.itemsize < 4 else x
            x = x if norm is None else norm.train(training)(x)
            x = x.expand(self.case.T, *x.shape[1:])
            k, v_threshold, v_reset, soft, detach, *_ = spiking.dynamics(x)
            v, potentials, spikes = torch.full_like(x[0], v_reset), [], []
            for x_t in x:
                h = charge(x_t, v, k, v_reset)
                spike = (h >= v_threshold).to(h)
                v = reset(h, spike, v_threshold, v_reset, soft=soft, detach=detach)
                potentials.append(h)
                spikes.append(spike)
        return torch.stack(potentials), torch.stack(spikes)
