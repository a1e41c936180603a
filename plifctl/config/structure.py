"""Parser of the network notation of Table S1.

    structure := item ("-" item)*
    item      := "{" structure "}*" count | layer
    layer     := c<channels>k<kernel>s<stride>   convolution, padded by kernel // 2, without bias
               | c<channels>k<kernel>s<stride>b  the same with a bias, as after folding a batch norm into it
               | BN | SN | DP                    batch norm, spiking neurons, dropout
               | MPk<kernel>s<stride>            max pooling
               | APk<kernel>s<stride>            average pooling; the last layer, after SN: the vote
               | FC<features>                    fully connected, without bias
               | FC<features>b                   the same with a bias

SN replaces the PLIF of the table: the experiment defines the neuron.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from plifctl.config.choices import Pooling

MAX_LAYERS = 1000
MAX_NUMBERS = 2**31
"""Largest number of weights of a layer, and of its outputs for a sample at one step: 8 GiB of float32 each."""


@dataclass(frozen=True, slots=True)
class Conv:
    """2-D convolution; the networks of Table S1 have no bias."""

    channels: int
    kernel: int
    stride: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """2-D pooling without padding."""

    mode: Pooling
    kernel: int
    stride: int


@dataclass(frozen=True, slots=True)
class Linear:
    """Fully connected layer, flattens an image before it; the networks of Table S1 have no bias."""

    features: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Vote:
    """Averages each class's neurons."""

    voters: int


@dataclass(frozen=True, slots=True)
class Plain:
    """A layer without numbers."""

    kind: Literal["batch-norm", "spiking", "dropout"]


Layer = Conv | Pool | Linear | Vote | Plain

_PLAIN = {"BN": Plain("batch-norm"), "SN": Plain("spiking"), "DP": Plain("dropout")}
_NAMES: dict[object, str] = {
    Conv: "conv",
    Pool: "pool",
    Linear: "fc",
    Vote: "vote",
    "batch-norm": "bn",
    "spiking": "sn",
    "dropout": "dropout",
}
_LAYER = re.compile(r"c(\d{1,5})k(\d{1,3})s(\d{1,3})(b?)|(MP|AP)k(\d{1,3})s(\d{1,3})|FC(\d{1,6})(b?)|(BN|SN|DP)")
_REPEAT = re.compile(r"\}\*(\d{1,3})")


def parse_structure(text: str) -> tuple[Layer, ...]:
    """Returns the layers that ``text`` describes, with repetitions expanded.

    Raises:
        ValueError: The text does not follow the notation; the message names the position.

    Source: Table S1.

    Example:
        >>> parse_structure("{c8k3s1-SN}*2-FC20-SN-APk10s10")[-1]
        Vote(voters=10)
    """
    layers, end = _sequence(text, 0, depth=0)
    if end != len(text):
        raise _unexpected(text, end)
    if not isinstance(layers[-1], Pool) or layers[-1].mode != "average" or layers[-2:-1] != [_PLAIN["SN"]]:
        raise ValueError("a network ends in spiking neurons and a vote, e.g. …-FC100-SN-APk10s10")
    if layers[-1].kernel != layers[-1].stride:
        raise ValueError("the vote (last layer) needs kernel = stride, e.g. APk10s10")
    layers[-1] = Vote(layers[-1].kernel)
    _check_order(layers)
    return tuple(layers)


def _sequence(text: str, at: int, depth: int) -> tuple[list[Layer], int]:
    layers: list[Layer] = []
    while True:
        if text.startswith("{", at):
            if depth >= 8:
                raise ValueError("more than 8 nested braces")
            inner, at = _sequence(text, at + 1, depth + 1)
            repeat = _REPEAT.match(text, at)
            if repeat is None:
                raise _unexpected(text, at, "}*<count>")
            if int(repeat[1]) == 0:
                raise _unexpected(text, at, "}*<count> with a count of at least 1")
            layers += inner * int(repeat[1])
            at = repeat.end()
        else:
            match = _LAYER.match(text, at)
            if match is None:
                raise _unexpected(text, at, "a layer (c128k3s1, BN, SN, DP, MPk2s2, APk2s2 or FC100)")
            layers.append(_layer(match))
            at = match.end()
        if len(layers) > MAX_LAYERS:
            raise ValueError(f"more than {MAX_LAYERS} layers")
        if not text.startswith("-", at):
            return layers, at
        at += 1


def _layer(match: re.Match[str]) -> Layer:
    channels, conv_kernel, conv_stride, conv_bias, pool, kernel, stride, features, fc_bias, plain = match.groups()
    if plain:
        return _PLAIN[plain]
    numbers = [int(n) for n in match.groups() if n is not None and n.isdigit()]
    if 0 in numbers:
        raise ValueError(f"{match[0]}: every number must be at least 1")
    if channels:
        return Conv(int(channels), int(conv_kernel), int(conv_stride), bias=bool(conv_bias))
    if pool:
        return Pool("max" if pool == "MP" else "average", int(kernel), int(stride))
    return Linear(int(features), bias=bool(fc_bias))


