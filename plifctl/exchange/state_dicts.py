"""State dicts of other programs: read without executing code, and matched with a network by the order of layers.

A state dict has tensors and their names, nothing else. Layers are the groups of tensors whose names differ in the last
part only, ``conv_fc.0.weight``. The n-th of them is the n-th layer of the network that has tensors, and their shapes
must be equal: a file of another network cannot be matched. Files of torch and numpy keep the order of layers;
safetensors sorts names, so there the order must be that of numbers in the names.

| tensor of a file | tensor of the network |
|---|---|
| ``w`` of a scalar (ParametricLIFNode of SpikingJelly and of the authors: 1/τ = sigmoid(w)) | ``a`` |
| ``bias`` of a convolution or a fully connected layer | ``bias``; the structure gets a ``b`` there, unless all are 0 |
| ``surrogate_function.…`` of older SpikingJelly: the width of its derivative | none; training alone depends on it |
| any other | of the same name |
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from plifctl import files
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.structure import Conv, Linear, layer_names, parse_structure, structure_of
from plifctl.errors import CheckpointError, list_names
from plifctl.exchange.lookup import CONFIG, WEIGHTS, refuse_written_only
from plifctl.runs.checkpoints import describe_damage, load_tensors
from plifctl.runs.foreign import describe_foreign, is_safetensors
from plifctl.runs.npz import load_arrays
from plifctl.snn.networks import LAYERS, SpikingNetwork
from plifctl.training.trainer import build_model, load_weights

_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

_SURROGATE = ".surrogate_function"
"""How the names of layers of old versions of SpikingJelly end whose tensors shape the derivative alone."""

_ORDER = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""The tensors of a layer as torch orders them."""

_MAX_ROWS = 30
"""Rows of a table of tensors, before and after the first difference."""


_DESCRIPTION = ("spec", "cache", "test_samples")
"""What is read of the description of a file that plifctl wrote."""


