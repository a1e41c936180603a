"""The registry: YAML files become specs, every value with where it came from.

Layers of an experiment, later wins: data set, network, ``_common.yaml``, the experiments file, the variant (each with
its part of the recipe on top), ``--set``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from plifctl import paths
from plifctl.config.augmentation import EVENT_AUGMENTATIONS
from plifctl.config.base import Misfit, Spec
from plifctl.config.choices import RECIPES, Protocol, Recipe
from plifctl.config.dataset import Framing
from plifctl.config.experiment import ExperimentSpec, is_modification
from plifctl.config.identity import current_layer, current_word
from plifctl.config.network import NetworkSpec
from plifctl.config.transforms import TRANSFORMS
from plifctl.config.yaml_tree import Branch, Leaf, Origin, YamlError, merged, parse_value, read_tree
from plifctl.errors import RegistryError, UsageError, did_you_mean, join_problems

_S = TypeVar("_S", bound=Spec)

_NOT_SET = ("name", "title", "recipe", "reported", "dataset")  # descriptions, and what is more than a value
_LISTS: dict[str, tuple[str, Mapping[str, type[Spec]], str]] = {
    "transforms": ("a transform", TRANSFORMS, "{name: drop-events, p: 0.1}"),
    "event_augmentation": ("an augmentation", EVENT_AUGMENTATIONS, "{name: flip, p: 0.5}"),
}
"""The lists of a section whose items are told apart by name: what one is, by name, an example."""
_NAME = re.compile(r"\w[\w.+-]*")
_NAME_BYTES = 80
"""Names become parts of file names, which may have 255 bytes."""

_FILE_KEYS = {*ExperimentSpec.model_fields, "extends", "recipes", "variants"} - {"name", "recipe"}


@dataclass(frozen=True)
class Experiment:
    """An experiment with nothing left to look up.

    Attributes:
        spec: The experiment.
        origins: Where each value was written, by dotted path.
        overrides: The ``--set`` texts given.
    """

    spec: ExperimentSpec
    origins: dict[str, Origin]
    overrides: tuple[str, ...]

    @property
    def modified(self) -> tuple[str, ...]:
        """The overrides that make this another experiment: all but seed and epochs."""
        return tuple(filter(is_modification, self.overrides))

    def under(self, protocol: Protocol) -> Experiment:
        """Returns the experiment as a protocol runs it; a T given on the command line holds for both."""
        if any(text.split("=")[0].strip() == "T" for text in self.overrides):
            return self
        spec = self.spec.under(protocol)
        origins = {**self.origins, "T": self.origins["validation.T"]} if spec.T != self.spec.T else self.origins
        return Experiment(spec, origins, self.overrides)


@dataclass(frozen=True)
class _Entry:
    """One named thing: its mapping, and of an experiment the layers below it."""

    tree: Branch
    below: tuple[Branch, ...] = ()


class Registry:
    """The entries of some registry folders; files are read when first needed.

    Args:
        folders: In order; later ones add.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)

    def datasets(self) -> list[str]:
        """Returns the names of all data sets."""
        return sorted(self._datasets)

    def networks(self) -> list[str]:
        """Returns the names of all networks."""
        return sorted(self._networks)

    def experiments(self) -> list[str]:
        """Returns the names of all experiments, those of one data set together."""
        return list(self._experiments)

    def dataset(self, name: str, recipe: Recipe = "paper", overrides: Sequence[str] = ()) -> Framing:
        """Returns a data set and the recipe's way to frame it.

        Args:
            name: Of the data set.
            recipe: ``paper`` (the text) or ``authors`` (the authors' code).
            overrides: Texts ``frames.key=value``.

        Raises:
            UsageError: No such data set, or an override cannot be.
            RegistryError: Its file is invalid.
        """
        tree = self._dataset_layer(_known("data set", name, self._datasets), current_word(recipe))
        if overrides and "frames" not in tree:
            raise UsageError(f"--set {overrides[0]}: {name} is a set of images, which are not framed")
        for text in overrides:
            tree = merged(tree, _override(text, ("frames",)))
        return _validated(Framing, tree, name)

    def network(self, name: str) -> NetworkSpec:
        """Returns a network.

        Raises:
            UsageError: No such network.
            RegistryError: Its file is invalid.
        """
        return _validated(NetworkSpec, self._network_layer(_known("network", name, self._networks), Origin(name)), name)

    def experiment(self, name: str, *, recipe: Recipe = "paper", overrides: Sequence[str] = ()) -> Experiment:
        """Returns an experiment with its layers merged.

        Args:
            name: Of the experiment.
            recipe: ``paper`` (the text) or ``authors`` (the authors' code).
            overrides: Texts ``key=value``, the key a dotted path.

        Raises:
            UsageError: No such experiment or key, or a value cannot be.
            RegistryError: A file is invalid; the message lists every problem.
        """
        recipe = current_word(recipe)
        entry = self._experiments[_known("experiment", name, self._experiments)]
        layers = [part for layer in (*entry.below, entry.tree) for part in (layer, layer.branch("recipes", recipe))]
        own = merged(*(layer.without("recipes", "variants", "extends") for layer in layers))
        changes = [_override(text, tuple(ExperimentSpec.model_fields)) for text in overrides]
        own = merged(own, *(change for change in changes if isinstance(change.get("network"), Leaf)))
        here = entry.tree.origin
        dataset, network = own.text("dataset"), own.text("network")
        if dataset not in self._datasets or network not in self._networks:
            kind, wrong, known = (
                ("network", network, self._networks)
                if dataset in self._datasets
                else ("dataset", dataset, self._datasets)
            )
            origin = own.origin_of((kind,))
            error = UsageError if str(origin).startswith("--set") else RegistryError
            raise error(f"{origin}: unknown {kind} {wrong}", hint=did_you_mean(str(wrong), known))
        tree = merged(
            self._dataset_layer(dataset, recipe),
            Branch(here, {"network": self._network_layer(network, own.origin_of(("network",)))}),
            own.without("dataset", "network"),
            *(change for change in changes if not isinstance(change.get("network"), Leaf)),
            Branch(here, {"name": Leaf(name, here), "recipe": Leaf(recipe, Origin("--recipe"))}),
        )
        spec = _validated(ExperimentSpec, tree, name)
        return Experiment(spec, {path: leaf.origin for path, leaf in tree.leaves().items()}, tuple(overrides))

    def check(self) -> list[str]:
        """Returns every problem of every file and experiment, each with file, line and column."""
        problems: list[str] = []
        readers = (self._read_datasets, self._read_networks, self._read_experiments)
        for kind, read in zip(("_datasets", "_networks", "_experiments"), readers, strict=True):
            # what could be read of each kind is what the rest is resolved with
            self.__dict__[kind], found = _collected(read())
            problems += [problem for problem in found if problem not in problems]
        unreadable = bool(problems)
        resolve: list[Callable[[], object]] = [partial(self.network, name) for name in self.networks()]
        for recipe in RECIPES:
            resolve += [partial(self.dataset, name, recipe) for name in self.datasets()]
            resolve += [partial(self.experiment, name, recipe=recipe) for name in self.experiments()]
        for attempt in resolve:
            try:
                attempt()
            except RegistryError as error:
                lines = [line for line in error.problems if line not in problems]
                problems += [line for line in lines if not (unreadable and _names_what_was_not_read(line))]
        return problems

    @cached_property
    def _datasets(self) -> dict[str, _Entry]:
        return _valid(self._read_datasets())

    @cached_property
    def _networks(self) -> dict[str, _Entry]:
        return _valid(self._read_networks())

    @cached_property
    def _experiments(self) -> dict[str, _Entry]:
        return _valid(self._read_experiments())

    def _read_datasets(self) -> Iterator[tuple[str, _Entry] | str]:
        for tree in self._trees("datasets"):
            if isinstance(tree, str):
                yield tree
            else:
                tree = current_layer(tree)
                yield from _unknown_recipes(tree)
                name = tree.text("name")
                yield f"{tree.origin}: name: a data set needs one" if name is None else (name, _Entry(tree))

    def _read_networks(self) -> Iterator[tuple[str, _Entry] | str]:
        for tree in self._trees("networks"):
            if isinstance(tree, str):
                yield tree
                continue
            for name, network in tree.items():
                yield (
                    (name, _Entry(network))
                    if isinstance(network, Branch)
                    else f"{network.origin}: {name}: not a mapping"
                )

    def _read_experiments(self) -> Iterator[tuple[str, _Entry] | str]:
        common: dict[str, Branch] = {}
        for tree in self._trees("experiments"):
            if isinstance(tree, str):
                yield tree
                continue
            tree = current_layer(tree)
            for key, value in tree.items():
                if key not in _FILE_KEYS:
                    yield f"{value.origin}: unknown key {key}; {did_you_mean(key, _FILE_KEYS)}"
            yield from _unknown_recipes(tree)
            stem = Path(tree.origin.source).stem
            if stem.startswith("_"):
                common[stem] = tree
                continue
            base = tree.text("extends")
            if base is not None and base not in common:
                yield f"{tree.origin_of(('extends',))}: extends {base}: there is no {base}.yaml"
                continue
            below = (common[base], tree) if base is not None else (tree,)
            for name, variant in tree.branch("variants").items():
                if isinstance(variant, Branch):
                    for key in ("name", "recipe", "extends", "variants"):
                        if key in variant:
                            yield f"{variant[key].origin}: {name}: {key} is not taken in a variant"
                    yield from _unknown_recipes(variant)
                    yield name, _Entry(variant, below)
                else:
                    yield f"{variant.origin}: {name}: not a mapping"

    def _trees(self, kind: str) -> Iterator[Branch | str]:
        """Every file of a kind, or what is wrong with it; ``_common.yaml`` comes first."""
        for folder in self.folders:
            if not folder.is_dir():
                yield f"{folder}: no such registry folder"
                continue
            for path in sorted((folder / kind).glob("*.yaml")):
                try:
                    yield read_tree(path, str(path))
                except YamlError as error:
                    yield str(error)
                except OSError as error:
                    yield f"{path}: {error.strerror}"

    def _dataset_layer(self, name: str, recipe: Recipe) -> Branch:
        tree = self._datasets[name].tree
        own = Branch(tree.origin, {"dataset": tree.without("recipes", "frames")})
        beside = Branch(tree.origin, {key: value for key, value in tree.items() if key == "frames"})  # of both recipes
        return merged(own, beside, tree.branch("recipes", recipe))

    def _network_layer(self, name: str, named_in: Origin) -> Branch:
        tree = self._networks[name].tree
        return merged(tree, Branch(tree.origin, {"name": Leaf(name, named_in)}))


