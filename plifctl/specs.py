"""What can be said in a registry file: frozen, strict models, one for each section.

A field that is science (T, tau, surrogate, slicing, loss, seed …) has no default here: the YAML states it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from plifctl.augmentspecs import EventAugmentation
from plifctl.specbase import Misfit
from plifctl.specbase import Spec as Spec
from plifctl.structure import parse_structure, shapes_after
from plifctl.transformspecs import Shape, TransformSpec

Recipe = Literal["paper", "published"]
"""Which choices: of the text, or of the authors' code."""
RECIPES: tuple[Recipe, ...] = get_args(Recipe)

Protocol = Literal["A", "B"]
"""How a run comes to its number: accuracy A or B (facts in docs/concepts.md)."""

Surrogate = Literal["arctan", "sigmoid", "rectangular", "triangular"]
"""What stands for the derivative of the step function in training."""


def _plain(value: Any) -> Any:
    numbers = isinstance(value, list) and all(isinstance(part, int | float) for part in value)
    if not numbers and not isinstance(value, bool | int | float | str):
        raise ValueError(f"found {value}, expected a number, a text, true, false, or a [list] of numbers")
    return value


Option = Annotated[Any, AfterValidator(_plain)]
"""A value of an optimiser's or a schedule's own options."""

Layout = Literal["mnist", "fashion-mnist", "cifar10", "nmnist", "cifar10dvs", "gesture", "synthetic-gesture", "folders"]
"""How the raw files of a data set are named, laid out and encoded: as those of a data set that is known, or
``folders``: a folder for each split and class, a recording of any known format for each sample."""

_FRAMES_OF: dict[Layout, set[str]] = {
    "nmnist": {"slicing", "outside_events"},
    "cifar10dvs": {"slicing", "outside_events", "axes", "test_set"},
    "gesture": {"slicing", "outside_events", "invalid_events", "training_set"},
    "synthetic-gesture": {"slicing", "outside_events", "invalid_events", "training_set"},
    "folders": {"slicing", "outside_events", "invalid_events"},
}
"""What there is to choose in framing, by layout; images are not framed."""

MAX_T = 10_000
"""The largest number of time steps accepted; beyond it a typo is likelier than an experiment."""


class SampleCounts(Spec):
    """Official number of samples in each split."""

    train: int = Field(gt=0)
    test: int = Field(gt=0)


class DatasetSpec(Spec):
    """One data set: what its samples are, not where they lie.

    ``layout`` names the data set whose raw files these are like: its own name, or for a data set of one's own another.
    ``shape`` is ``[C, H, W]`` of an image, or ``[P, H, W]`` (polarities, sensor height, width) of event frames.
    ``mean`` and ``std`` normalise images in units of 0…1, one value a channel.
    """

    name: str
    title: str
    layout: Layout
    kind: Literal["events", "images"]
    shape: tuple[int, int, int] = Field(strict=False)
    classes: tuple[str, ...] = Field(strict=False, min_length=2)
    samples: SampleCounts
    mean: tuple[float, ...] | None = Field(default=None, strict=False)
    std: tuple[float, ...] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        if self.kind == "images":
            channels = self.shape[0]
            if self.mean is None or self.std is None or len(self.mean) != channels or len(self.std) != channels:
                raise ValueError(f"an image data set of {channels} channels needs {channels} values of mean and of std")
        if (self.kind == "events") != (self.layout in _FRAMES_OF):
            raise ValueError(f"raw files laid out as {self.layout}'s hold no {self.kind}")
        return self


