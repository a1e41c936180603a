"""Schema of a sweep: many trainings as one list, on the command line or in a YAML file.

Every combination of the lists is one training. The file of a sweep, which ``plifctl sweep run FILE`` reads::

    sweep: bad-tau                           # its name; omitted: that of the file
    title: N-MNIST from two τ₀               # what it is for
    experiments: [nmnist-plif]               # names, or files relative to this one
    seeds: [1, 2, 3]
    set: {train.epochs: 10}                  # one value for all
    grid:
      neuron.tau_0: [2, 16]                  # a list of values
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from plifctl.config.base import Spec, flatten
from plifctl.config.choices import Protocol, Recipe
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import is_file_name
from plifctl.config.overrides import override_key, parse_override
from plifctl.config.problems import CHECK_HINT, validate_tree
from plifctl.config.yaml_tree import Branch, Origin, YamlError, parse_value, read_tree
from plifctl.errors import RegistryError, UsageError, join_problems

MAX_RUNS = 10_000
"""Most runs of a sweep: more is a mistake in a grid."""

_EXAMPLE = "e.g. --set neuron.tau_0=2,16"
_Names = Annotated[tuple[str, ...], Field(strict=False)]
_Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]


class SweepSpec(Spec):
    """The trainings of a sweep.

    Attributes:
        sweep: Its name; None: made from the rest.
        title: What it is for, in a line; None: not stated.
        tables: Tables whose runs are part of it, by name.
        experiments: Experiments, each a name or a YAML file.
        recipe: Recipe of named experiments; None: ``paper``.
        protocols: Protocols; empty: those that a table asks for, A of experiments.
        seeds: Seeds; empty: each experiment's own.
        folds: Number of folds of a cross-validation, each of which is a training; None: no cross-validation.
        set: Values of all trainings, by dotted key.
        grid: Lists of values, by dotted key; every combination is trained.
    """

    sweep: str | None = None
    title: str | None = None
    tables: _Names = ()
    experiments: _Names = ()
    recipe: Recipe | None = None
    protocols: Annotated[tuple[Protocol, ...], Field(strict=False)] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(strict=False)] = ()
    folds: int | None = Field(default=None, ge=2, le=10_000)
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, _Values] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.tables and not self.experiments:
            raise ValueError("a sweep needs experiments or tables")
        stated = flatten(self.set)
        if both := sorted({*stated} & {*self.grid}):
            raise ValueError(f"{', '.join(both)}: in set and in grid")
        taken = {"train.seed": "seeds", "split.fold": "folds"} if self.folds else {"train.seed": "seeds"}
        for key, field in taken.items():
            if key in stated or key in self.grid:
                raise ValueError(f"{key}: state it as {field}")
        for name in ("tables", "experiments", "protocols", "seeds"):
            values: tuple[Any, ...] = getattr(self, name)
            if len({*values}) < len(values):
                raise ValueError(f"{name}: a value is given twice")
        for key, values in self.grid.items():
            if len({*map(repr, values)}) < len(values):
                raise ValueError(f"grid: {key}: a value is given twice")
        return self


def read_sweep(path: Path) -> SweepSpec:
    """Returns the sweep of a YAML file; experiments that are files are relative to it.

    Raises:
        UsageError: No such file.
        RegistryError: The file is invalid; the message lists every problem.
    """
    try:
        tree = read_tree(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="plifctl sweep run --help shows what a sweep is") from None
    name = tree.text("sweep") or path.stem
    spec = validate_tree(SweepSpec, tree, name)
    if problems := list(_unknown_keys(tree, name)):
        raise RegistryError(join_problems(problems), hint=CHECK_HINT)
    here = path.absolute().parent
    found = tuple(str(here / name) if is_file_name(name) else name for name in spec.experiments)
    return spec.model_copy(update={"experiments": found, "sweep": spec.sweep or path.stem})


def _unknown_keys(tree: Branch, name: str) -> Iterator[str]:
    """Yields the keys of ``set`` and ``grid`` that no experiment has."""
    for section in ("set", "grid"):
        for key, leaf in tree.branch(section).leaves().items():
            try:
                parse_override(f"{key}=0", ExperimentSpec)
            except UsageError as error:
                yield f"{leaf.origin}: {name}: {section}: unknown key {key}; {error.hint}"


def is_sweep_file(path: Path) -> bool:
    """Returns whether a YAML file is one of a sweep, not of an experiment or a data set."""
    try:
        tree = read_tree(path)
    except (RegistryError, OSError):
        return False
    return any(field in tree for field in ("sweep", "experiments", "tables", "grid"))


def split_overrides(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Returns texts ``key=value`` as the fields ``set`` and ``grid`` of a sweep; commas separate several values.

    Example:
        >>> split_overrides(["train.epochs=10", "neuron.tau_0=2,16"])
        ({'train.epochs': 10}, {'neuron.tau_0': (2, 16)})
        >>> split_overrides(["train.schedule_options.milestones=[4, 8]"])[0]
        {'train.schedule_options.milestones': [4, 8]}

    Raises:
        UsageError: A text is not ``key=value``, or a list has an empty value.
    """
    one: dict[str, Any] = {}
    several: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        _, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: expected key=value or key=value,value", hint=_EXAMPLE)
        words = _at_commas(value)
        if "" in words:
            raise UsageError(f"--set {text}: a value is empty", hint=_EXAMPLE)
        parts, key = tuple(map(_parse, words)), override_key(text)
        one.pop(key, None)  # the last one counts
        several.pop(key, None)
        if len(parts) > 1:
            several[key] = parts
        else:
            one[key] = parts[0]
    return one, several


def _at_commas(text: str) -> list[str]:
    """Returns the parts of a text between commas that are not within brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        depth += (char in "[{") - (char in "]}") if not quote else 0
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _parse(text: str) -> Any:
    """Returns a value as YAML has it; a text that is not YAML, such as a network structure, as it is."""
    try:
        found = parse_value(text, Origin("--set"), mapping=True)
    except YamlError:
        return text
    return found.plain() if isinstance(found, Branch) else found.value
