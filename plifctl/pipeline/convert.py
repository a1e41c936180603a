"""Makes a network of plifctl of weights that another program saved; implements ``plifctl convert``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plifctl import files
from plifctl.config.base import flatten
from plifctl.config.choices import HALF_PRECISIONS, NetworkFormat, Recipe
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.lookup import load_experiment
from plifctl.config.overrides import Overrides
from plifctl.errors import UsageError
from plifctl.exchange.formats import FOLDED, check_destination, choose_format
from plifctl.exchange.model import CONVERTED, TrainedModel, list_test_samples, run_of_checkpoint
from plifctl.exchange.state_dicts import match_weights, read_state_dict
from plifctl.pipeline.export import Exported, write_model
from plifctl.runs.checkpoints import describe_damage, load_tensors
from plifctl.runs.npz import load_arrays
from plifctl.snn.functional import predict
from plifctl.snn.networks import SpikingNetwork

_log = logging.getLogger(__name__)

_LONGEST_DIFFERENCE = 200
"""Characters of a difference of values that is shown; of a longer one, the name alone."""


@dataclass(frozen=True)
class Comparison:
    """Votes of a converted network beside those of the program that it comes from.

    Attributes:
        votes: Number of votes compared: of each class, at each step or averaged over the steps, of each sample.
        different: Number of those that differ.
        samples: Number of samples.
        predictions: Number of samples whose predicted class differs.
        first: The first difference in words; empty if there is none.
    """

    votes: int
    different: int
    samples: int
    predictions: int
    first: str = ""

    def __str__(self) -> str:
        text = f"{self.different} of {self.votes} votes differ, {self.predictions} of {self.samples} predictions"
        return f"{text}; first: {self.first}" if self.first else text


@dataclass(frozen=True)
class Converted:
    """A network made of a state dict.

    Attributes:
        source: The file that was read.
        trained: The network.
        exported: The file or folder that was written; None if the votes differ, then none was written.
        comparison: Its votes beside those of the other program; None if none were given.
        notes: What was changed, left out or taken from the experiment, a sentence each.
    """

    source: Path
    trained: TrainedModel
    exported: Exported | None
    comparison: Comparison | None
    notes: tuple[str, ...]


def convert(
    source: Path,
    file: Path,
    experiment: str | Path | Experiment,
    *,
    recipe: Recipe | None = None,
    overrides: Overrides = (),
    to: NetworkFormat | None = None,
    outputs: Path | None = None,
) -> Converted:
    """Writes a network with the weights of a state dict.

    Args:
        source: State dict of torch, numpy or safetensors.
        file: The file or folder to write; must not exist.
        experiment: The experiment whose network it is: a name, a YAML file, or an experiment.
        recipe: Recipe of the experiment.
        overrides: Values that differ from the experiment's.
        to: The format; None: that of the ending, a folder if there is none.
        outputs: Inputs ``x`` and outputs ``y`` of the other program, ``.npz`` or ``.pt``; if the votes differ, nothing
            is written.

    Raises:
        UsageError: There is no such experiment, the file exists, or the format cannot describe the network.
        CheckpointError: The state dict cannot be read, or is of another network.
    """
    kind = choose_format(file, to)
    check_destination(file)
    spec = load_experiment(experiment, overrides, recipe=recipe).spec
    state = read_state_dict(source)
    matched = match_weights(state, spec)
    spec, network = matched.spec, matched.network
    origin = f"{CONVERTED}{source.name}, sha256 {state.sha256}"
    trained = TrainedModel(source, spec, network, None, spec.digest, {}, origin)
    if state.spec is not None and (state.spec.dataset.public, state.spec.split) == (spec.dataset.public, spec.split):
        run = run_of_checkpoint(source)
        listed = state.test_samples if run is None else list_test_samples(run, state.spec)
        trained = replace(trained, cache=state.cache, test_samples=listed)
    notes = (*matched.notes, _describe_assumed(spec, network, described=state.spec is not None))
    if state.spec is not None:
        _warn_of_differences(state.spec, spec)
    precision = spec.train.precision
    if precision in HALF_PRECISIONS:
        notes += (f"eval and predict compute in {precision}, as train.precision says; --compare in float32",)
    comparison = compare_votes(network, spec, outputs) if outputs is not None else None
    if comparison is not None and comparison.different:
        return Converted(source, trained, None, comparison, notes)
    exported = write_model(file, trained.fold() if kind in FOLDED else trained, kind)
    return Converted(source, trained, exported, comparison, notes)


def _describe_assumed(spec: ExperimentSpec, network: SpikingNetwork, *, described: bool) -> str:
    """Returns what decides the votes of a network and is not in a state dict, with the experiment's values.

    Args:
        spec: The experiment.
        network: The network.
        described: Whether plifctl wrote the file, with a description that has such values, too.
    """
    values = [f"{name} = {value}" for name, value in _neuron_values(spec).items()]
    values += ["decay_input = True", f"T = {spec.T}"]
    values += ["kinds and sizes of pooling, strides", f"a vote of {network.voters} neurons", "order of the classes"]
    values += ["ε = 1e-5 of batch norm"] if any(name.startswith("bn") for name in network.layers) else []
    if spec.normalisation is not None:
        values.append("mean and standard deviation of the images")
    because = "not from the description that the file has" if described else "as a state dict does not have them"
    return f"from the experiment, {because}: {', '.join(values)}"


def _neuron_values(spec: ExperimentSpec) -> dict[str, Any]:
    """Returns what decides when neurons spike and is not among the weights, by the names of other programs."""
    neuron = spec.neuron
    values: dict[str, Any] = {"τ": neuron.tau} if neuron.kind == "lif" else {}
    if not neuron.learn_threshold:
        values["v_threshold"] = neuron.v_threshold
    values["v_reset"] = "None (soft reset)" if neuron.reset == "soft" else neuron.v_reset
    if neuron.reset == "soft" and neuron.v_reset:
        values["potential at rest"] = neuron.v_reset
    return values


def _warn_of_differences(described: ExperimentSpec, spec: ExperimentSpec) -> None:
    """Logs which values the description of a file states otherwise than the experiment that is taken."""
    theirs, ours = _values_for_use(described), _values_for_use(spec)
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if names:
        _log.warning(
            "the file has a description of plifctl, with other values than the experiment: %s; "
            "plifctl.load and plifctl export take those of the file",
            ", ".join(_describe_difference(name, theirs.get(name), ours.get(name)) for name in names),
        )


def _values_for_use(spec: ExperimentSpec) -> dict[str, Any]:
    """Returns the values of an experiment that decide the votes for a recording or an image."""
    frames = None if spec.frames is None else spec.frames.model_dump(mode="json")
    return {
        "T": spec.T,
        **_neuron_values(spec),
        "network.structure": spec.network.structure,
        "train.precision": spec.train.precision,
        "dataset.classes": spec.dataset.classes,
        "mean and standard deviation": spec.normalisation,
        **flatten({"frames": frames} if frames else {}),
    }


def _describe_difference(name: str, theirs: Any, ours: Any) -> str:
    text = f"{name} {theirs} in the file, {ours} here"
    return text if len(text) <= _LONGEST_DIFFERENCE else name


def compare_votes(network: SpikingNetwork, spec: ExperimentSpec, path: Path) -> Comparison:
    """Compares the votes of a network with those of another program.

    Args:
        network: The network, in evaluation mode.
        spec: Its experiment.
        path: ``.npz`` or ``.pt`` with the inputs ``x``, as the network gets them: frames ``[N, T, C, H, W]``, or images
            ``[N, C, H, W]``; and the outputs ``y``: votes ``[T, N, classes]``, or their mean over T ``[N, classes]``.

    Raises:
        UsageError: The file cannot be read, or its arrays have other shapes.
    """
    x, expected = _read_outputs(path)
    single = (len(x), spec.T, *network.input_shape), (len(x), *network.input_shape)
    if len(x) == 0 or (x.shape != single[1] and (x.shape[:1] + x.shape[2:] != single[1] or x.dim() != 5)):
        raise UsageError(f"{path}: x has the shape {list(x.shape)}, expected {list(single[0])} or {list(single[1])}")
    with torch.no_grad():
        size = spec.train.batch_size
        parts = [network(x[begin : begin + size], spec.T) for begin in range(0, len(x), size)]
    votes = torch.cat(parts, 1)
    found = votes if expected.dim() == 3 else votes.mean(0)
    if found.shape != expected.shape:
        shapes = f"{list(votes.shape)} or {list(votes.shape[1:])}"
        raise UsageError(f"{path}: y has the shape {list(expected.shape)}, expected {shapes}")
    smallest = 1 / network.voters if expected.dim() == 3 else 1 / (network.voters * len(votes))  # of one spike
    different = ~((found - expected).abs() < smallest / 2)  # a NaN differs
    ours, theirs = (predict(part if part.dim() == 3 else part[None]) for part in (found, expected))
    predictions = int((ours != theirs).sum())
    first = ""
    if different.any():
        place = tuple(different.nonzero()[0].tolist())
        names = ("step", "sample", "class")[-len(place) :]
        where = ", ".join(f"{name} {index}" for name, index in zip(names, place, strict=True))
        first = f"{where} (from 0): {found[place]:.4g} here, {expected[place]:.4g} in {path.name}"
    return Comparison(found.numel(), int(different.sum()), len(x), predictions, first)


def _read_outputs(path: Path) -> tuple[Tensor, Tensor]:
    """Returns ``x`` and ``y`` of a file, float32."""
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file", hint="--compare takes the inputs x and outputs y of the other program"
        )
    with files.machine_errors(path):
        content = files.read_regular(path)
    try:
        arrays = load_arrays(content) if path.suffix == ".npz" else load_tensors(content)
        x, y = (torch.as_tensor(arrays[name]).float() for name in ("x", "y"))
    except Exception as error:  # numpy and torch raise many types on a damaged file
        raise UsageError(
            f"{path}: no arrays x and y: {describe_damage(error)}",
            hint="np.savez('outputs.npz', x=inputs, y=votes)",
        ) from error
    return x, y