def structure_of(layers: Sequence[Layer]) -> str:
    """Returns the text that :func:`parse_structure` reads as ``layers``, without braces.

    Example:
        >>> structure_of(parse_structure("{c8k3s1-SN}*2-FC20-SN-APk10s10"))
        'c8k3s1-SN-c8k3s1-SN-FC20-SN-APk10s10'
    """
    return "-".join(map(notation, layers))


def notation(layer: Layer) -> str:
    """Returns one layer in the notation of Table S1."""
    match layer:
        case Conv(channels, kernel, stride, bias):
            return f"c{channels}k{kernel}s{stride}{'b' * bias}"
        case Pool(mode, kernel, stride):
            return f"{'MP' if mode == 'max' else 'AP'}k{kernel}s{stride}"
        case Linear(features, bias):
            return f"FC{features}{'b' * bias}"
        case Vote(voters):
            return f"APk{voters}s{voters}"
        case Plain():
            return next(text for text, plain in _PLAIN.items() if plain == layer)


def with_pooling(text: str, mode: Pooling) -> str:
    """Returns a structure with all its pooling layers of one kind; the vote at its end stays as it is.

    Example:
        >>> with_pooling("{c8k3s1-SN-MPk2s2}*2-FC20-SN-APk10s10", "average")
        '{c8k3s1-SN-APk2s2}*2-FC20-SN-APk10s10'
    """
    layers, last, vote = text.rpartition("-")
    return re.sub(r"[MA]P(?=k\d)", "MP" if mode == "max" else "AP", layers) + last + vote


def has_spike_max_pooling(text: str) -> bool:
    """Returns whether max pooling directly follows spiking neurons somewhere in a structure."""
    layers = parse_structure(text)
    return any(
        one == _PLAIN["SN"] and isinstance(after, Pool) and after.mode == "max" for one, after in pairwise(layers)
    )


def layer_names(layers: Sequence[Layer]) -> list[str]:
    """Returns the name of each layer in state dicts, metrics and tables: its kind and its number among that kind.

    Example:
        >>> layer_names(parse_structure("{c8k3s1-BN-SN}*2-FC20-SN-APk10s10"))
        ['conv0', 'bn0', 'sn0', 'conv1', 'bn1', 'sn1', 'fc0', 'sn2', 'vote']
    """
    count: Counter[str] = Counter()
    names: list[str] = []
    for layer in layers:
        kind = _NAMES[layer.kind if isinstance(layer, Plain) else type(layer)]
        names.append(kind if isinstance(layer, Vote) else f"{kind}{count[kind]}")  # there is one vote
        count[kind] += 1
    return names


def _check_order(layers: list[Layer]) -> None:
    flat = False
    for layer in layers:
        flat = flat or isinstance(layer, Linear)
        if flat and (isinstance(layer, Conv | Pool) or layer == _PLAIN["BN"]):
            raise ValueError(f"{notation(layer)} follows a fully connected layer, whose output is no image")
    if not flat:
        raise ValueError("a network needs at least one FC layer")


def _unexpected(text: str, at: int, wanted: str = "the end or “-”") -> ValueError:
    found = repr(text[at : at + 12]) if at < len(text) else "the end"
    return ValueError(f"position {at + 1}: {found} where {wanted} is expected")


def shapes_after(layers: Sequence[Layer], shape: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
    """Returns the shape of one sample at one step after each layer.

    Args:
        layers: Layers from :func:`parse_structure`.
        shape: ``(C, H, W)`` of the input.
        classes: Number of classes; the vote must have as many outputs.

    Raises:
        ValueError: A layer has no output left, or the vote has another number of outputs.

    Example:
        >>> shapes_after(parse_structure("c8k3s1-SN-MPk2s2-FC20-SN-APk10s10"), (1, 28, 28), 2)[2:4]
        [(8, 14, 14), (20,)]
    """
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        before = shape
        match layer:
            case Conv(channels, size, stride, _):
                shape = (channels, *((s + 2 * (size // 2) - size) // stride + 1 for s in shape[1:]))
            case Pool(_, size, stride):
                shape = (shape[0], *((s - size) // stride + 1 for s in shape[1:]))
            case Linear(features, _):
                shape = (features,)
            case Vote(voters):
                if shape[0] != classes * voters:
                    raise ValueError(
                        f"{shape[0]} neurons vote by {voters}; {classes} classes need FC{classes * voters} before it"
                    )
                shape = (classes,)
            case _:
                pass
        if min(shape) < 1:
            raise ValueError(f"{notation(layer)} has no output for an input of shape {list(before)}")
        for what, count in (("weights", _weights(layer, before)), ("outputs for a sample", math.prod(shape))):
            if count > MAX_NUMBERS:
                raise ValueError(f"{notation(layer)} has {count:,} {what}, expected at most {MAX_NUMBERS:,} (8 GiB)")
        shapes.append(shape)
    return shapes


def _weights(layer: Layer, before: tuple[int, ...]) -> int:
    """Returns the number of weights of a layer whose input has the shape ``before``."""
    match layer:
        case Conv(channels, size, _, _):
            return channels * before[0] * size**2
        case Linear(features, _):
            return features * math.prod(before)
        case _:
            return 0
