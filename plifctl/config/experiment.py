"""Schema of an experiment: everything that decides the numbers of a run, and its digest."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from plifctl.config.base import Misfit, Spec, digest_of
from plifctl.config.choices import Protocol, Recipe
from plifctl.config.dataset import MAX_T, DatasetSpec, FramesSpec, Framing, check_frames, frame_shape
from plifctl.config.identity import current_keys, current_word, hashed_frames, hashed_recipe
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.config.structure import parse_structure, shapes_after
from plifctl.config.training import TrainSpec, ValidationSpec


class Reported(Spec):
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
    recipe: Annotated[Recipe, BeforeValidator(current_word)]
    reported: Reported | None = None
    T: int = Field(ge=1, le=MAX_T)
    dataset: DatasetSpec
    frames: FramesSpec | None = None
    network: NetworkSpec
    neuron: NeuronSpec
    train: TrainSpec
    validation: ValidationSpec

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, tree: Any) -> Any:
        return current_keys(tree)

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        check_frames(self.dataset, self.frames)
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

    @property
    def framing(self) -> Framing:
        """The data set and how it is framed: what the experiment's cache is built from."""
        return Framing(dataset=self.dataset, frames=self.frames).with_T(self.T)

    def identity(self) -> dict[str, Any]:
        """The fields that two runs must share to be the same experiment: all but titles, epochs and seed."""
        tree = self.model_dump(mode="json", exclude={"title": True, "reported": True, "train": {"epochs", "seed"}})
        tree["dataset"] = {key: tree["dataset"][key] for key in ("name", "mean", "std")}
        tree["recipe"] = hashed_recipe(self.recipe)
        # a choice that did not exist when a run was made changes nothing for it
        if self.frames is not None:
            tree["frames"] = hashed_frames(self.frames.model_dump(mode="json", exclude_defaults=True))
        for section, names in _LATER.items():
            spec = getattr(self, section)
            for name in names:
                if getattr(spec, name) == type(spec).model_fields[name].get_default(call_default_factory=True):
                    del tree[section][name]
        return tree

    @property
    def digest(self) -> str:
        """sha256 of :meth:`identity`, hexadecimal."""
        return digest_of(self.identity())

    def under(self, protocol: Protocol) -> ExperimentSpec:
        """Returns the experiment as a protocol runs it: B may have another T."""
        if protocol == "A" or self.validation.T is None:
            return self
        return self.model_copy(update={"T": self.validation.T})


def is_modification(override: str) -> bool:
    """Whether ``key=value`` makes another experiment: all keys do but seed and epochs."""
    return override.split("=")[0].strip() not in ("train.seed", "train.epochs")