class FramesSpec(Spec):
    """How the events of a recording become T frames (Eq. S1 and its variants).

    Attributes:
        slicing: ``number`` cuts at ⌊N·j/T⌋ (Eq. S1); ``number-remainder`` at ⌊N/T⌋·j with the rest in the last slice
            (the published code); ``time`` into T equal spans of time; ``duration`` into as many spans of duration_us as
            the sample lasts, padded with empty frames to the longest sample.
        duration_us: Length of a slice, µs; of slicing ``duration``.
        outside_events: Events outside the sensor are an error (``refuse``), or left out and counted (``drop``).
        invalid_events: AEDAT 3.1 events whose valid bit is 0; None where the format has no such bit.
        axes: how CIFAR10-DVS addresses become x, y, p; None for the others.
        training_set: ``all`` recordings, or the ``first-78`` that the published gesture runs used; None for the others.
        test_set: Of each class of CIFAR10-DVS, the ``last-100`` (file numbers 900–999, the paper's) or the
            ``first-100`` (0–99, of many later papers); None for the others.
        transforms: What is done to the events of each sample before they are framed, in this order.
        transform_seed: Of the random ones among them; None where there are none.
    """

    slicing: Literal["number", "number-remainder", "time", "duration"]
    duration_us: int | None = Field(default=None, gt=0)
    outside_events: Literal["refuse", "drop"]
    invalid_events: Literal["drop", "keep"] | None = None
    axes: Literal["published", "spikingjelly"] | None = None
    training_set: Literal["all", "first-78"] | None = None
    test_set: Literal["last-100", "first-100"] | None = None
    transforms: tuple[TransformSpec, ...] = Field(default=(), strict=False)
    transform_seed: int | None = Field(default=None, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _a_seed_where_one_is_needed(self) -> Self:
        drawing = [transform.name for transform in self.transforms if transform.random]
        if drawing and self.transform_seed is None:
            raise ValueError(f"transform_seed is missing: {drawing[0]} draws random numbers")
        if self.transform_seed is not None and not drawing:
            raise ValueError("transform_seed: no transform here draws random numbers")
        return self


class FramedSpec(Spec):
    """A data set and how its events are framed; images are not."""

    dataset: DatasetSpec
    frames: FramesSpec | None = None

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        _check_frames(self.dataset, self.frames)
        return self


def _check_frames(dataset: DatasetSpec, frames: FramesSpec | None) -> None:
    """Raises ValueError unless exactly what there is to choose for a data set is chosen."""
    choices = _FRAMES_OF.get(dataset.layout, set())
    if frames is not None and frames.slicing == "duration":
        choices = choices | {"duration_us"}
    chosen = set(frames.model_dump(exclude_none=True)) - {"transforms", "transform_seed"} if frames else set()
    if foreign := sorted(chosen - choices):
        raise ValueError(f"frames.{foreign[0]}: {dataset.title} has no such choice")
    if "duration_us" in choices - chosen:
        raise ValueError("frames.duration_us is missing: the length of a slice, e.g. frames.duration_us=10000")
    if missing := sorted(choices - chosen):
        raise ValueError(f"frames.{missing[0]}: {dataset.title} needs this choice")
    frame_shape(dataset, frames)


def frame_shape(dataset: DatasetSpec, frames: FramesSpec | None) -> Shape:
    """Returns the shape of one sample at one step, as a network sees it: after the transforms.

    Returns:
        ``(P, H, W)`` of event frames, ``(C, H, W)`` of images.

    Raises:
        ValueError: A transform cannot be done to events of that shape.
    """
    shape = dataset.shape
    for index, transform in enumerate(frames.transforms if frames else ()):
        try:
            shape = transform.shape_after(shape)
        except ValueError as error:
            raise ValueError(f"frames.transforms[{index}]: {error}") from None
    return shape


def _parses(text: str) -> str:
    parse_structure(text)
    return text


class NetworkSpec(Spec):
    """A network in the notation of Table S1.

    Attributes:
        name: The name of its registry entry.
        structure: E.g. ``{c128k3s1-BN-SN-MPk2s2}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10``, where SN stands for the
            experiment's spiking neuron.
        dropout: Probability of dropping in each DP layer.
        batch_norm: Statistics ``per-step`` (over N, H, W at each t) or ``over-time`` (over T, N, H, W).
    """

    name: str
    structure: Annotated[str, AfterValidator(_parses)]
    dropout: float = Field(ge=0, lt=1)
    batch_norm: Literal["per-step", "over-time"]


class NeuronSpec(Spec):
    """The spiking neuron of every SN layer (Eq. 2–7).

    ``tau_0`` is the start value of a learnable time constant (plif), ``tau`` a fixed one (lif), both in time steps.

    Attributes:
        tau_per: What has a learnable time constant of its own: each ``layer`` (the paper's), each ``channel`` (feature
            of a fully connected layer), or each ``neuron``.
        v_threshold: Firing threshold.
        learn_threshold: Learn it, one for each layer; v_threshold is where it starts.
        v_reset: The potential at rest, to which a ``hard`` reset goes.
        reset: After a spike V = v_reset (``hard``, Eq. 4), or V = H − v_threshold (``soft``).
        surrogate: What stands for the derivative of the step, g(x/w)/w with w = surrogate_width and an integral of 1:
            ``arctan`` g(u) = 1/(1 + (πu)²) (supplement F), ``sigmoid`` the logistic function's derivative,
            ``rectangular`` 1 for |u| < 1/2, ``triangular`` max(0, 1 − |u|).
        surrogate_width: w.
        learn_surrogate_width: Learn it, one for each layer; surrogate_width is where it starts.
        detach_reset: Leave the spike of the reset out of the gradient.
    """

    kind: Literal["plif", "lif"]
    tau_0: float | None = Field(default=None, gt=1)
    tau: float | None = Field(default=None, gt=1)
    tau_per: Literal["layer", "channel", "neuron"] = "layer"
    v_threshold: float
    learn_threshold: bool = False
    v_reset: float
    reset: Literal["hard", "soft"] = "hard"
    surrogate: Surrogate
    surrogate_width: float = Field(default=1.0, gt=0)
    learn_surrogate_width: bool = False
    detach_reset: bool

    @model_validator(mode="after")
    def _the_tau_of_its_kind(self) -> NeuronSpec:
        wanted, other = ("tau_0", "tau") if self.kind == "plif" else ("tau", "tau_0")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"kind {self.kind} takes {wanted}, not {other}")
        if self.kind == "lif" and self.tau_per != "layer":
            raise ValueError(f"tau_per {self.tau_per}: a fixed τ is the same for all neurons; kind plif learns several")
        if self.v_reset >= self.v_threshold:
            raise ValueError(f"v_reset ({self.v_reset}) must lie below v_threshold ({self.v_threshold})")
        return self

    @property
    def start_tau(self) -> float:
        """The time constant before training, in time steps."""
        tau = self.tau_0 if self.kind == "plif" else self.tau
        assert tau is not None  # held by _the_tau_of_its_kind
        return tau