def load_registry(folders: Sequence[Path] | None = None) -> Registry:
    """Returns the registry of ``folders``, by default the shipped one and the user's own."""
    return Registry(paths.registry_dirs() if folders is None else folders)


def _collected(entries: Iterator[tuple[str, _Entry] | str]) -> tuple[dict[str, _Entry], list[str]]:
    """The entries by name, and what is wrong with the files."""
    found: dict[str, _Entry] = {}
    problems: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            problems.append(entry)
        elif not _NAME.fullmatch(entry[0]) or len(entry[0].encode()) > _NAME_BYTES:
            problems.append(
                f"{entry[1].tree.origin}: {entry[0]!r} cannot be a name: letters, digits and . _ + - only, at most "
                f"{_NAME_BYTES} bytes of them, a letter or digit first"
            )
        elif entry[0] in found:
            problems.append(f"{entry[1].tree.origin}: {entry[0]} is defined already, {found[entry[0]].tree.origin}")
        else:
            found[entry[0]] = entry[1]
    return found, problems


def _names_what_was_not_read(problem: str) -> bool:
    """Whether a problem may be that of a file which could not be read."""
    return ": unknown dataset " in problem or ": unknown network " in problem


def _unknown_recipes(tree: Branch) -> Iterator[str]:
    for name, value in tree.branch("recipes").items():
        if name not in RECIPES:
            yield f"{value.origin}: unknown recipe {name}; {did_you_mean(name, RECIPES)}"


