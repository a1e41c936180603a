"""Words that were renamed after 0.1.0: how documents of then are read, and what digests and cache keys still hold.

One word of 0.1.0 has three names today:

| 0.1.0 | today |
|---|---|
| recipe ``published`` | recipe ``authors`` |
| ``frames.axes: published`` | ``frames.axes: authors`` |
| block ``published:`` (accuracies of the paper) | block ``reported:`` |
| folder ``published/`` of a registry | folder ``tables/`` |

Digests of experiments and keys of caches were computed with the words of then, and never change: :func:`hashed_frames`
and :func:`hashed_recipe` give what is hashed. Documents of then (registry files, ``config.yaml``, result records,
checkpoints, exported models, ``--set`` and ``--recipe`` in scripts) are read as they are: the schemas pass each renamed
value through :func:`current_word` and each renamed key through :func:`current_keys`. Nothing on disk is rewritten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from plifctl.config.yaml_tree import Branch, Leaf

_OLD, _NEW = "published", "authors"

TABLE_FOLDERS = ("published", "tables")
"""Where a registry folder may hold tables: as of 0.1.0, and today; the later wins."""

_log = logging.getLogger(__name__)


def current_word(value: Any) -> Any:
    """Returns a recipe or ``frames.axes`` as it is called today.

    Example:
        >>> current_word("published"), current_word("paper")
        ('authors', 'paper')
    """
    return _NEW if value == _OLD else value


def current_keys(spec: Any) -> Any:
    """Returns the fields of an experiment with their keys of today; what is no mapping as it is.

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
                value.origin, {_renamed(name, _NEW, value): _current(part) for name, part in value.items()}
            )
        elif key == "variants" and isinstance(value, Branch):  # their names are the user's
            found[key] = Branch(value.origin, {name: _current(part) for name, part in value.items()})
        else:
            found[_renamed(key, "reported", tree)] = value
    return found


def _current(part: Branch | Leaf) -> Branch | Leaf:
    return current_layer(part) if isinstance(part, Branch) else part


def _renamed(key: str, name: str, around: Branch) -> str:
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


def hashed_recipe(recipe: str) -> str:
    """Returns the word that a digest holds for a recipe."""
    return _OLD if recipe == _NEW else recipe


def hashed_frames(frames: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a framing as digests and cache keys hold them.

    Example:
        >>> hashed_frames({"slicing": "time", "axes": "authors"})
        {'slicing': 'time', 'axes': 'published'}
    """
    return {key: _OLD if key == "axes" and value == _NEW else value for key, value in frames.items()}


@cache
def warn_old_words() -> None:
    """Warns, once in a process, that a text typed or written by the user has the words of 0.1.0."""
    _log.warning(
        "old spelling: the recipe published is called authors now, the block published: reported:, "
        "the folder published/ tables/; the old words are still read"
    )