class TrainSpec(Spec):
    """Training (Sec. 3.7 and supplement F), with each choice on which text and published code differ.

    Attributes:
        loss: ``mse-per-step`` is the mean over t of each step's MSE (Sec. 3.7); ``mse-rate`` the MSE of the mean rate;
            ``ce-rate`` the cross-entropy of the mean rate; ``tet`` temporal efficient training (Deng et al. 2022).
        tet_weight: λ of the loss ``tet``; None for the others.
        optimizer: One of torch's, by name; ``optimizer_options`` are its own, but for lr.
        schedule: ``cosine`` falls for ``cosine_period`` epochs, rises for as many, and so on; ``cosine-restarts``
            jumps back to the start after each period (SGDR); ``constant``; others are torch's, by name, an epoch a
            step, with ``schedule_options``.
        epochs: Passes over the training set.
        augmentation: Of training images: ``flip-crop`` (horizontal flip, crop after padding by 4), ``affine``
            (rotation ±30°, shift ±15 %, scale 0.85–1.11), or ``none``.
        event_augmentation: Of the event frames of training samples, in this order: see :mod:`plifctl.augmentspecs`.
        normalise: ``per-set`` applies the data set's mean and std; ``none`` feeds raw counts.
        drop_last: Leave out the last, smaller batch of an epoch.
        ties: Which of several equally good epochs gives the model kept.
        subset: Fraction of each class's training and test samples used, in sample order.
        accumulate: Batches whose mean gradient makes one step of the optimiser; their batch norms stay apart.
        clip_norm: The norm that all gradients together have at most; None: any.
        precision: Of convolutions and matrix products; ``tf32`` is a GPU's float32 with a mantissa of 10 bits, ``fp16``
            scales the loss.
        early_stop: End after so many epochs without a better accuracy of what chooses the model; None: never.
    """

    loss: Literal["mse-per-step", "mse-rate", "ce-rate", "tet"]
    tet_weight: float | None = Field(default=None, ge=0, le=1)
    optimizer: Literal["adadelta", "adagrad", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd"]
    optimizer_options: dict[str, Option] = Field(default_factory=dict)
    lr: float = Field(gt=0)
    schedule: Literal[
        "cosine", "cosine-restarts", "constant", "exponential", "linear", "multi-step", "polynomial", "step"
    ]
    schedule_options: dict[str, Option] = Field(default_factory=dict)
    cosine_period: int = Field(gt=0)
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = Field(ge=0, lt=2**32)
    augmentation: Literal["none", "flip-crop", "affine"]
    normalise: Literal["per-set", "none"]
    drop_last: bool
    ties: Literal["earliest", "latest"]
    subset: float = Field(gt=0, le=1)
    event_augmentation: tuple[EventAugmentation, ...] = Field(default=(), strict=False)
    accumulate: int = Field(default=1, ge=1)
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    early_stop: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _mixed_once(self) -> Self:
        if [one.name for one in self.event_augmentation].count("cut-mix") > 1:
            raise ValueError("event_augmentation has cut-mix twice: a sample is mixed with one other")
        return self

    @model_validator(mode="after")
    def _a_weight_for_tet(self) -> Self:
        if (self.loss == "tet") != (self.tet_weight is not None):
            needs = "needs train.tet_weight, e.g. 0.05" if self.loss == "tet" else "takes no train.tet_weight"
            raise ValueError(f"loss {self.loss} {needs}")
        return self


class ValidationSpec(Spec):
    """Protocol B (supplement G): choose the model on a part of the training set, test it once.

    Attributes:
        train_fraction: Share of each class that stays in training.
        rounding: ``ceil-keep-one`` trains on min(n − 1, ⌈f·n⌉) samples of a class of n; ``ceil`` on ⌈f·n⌉.
        loader: ``all`` validation samples as they are; ``as-training`` shuffles, augments and drops the last batch.
        test: ``once``, with the model kept; ``every-epoch``, reported at the model kept.
        T: Time steps in this protocol, where the published run used others than the experiment; else None.
    """

    train_fraction: float = Field(gt=0, lt=1)
    rounding: Literal["ceil-keep-one", "ceil"]
    loader: Literal["all", "as-training"]
    test: Literal["once", "every-epoch"]
    T: int | None = Field(default=None, ge=1, le=MAX_T)


class Published(Spec):
    """What the authors report for an experiment, and where."""

    accuracy_a: float = Field(gt=0, le=100)
    accuracy_b: float | None = Field(default=None, gt=0, le=100)
    source: str


_LATER = {
    "neuron": ("tau_per", "learn_threshold", "reset", "surrogate_width", "learn_surrogate_width"),
    "train": (
        *("tet_weight", "optimizer_options", "schedule_options"),
        *("accumulate", "clip_norm", "precision", "early_stop", "event_augmentation"),
    ),
}
"""Choices that came after the first runs: where they have their defaults, they leave the digest as it was."""


class ExperimentSpec(Spec):
    """Everything that decides a run's numbers, resolved: no name left to look up."""

    name: str
    title: str
    recipe: Recipe
    published: Published | None = None
    T: int = Field(ge=1, le=MAX_T)
    dataset: DatasetSpec
    frames: FramesSpec | None = None
    network: NetworkSpec
    neuron: NeuronSpec
    train: TrainSpec
    validation: ValidationSpec

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        _check_frames(self.dataset, self.frames)
        if self.dataset.kind == "events":
            for key in ("normalise", "augmentation"):
                if getattr(self.train, key) != "none":
                    raise ValueError(f"train.{key}: {self.dataset.title} is a set of events, this is done to images")
        elif self.train.event_augmentation:
            raise ValueError(
                f"train.event_augmentation: {self.dataset.title} is a set of images; see train.augmentation"
            )
        return self

    @model_validator(mode="after")
    def _network_fits(self) -> Self:
        try:
            shape = frame_shape(self.dataset, self.frames)
            shapes_after(parse_structure(self.network.structure), shape, len(self.dataset.classes))
        except ValueError as error:
            text = f"network {self.network.name} does not fit {self.dataset.name}: {error}"
            raise Misfit(text, ("network", "structure")) from None
        return self

    def science(self) -> dict[str, Any]:
        """The fields that two runs must share to be the same experiment: all but titles, epochs and seed."""
        tree = self.model_dump(mode="json", exclude={"title": True, "published": True, "train": {"epochs", "seed"}})
        tree["dataset"] = {key: tree["dataset"][key] for key in ("name", "mean", "std")}
        # a choice that did not exist when a run was made changes nothing for it
        if self.frames is not None:
            tree["frames"] = self.frames.model_dump(mode="json", exclude_defaults=True)
        for section, names in _LATER.items():
            spec = getattr(self, section)
            for name in names:
                if getattr(spec, name) == type(spec).model_fields[name].get_default(call_default_factory=True):
                    del tree[section][name]
        return tree

    @property
    def digest(self) -> str:
        """sha256 of :meth:`science`, hexadecimal."""
        return digest_of(self.science())

    def under(self, protocol: Protocol) -> ExperimentSpec:
        """Returns the experiment as a protocol runs it: B may have another T."""
        if protocol == "A" or self.validation.T is None:
            return self
        return self.model_copy(update={"T": self.validation.T})


def is_modification(override: str) -> bool:
    """Whether ``key=value`` makes another experiment: all keys do but seed and epochs."""
    return override.split("=")[0].strip() not in ("train.seed", "train.epochs")


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by dotted path.

    Example:
        >>> flattened({"train": {"lr": 0.1}, "T": 8})
        {'train.lr': 0.1, 'T': 8}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and value  # an empty mapping is a value
        flat |= flattened(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def canonical_json(tree: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one meaning."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(tree: Any) -> str:
    """sha256 of the canonical JSON of ``tree``, hexadecimal."""
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()
