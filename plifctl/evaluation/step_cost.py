"""Memory, operations and time of a training, from the experiment alone, without its cache. No torch.

The memory is what dominates: the outputs of convolutions and fully connected layers (kept for the backward pass with
``train.memory: full``), their inputs, and the gradient of the largest output. docs/benchmarks.md has it beside measured
peaks. The operations are dense multiply-accumulates of products; event-driven layers do fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from plifctl.config.choices import Memory, Protocol
from plifctl.config.experiment import ExperimentSpec
from plifctl.evaluation.summary import LayerSummary, summarize_experiment
from plifctl.units import format_bytes, format_duration

_FLOAT = 4  # bytes of a float32
_PER_PARAMETER = 4 * _FLOAT  # weight, gradient, and Adam's two moments


@dataclass(frozen=True)
class StepCost:
    """What a training step of one batch needs.

    Attributes:
        nbytes: Memory, bytes, without the program and the samples.
        macs: Multiply-accumulates of dense products, forward and backward.
        forward_macs: Those of the forward pass alone.
    """

    nbytes: int
    macs: int
    forward_macs: int


def step_cost(spec: ExperimentSpec, batch_size: int | None = None) -> StepCost:
    """Returns what a training step on a CPU needs.

    Args:
        spec: The experiment.
        batch_size: Number of samples of a batch; None: the experiment's.

    Example:
        >>> from plifctl.config.lookup import load_experiment
        >>> cost = step_cost(load_experiment("gesture-plif").spec, batch_size=2)
        >>> round(cost.nbytes / 2**20)
        884
    """
    samples = batch_size or spec.train.batch_size
    return cost_of_layers(summarize_experiment(spec), spec.framing.shape, samples, spec.train.memory)


def cost_of_layers(
    layers: Sequence[LayerSummary], shape: tuple[int, int, int], samples: int, memory: Memory = "full"
) -> StepCost:
    """Returns what a training step on a CPU needs.

    Args:
        layers: The layers of the network, as :func:`~plifctl.evaluation.summary.summarize_network` returns them.
        shape: ``(C, H, W)`` of a sample at one step.
        samples: Number of samples of a batch.
        memory: ``train.memory`` of the experiment.
    """
    inputs, outputs, macs = [], [], []
    before: tuple[int, ...] = shape
    for layer in layers:
        if layer.kind == "MACs":
            inputs.append(prod(before) * layer.runs)
            outputs.append(prod(layer.shape) * layer.runs)
            macs.append(layer.operations * layer.runs)
        before = layer.shape
    kept = sum(inputs) + max(outputs) + (sum(outputs) if memory == "full" else 0)
    parameters = sum(layer.parameters for layer in layers)
    forward = sum(macs)
    # forward, gradient of the weights, and gradient of the input, which the first layer does not need
    macs_of_step = samples * (3 * forward - macs[0])
    return StepCost(_FLOAT * samples * kept + _PER_PARAMETER * parameters, macs_of_step, samples * forward)


def registry_samples(spec: ExperimentSpec, protocol: Protocol) -> tuple[int, int] | None:
    """Returns the numbers of training and test samples that a training without a cache can be expected to have.

    Returns None if the registry does not state them, as of a user's own recordings.
    """
    if (known := spec.dataset.samples) is None:
        return None
    train, test = (round(spec.train.subset * samples) for samples in (known.train, known.test))
    return round(spec.validation.train_fraction * train) if protocol == "B" else train, test


def estimate_seconds(spec: ExperimentSpec, samples: int, speed: float) -> float:
    """Returns about how long a training takes whose products are dense.

    Args:
        spec: What is trained.
        samples: Number of training samples.
        speed: Floating-point operations per second.
    """
    steps = spec.train.epochs * spec.train.steps_per_epoch(samples)
    return steps * 2 * step_cost(spec).macs / speed


def training_operations(
    spec: ExperimentSpec, protocol: Protocol, epochs: int, *, train: int, validation: int, test: int
) -> int:
    """Returns the floating-point operations of the epochs of a training, two for a multiply-accumulate.

    The evaluations of the epochs are counted, the test of protocol B after the last one is not.

    Args:
        spec: The experiment.
        protocol: Its protocol.
        epochs: Number of epochs.
        train: Number of training samples; those that ``train.drop_last`` leaves out are not counted.
        validation: Number of validation samples.
        test: Number of test samples.
    """
    cost, evaluated = step_cost(spec, batch_size=1), 0
    if protocol == "B":
        as_training = spec.validation.loader == "as-training"
        evaluated = spec.train.samples_per_epoch(validation) if as_training else validation
    if protocol == "A" or (protocol == "B" and spec.validation.test == "every-epoch"):
        evaluated += test
    evaluated *= epochs
    if protocol == "C":
        evaluated = test + (epochs - 1) * spec.train.observed_samples(train)
    return 2 * (epochs * spec.train.samples_per_epoch(train) * cost.macs + evaluated * cost.forward_macs)


def describe_step(cost: StepCost, batch_size: int, seconds: float | None) -> str:
    """Returns the cost of a step as one line for the user."""
    samples = f"{batch_size} sample{'s' if batch_size > 1 else ''}"
    time = f" and {format_duration(seconds)}" if seconds is not None else ""
    return f"a step of {samples} needs about {format_bytes(cost.nbytes)} of memory{time} (estimated)"
