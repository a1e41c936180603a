"""Cases, inputs and weights of the golden values, drawn the same way when they are made and when they are tested.

Only numpy is used, and only its ``random`` stream, which does not change; values that can be drawn are not stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product

import numpy as np


def uniform(seed: int, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Returns float64 numbers, uniform in [low, high)."""
    return low + (high - low) * np.random.default_rng(seed).random(shape)


def sampled(values: np.ndarray, count: int) -> np.ndarray:
    """Returns ``count`` entries spread evenly over ``values``, or all if there are fewer."""
    flat = values.ravel()
    return flat if flat.size <= count else flat[np.linspace(0, flat.size - 1, count).astype(int)]


def digest(spikes: np.ndarray) -> np.ndarray:
    """Returns the SHA-256 of spikes packed as bits, uint8 ``[32]``."""
    return np.frombuffer(sha256(np.packbits(spikes != 0).tobytes()).digest(), np.uint8)


@dataclass(frozen=True)
class Neurons:
    """One layer of neurons over T steps; ``v_reset`` None is SpikingJelly's soft reset, around 0."""

    kind: str
    tau: float
    T: int
    shape: tuple[int, ...]
    v_reset: float | None
    detach_reset: bool
    v_threshold: float = 1.0
    surrogate: str = "arctan"
    width: float = 1.0
    seed: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        reset = "soft" if self.v_reset is None else f"hard{self.v_reset:g}"
        detach = "detached" if self.detach_reset else "attached"
        shape = "x".join(map(str, self.shape))
        return f"{self.kind}{self.tau:g}-{self.surrogate}{self.width:g}-{reset}-{detach}-T{self.T}-{shape}"

    def input(self) -> np.ndarray:
        """Returns X, float64 ``[T, ...]``: large enough to fire every few steps."""
        return uniform(self.seed, (self.T, *self.shape), -2 * self.v_threshold, 6 * self.v_threshold)

    def upstream(self) -> np.ndarray:
        """Returns the upstream gradient of the spikes, float64 ``[T, ...]``."""
        return uniform(self.seed + 1, (self.T, *self.shape), -1, 1)


def _neurons() -> list[Neurons]:
    found = []
    resets, detaches = (0.0, -0.5, None), (True, False)
    shapes = ((1, (3, 11)), (17, (3, 4)), (17, (2, 3, 5, 7)))
    for (kind, tau), v_reset, detach, (T, shape) in product((("plif", 2.0), ("lif", 3.0)), resets, detaches, shapes):
        found.append(Neurons(kind, tau, T, shape, v_reset, detach))
    for tau, kind in ((16.0, "plif"), (1.25, "plif"), (16.0, "lif"), (2.0, "lif")):
        found.append(Neurons(kind, tau, 17, (1, 40), 0.0, True, v_threshold=0.25))
    surrogates = (
        *(("arctan", 0.5), ("sigmoid", 0.25), ("sigmoid", 1.0), ("triangular", 1.0), ("triangular", 0.5)),
        *(("rectangular", 1.0), ("rectangular", 0.4)),
    )
    for (surrogate, width), v_reset, detach in product(surrogates, resets, detaches):
        found.append(Neurons("plif", 2.5, 17, (4, 5), v_reset, detach, surrogate=surrogate, width=width))
    return [Neurons(**{**case.__dict__, "seed": 1000 + 2 * number}) for number, case in enumerate(found)]


NEURONS = {case.name: case for case in _neurons()}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network like those of Table S1, in the terms of Table 1.

    Attributes:
        static: Inputs are images, shown T times; else event frames.
        blocks: N_conv convolutions before each of N_down poolings.
        hidden: Neurons of the first fully connected layer.
        dropouts: 2: before both fully connected layers; 1: before the first only.
        large: Of true size: tested with one kernel, in float64 only.
    """

    name: str
    seed: int
    input_shape: tuple[int, int, int]
    static: bool
    T: int
    N: int
    blocks: tuple[int, int]
    channels: int
    hidden: int
    classes: int = 10
    pool: str = "max"
    dropouts: int = 2
    p: float = 0.0
    kind: str = "plif"
    tau: float = 2.0
    v_reset: float | None = 0.0
    detach_reset: bool = True
    surrogate: str = "arctan"
    width: float = 1.0
    loss: str = "mse-rate"
    large: bool = False

    @property
    def structure(self) -> str:
        """Structure in the notation of Table S1."""
        n_conv, n_down = self.blocks
        pool = "MP" if self.pool == "max" else "AP"
        second = "DP-" if self.dropouts == 2 else ""
        return (
            f"{{{{c{self.channels}k3s1-BN-SN}}*{n_conv}-{pool}k2s2}}*{n_down}-DP-FC{self.hidden}-SN-"
            f"{second}FC{10 * self.classes}-SN-APk10s10"
        )

    def input(self) -> np.ndarray:
        """Returns normalised images ``[N, C, H, W]``, or frames ``[N, T, C, H, W]`` of small counts; float64."""
        if self.static:
            return uniform(self.seed, (self.N, *self.input_shape), -1, 2)
        return np.floor(4 * uniform(self.seed, (self.N, self.T, *self.input_shape), 0, 1) ** 3)

    def labels(self) -> np.ndarray:
        """Returns class indices, int64 ``[N]``."""
        return (np.arange(self.N, dtype=np.int64) * 7 + self.seed) % self.classes

    def mask(self, number: int, features: int) -> np.ndarray:
        """Returns the mask of dropout layer ``number``, 0 or 1, for all steps: float64 ``[N, features]``."""
        return (uniform(100 * self.seed + number, (self.N, features), 0, 1) >= self.p) / (1 - self.p)

    def draw(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Returns parameters and running statistics of the names and shapes given, drawn in the order of names."""
        rng = np.random.default_rng(self.seed + 1)
        return {name: _draw_values(rng, name, shapes[name]) for name in sorted(shapes)}


