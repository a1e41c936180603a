"""The input of digests and cache keys, independent of fields and words that changed since 0.1.0.

Fields: :func:`hashed_fields` leaves out those added after 0.1.0 where they have their defaults.

Words: one word of 0.1.0 has several names today:

| 0.1.0 | today |
|---|---|
| recipe ``published`` | recipe ``authors`` |
| ``frames.axes: published`` | ``frames.axes: authors`` |
| block ``published:`` (accuracies of the paper) | block ``reported:`` |
| folder ``published/`` of a registry | folder ``tables/`` |
| networks ``cifar10-published`` … | networks ``cifar10-authors`` … |

Digests and cache keys are computed from the old words, and so never change: :func:`hashed_words`. Documents of 0.1.0
(registry files, ``config.yaml``, result records, checkpoints, exported models, ``--set`` and ``--recipe`` in scripts)
are read as they are: the schemas pass each renamed value through :func:`current_word` and each renamed key through
:func:`current_keys`. Nothing on disk is rewritten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from plifctl.config.base import Spec
from plifctl.config.yaml_tree import Branch, Leaf

_OLD, _NEW = "published", "authors"

TABLE_FOLDERS = ("published", "tables")
"""Where a registry folder may hold tables: as of 0.1.0, and today; the later one takes precedence."""

_NETWORKS = {
    f"{dataset}-{_OLD}{pooling}": f"{dataset}-{_NEW}{pooling}"
    for dataset in ("cifar10", "cifar10dvs")
    for pooling in ("", "-avgpool")
}
"""Names of the networks of the authors' code: as of 0.1.0, and today."""

_FIELDS_OF_0_1_0: Mapping[str, tuple[str, ...]] = {
    "": ("name", "recipe", "T", "dataset", "frames", "network", "neuron", "train", "validation"),
    "dataset": ("name", "mean", "std"),
    "network": ("name", "structure", "dropout", "batch_norm"),
    "neuron": ("kind", "tau_0", "tau", "v_threshold", "v_reset", "surrogate", "detach_reset"),
    "train": (
        *("loss", "optimizer", "lr", "schedule", "cosine_period", "batch_size", "augmentation", "normalise"),
        *("drop_last", "ties", "subset"),
    ),
    "validation": ("train_fraction", "rounding", "loader", "test", "T"),
}
"""Fields that are hashed even at their defaults, by section. Never to be changed."""

_NOT_HASHED = (
    *("title", "reported", "train.epochs", "train.seed", "train.memory"),
    *("dataset.title", "dataset.layout", "dataset.kind", "dataset.shape", "dataset.classes", "dataset.samples"),
    "dataset.raw",
    "network.pooling",  # what it does is in the structure
)
"""Descriptions, and what may differ between runs of one experiment. Fields that existed are never added or removed."""

_log = logging.getLogger(__name__)


def current_word(value: Any) -> Any:
    """Returns a recipe or ``frames.axes`` as it is called today.

    Example:
        >>> current_word("published"), current_word("paper")
        ('authors', 'paper')
    """
    return _NEW if value == _OLD else value


def current_network(name: Any) -> Any:
    """Returns the name of a network as it is called today.

    Example:
        >>> current_network("cifar10-published-avgpool")
        'cifar10-authors-avgpool'
    """
    return _NETWORKS.get(name, name) if isinstance(name, str) else name


def current_keys(spec: Any) -> Any:
    """Returns the fields of an experiment with today's keys; other values are returned unchanged.

    Example:
        >>> current_keys({"T": 8, "published": {"accuracy_a": 90.0}})
        {'T': 8, 'reported': {'accuracy_a': 90.0}}
    """
    if not isinstance(spec, Mapping) or _OLD not in spec or "reported" in spec:
        return spec
    return {"reported" if key == _OLD else key: value for key, value in spec.items()}


def current_layer(tree: Branch) -> Branch:
    """Returns a data set's or an experiment's mapping of a registry file with its keys of today; warns of old ones."""
    found = Branch(tree.origin)
    for key, value in tree.items():
        if key == "recipes" and isinstance(value, Branch):
            found[key] = Branch(
                value.origin, {_current_key(name, _NEW, value): _current(part) for name, part in value.items()}
            )
        elif key == "variants" and isinstance(value, Branch):  # their names are the user's
            found[key] = Branch(value.origin, {name: _current(part) for name, part in value.items()})
        else:
            found[_current_key(key, "reported", tree)] = value
    return found


def _current(part: Branch | Leaf) -> Branch | Leaf:
    return current_layer(part) if isinstance(part, Branch) else part


def _current_key(key: str, name: str, around: Branch) -> str:
    if key != _OLD or name in around:  # both spellings at once are an error of the file
        return key
    warn_old_words()
    return name


def current_path(path: str) -> str:
    """Returns the dotted path of a value of an experiment as it is called today.

    Example:
        >>> current_path("published.accuracy_a")
        'reported.accuracy_a'
    """
    first, dot, rest = path.partition(".")
    return f"reported{dot}{rest}" if first == _OLD else path


def hashed_words(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an experiment, or of a cache key, in the words that digests are computed from.

    Example:
        >>> hashed_words({"recipe": "authors", "frames": {"slicing": "time", "axes": "authors"}})
        {'recipe': 'published', 'frames': {'slicing': 'time', 'axes': 'published'}}
    """
    hashed = dict(tree)
    if hashed.get("recipe") == _NEW:
        hashed["recipe"] = _OLD
    if (network := hashed.get("network")) is not None:
        names = {today: then for then, today in _NETWORKS.items()}
        hashed["network"] = {**network, "name": names.get(network["name"], network["name"])}
    if (frames := hashed.get("frames")) is not None and frames.get("axes") == _NEW:
        hashed["frames"] = {**frames, "axes": _OLD}
    return hashed


def hashed_fields(spec: Spec, section: str = "") -> dict[str, Any]:
    """Returns the fields of a spec that decide numbers, as JSON values.

    A field that did not exist in 0.1.0 is left out if it has its default, so that older digests stay valid. This needs
    no list of fields, but the default of a new field must mean "as before".

    Args:
        spec: An experiment, or a section of one.
        section: Dotted path of the section.
    """
    old_fields, values = _FIELDS_OF_0_1_0.get(section, ()), spec.model_dump(mode="json")
    fields: dict[str, Any] = {}
    for name, field in type(spec).model_fields.items():
        path, value = f"{section}.{name}".removeprefix("."), getattr(spec, name)
        is_default = value == field.get_default(call_default_factory=True)
        if path in _NOT_HASHED or (is_default and name not in old_fields):
            continue
        if isinstance(value, Spec):
            fields[name] = hashed_fields(value, path)
        elif isinstance(value, tuple):
            parts = zip(value, values[name], strict=True)
            fields[name] = [hashed_fields(part, path) if isinstance(part, Spec) else plain for part, plain in parts]
        else:
            fields[name] = values[name]
    return fields


@cache
def warn_old_words() -> None:
    """Warns, once per process, that the user's input has words of 0.1.0."""
    _log.warning(
        "old spelling: the recipe published is called authors now, the block published: reported:, "
        "the folder published/ tables/; the old words are still read"
    )