@dataclass(frozen=True)
class StateDict:
    """Weights of a file.

    Attributes:
        path: The file.
        sha256: Its digest, hexadecimal.
        weights: The tensors by name.
        ordered: The file keeps the order of layers.
        entry: Name of the entry of the file that has them; empty: the file itself.
        spec: The experiment that plifctl described in the file; None: another program wrote it.
        cache: Content digest of the cache that plifctl trained the weights on; None: unknown.
        test_samples: Ids of the test samples that the file lists; None: it lists none.
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    ordered: bool
    entry: str = ""
    spec: ExperimentSpec | None = None
    cache: str | None = None
    test_samples: tuple[str, ...] | None = None


def read_state_dict(path: Path) -> StateDict:
    """Returns the state dict of a file: of torch, numpy or safetensors, or of a folder with ``model.safetensors``.

    Raises:
        CheckpointError: There is no such file, it is damaged, contains no state dict or several, or cannot be read
            without executing code from it.
    """
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    refuse_written_only(path, hint="save the state dict in the program that made the network")
    with files.machine_errors(path):
        content = files.read_regular(path)
    entry, ordered = "", True
    own: Mapping[str, Any]
    try:
        if is_safetensors(content):
            from safetensors.torch import load

            weights, ordered, own = load(content), False, _description_beside(path)
        elif _is_npz(content):
            arrays = load_arrays(content)
            own = {name: array.tolist() for name, array in arrays.items() if name in _DESCRIPTION}
            weights = {n: torch.from_numpy(arrays[n]) for n in arrays if n.startswith(LAYERS) or "spec" not in own}
        else:
            state = load_tensors(content)
            own = state if isinstance(state, Mapping) else {}
            entry, weights = _find_state_dict(path, state)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many types on a damaged file
        foreign = describe_foreign(content)
        if foreign is not None and foreign.code is not None:
            raise foreign.error(path) from error
        raise CheckpointError(f"{path}: damaged, or no state dict: {describe_damage(error)}") from error
    digest, weights = hashlib.sha256(content).hexdigest(), _without_wrappers(weights)
    spec = _spec_of(own.get("spec"))
    if spec is None:
        return StateDict(path, digest, weights, ordered, entry)
    ids = own.get("test_samples")
    listed = tuple(map(str, ids)) if isinstance(ids, list) and ids else None
    return StateDict(path, digest, weights, ordered, entry, spec, str(own.get("cache") or "") or None, listed)


def _description_beside(path: Path) -> dict[str, Any]:
    """Returns the description in config.json beside the weights of a folder; empty if there is none."""
    config = path.with_name(CONFIG)
    if path.name != WEIGHTS or not config.is_file():
        return {}
    with suppress(ValueError):  # of another program
        tree = files.parse_json(files.read_regular(config))
        return {**tree, "spec": json.dumps(tree["spec"])} if isinstance(tree, dict) and "spec" in tree else {}
    return {}


def _spec_of(description: Any) -> ExperimentSpec | None:
    """Returns the experiment in the description of a file of plifctl; None if it has none that this version reads."""
    if description is None:
        return None
    try:
        return ExperimentSpec.model_validate_json(str(description))
    except ValidationError:
        return None


def _is_npz(content: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def _find_state_dict(path: Path, state: Any) -> tuple[str, dict[str, Tensor]]:
    """Returns the state dict in what torch loaded, and the name of its entry where it is not the whole file."""
    if whole := _tensors(state):
        return "", whole
    entries = state if isinstance(state, Mapping) else {}
    found = {str(key): tensors for key, value in entries.items() if (tensors := _tensors(value))}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        line = (
            f"import torch; torch.save(torch.load({json.dumps(str(path))})[{json.dumps(next(iter(found)))}], "
            + '"state.pt")'
        )
        raise CheckpointError(
            f"{path}: contains several state dicts: {list_names(list(found))}",
            hint=f"save one of them alone, e.g.\npython -c {shlex.quote(line)}",
        )
    content = list_names([str(key) for key in entries]) or f"a {type(state).__name__}"
    raise CheckpointError(
        f"{path}: contains no state dict: found {content}", hint="save one: torch.save(net.state_dict(), 'state.pt')"
    )


def _tensors(value: Any) -> dict[str, Tensor]:
    """Returns the tensors of a state dict; nothing of other values. Names of weights have a dot: layer.weight."""
    if not isinstance(value, Mapping):
        return {}
    tensors = {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    return tensors if any("." in name for name in tensors) else {}


def _without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS * 2:  # in either order
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


@dataclass(frozen=True)
class Matched:
    """A network with the weights of a file.

    Attributes:
        spec: The experiment; its structure has the biases that the file has.
        network: The network, on the CPU and in evaluation mode.
        notes: What was changed or left out, a sentence each.
    """

    spec: ExperimentSpec
    network: SpikingNetwork
    notes: tuple[str, ...]


class _Row(NamedTuple):
    """A tensor of a file or of a network.

    Attributes:
        name: Its name.
        parameter: Its name within the layer, in the words of the network.
        shape: Its shape.
    """

    name: str
    parameter: str
    shape: tuple[int, ...]


def match_weights(state: StateDict, spec: ExperimentSpec) -> Matched:
    """Returns the experiment's network with the weights of a file.

    Raises:
        CheckpointError: They are those of another network, or are not finite real numbers.
    """
    layers = _layers_in_order(state, spec)
    spec, notes = _take_biases(layers, spec)
    if any(name.rpartition(".")[0].endswith(_SURROGATE) for name in state.weights):
        notes.append("the surrogates of the file were left out; training depends on those of the experiment")
    network = build_model(spec, torch.device("cpu"))
    expected = network.state_dict()
    ours = [_Row(name, name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in expected.items()]
    theirs = [(_row_of(layer, name, tensor), tensor) for layer in layers for name, tensor in layers[layer].items()]
    for index, (row, own) in enumerate(zip_longest((row for row, _ in theirs), ours)):
        if row is None or own is None or row[1:] != own[1:]:
            raise _difference(state, spec, [row for row, _ in theirs], ours, index)
    weights = {own.name: tensor.reshape(own.shape) for own, (_, tensor) in zip(ours, theirs, strict=True)}
    kinds = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} - {torch.float32}
    if kinds:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        notes.append(f"weights of type {names} became float32")
    try:
        load_weights(network, {"model": weights})
    except CheckpointError as error:
        raise CheckpointError(f"{state.path}: {error}") from error
    if state.entry:
        notes.insert(0, f"the weights are the entry {state.entry} of the file")
    return Matched(spec, network.eval(), tuple(notes))


def _layers_in_order(state: StateDict, spec: ExperimentSpec) -> dict[str, dict[str, Tensor]]:
    """Returns the tensors of each layer of a file, in the order of layers, by the name of the layer."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.weights.items():
        layer, _, last = name.rpartition(".")
        if not layer.endswith(_SURROGATE):
            layers.setdefault(layer, {})[last] = tensor
    own = [f"{LAYERS}{name}" for name in layer_names(parse_structure(spec.network.structure))]
    if set(layers) <= set(own):
        names = [name for name in own if name in layers]
    elif state.ordered:
        names = list(layers)
    else:
        kinds = sorted({re.sub(r"\d+", "0", name) for name in layers})
        if len(kinds) > 1:
            raise CheckpointError(
                f"{state.path}: the order of its layers is unknown: safetensors sorts names, and they do not count "
                f"through all layers: {list_names(kinds, 4)}",
                hint="save the state dict by torch, which keeps the order: torch.save(net.state_dict(), 'state.pt')",
            )
        names = sorted(layers, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])
    return {name: dict(sorted(layers[name].items(), key=_place)) for name in names}