def _valid(entries: Iterator[tuple[str, _Entry] | str]) -> dict[str, _Entry]:
    found, problems = _collected(entries)
    if problems:
        raise RegistryError(join_problems(problems), hint="plifctl check lists the problems of all files")
    return found


def _known(kind: str, name: str, entries: dict[str, _Entry]) -> str:
    if name not in entries:
        raise unknown(kind, name, entries)
    return name


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Returns the error of a name that no registry folder has; where none is near, it may be in a folder not named."""
    hint = did_you_mean(name, known)
    own = "\none of your own: export PLIFCTL_REGISTRY=FOLDER" if hint.startswith("known: ") else ""
    return UsageError(f"unknown {kind} {name!r}", hint=hint + own)


def _override(text: str, sections: tuple[str, ...]) -> Branch:
    """``train.lr=0.01`` as a tree."""
    key, equals, value = text.partition("=")
    key = key.strip()
    origin = Origin(f"--set {text}")
    if not equals:
        raise UsageError(f"--set {text}: expected key=value", hint="e.g. --set train.lr=0.01")
    known = [path for path in [*_paths_of(ExperimentSpec), "network"] if path.split(".")[0] in sections]
    if key not in known and not any(key.startswith(f"{path}.") for path in known if path.endswith("_options")):
        raise UsageError(f"--set {text}: unknown key {key}", hint=did_you_mean(key, known))
    try:
        tree = parse_value(value, origin, mapping=key.endswith("_options"))
    except YamlError as error:
        raise UsageError(str(error), hint="e.g. --set train.lr=0.01") from None
    for part in reversed(key.split(".")):
        tree = Branch(origin, {part: tree})
    assert isinstance(tree, Branch)
    return tree


def _paths_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted path of every value of a model that may be set."""
    for name, field in model.model_fields.items():
        if name in _NOT_SET:
            continue
        nested = _model_in(field.annotation)
        if nested is not None:
            yield from _paths_of(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _validated(model: type[_S], tree: Branch, name: str) -> _S:
    try:
        return model.model_validate(tree.plain())
    except ValidationError as error:
        problems = [_problem(model, tree, name, details) for details in error.errors(include_url=False)]
    given = [text for text in problems if text.startswith("--set")]
    if given:
        raise UsageError(join_problems(given))
    raise RegistryError(join_problems(problems), hint="plifctl check lists the problems of all files")


def _problem(model: type[BaseModel], tree: Branch, name: str, details: ErrorDetails) -> str:
    path, section = _place_of(model, details["loc"])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    origin = tree.origin_of(path)
    match details["type"]:
        case "extra_forbidden":
            text = f"unknown key {key}; {did_you_mean(str(path[-1]), section.model_fields if section else ())}"
        case "union_tag_invalid":
            unknown = details["ctx"]["tag"]
            origin = tree.origin_of((*path, "name"))
            word, kinds, _ = _LISTS[str(path[1])]
            text = f"{key}: unknown {word.split()[1]} {unknown}; {did_you_mean(unknown, kinds)}"
        case "union_tag_not_found" | "model_attributes_type":
            word, _, example = _LISTS[str(path[1])]
            text = f"{key}: found {_shown(details['input'])}, expected {word}, e.g. {example}"
        case "missing":
            text = f"{key} is missing; it has no default, it must be stated"
        case "value_error":
            error = details["ctx"]["error"]
            text = f"{key + ': ' if key else ''}{error}"
            origin = tree.origin_of(error.blame) if isinstance(error, Misfit) else origin
            # several values contradict each other: blame the one that was set last
            changed = {where: leaf.origin for where, leaf in tree.leaves().items()}
            changed = {where: one for where, one in changed.items() if one.source.startswith("--set")}
            here = {where: one for where, one in changed.items() if where.startswith(key)}  # of this section, if any
            if changed and not isinstance(details["input"], str):
                origin = list((here or changed).values())[-1]
        case _:
            message = details["msg"].replace("Input should", "should").replace("tuple", "list")
            text = f"{key}: found {_shown(details['input'])}, {message}"
    return f"{origin}: {name}: {text}"


def _place_of(
    model: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[tuple[int | str, ...], type[BaseModel] | None]:
    """The way to a value as a file has it, and the model that the value's key belongs to.

    pydantic names, after the index in a list of :data:`_LISTS`, which of its kinds it is: no key of the file.
    """
    if len(loc) > 3 and isinstance(loc[2], int):
        return (*loc[:3], *loc[4:]), _LISTS[str(loc[1])][1].get(str(loc[3]))
    section: type[BaseModel] | None = model
    for part in loc[:-1]:
        field = section.model_fields.get(str(part)) if section else None
        section = _model_in(field.annotation) if field else None
    return loc, section


def _shown(value: Any) -> str:
    if isinstance(value, str):
        also = " (a text: write true or false)" if value in ("yes", "no", "on", "off") else " (a text)"
        return f"{value!r}{also}"
    return str(value).lower() if isinstance(value, bool) else str(value)
