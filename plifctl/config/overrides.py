"""Overrides of registry values: ``--set key=value`` on the command line, a mapping in Python.

Both are kept as texts ``key=value``, the same in a run, its record and the command that repeats it. A text is read by
the type of its key: a text field such as ``network.structure`` takes it as it is (``null`` is None where that is
allowed), everything else is read as a YAML value.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from plifctl.config.base import Spec, flatten, nested_spec
from plifctl.config.yaml_tree import Branch, Leaf, Origin, YamlError, parse_value
from plifctl.errors import UsageError, list_names

Overrides = Sequence[str] | Mapping[str, Any]
"""Texts ``key=value``, or a mapping from dotted keys (or nested mappings) to values."""

_NOT_SETTABLE = ("name", "title", "recipe", "reported", "dataset")
"""Descriptions, and fields with more than one value."""

_NO_MODIFICATION = ("train.seed", "train.epochs", "train.memory")


_LISTED = 20
"""Keys in a hint: those of framing, or of recordings."""


def override_key(text: str) -> str:
    """Returns the key of ``key=value``."""
    return text.partition("=")[0].strip()


def is_modification(text: str) -> bool:
    """Returns whether ``key=value`` makes another experiment: all keys do but seed, epochs and memory."""
    return override_key(text) not in _NO_MODIFICATION


def changed_values(overrides: Iterable[str]) -> dict[str, Any]:
    """Returns what overrides change, by key; ``5e-4`` and ``0.0005`` are equal, and of one key the last counts.

    Example:
        >>> changed_values(["train.lr=0.1", "train.lr=5e-4", "neuron.kind=lif", "train.seed=3"])
        {'train.lr': 0.0005, 'neuron.kind': 'lif'}
    """
    types, found = _types(), dict[str, Any]()
    for text in filter(is_modification, overrides):
        key, value = override_key(text), text.partition("=")[2].strip()
        found[key] = value
        with suppress(UsageError):
            part = _parse(value, Origin(""), types.get(key), mapping=True)
            found[key] = part.plain() if isinstance(part, Branch) else part.value
    return found


@functools.cache
def _types() -> dict[str, Any]:
    """Returns the type of each value that can be set, by key."""
    from plifctl.config.experiment import ExperimentSpec  # it imports this module

    return dict(_settable(ExperimentSpec))


def fold_overrides(fold: int | str, folds: int | str | None) -> list[str]:
    """Returns the overrides that test on one fold of a cross-validation: of the experiment's own, or of ``folds``."""
    if folds is None:
        return [f"split.fold={fold}"]
    return ["split.method=folds", "split.test=null", f"split.folds={folds}", f"split.fold={fold}"]


