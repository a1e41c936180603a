"""An experiment: everything that decides the numbers of a run, its digest, and how it is saved as a file."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BeforeValidator, Field, model_validator

from plifctl import files
from plifctl.config.base import InconsistentValues, Spec, digest_of, flatten, nested_spec
from plifctl.config.choices import Protocol, Recipe
from plifctl.config.dataset import MAX_T, DatasetSpec, FramesSpec, Framing, check_frames, frame_shape
from plifctl.config.identity import current_keys, current_word, hashed_fields, hashed_words
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.config.overrides import is_modification, override_key
from plifctl.config.split import FROM_TABLE, SplitSpec
from plifctl.config.structure import parse_structure, shapes_after
from plifctl.config.training import TrainSpec, ValidationSpec
from plifctl.config.yaml_tree import Origin, format_yaml
from plifctl.errors import UsageError


class Reported(Spec):
    """What the authors report for an experiment, and where."""

    accuracy_a: float = Field(gt=0, le=100)
    accuracy_b: float | None = Field(default=None, gt=0, le=100)
    source: str

    @property
    def in_paper(self) -> bool:
        """Whether the paper reports it; otherwise, it is known from the authors' logs only."""
        return self.source != "authors' log"


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
    split: SplitSpec = SplitSpec()
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
                    problem = f"train.{key}: {self.dataset.title} is an event data set; this is for images"
                    raise InconsistentValues(problem, ("train", key))
        elif self.train.event_augmentation:
            problem = f"train.event_augmentation: {self.dataset.title} is an image data set; see train.augmentation"
            raise InconsistentValues(problem, ("train", "event_augmentation"))
        return self

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        if self.split.method != "official" and not self.dataset.is_own and self.split.groups == FROM_TABLE:
            problem = f"split.groups: {self.dataset.title} has no table of labels; state a pattern of its ids"
            raise InconsistentValues(problem, ("split", "groups"))
        if self.split.groups is not None and self.validation.method == "in-order":
            raise InconsistentValues(
                "split.groups: validation.method in-order divides groups; state validation.method: share",
                ("split", "groups"),
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

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel of images of values 0…1; None: they are used as they are."""
        if self.train.normalise == "none":
            return None
        assert self.dataset.mean is not None  # every image data set has both
        assert self.dataset.std is not None
        return self.dataset.mean, self.dataset.std

    def identity(self) -> dict[str, Any]:
        """Returns the fields that two runs must share to be the same experiment; see :mod:`plifctl.config.identity`."""
        return hashed_fields(self)

    @property
    def digest(self) -> str:
        """sha256 of :meth:`identity` in the words of 0.1.0, hexadecimal."""
        return digest_of(hashed_words(self.identity()))

    def kept_settings(self) -> dict[str, Any]:
        """Returns what two runs must share for one to continue or replace the other, by dotted key; epochs may grow."""
        of_cache = {"layout", "shape", "classes"}  # not in the digest, but in the key of the cache
        others = self.model_dump(mode="json", include={"name": True, "train": {"seed"}, "dataset": of_cache})
        return flatten(self.identity()) | flatten(others)

    def for_protocol(self, protocol: Protocol) -> ExperimentSpec:
        """Returns the experiment as a protocol runs it: B, and C with what B has chosen, may have another T."""
        if protocol == "A" or self.validation.T is None:
            return self
        return self.model_copy(update={"T": self.validation.T})


def needed_overrides(overrides: Iterable[str], default: ExperimentSpec, changed: ExperimentSpec) -> tuple[str, ...]:
    """Returns overrides without the modifications that state what the experiment has anyway, or that decide no number.

    Args:
        overrides: Texts ``key=value``.
        default: The experiment without them.
        changed: The experiment with them.
    """
    was, now = default.kept_settings(), changed.kept_settings()
    differing = [key for key in {**was, **now} if was.get(key) != now.get(key)]

    def is_needed(text: str) -> bool:
        key = override_key(text)
        return not is_modification(text) or any(one == key or one.startswith(f"{key}.") for one in differing)

    return tuple(filter(is_needed, overrides))


@dataclass(frozen=True)
class Experiment:
    """An experiment with all values looked up, where each comes from, and what was changed.

    Attributes:
        spec: The values.
        origins: Where each value was written, by dotted path: file, line and column, or ``--set``.
        overrides: Values that differ from the registry's experiment of that name, or from the user's own file, texts
            ``key=value``.
    """

    spec: ExperimentSpec
    origins: Mapping[str, Origin]
    overrides: tuple[str, ...] = ()

    def __repr__(self) -> str:
        changed = f", {' '.join(self.overrides)}" if self.overrides else ""
        return f"<experiment {self.spec.name}, recipe {self.spec.recipe}, T = {self.spec.T}{changed}>"

    def for_protocol(self, protocol: Protocol) -> Experiment:
        """Returns the experiment as a protocol runs it; a T among the overrides holds for all protocols."""
        if self._sets_only_T:
            return self
        spec = self.spec.for_protocol(protocol)
        origins = {**self.origins, "T": self.origins["validation.T"]} if spec.T != self.spec.T else self.origins
        return replace(self, spec=spec, origins=origins)

    def check_protocol(self, protocol: Protocol) -> None:
        """Raises UsageError if a protocol cannot train the experiment."""
        patience = self.spec.train.early_stop
        if protocol == "C" and patience is not None:
            raise UsageError(
                f"{self.spec.name}: train.early_stop={patience}, but protocol C tests the last epoch only: nothing "
                "stops it earlier",
                hint="--set train.early_stop=null --epochs N, the N that validation chose",
            )

    @property
    def _sets_only_T(self) -> bool:  # noqa: N802
        """Whether T was overridden, and that of protocol B was not."""
        changed = set(map(override_key, self.overrides))
        changed |= {path for path, origin in self.origins.items() if origin.source.startswith("--set ")}
        return "T" in changed and "validation.T" not in changed

    def renamed(self, name: str) -> Experiment:
        """Returns the experiment under a name of its own, of which nothing has been reported."""
        spec = self.spec.model_copy(update={"name": name, "title": name, "reported": None})
        if self._sets_only_T:  # a file does not say that it was set
            spec = spec.model_copy(update={"validation": spec.validation.model_copy(update={"T": None})})
        origins = {key: origin for key, origin in self.origins.items() if not key.startswith("reported.")}
        return Experiment(spec, origins)

    def save(self, path: str | Path, *, based_on: str = "") -> None:
        """Writes a YAML file that ``plifctl train FILE`` and :func:`plifctl.config.lookup.load_experiment` read.

        The file states every value, of the data set and the network, too, so that later changes of the registry leave
        its digest the same. Choices are listed beside a value; overridden values are marked.

        Args:
            path: The file.
            based_on: What the experiment was made from, for the heading.

        Raises:
            UsageError: The file exists.
            MachineError: The system refuses to write there.
        """
        path = Path(path)
        files.check_new_file(path)
        files.write_text(path, self._file_text(path, based_on))

    def _file_text(self, path: Path, based_on: str) -> str:
        values = flatten(self.spec.model_dump(mode="json"))
        stated = {key: value for key, value in values.items() if key in self.origins and value is not None}
        changed = [override_key(text) for text in self.overrides]
        comments = {
            key: choices for key, choices in _choices(ExperimentSpec) if key in stated and key != "dataset.layout"
        }
        comments |= {key: "changed" for key in stated for one in changed if f"{key}.".startswith(f"{one}.")}
        origin = f", as {based_on}" if based_on else ""
        named = shlex.quote(path.name if path.name.endswith((".yaml", ".yml")) else f"./{path.name}")
        return (
            f"# Experiment {self.spec.name}, recipe {self.spec.recipe}{origin}.\n"
            "# Every value that decides its numbers is stated and can be changed.\n"
            f"#\n#   plifctl show {named}\n#   plifctl train {named}\n#\n" + format_yaml(stated, comments)
        )


def _choices(model: type[Spec], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted path of every value that is one of a few words, and the words."""
    for name, field in model.model_fields.items():
        if (nested := nested_spec(field.annotation)) is not None:
            yield from _choices(nested, f"{prefix}{name}.")
            continue
        kinds = (field.annotation, *get_args(field.annotation))
        words = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
        if len(words) > 1:
            yield f"{prefix}{name}", " | ".join(words)
