"""An experiment: everything that decides the numbers of a run, its digest, and how it is saved as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from plifctl import files
from plifctl.config.base import InconsistentValues, Spec, digest_of, flatten
from plifctl.config.choices import Protocol, Recipe
from plifctl.config.dataset import MAX_T, DatasetSpec, FramesSpec, Framing, check_frames, frame_shape
from plifctl.config.identity import current_keys, current_word, hashed_fields, hashed_words
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.config.overrides import is_modification, override_key
from plifctl.config.structure import parse_structure, shapes_after
from plifctl.config.training import TrainSpec, ValidationSpec
from plifctl.config.yaml_tree import Origin, format_yaml
from plifctl.errors import UsageError


class Reported(Spec):
    """What the authors report for an experiment, and where."""

    accuracy_a: float = Field(gt=0, le=100)
    accuracy_b: float | None = Field(default=None, gt=0, le=100)
    source: str


class ExperimentSpec(Spec):
    """Everything that decides a run's numbers, with nothing left to look up."""

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
    def _rename_old_keys(cls, tree: Any) -> Any:
        return current_keys(tree)

    @model_validator(mode="after")
    def _check_data_set(self) -> Self:
        check_frames(self.dataset, self.frames)
        if self.dataset.kind == "events":
            for key in ("normalise", "augmentation"):
                if getattr(self.train, key) != "none":
                    raise ValueError(f"train.{key}: {self.dataset.title} is an event data set; this is for images")
        elif self.train.event_augmentation:
            raise ValueError(
                f"train.event_augmentation: {self.dataset.title} is an image data set; see train.augmentation"
            )
        return self

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        try:
            shape = frame_shape(self.dataset, self.frames)
            shapes_after(parse_structure(self.network.structure), shape, len(self.dataset.classes))
        except ValueError as error:
            text = f"network {self.network.name} does not fit {self.dataset.name}: {error}"
            raise InconsistentValues(text, ("network", "structure")) from None
        return self

    @property
    def framing(self) -> Framing:
        """The data set and how it is framed: what the experiment's cache is built from."""
        return Framing(dataset=self.dataset, frames=self.frames).with_T(self.T)

    def identity(self) -> dict[str, Any]:
        """Returns the fields that two runs must share to be the same experiment; see :mod:`plifctl.config.identity`."""
        return hashed_fields(self)

    @property
    def digest(self) -> str:
        """sha256 of :meth:`identity` in the words of 0.1.0, hexadecimal."""
        return digest_of(hashed_words(self.identity()))

    def for_protocol(self, protocol: Protocol) -> ExperimentSpec:
        """Returns the experiment as a protocol runs it: B may have another T."""
        if protocol == "A" or self.validation.T is None:
            return self
        return self.model_copy(update={"T": self.validation.T})


@dataclass(frozen=True)
class Experiment:
    """An experiment with all values looked up, where each comes from, and what was changed.

    Attributes:
        spec: The values.
        origins: Where each value was written, by dotted path: file, line and column, or ``--set``.
        overrides: Values that differ from the registry's experiment of that name, texts ``key=value``.
    """

    spec: ExperimentSpec
    origins: Mapping[str, Origin]
    overrides: tuple[str, ...] = ()

    def __repr__(self) -> str:
        changed = f", {' '.join(self.overrides)}" if self.overrides else ""
        return f"<experiment {self.spec.name}, recipe {self.spec.recipe}, T = {self.spec.T}{changed}>"

    @property
    def modified(self) -> tuple[str, ...]:
        """The overrides that make this another experiment: all but seed, epochs and memory."""
        return tuple(filter(is_modification, self.overrides))

    def for_protocol(self, protocol: Protocol) -> Experiment:
        """Returns the experiment as a protocol runs it; a T among the overrides holds for both protocols."""
        if "T" in map(override_key, self.overrides):
            return self
        spec = self.spec.for_protocol(protocol)
        origins = {**self.origins, "T": self.origins["validation.T"]} if spec.T != self.spec.T else self.origins
        return replace(self, spec=spec, origins=origins)

    def save(self, path: str | Path) -> None:
        """Writes a YAML file that ``plifctl train FILE`` and :func:`plifctl.config.lookup.load_experiment` read.

        The file states every value, so that later changes of the registry leave its digest the same; only data sets are
        referred to by name. Overridden values are marked.

        Raises:
            UsageError: The file exists.
        """
        path = Path(path)
        with files.machine_errors(path):
            if path.exists():
                raise UsageError(f"{path}: exists already", hint="choose another name, or remove it")
            files.write_text(path, self._file_text(path))

    def _file_text(self, path: Path) -> str:
        values = flatten({**self.spec.model_dump(mode="json"), "dataset": self.spec.dataset.name})
        stated = {key: value for key, value in values.items() if key in self.origins or key == "dataset"}
        changed = [override_key(text) for text in self.overrides]
        comments = {key: "changed" for key in stated for one in changed if f"{key}.".startswith(f"{one}.")}
        return (
            f"# Experiment {self.spec.name}, recipe {self.spec.recipe}: every value is stated and can be changed.\n"
            f"#\n#   plifctl show {path.name}\n#   plifctl train {path.name}\n#\n" + format_yaml(stated, comments)
        )