def training_overrides(
    *,
    epochs: int | None = None,
    subset: float | None = None,
    seed: int | None = None,
    freeze: str | Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Returns the overrides that the options of a training stand for; None, or no pattern, changes nothing.

    Args:
        epochs: Passes over the training set.
        subset: Fraction of each class to train and test on.
        seed: Seed of weights, order, dropout and augmentation.
        freeze: Patterns of the layers or parameters that are not trained; a text is one.

    Raises:
        UsageError: A value is not one that a registry file can hold.

    Example:
        >>> training_overrides(epochs=64, freeze="conv*")
        ('train.epochs=64', 'train.freeze=["conv*"]')
    """
    values: dict[str, Any] = {"epochs": epochs, "subset": subset, "seed": seed}
    if freeze:
        values["freeze"] = [freeze] if isinstance(freeze, str) else list(freeze)
    return override_texts({f"train.{key}": value for key, value in values.items() if value is not None})


def merge_overrides(earlier: Iterable[str], later: Iterable[str]) -> tuple[str, ...]:
    """Returns both, without the earlier ones whose keys are set again; another network replaces all of its values."""
    later = tuple(later)
    again = {override_key(text) for text in later}

    def is_replaced(key: str) -> bool:
        return key in again or ("network" in again and key.startswith("network."))

    return (*(text for text in earlier if not is_replaced(override_key(text))), *later)


def override_texts(overrides: Overrides) -> tuple[str, ...]:
    """Returns overrides as texts ``key=value``.

    Raises:
        UsageError: Neither a mapping nor a list, or a value of a mapping is not one that a registry file can hold.

    Example:
        >>> override_texts({"neuron.tau_0": 4.0, "train": {"optimizer_options": {"betas": (0.9, 0.99)}}})
        ('neuron.tau_0=4.0', 'train.optimizer_options.betas=[0.9, 0.99]')
    """
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise UsageError(
            f"overrides: found {overrides!r}, expected a mapping or a list of texts", hint='e.g. {"train.lr": 0.01}'
        )
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    return tuple(f"{key}={_value_text(key, value)}" for key, value in flatten(overrides).items())


def _value_text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value if _reads_back(value) else json.dumps(value, ensure_ascii=False)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_to_python)
    except (TypeError, ValueError):
        raise UsageError(
            f"{key}: found {value!r}, expected a finite number, a text, True, False, None, a list or a mapping",
            hint='e.g. {"train.lr": 0.01}',
        ) from None


def _reads_back(text: str) -> bool:
    """Returns whether a text stays the same text when it is read as YAML, or cannot be YAML at all."""
    try:
        found = parse_value(text, Origin(""), mapping=True)
    except YamlError:
        return True
    return isinstance(found, Leaf) and found.value == text


def _to_python(value: Any) -> Any:
    """Returns a number of numpy or torch as one of Python."""
    if not hasattr(value, "item"):
        raise TypeError
    return value.item()


def parse_override(text: str, model: type[Spec], *, sections: Sequence[str] | None = None) -> Branch:
    """Returns ``train.lr=0.01`` as a tree whose values have the position ``--set train.lr=0.01``.

    Args:
        text: The override.
        model: The spec whose values can be set.
        sections: Only keys of these fields of ``model``; None: of all.

    Raises:
        UsageError: No such key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    origin = Origin(f"--set {text}")
    if not equals:
        raise UsageError(f"--set {text}: expected key=value", hint="e.g. --set train.lr=0.01")
    types = {
        path: kind
        for path, kind in _settable(model)
        if sections is None or path.split(".")[0] in sections  # the name of a network is a value, too
    }
    options = [path for path in types if path.endswith("_options")]
    if key not in types and not any(key.startswith(f"{path}.") for path in options):
        hint = f"--T {value}" if key == "T" and sections is not None else _similar_keys(key, list(types))
        raise UsageError(f"--set {text}: unknown key {key}", hint=hint)
    tree = _parse(value, origin, types.get(key), mapping=key in options)
    if isinstance(tree, Branch):
        tree.replaces = True  # all options, also those that it does not name
    return Branch.at(key, tree)


def _parse(value: str, origin: Origin, kind: Any, *, mapping: bool) -> Leaf | Branch:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    is_none = kind == str | None and value in ("null", "~", "")
    if kind in (str, str | None) and not quoted and not is_none:  # "{c8k3s1-SN}*2-…" and "[^/]+" are not YAML
        return Leaf(value, origin)
    try:
        return parse_value(value, origin, mapping=mapping)
    except YamlError as error:
        raise UsageError(str(error), hint="e.g. --set train.lr=0.01") from None


def settable_keys(model: type[Spec]) -> list[str]:
    """Returns the dotted path of every value of a model that can be set."""
    return [path for path, _ in _settable(model)]


def _settable(model: type[Spec], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and the type of every value of a model that can be set."""
    for name, field in model.model_fields.items():
        if name in _NOT_SETTABLE:
            continue
        nested = nested_spec(field.annotation)
        if nested is None:
            yield f"{prefix}{name}", field.annotation
            continue
        if name == "network":  # by its name in the registry
            yield f"{prefix}{name}", str
        yield from _settable(nested, f"{prefix}{name}.")


def _similar_keys(key: str, known: Sequence[str]) -> str:
    """Returns a hint on an unknown key: those like it."""
    inside = [path for path in known if path.startswith(f"{key}.")]
    if inside:
        return f"set one value of {key}, such as {inside[0]}"
    if near := near_keys(key, known):
        return f"did you mean {' or '.join(near)}?"
    return f"known: {list_names(known, _LISTED)}" if len(known) <= _LISTED else "plifctl show EXPERIMENT lists the keys"


def near_keys(key: str, known: Sequence[str]) -> list[str]:
    """Returns keys that end like ``key``, else those that are, or end, almost like it.

    Example:
        >>> near_keys("tau0", ["train.lr", "neuron.tau_0"])
        ['neuron.tau_0']
    """
    last = key.rpartition(".")[2]
    near = [path for path in known if path.rpartition(".")[2] == last]
    near = near or [path for path in known if path.startswith(key)][:3]
    near = near or difflib.get_close_matches(key, known, n=3, cutoff=0.75)
    if not near:
        ends = difflib.get_close_matches(last, [path.rpartition(".")[2] for path in known], n=1, cutoff=0.7)
        near = [path for path in known if path.rpartition(".")[2] in ends]
    return near
