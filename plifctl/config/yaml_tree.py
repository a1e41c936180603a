"""YAML read into trees that keep the position of each value, and written so that it reads back the same.

Narrower than YAML 1.1: only ``true`` and ``false`` are booleans (``no`` is text), ``1e-3`` is a number, a key given
twice is an error, and there are no aliases, anchors or tags. :func:`read_dumped` reads what ``yaml.safe_dump`` wrote,
by the rules of YAML 1.1. Both bound the size and the depth of a file, and refuse aliases, with which a small file can
be gigabytes in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from plifctl import files
from plifctl.errors import RegistryError
from plifctl.units import plain

MAX_BYTES = 2**20
MAX_DEPTH = 20

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[^\W\d_][\w.+/-]*")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True)
class Origin:
    """Place where a value was written: in a file, or on the command line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Leaf:
    """A scalar or a list with the place of its key; ``items`` are the elements of a list with their places."""

    value: Any
    origin: Origin
    items: tuple[Leaf | Branch, ...] = ()


class Branch(dict[str, "Leaf | Branch"]):
    """A mapping with the place of its key.

    Attributes:
        replaces: Whether it replaces the mapping of a layer below, instead of being merged with it.
    """

    def __init__(self, origin: Origin, items: dict[str, Leaf | Branch] | None = None) -> None:
        super().__init__(items or {})
        self.origin, self.replaces = origin, False

    @classmethod
    def at(cls, path: str, value: Leaf | Branch) -> Branch:
        """Returns a value at a dotted path; the mappings around it have its place."""
        *around, last = path.split(".")
        tree = cls(value.origin, {last: value})
        for key in reversed(around):
            tree = cls(value.origin, {key: tree})
        return tree

    def copy(self) -> Branch:
        """Returns a copy that can be changed; leaves are shared."""
        return Branch(self.origin, {k: part.copy() if isinstance(part, Branch) else part for k, part in self.items()})

    def without(self, *keys: str) -> Branch:
        """Returns a copy without ``keys``."""
        return Branch(self.origin, {key: value for key, value in self.items() if key not in keys})

    def branch(self, *keys: str) -> Branch:
        """Returns the mapping at ``keys``, empty if there is none."""
        at: Leaf | Branch = self
        for key in keys:
            at = at.get(key, Branch(at.origin)) if isinstance(at, Branch) else Branch(at.origin)
        return at if isinstance(at, Branch) else Branch(at.origin)

    def text(self, key: str) -> str | None:
        """Returns the text at ``key``, or None."""
        leaf = self.get(key)
        return leaf.value if isinstance(leaf, Leaf) and isinstance(leaf.value, str) else None

    def plain(self) -> dict[str, Any]:
        """Returns the values without their positions."""
        return {key: value.plain() if isinstance(value, Branch) else value.value for key, value in self.items()}

    def leaves(self, prefix: str = "") -> dict[str, Leaf]:
        """Returns every leaf by its dotted path."""
        found: dict[str, Leaf] = {}
        for key, value in self.items():
            found |= value.leaves(f"{prefix}{key}.") if isinstance(value, Branch) else {f"{prefix}{key}": value}
        return found

    def origin_of(self, path: tuple[int | str, ...]) -> Origin:
        """Returns the place of the value at ``path``, or of the nearest mapping or list around it."""
        at: Leaf | Branch = self
        for key in path:
            if isinstance(at, Branch) and key in at:
                at = at[str(key)]
            elif isinstance(at, Leaf) and isinstance(key, int) and key < len(at.items):
                at = at.items[key]
            else:
                break
        return at.origin


def merge_layers(*layers: Branch) -> Branch:
    """Returns the layers merged: mappings are merged, of other values the last one counts.

    The origin of a mapping within the layers is that of the last layer that has it: the file to change.
    """
    result = Branch(layers[0].origin)
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if isinstance(below, Branch) and isinstance(value, Branch) and not value.replaces:
                value = Branch(value.origin, merge_layers(below, value))
            result[key] = value
    return result


class YamlError(ValueError):
    """A text that is not valid here.

    Args:
        origin: Place of the problem.
        message: What is wrong.
    """

    def __init__(self, origin: Origin, message: str) -> None:
        super().__init__(f"{origin}: {message}")


def read_tree(path: Path) -> Branch:
    """Reads a file whose top level is a mapping.

    Raises:
        RegistryError: The file is invalid; the first problem with its place.
        OSError: There is no such file, or it cannot be read.
    """
    start = Origin(str(path), 1, 1)
    try:
        tree = _parse(_read(path, start), start)
        if not isinstance(tree, Branch):
            raise YamlError(start, "the top level must be a mapping, key: value")
    except YamlError as error:
        raise RegistryError(str(error)) from None
    return tree.copy()


@lru_cache(maxsize=64)
def _parse(text: str, start: Origin) -> Leaf | Branch:
    """Returns the value of a text; a registry, of some twenty files, is read anew by each command and API call."""
    return _value(_compose(text, start.source), start)