def _draw_values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns values with which every layer fires."""
    layer, kind = name.split(".")
    if layer.startswith(("conv", "fc")):
        bound = (2.5 if layer.startswith("conv") else 7.0) * math.sqrt(3 / math.prod(shape[1:]))
        low, high = -bound, bound
    else:
        low, high = {
            "weight": (0.9, 1.7),
            "bias": (0.3, 1.2),
            "running_mean": (-0.5, 0.2),
            "running_var": (0.5, 1.5),
            "a": (-1.1, 0.7),  # tau from 1.5 to 4
        }[kind]
    return low + (high - low) * rng.random(shape)


_FASHION = {"input_shape": (1, 28, 28), "static": True, "blocks": (1, 2), "T": 6, "N": 2, "channels": 8, "hidden": 32}
_NMNIST = _FASHION | {"input_shape": (2, 34, 34), "static": False, "T": 5}
_CIFAR10 = _FASHION | {"input_shape": (3, 16, 16), "blocks": (3, 2), "channels": 6}
_DVS = _NMNIST | {"input_shape": (2, 48, 48), "blocks": (1, 4), "T": 4}
_GESTURE = _NMNIST | {"input_shape": (2, 64, 64), "blocks": (1, 5), "T": 4, "classes": 11}

NETWORKS = {
    case.name: case
    for case in (
        Network(name="fashion-mnist", seed=11, **_FASHION),
        Network(name="fashion-mnist-dropout", seed=12, p=0.5, loss="mse-per-step", **_FASHION),
        Network(name="fashion-mnist-lif", seed=13, kind="lif", **_FASHION),
        Network(name="fashion-mnist-one-step", seed=14, **_FASHION | {"T": 1}),
        Network(name="nmnist", seed=15, p=0.5, **_NMNIST),  # odd sizes: 17 pools to 8
        Network(name="nmnist-attached", seed=16, detach_reset=False, **_NMNIST | {"input_shape": (2, 17, 15)}),
        Network(name="cifar10", seed=17, loss="mse-per-step", **_CIFAR10),
        Network(name="cifar10-published", seed=18, p=0.5, dropouts=1, **_CIFAR10),
        Network(name="cifar10dvs", seed=19, v_reset=-0.25, **_DVS),
        Network(name="gesture", seed=20, p=0.5, loss="mse-per-step", **_GESTURE),
        Network(name="gesture-avgpool", seed=21, pool="average", **_GESTURE),
        Network(name="gesture-soft-sigmoid", seed=22, v_reset=None, surrogate="sigmoid", width=0.25, **_GESTURE),
        Network(
            name="fashion-mnist-true-size",
            seed=23,
            large=True,
            p=0.5,
            **_FASHION | {"T": 3, "N": 2, "channels": 128, "hidden": 2048},
        ),
        Network(
            name="cifar10-true-size",
            seed=25,
            large=True,
            **_CIFAR10 | {"input_shape": (3, 32, 32), "T": 2, "N": 1, "channels": 256, "hidden": 2048},
        ),
        Network(
            name="gesture-true-size",
            seed=24,
            large=True,
            **_GESTURE | {"input_shape": (2, 128, 128), "T": 2, "N": 1, "channels": 128, "hidden": 512},
        ),
    )
}


@dataclass(frozen=True)
class Counted:
    """A network whose operations are counted: ``c6k3s1-SN-{MP|AP}k2s2-c5k3s1-SN-FC8-SN`` on frames of 2×7×5."""

    pooling: str
    tau: float
    T: int
    samples: int
    seed: int

    def input(self) -> np.ndarray:
        """Returns frames ``[N, T, 2, 7, 5]``: event counts, half of them 0."""
        drawn = uniform(self.seed, (self.samples, self.T, 2, 7, 5), -6, 6)
        return np.maximum(np.floor(drawn), 0.0)

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the weights of each layer; a tenth of them is 0."""
        shapes = {"conv0": (6, 2, 3, 3), "conv1": (5, 6, 3, 3), "fc0": (8, 5 * 3 * 2)}
        found = {}
        for index, (name, shape) in enumerate(shapes.items(), 1):
            weights = uniform(self.seed + index, shape, -1, 1.4)
            found[name] = np.where(uniform(self.seed + 10 + index, shape, 0, 1) < 0.1, 0.0, weights)
        return found


OPERATIONS = {
    f"{pooling}-T{T}": Counted(pooling, 2.0, T, samples, 7000 + 100 * T)
    for pooling, T, samples in (("max", 5, 3), ("max", 1, 2), ("average", 4, 3))
}
