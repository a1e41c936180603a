"""What the user names: an experiment or a data set by its name in the registry, by a YAML file, or as an object.

A name is looked up in the registry, then as the file ``NAME.yaml`` in the working directory.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from plifctl import paths
from plifctl.config.choices import Recipe
from plifctl.config.dataset import Framing
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.overrides import Overrides, override_key
from plifctl.config.registry import Registry, known_recipe, name_problem
from plifctl.config.structure import Plain, parse_structure
from plifctl.errors import UsageError


def load_registry() -> Registry:
    """Returns the shipped registry with the user's own folder, if there is one."""
    return Registry(paths.registry_dirs())


def load_experiment(
    source: str | Path | Experiment,
    overrides: Overrides = (),
    *,
    recipe: Recipe | None = None,
    registry: Registry | None = None,
) -> Experiment:
    """Returns an experiment by its name, from a YAML file, or changed from another.

    Args:
        source: A name in the registry, or of ``NAME.yaml`` in the working directory; a file (a Path, or a text with a
            ``/`` or the ending ``.yaml``); or an experiment.
        overrides: Texts ``key=value``, or a mapping from dotted keys to values.
        recipe: ``paper``, ``authors`` or ``fast``; None: that of the file or experiment, ``paper`` of a name.
        registry: Where names are looked up; None: the shipped registry and the user's own.

    Raises:
        UsageError: No such experiment, file or key, a name that the registry and a file have, or a value is wrong.
        RegistryError: A file is invalid.

    Example:
        >>> load_experiment("gesture-plif", {"neuron.tau_0": 4.0}).overrides
        ('neuron.tau_0=4.0',)
    """
    registry = registry or load_registry()
    if isinstance(source, Experiment):
        if recipe is not None and known_recipe(recipe) != source.spec.recipe:
            raise UsageError(f"recipe {recipe}: {source.spec.name} is of the recipe {source.spec.recipe}")
        return registry.change_experiment(source, overrides) if overrides else source
    if not isinstance(source, str | Path):
        raise UsageError(f"found {source!r}, expected the name of an experiment, a YAML file or an experiment")
    if (file := file_of(source, registry.experiments())) is not None:
        return registry.read_experiment(file, recipe=recipe, overrides=overrides)
    return registry.experiment(str(source), recipe=recipe or "paper", overrides=overrides)


def without_effect(spec: ExperimentSpec, overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that the experiment does not use, each with the reason: they change its digest only.

    Args:
        spec: The experiment, with the overrides.
        overrides: Texts ``key=value``.
    """
    split, method = spec.split.method, spec.validation.method
    unused: dict[str, str] = {}
    if spec.network.dropout and Plain("dropout") not in parse_structure(spec.network.structure):
        unused["network.dropout"] = "the structure has no layer DP"
    if spec.split.seed and split not in ("share", "folds") and method != "share":
        unused["split.seed"] = f"nothing is drawn: split.method is {split}, validation.method is {method}"
    if method != "in-order":
        unused["validation.rounding"] = f"validation.method is {method}"
    if method == "official":
        unused["validation.train_fraction"] = f"validation.method is {method}"
    return [f"{text} has no effect: {unused[key]}" for text in overrides if (key := override_key(text)) in unused]


def load_framing(
    source: str | Path,
    overrides: Overrides = (),
    *,
    recipe: Recipe | None = None,
    registry: Registry | None = None,
) -> Framing:
    """Returns a data set and how it is framed, by its name or from the YAML file of a data set or an experiment.

    The name of an experiment of the registry, which no data set has, means its data set.

    Args:
        source: As of :func:`load_experiment`.
        overrides: Changes to keys ``frames.…``.
        recipe: ``paper``, ``authors`` or ``fast``; None: that of the file, ``paper`` of a name.
        registry: As of :func:`load_experiment`.

    Returns:
        The framing; T is that of an experiment, else not chosen.

    Raises:
        UsageError, RegistryError: As :func:`load_experiment`.
    """
    registry = registry or load_registry()
    known = registry.datasets()
    names_other = not is_file_name(source) and source not in known
    if names_other:
        known = registry.experiments()
    if (file := file_of(source, known)) is not None:
        return registry.read_framing(file, recipe=recipe, overrides=overrides)
    if names_other and source in known:
        return registry.experiment_framing(str(source), recipe or "paper", overrides)
    return registry.dataset(str(source), recipe or "paper", overrides)


def file_of(source: str | Path, known: Sequence[str]) -> Path | None:
    """Returns the YAML file that the user means; None for a name in the registry, and for an unknown one.

    Args:
        source: A Path, or a text with a ``/`` or the ending ``.yaml``: a file. Any other text is a name: of an entry of
            the registry, or of ``NAME.yaml`` in the working directory.
        known: Names in the registry.

    Raises:
        UsageError: The registry and the working directory have the name, or it is that of a folder.
    """
    if is_file_name(source):
        refuse_folder(source)
        return paths.expand(source)
    here = Path(f"{source}.yaml")
    if not here.is_file():
        if source not in known:
            refuse_folder(source)
        return None
    if source in known:
        raise UsageError(
            f"{source} is a name in the registry and the file {here} in this folder",
            hint=f"to use the file: ./{here}; to use the registry's: type the command in another folder",
        )
    return here


def refuse_folder(source: str | Path) -> None:
    """Raises UsageError, with what else it may be for, if a folder is named in place of a name or a file."""
    folder, quoted = paths.expand(source), shlex.quote(str(source))
    if not folder.is_dir():
        return
    is_registry = any((folder / kind).is_dir() for kind in ("experiments", "datasets", "networks"))
    raise UsageError(
        f"{source}: a folder, expected a name or a YAML file",
        hint=f"to use it as a registry folder: export PLIFCTL_REGISTRY={quoted}"
        if is_registry
        else f"if it contains recordings: plifctl data init {quoted}",
    )


def check_new_name(name: str, path: Path, *, hint: str) -> None:
    """Raises UsageError unless the user's own experiment or data set of a name can be written to a file.

    Args:
        name: Its name.
        path: The file.
        hint: How to choose another name.
    """
    registry = load_registry()
    if problem := name_problem(name):
        raise UsageError(f"{path}: {problem}", hint=hint)
    if name in (*registry.datasets(), *registry.experiments(), *registry.networks()):
        raise UsageError(f"{path}: {name} is a name in the registry, and would mean two things", hint=hint)
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path}: exists already", hint=f"{hint}, or remove it")


def is_file_name(source: str | Path) -> bool:
    """Returns whether a text can only be the name of a file."""
    return isinstance(source, Path) or "/" in source or source.endswith((".yaml", ".yml"))