def _place(item: tuple[str, Tensor]) -> int:
    return _ORDER.index(item[0]) if item[0] in _ORDER else len(_ORDER)


def _take_biases(layers: dict[str, dict[str, Tensor]], spec: ExperimentSpec) -> tuple[ExperimentSpec, list[str]]:
    """Returns the experiment with the biases that a file has and its structure has not, and notes on them.

    Biases that are all 0 are removed from ``layers``, where the structure has none.
    """
    structure = list(parse_structure(spec.network.structure))
    names = layer_names(structure)
    ours = [index for index, layer in enumerate(structure) if isinstance(layer, Conv | Linear)]
    theirs = [tensors for tensors in layers.values() if "weight" in tensors and tensors["weight"].dim() > 1]
    added, left_out = [], []
    for index, tensors in zip(ours, theirs, strict=False):  # other numbers of layers are an error later
        layer = structure[index]
        assert isinstance(layer, Conv | Linear)
        if "bias" not in tensors or layer.bias or tensors["bias"].shape != tensors["weight"].shape[:1]:
            continue
        if tensors["bias"].count_nonzero():
            structure[index] = replace(layer, bias=True)
            added.append(names[index])
        else:
            del tensors["bias"]
            left_out.append(names[index])
    notes = [f"the biases of {', '.join(left_out)} are all 0 and were left out"] if left_out else []
    if added:
        text = structure_of(structure)
        spec = spec.model_copy(update={"network": spec.network.model_copy(update={"structure": text})})
        has = "has a bias" if len(added) == 1 else "have biases"
        notes.append(f"{', '.join(added)} {has}, so the structure is now {text}")
    return spec, notes


def _row_of(layer: str, name: str, tensor: Tensor) -> _Row:
    shape = tuple(tensor.shape)
    if name == "w" and tensor.numel() == 1:
        return _Row(f"{layer}.w", "a", ())
    return _Row(f"{layer}.{name}", name, shape)


def _difference(
    state: StateDict, spec: ExperimentSpec, theirs: list[_Row], ours: list[_Row], index: int
) -> CheckpointError:
    """Returns the error of a file of another network: a table of both, with the first difference marked."""
    rows = [("file", "", spec.name, "")]
    first = max(0, index - _MAX_ROWS)
    pairs = list(zip_longest(theirs, ours))
    for row, own in pairs[first : index + _MAX_ROWS]:
        cells = [(part.name, str(list(part.shape))) if part is not None else ("–", "") for part in (row, own)]
        rows.append((*cells[0], *cells[1]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        ("  → " if number == index - first + 1 else "    ")
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for number, row in enumerate(rows)
    ]
    left_out = len(pairs) - (len(rows) - 1)
    lines += [f"    and {left_out} more rows"] if left_out > 0 else []
    message = f"{state.path}: these weights are not those of {spec.name}; first difference at →:"
    return CheckpointError("\n".join([message, *lines]), hint=_hint(spec, *pairs[index]))


def _hint(spec: ExperimentSpec, row: _Row | None, own: _Row | None) -> str:
    """Returns what to do about the first difference."""
    if row is not None and row.parameter == "a" and spec.neuron.kind == "lif":
        return "the file has learnt time constants: --set neuron.kind=plif --set neuron.tau_0=2.0 --set neuron.tau=null"
    if own is not None and own.parameter == "a" and own.shape == ():
        return (
            "the file has no time constant there; LIF neurons have none in a state dict, state theirs:\n"
            "--set neuron.kind=lif --set neuron.tau=2.0 --set neuron.tau_0=null"
        )
    return f"plifctl show {spec.name} --params shows its layers; --set network.structure=… states others"
