"""The registry: reads YAML files into specs, and keeps the position of every value.

Layers of an experiment, in which later ones override earlier ones: data set, network, ``_common.yaml``, the experiments
file, the variant (each followed by its values for the recipe), a file of the user's own, ``--set``. The recipe ``fast``
has the values of ``paper`` below its own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from plifctl import paths
from plifctl.config.base import flatten
from plifctl.config.choices import RECIPES, Recipe
from plifctl.config.dataset import Framing
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.identity import TABLE_FOLDERS, current_layer, current_network, current_word
from plifctl.config.network import NetworkSpec
from plifctl.config.overrides import Overrides, merge_overrides, override_texts, parse_override
from plifctl.config.problems import CHECK_HINT, validate_tree
from plifctl.config.structure import parse_structure
from plifctl.config.yaml_tree import Branch, Leaf, Origin, merge_layers, read_tree
from plifctl.errors import RegistryError, UsageError, check_choice, did_you_mean, join_problems

_NAME = re.compile(r"\w[\w.+-]*")
_NAME_BYTES = 80
"""Names become parts of file names, which may have 255 bytes."""

_FOLDERS = ("datasets", "networks", "experiments", "sweeps", "tables")
"""Folders of a registry with YAML files."""
_OTHERS = ("results", "authors", "zoo", "sources.yaml")

_REGISTRY_KEYS = ("extends", "recipes", "variants")
_FILE_KEYS = {*ExperimentSpec.model_fields, *_REGISTRY_KEYS} - {"name", "recipe"}


@dataclass(frozen=True)
class _Entry:
    """One named entry: its mapping, and for an experiment the layers below it."""

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

    def dataset(self, name: str, recipe: Recipe = "paper", overrides: Overrides = ()) -> Framing:
        """Returns a data set with the framing of a recipe, T not chosen.

        Args:
            name: Name of the data set.
            recipe: ``paper`` (the text), ``authors`` (the authors' code) or ``fast`` (a short training).
            overrides: Changes to keys ``frames.…``.

        Raises:
            UsageError: No such data set, or an override is wrong.
            RegistryError: Its file is invalid.
        """
        return validate_tree(Framing, self._framing_tree(name, recipe, overrides), name)

    def dataset_origins(self, name: str, recipe: Recipe = "paper", overrides: Overrides = ()) -> dict[str, Origin]:
        """Returns where each value of :meth:`dataset` was written, by dotted path."""
        return _origins(self._framing_tree(name, recipe, overrides))

    def _framing_tree(self, name: str, recipe: Recipe, overrides: Overrides) -> Branch:
        tree = self._dataset_layer(_require_known("data set", name, self._datasets), known_recipe(recipe))
        return _with_frames(tree, name, override_texts(overrides))

    def network(self, name: str) -> NetworkSpec:
        """Returns a network.

        Raises:
            UsageError: No such network.
            RegistryError: Its file is invalid.
        """
        name = current_network(name)
        return validate_tree(NetworkSpec, self._network_tree(name), name)

    def network_origins(self, name: str) -> dict[str, Origin]:
        """Returns where each value of :meth:`network` was written, by key."""
        return _origins(self._network_tree(current_network(name)))

    def _network_tree(self, name: str) -> Branch:
        tree = self._networks[_require_known("network", name, self._networks)].tree
        return merge_layers(tree, Branch(tree.origin, {"name": Leaf(name, tree.origin)}))

    def experiment(self, name: str, *, recipe: Recipe = "paper", overrides: Overrides = ()) -> Experiment:
        """Returns an experiment with its layers merged.

        Args:
            name: Name of the experiment.
            recipe: ``paper`` (the text), ``authors`` (the authors' code) or ``fast`` (a short training).
            overrides: Texts ``key=value``, or a mapping from dotted keys to values.

        Raises:
            UsageError: No such experiment or key, or a value is wrong.
            RegistryError: A file is invalid; the message lists every problem.
        """
        recipe = known_recipe(recipe)
        layers = self._experiment_layers(name, recipe)
        named = Branch(layers[-1].origin, {"name": Leaf(name, layers[-1].origin)})
        return self._assemble([*layers, named], recipe, override_texts(overrides))

    def experiment_framing(self, name: str, recipe: Recipe = "paper", overrides: Overrides = ()) -> Framing:
        """Returns the data set of an experiment with its framing and T; as :meth:`dataset` but for the name."""
        return self.experiment(name, recipe=recipe, overrides=_frames_overrides(overrides)).spec.framing

    def read_experiment(self, path: Path, *, recipe: Recipe | None = None, overrides: Overrides = ()) -> Experiment:
        """Returns the experiment of a YAML file, as :meth:`Experiment.save` writes one.

        The file has the keys of ``plifctl show``, nested. It states every value, or ``like: NAME`` and the values that
        differ from that experiment of the registry. Data set and network are names, or mappings of all their values.
        If it has the name of an experiment of the registry, each difference from that one is an override; with a name
        of its own it is another experiment, which ``overrides`` change.

        Args:
            path: The file.
            recipe: The recipe of the experiment it is like; None: ``recipe`` of the file, else ``paper``.
            overrides: Changes to the file.

        Raises:
            UsageError: No such file, or an override is wrong.
            RegistryError: The file is invalid; the message lists every problem.
        """
        tree = _read_experiment_file(path)
        stated = current_word(tree.text("recipe"))
        recipe = known_recipe(recipe) if recipe is not None else None
        if recipe is not None and stated not in (None, recipe):
            hint = f"plifctl show {shlex.quote(str(path))}"
            raise UsageError(f"--recipe {recipe}: {path} is of the recipe {stated}", hint=hint)
        recipe = recipe or stated or "paper"
        if recipe not in RECIPES:
            raise RegistryError(f"{tree['recipe'].origin}: unknown recipe {recipe}; {did_you_mean(recipe, RECIPES)}")
        like, name = tree.text("like"), tree.text("name") or tree.text("like")
        if name is None:
            raise RegistryError(f"{path}: name is missing: state name: NAME, or like: NAME of a registered experiment")
        if problem := name_problem(name):
            raise RegistryError(f"{tree.origin_of(('name',))}: {problem}")
        below = self._experiment_layers(like, recipe, tree["like"].origin) if like is not None else []
        named_at = tree.origin_of(("name",))
        if below and name != like:  # what the paper calls another experiment, and reports of it, is not of this one
            title = Branch(tree.origin, {"title": Leaf(name, named_at)})
            below = [title, *(layer.without("reported", "title") for layer in below)]
        named = Branch(tree.origin, {"name": Leaf(name, named_at)})
        found = self._assemble([*below, tree.without("like"), named], recipe, override_texts(overrides))
        return replace(found, overrides=self._differences(found, path)) if name in self.experiments() else found

    def read_framing(self, path: Path, *, recipe: Recipe | None = None, overrides: Overrides = ()) -> Framing:
        """Returns the data set of a YAML file and its framing: of an experiment (T chosen), or of a data set (no T).

        Args:
            path: The file: an experiment as :meth:`read_experiment` reads it, or a file as in ``registry/datasets``.
            recipe: As of :meth:`read_experiment`.
            overrides: Changes to keys ``frames.…``.

        Raises:
            UsageError: No such file, or an override is wrong.
            RegistryError: The file is invalid; the message lists every problem.
        """
        tree = _read_file(path)
        if "layout" not in tree:
            return self.read_experiment(path, recipe=recipe, overrides=_frames_overrides(overrides)).spec.framing
        if problems := list(_form_problems(tree)):
            raise RegistryError(join_problems(problems))
        name = tree.text("name")
        if problem := name_problem(name or ""):
            raise RegistryError(f"{tree.origin_of(('name',))}: {problem}")
        layer = _layer_of_dataset(tree, known_recipe(recipe or "paper"))
        return validate_tree(Framing, _with_frames(layer, str(name), override_texts(overrides)), str(name))

    def describe_file(self, path: Path) -> str:
        """Returns what a YAML file describes, for a message, after all of it was checked.

        Raises:
            UsageError: No such file.
            RegistryError: The file is invalid; the message lists every problem.
        """
        if "layout" in _read_file(path):
            for recipe in RECIPES:
                try:
                    found = self.read_framing(path, recipe=recipe)
                except RegistryError as error:
                    raise RegistryError(
                        join_problems(_of_other_recipe(error.problems, recipe)), hint=error.hint
                    ) from None
            return f"{path}: data set {found.dataset.name}, {len(found.dataset.classes)} classes"
        spec = self.read_experiment(path).spec
        return f"{path}: experiment {spec.name}, data set {spec.dataset.name}, network {spec.network.name}"

    def change_experiment(self, experiment: Experiment, overrides: Overrides) -> Experiment:
        """Returns an experiment with some values changed; only a network set by its name is looked up here."""
        spec, texts = experiment.spec, override_texts(overrides)
        tree = Branch(Origin(spec.name))
        for path, value in flatten(spec.model_dump(mode="json")).items():
            if (origin := experiment.origins.get(path)) is not None:
                tree = merge_layers(tree, Branch.at(path, Leaf(value, origin)))
        changed = self._assemble([tree], spec.recipe, texts)
        return replace(changed, overrides=merge_overrides(experiment.overrides, texts))

    def check(self) -> list[str]:
        """Returns every problem of every file and experiment, each with file, line and column."""
        problems = [problem for folder in self.folders if folder.is_dir() for problem in _unread(folder)]
        valid = _ValidEntries(self.folders)
        datasets, networks, experiments = valid.datasets(), valid.networks(), valid.experiments()
        problems += dict.fromkeys(valid.problems)
        incomplete = bool(problems)
        attempts: list[tuple[Recipe, Callable[[], object]]] = [
            ("paper", partial(valid.network, name)) for name in networks
        ]
        for recipe in RECIPES:
            attempts += [(recipe, partial(valid.dataset, name, recipe)) for name in datasets]
            attempts += [(recipe, partial(valid.experiment, name, recipe=recipe)) for name in experiments]
        seen = set(problems)
        for recipe, attempt in attempts:
            try:
                attempt()
            except RegistryError as error:
                lines = [line for line in error.problems if line not in seen]
                seen.update(lines)
                lines = [line for line in lines if not (incomplete and _follows_from_another(line))]
                problems += _of_other_recipe(lines, recipe)
        return problems

    @cached_property
    def _datasets(self) -> dict[str, _Entry]:
        return self._valid_entries(self._read_datasets())

    @cached_property
    def _networks(self) -> dict[str, _Entry]:
        return self._valid_entries(self._read_networks())

    @cached_property
    def _experiments(self) -> dict[str, _Entry]:
        return self._valid_entries(self._read_experiments())

    def _valid_entries(self, entries: Iterator[tuple[str, _Entry] | str]) -> dict[str, _Entry]:
        """Returns the entries by name; raises RegistryError if a file has a problem."""
        found, problems = _collect(entries)
        if problems:
            raise RegistryError(join_problems(problems), hint=CHECK_HINT)
        return found

    def _read_datasets(self) -> Iterator[tuple[str, _Entry] | str]:
        for tree in self._trees("datasets"):
            if isinstance(tree, str):
                yield tree
            else:
                tree = current_layer(tree)
                _locate_recordings(tree, Path(tree.origin.source))
                yield from _form_problems(tree)
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
            tree, path = current_layer(tree), Path(tree.origin.source)
            for key, value in tree.items():
                if key not in _FILE_KEYS:
                    yield f"{value.origin}: unknown key {key}; {did_you_mean(key, _FILE_KEYS)}"
            yield from _form_problems(tree)
            for layer in (tree, *tree.branch("variants").values()):
                if isinstance(layer, Branch):
                    _locate_recordings(layer.branch("dataset"), path)
            stem = path.stem
            if stem.startswith("_"):
                for key in (key for key in ("extends", "variants") if key in tree):
                    yield f"{tree[key].origin}: {key} is not allowed in a file that others extend"
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
                            yield f"{variant[key].origin}: {name}: {key} is not allowed in a variant"
                    yield from _form_problems(variant)
                    yield name, _Entry(variant, below)
                else:
                    yield f"{variant.origin}: {name}: not a mapping"

    def _trees(self, kind: str) -> Iterator[Branch | str]:
        """Yields every file of a kind, or its problem; shared ones of a folder, as ``_common.yaml``, come first."""
        for folder in self.folders:
            if not folder.is_dir():
                yield f"{folder}: no such registry folder"
                continue
            files = (folder / kind).glob("*.yaml")
            for path in sorted(files, key=lambda path: (not path.name.startswith("_"), path.name)):
                try:
                    yield read_tree(path)
                except RegistryError as error:
                    yield str(error)
                except OSError as error:
                    yield f"{path}: {error.strerror}"

    def _dataset_layer(self, name: str, recipe: Recipe) -> Branch:
        return _layer_of_dataset(self._datasets[name].tree, recipe)

    def _experiment_layers(self, name: str, recipe: Recipe, named_at: Origin | None = None) -> list[Branch]:
        if named_at is not None and name not in self._experiments:
            raise RegistryError(f"{named_at}: unknown experiment {name}; {did_you_mean(name, self._experiments)}")
        entry = self._experiments[_require_known("experiment", name, self._experiments)]
        layers = [part for layer in (*entry.below, entry.tree) for part in (layer, *_of_recipe(layer, recipe))]
        return [layer.without(*_REGISTRY_KEYS) for layer in layers]

    def _assemble(self, layers: Sequence[Branch], recipe: Recipe, overrides: tuple[str, ...]) -> Experiment:
        """Returns the experiment of some layers, merged over the data set and the network that they name."""
        changes = [parse_override(text, ExperimentSpec) for text in overrides]
        renamed = [change for change in changes if isinstance(change.get("network"), Leaf)]
        own = merge_layers(*map(_network_as_mapping, _with_T(layers)))
        if renamed:  # another network replaces all of the one before
            own["network"] = _network_as_mapping(merge_layers(*renamed))["network"]
        place, dataset = layers[-1].origin, own.get("dataset")
        if isinstance(dataset, Branch):
            below = Branch(place, {"dataset": dataset})
        elif dataset is not None and dataset.value in self._datasets:
            below = self._dataset_layer(dataset.value, recipe)
        else:
            raise _unknown_part("dataset", own.text("dataset"), own.origin_of(("dataset",)), self._datasets)
        own_network = own.branch("network")
        network, named_at = current_network(own_network.text("name")), own_network.origin_of(("name",))
        if network in self._networks:
            own_network = merge_layers(self._networks[network].tree, own_network)
        elif "structure" not in own_network:
            raise _unknown_part("network", network, named_at, self._networks)
        tree = merge_layers(
            below,
            Branch(place, {"network": own_network}),
            own.without("dataset", "network"),
            *(change for change in changes if change not in renamed),
            Branch(
                place, {"recipe": Leaf(recipe, own.origin_of(("recipe",)) if "recipe" in own else Origin("--recipe"))}
            ),
        )
        spec = validate_tree(ExperimentSpec, tree, own.text("name") or "")
        return Experiment(spec, _origins(tree), overrides)

    def _differences(self, experiment: Experiment, path: Path) -> tuple[str, ...]:
        """Returns the differences from the registry's experiment of the same name, as overrides."""
        spec = experiment.spec
        usual = self.experiment(spec.name, recipe=spec.recipe).spec
        first: dict[str, str] = {}
        if spec.network.name != usual.network.name and spec.network.name in self._networks:
            first = {"network": spec.network.name}
            usual = self.experiment(spec.name, recipe=spec.recipe, overrides=first).spec
        was, now = flatten(usual.model_dump(mode="json")), flatten(spec.model_dump(mode="json"))
        changed = {key: value for key, value in now.items() if key not in was or was[key] != value}
        described = ("title", "reported.accuracy_a", "reported.accuracy_b", "reported.source")
        texts = override_texts({**first, **{key: value for key, value in changed.items() if key not in described}})
        try:
            same = self.experiment(spec.name, recipe=spec.recipe, overrides=texts).spec
        except UsageError:
            same = None
        if same is None or same.digest != spec.digest:
            raise RegistryError(
                f"{path}: differs from the experiment {spec.name} of the registry by more than --set can change",
                hint="give it another name: name: NAME",
            )
        return texts


class _ValidEntries(Registry):
    """The valid entries of registry folders, with which the rest is checked, and the problems of the others."""

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__(folders)
        self.problems: list[str] = []

    def _valid_entries(self, entries: Iterator[tuple[str, _Entry] | str]) -> dict[str, _Entry]:
        found, problems = _collect(entries)
        self.problems += problems
        return found


def _unread(folder: Path) -> Iterator[str]:
    """Yields what a registry folder contains that looks like a part of it, and is not read."""
    if not any((folder / name).exists() for name in (*_FOLDERS, *TABLE_FOLDERS, *_OTHERS)):
        above = f"; did you mean {folder.parent}?" if folder.name in _FOLDERS else ""
        yield f"{folder}: none of the folders of a registry is in it: {', '.join(_FOLDERS)}{above}"
    for path in sorted(folder.iterdir()):
        name = f"{path.name.lower().removesuffix('s')}s"
        if path.is_dir() and name in _FOLDERS and not (folder / name).is_dir():
            yield f"{path}: not read; rename it to {name}"
    for path in sorted(path for name in _FOLDERS for path in (folder / name).glob("*")):
        if path.suffix != ".yaml" and path.suffix.lower() in (".yaml", ".yml"):
            yield f"{path}: not read; rename it to {path.stem}.yaml"


def known_recipe(recipe: Recipe) -> Recipe:
    """Returns a recipe as it is called today.

    Raises:
        UsageError: There is no such recipe.
    """
    known: Recipe = current_word(recipe)
    check_choice("recipe", known, RECIPES)
    return known


def _read_file(path: Path) -> Branch:
    """Returns the mapping of a file of the user's own; the folder of its recordings relative to the file."""
    try:
        tree = current_layer(read_tree(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="plifctl ls lists the experiments of the registry") from None
    dataset = tree if "layout" in tree else tree.get("dataset")
    if isinstance(dataset, Branch):
        _locate_recordings(dataset, path)
    return tree


def _locate_recordings(dataset: Branch, path: Path) -> None:
    """Makes ``raw`` of a data set, relative to the file that says so, an absolute path."""
    raw = dataset.get("raw")
    if isinstance(raw, Leaf) and isinstance(raw.value, str):
        place = path.absolute().parent / paths.expand(raw.value)
        dataset["raw"] = Leaf(str(place), raw.origin)


def _read_experiment_file(path: Path) -> Branch:
    tree = _read_file(path)
    if "layout" in tree:
        raise RegistryError(
            f"{path}: a data set, expected an experiment",
            hint=f"plifctl prepare {shlex.quote(str(path))} frames its recordings; "
            "an experiment has it as dataset: {name: …, …}",
        )
    if problems := list(_form_problems(tree)):
        raise RegistryError(join_problems(problems))
    if foreign := [key for key in _REGISTRY_KEYS if key in tree]:
        raise RegistryError(
            f"{tree[foreign[0]].origin}: {foreign[0]}: for registry folders only; a single file holds one experiment",
            hint="export PLIFCTL_REGISTRY=FOLDER, with this file in FOLDER/experiments",
        )
    return tree


def _layer_of_dataset(tree: Branch, recipe: Recipe) -> Branch:
    """Returns the mappings ``dataset`` and ``frames`` of a data set's file, with its values for a recipe."""
    own = Branch(tree.origin, {"dataset": tree.without("recipes", "frames")})
    shared = Branch(tree.origin, {key: value for key, value in tree.items() if key == "frames"})
    return merge_layers(own, shared, *_of_recipe(tree, recipe))


def _of_recipe(tree: Branch, recipe: Recipe) -> list[Branch]:
    """Returns the values of a file or variant for a recipe, in layers."""
    names: tuple[Recipe, ...] = ("paper", "fast") if recipe == "fast" else (recipe,)
    return [tree.branch("recipes", name) for name in names]


def _with_frames(tree: Branch, name: str, texts: Sequence[str]) -> Branch:
    """Returns a data set's layer with some keys of ``frames`` overridden."""
    if texts and "frames" not in tree:
        raise UsageError(f"--set {texts[0]}: {name} is an image data set, which is not framed")
    return merge_layers(tree, *(parse_override(text, ExperimentSpec, sections=("frames",)) for text in texts))


def _frames_overrides(overrides: Overrides) -> tuple[str, ...]:
    """Returns overrides as texts; those of other keys than ``frames.…`` are errors."""
    texts = override_texts(overrides)
    for text in texts:
        parse_override(text, ExperimentSpec, sections=("frames",))
    return texts


def _origins(tree: Branch) -> dict[str, Origin]:
    return {path: leaf.origin for path, leaf in tree.leaves().items()}


def _with_T(layers: Iterable[Branch]) -> Iterator[Branch]:  # noqa: N802
    """Yields layers; T of one holds for all protocols, unless it states that of protocol B as well."""
    has_other = False  # a T of protocol B, in the layers below
    for layer in layers:
        states_other = "T" in layer.branch("validation")
        if has_other and "T" in layer and not states_other:
            yield Branch.at("validation.T", Leaf(None, layer["T"].origin))
        has_other = has_other or states_other
        yield layer


def _network_as_mapping(layer: Branch) -> Branch:
    """Returns a layer whose network, if it is a name, is a mapping with that name, instead of any below."""
    network = layer.get("network")
    if not isinstance(network, Leaf):
        return layer
    own = Branch(network.origin, {"name": network})
    own.replaces = True
    return merge_layers(layer.without("network"), Branch(layer.origin, {"network": own}))


def _unknown_part(kind: str, name: str | None, origin: Origin, known: Iterable[str]) -> UsageError | RegistryError:
    error = UsageError if str(origin).startswith("--set") else RegistryError
    problem = f"unknown {kind} {name}" if name else f"{kind} is missing: name one, or state like: NAME"
    hint = did_you_mean(name or "", known)
    if kind == "dataset" and name is not None and hint.startswith("known: "):
        hint += "\none of your own: its values as a mapping, dataset: {name: …, layout: …, …}; or its file in "
        hint += "FOLDER/datasets, and export PLIFCTL_REGISTRY=FOLDER"
    if kind == "network" and name is not None and _is_structure(name):
        hint = (
            f'a structure is a part: network: {{name: NAME, structure: "{name}", dropout: 0.5, batch_norm: per-step}}'
        )
    return error(f"{origin}: {problem}", hint=hint)


def _is_structure(text: str) -> bool:
    try:
        return bool(parse_structure(text))
    except ValueError:
        return False


def _collect(entries: Iterator[tuple[str, _Entry] | str]) -> tuple[dict[str, _Entry], list[str]]:
    """Returns the entries by name, and the problems of the files."""
    found: dict[str, _Entry] = {}
    problems: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            problems.append(entry)
        elif problem := name_problem(entry[0]):
            problems.append(f"{entry[1].tree.origin}: {problem}")
        elif entry[0] in found:
            problems.append(f"{entry[1].tree.origin}: {entry[0]} is defined already, {found[entry[0]].tree.origin}")
        else:
            found[entry[0]] = entry[1]
    return found, problems


def name_problem(name: str) -> str:
    """Returns why a name cannot be one; empty if it can."""
    if _NAME.fullmatch(name) and len(name.encode()) <= _NAME_BYTES:
        return ""
    return (
        f"{name!r} cannot be a name: letters, digits and . _ + - only, at most {_NAME_BYTES} bytes of them, "
        "a letter or digit first"
    )


def _of_other_recipe(problems: Iterable[str], recipe: Recipe) -> list[str]:
    """Returns problems of values for a recipe; that of another than ``paper``, the default, is named."""
    return [problem if recipe == "paper" else f"{problem} (recipe {recipe})" for problem in problems]


def _follows_from_another(problem: str) -> bool:
    """Returns whether a problem may only be that another file could not be read."""
    return ": unknown dataset " in problem or ": unknown network " in problem


def _form_problems(tree: Branch) -> Iterator[str]:
    """Yields what is wrong with the keys by which a file is read: texts, mappings, and names of recipes."""
    texts, mappings = ("name", "recipe", "like", "extends"), ("variants", "recipes")
    for key, value in tree.items():
        is_empty = isinstance(value, Leaf) and value.value is None
        is_text = isinstance(value, Leaf) and isinstance(value.value, str)
        if key in texts and not is_text:
            quoted = ""
            if isinstance(value, Leaf) and isinstance(value.value, bool | int | float):
                quoted = f', in quotes: {key}: "{json.dumps(value.value)}"'
            yield f"{value.origin}: {key}: expected a text{quoted}"
        elif key in mappings and not (isinstance(value, Branch) or is_empty):
            yield f"{value.origin}: {key}: expected a mapping"
        elif key in ("dataset", "network") and not (isinstance(value, Branch) or is_text):
            yield f"{value.origin}: {key}: expected a name, or a mapping of all its values"
    for name, value in tree.branch("recipes").items():
        if name not in RECIPES:
            yield f"{value.origin}: unknown recipe {name}; {did_you_mean(name, RECIPES)}"
        elif not isinstance(value, Branch) and value.value is not None:
            yield f"{value.origin}: recipes: {name}: expected a mapping"


def _require_known(kind: str, name: str, entries: dict[str, _Entry]) -> str:
    if name not in entries:
        raise unknown_name(kind, name, entries)
    return name


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Returns the error for an unknown name; if no name is similar, the hint mentions PLIFCTL_REGISTRY."""
    hint = did_you_mean(name, known)
    own = "\none of your own: export PLIFCTL_REGISTRY=FOLDER" if hint.startswith("known: ") else ""
    return UsageError(f"unknown {kind} {name!r}", hint=hint + own)