def read_dumped(path: Path) -> Any:
    """Returns the value of a file that ``yaml.safe_dump`` wrote.

    Raises:
        YamlError: It is larger or nested deeper than the limits, has aliases, or is not YAML.
    """
    start = Origin(path.name, 1, 1)
    node = _compose(_read(path, start), start.source, _SAFE_LOADER)
    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2000-13-01
        raise YamlError(start, f"not YAML: {error}") from None


def _read(path: Path, start: Origin) -> str:
    data = files.read_regular(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise YamlError(start, f"larger than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(start, f"byte {error.start} is not UTF-8; save the file as UTF-8") from None


def parse_value(text: str, origin: Origin, *, mapping: bool = False) -> Leaf | Branch:
    """Returns the value that ``text`` would be in a file; all of it has the place ``origin``.

    Args:
        text: A scalar, a list, or a mapping.
        origin: Place of the text.
        mapping: Accept a mapping.

    Raises:
        YamlError: The text is not YAML, or a mapping that is not accepted.
    """
    found = _value(_compose(text, origin.source), origin)
    if not isinstance(found, Branch):
        return Leaf(found.value, origin)
    if not mapping:
        raise YamlError(origin, "found a mapping, expected a scalar or a [list]")
    return Branch(
        origin,
        {key: Leaf(part.plain() if isinstance(part, Branch) else part.value, origin) for key, part in found.items()},
    )


def _compose(text: str, name: str, loader: Any = _LOADER) -> yaml.Node:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise YamlError(
                    _place(name, event.start_mark), "anchors and aliases are not supported; write the value out"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # the composer is recursive
                raise YamlError(_place(name, event.start_mark), f"nested deeper than {MAX_DEPTH}")
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        place = _place(name, error.problem_mark)
        raise YamlError(place, f"not YAML: {error.problem}{_likely_cause(text, place.line)}") from None
    except yaml.YAMLError as error:
        raise YamlError(Origin(name, 1, 1), f"not YAML: {error}") from None
    return node if node is not None else yaml.ScalarNode("tag:yaml.org,2002:str", "")


def _likely_cause(text: str, line: int) -> str:
    """Returns what is wrong with a line, or the one before: a tab that indents it, or a structure without quotes."""
    lines = text.splitlines()[max(0, line - 2) : line]
    if any("\t" in found[: len(found) - len(found.lstrip())] for found in lines):
        return "; there is a tab, but YAML is indented with blanks"
    has_structure = any("}*" in found and '"' not in found and "'" not in found for found in lines)
    return '; put the structure of a network in quotes: structure: "{…}*2-…"' if has_structure else ""


def _place(name: str, mark: Any) -> Origin:
    return Origin(name, mark.line + 1, mark.column + 1) if mark else Origin(name, 1, 1)


def _value(node: yaml.Node, origin: Origin) -> Leaf | Branch:
    if node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", None):
        raise YamlError(_place(origin.source, node.start_mark), f"the tag {node.tag} is not supported")
    if isinstance(node, yaml.MappingNode):
        branch = Branch(origin)
        for key, value in node.value:
            place = _place(origin.source, key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(place, "a key must be a word")
            if key.value in branch:
                raise YamlError(place, f"the key {key.value} is given twice")
            branch[key.value] = _value(value, place)
        return branch
    if isinstance(node, yaml.SequenceNode):
        items = tuple(_value(item, _place(origin.source, item.start_mark)) for item in node.value)
        return Leaf([item.plain() if isinstance(item, Branch) else item.value for item in items], origin, items)
    assert isinstance(node, yaml.ScalarNode)
    return Leaf(node.value if node.style else _scalar(node.value), origin)


def _scalar(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text) and len(text) < 1000:
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def format_yaml(values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Returns values by dotted path as YAML: a block for each mapping, a line for each value, lists inline.

    Args:
        values: Numbers, texts, booleans, None, and lists and mappings of them.
        comments: Comment after a value, by dotted path.

    Example:
        >>> print(format_yaml({"T": 8, "train.lr": 0.1, "train.betas": [0.9, 0.99]}, {"T": "changed"}), end="")
        T: 8  # changed
        train:
          lr: 0.1
          betas: [0.9, 0.99]
    """
    lines: list[str] = []
    above: list[str] = []
    for path, value in values.items():
        *sections, key = path.split(".")
        same = 0
        while sections[: same + 1] == above[: same + 1] and same < len(sections):
            same += 1
        lines += [f"{'  ' * depth}{sections[depth]}:" for depth in range(same, len(sections))]
        above = sections
        comment = f"  # {plain(comments[path])}" if path in comments else ""
        lines.append(f"{'  ' * len(sections)}{key}: {_format(value)}{comment}")
    return "".join(f"{line}\n" for line in lines)


def _format(value: Any) -> str:
    if isinstance(value, str):
        if _WORD.fullmatch(value) and yaml.safe_load(value) == value == _scalar(value):
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_format(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format, value)) + "]"
    return str(yaml.safe_dump(value)).splitlines()[0]
