"""Fine-tuning: weights of another network that a training begins with, and parameters that it does not change.

Both are part of what identifies an experiment: ``train.weights`` is the SHA-256 of the tensors that were taken,
wherever their file lies, and ``train.freeze`` has the patterns that select the frozen parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor

from plifctl.errors import UsageError, list_names
from plifctl.snn.bn_folding import fold_targets
from plifctl.snn.layers import Conv
from plifctl.snn.networks import LAYERS, SpikingNetwork, split_name


class MatchedWeights(NamedTuple):
    """Tensors of another network that fit, by the name of the tensor in both.

    Attributes:
        taken: Those that fit.
        anew: Names of the network's other tensors.
        unused: Names of the other network's tensors that the network does not have.
    """

    taken: dict[str, Tensor]
    anew: tuple[str, ...]
    unused: tuple[str, ...]


def match_weights(other: SpikingNetwork, model: SpikingNetwork, source: str) -> MatchedWeights:
    """Returns the tensors that have the same name and shape in ``model``.

    Args:
        other: The network whose weights they are.
        model: The network to train.
        source: Name of the other network, for the error.

    Raises:
        UsageError: None fits, except for single numbers, which fit everywhere; or a convolution seems to contain the
            batch norm that ``model`` has after it.
    """
    found, wanted = other.state_dict(), model.state_dict()
    taken = {
        name: found[name] for name, weight in wanted.items() if name in found and found[name].shape == weight.shape
    }
    if not any(weight.numel() > 1 for weight in taken.values()):
        raise UsageError(
            f"{source}: no weights fit the network: found {_first_shapes(found)}; expected {_first_shapes(wanted)}",
            hint="begin with weights of a network of the same structure; plifctl show NAME --params lists its layers",
        )
    if folded := [name for name in _folded_layers(other, model) if f"{LAYERS}{name}.weight" in taken]:
        raise UsageError(
            f"{source}: {list_names(folded, 3)} with a bias and without batch norm, as after folding; the network has "
            "batch norm there, which would begin anew after weights that contain it",
            hint="begin with the run, or with a file that was exported without --fold-bn; if the network never had "
            "batch norm, leave it out here as well: --set network.structure=…",
        )
    anew = tuple(name for name in wanted if name not in taken)
    return MatchedWeights(taken, anew, unused=tuple(name for name in found if name not in wanted))


def _folded_layers(other: SpikingNetwork, model: SpikingNetwork) -> list[str]:
    """Returns the convolutions with a bias and without batch norm in ``other``, and with batch norm in ``model``."""
    theirs, ours = (set(fold_targets(network.network).values()) for network in (other, model))
    convolutions = (name for name, layer in other.layers.items() if isinstance(layer, Conv) and layer.bias is not None)
    return [name for name in convolutions if name in ours - theirs]


def _first_shapes(weights: Mapping[str, Tensor]) -> str:
    return list_names([f"{name} {list(weight.shape)}" for name, weight in weights.items() if weight.dim()], 3)


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names, types, shapes and bytes of tensors, in the order of their names, hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous().numpy()
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{values.dtype.str}\0{list(values.shape)}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def select_frozen(model: SpikingNetwork, patterns: Sequence[str]) -> list[str]:
    """Returns the names of the parameters that ``patterns`` select.

    Args:
        model: The network.
        patterns: As in a shell (``*``, ``?``, ``[…]``), compared with the name of the layer (``conv0``) and that of the
            parameter (``conv0.weight``); both may begin with ``layers.`` as in the state dict.

    Raises:
        UsageError: A pattern selects nothing, or all parameters would be frozen.
    """
    names = [name for name, _ in model.named_parameters()]
    selected: set[str] = set()
    for pattern in patterns:
        found = [name for name in names if _matches(name, pattern)]
        if not found:
            raise UsageError(
                f"train.freeze: {pattern!r} selects no parameter", hint=f"layers: {describe_layers(names, names)}"
            )
        selected.update(found)
    if selected and len(selected) == len(names):
        raise UsageError(
            f"train.freeze: {', '.join(patterns)} selects all parameters, so there is nothing to train",
            hint="leave out the last layers, e.g. --freeze 'conv*'",
        )
    return [name for name in names if name in selected]


def _matches(parameter: str, pattern: str) -> bool:
    layer, name = split_name(parameter)
    return any(fnmatchcase(spelling, pattern.removeprefix(LAYERS)) for spelling in (layer, f"{layer}.{name}"))


def describe_layers(names: Iterable[str], known: Iterable[str], most: int = 40) -> str:
    """Returns tensors by layer: its name where ``names`` has all of its tensors, else which it has.

    Args:
        names: Names of tensors, in order.
        known: Names of all tensors.
        most: Number of layers that are listed; the others are counted.

    Example:
        >>> known = ["layers.conv0.weight", "layers.bn0.weight", "layers.bn0.bias"]
        >>> describe_layers(known[:2], known)
        'conv0, bn0 (weight)'
    """
    of_layer, all_of_layer = _by_layer(names), _by_layer(known)
    texts = [
        layer if parts == all_of_layer[layer] else f"{layer} ({', '.join(parts)})" for layer, parts in of_layer.items()
    ]
    return list_names(texts, most)


def _by_layer(names: Iterable[str]) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, part = split_name(name)
        layers.setdefault(layer, []).append(part)
    return layers
