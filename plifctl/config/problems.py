"""Errors of pydantic as problems that name file, line and column, the value found, and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from plifctl.config.augmentation import EVENT_AUGMENTATIONS
from plifctl.config.base import InconsistentValues, Spec, nested_spec
from plifctl.config.overrides import near_keys, settable_keys
from plifctl.config.transforms import TRANSFORMS
from plifctl.config.yaml_tree import Branch, Origin
from plifctl.errors import RegistryError, UsageError, did_you_mean, join_problems

_S = TypeVar("_S", bound=Spec)
_Path = tuple[int | str, ...]

CHECK_HINT = "plifctl check lists the problems of all files"


class _ItemKind(NamedTuple):
    """Kind of the items of a list, each of which has a ``name``."""

    noun: str
    specs: Mapping[str, type[Spec]]
    example: str


_ITEMS = {
    "transforms": _ItemKind("transform", TRANSFORMS, "{name: drop-events, p: 0.1}"),
    "event_augmentation": _ItemKind("augmentation", EVENT_AUGMENTATIONS, "{name: flip, p: 0.5}"),
}


def validate_tree(model: type[_S], tree: Branch, name: str) -> _S:
    """Returns the spec that a tree describes.

    Args:
        model: The spec.
        tree: Its values with their origins.
        name: Name of the entry, for messages.

    Raises:
        UsageError: Values given by ``--set`` are wrong.
        RegistryError: Values of files are wrong; the message lists every problem.
    """
    try:
        return model.model_validate(tree.plain())
    except ValidationError as error:
        found = error.errors(include_url=False)
        wrong = {details["loc"][:-1] for details in found}  # lists that have invalid items, and are too short for that
        found = [details for details in found if details["type"] != "too_short" or details["loc"] not in wrong]
        problems = [_describe(model, tree, name, details) for details in found]
    overridden = [text for text in problems if text.startswith("--set")]
    if overridden:
        raise UsageError(join_problems(overridden))
    raise RegistryError(join_problems(problems), hint=CHECK_HINT)


def first_problem(error: ValidationError) -> str:
    """Returns the first problem of values that a program wrote, with their key: ``T: Input should be …``."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}"


def _describe(model: type[Spec], tree: Branch, name: str, details: ErrorDetails) -> str:
    path, section = _locate(model, details["loc"])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    origin, found = tree.origin_of(path), format_value(details["input"])
    match details["type"]:
        case "extra_forbidden":
            text = f"unknown key {key}; {_hint_on_key(model, section, path)}"
        case "union_tag_invalid":
            item, tag = _ITEMS[str(path[1])], details["ctx"]["tag"]
            origin = tree.origin_of((*path, "name"))
            text = f"{key}: unknown {item.noun} {tag}; {did_you_mean(tag, item.specs)}"
        case "union_tag_not_found" | "model_attributes_type" if len(path) > 1:
            item = _ITEMS[str(path[1])]
            article = "an" if item.noun[0] in "aeiou" else "a"
            text = f"{key}: found {found}, expected {article} {item.noun}, e.g. {item.example}"
        case "string_type":
            value = details["input"]
            quoted = f', in quotes: "{json.dumps(value)}"' if isinstance(value, bool | int | float) else ""
            text = f"{key}: found {found}, expected a text{quoted}"
        case "model_type" | "dict_type":
            text = f"{key}: found {found}, expected a mapping{_example_of(section, path[-1], details['input'])}"
            text += "; remove the key if it has no values" if details["input"] is None else ""
        case "too_short" | "too_long":
            bounds = details["ctx"]
            number = f"at least {bounds['min_length']}" if "min_length" in bounds else f"at most {bounds['max_length']}"
            text = f"{key}: found {found}, expected {number} values"
        case "missing":
            text = f"{key} is missing; it has no default, so state it"
        case "value_error":
            error = details["ctx"]["error"]
            text = f"{key + ': ' if key else ''}{error}"
            origin = _origin_of_conflict(tree, key, origin, error, details["input"])
        case _:
            message = details["msg"].replace("Input should", "should").replace("tuple", "list")
            text = f"{key}: found {found}, {message}"
    return f"{origin}: {name}: {text}"


def _hint_on_key(model: type[Spec], section: type[Spec] | None, path: _Path) -> str:
    """Returns the keys like an unknown one: of its mapping, else of others."""
    name = str(path[-1])
    if len(path) == 1 and name in settable_keys(model):
        *sections, key = name.split(".")
        return f"write {': {'.join(sections)}: {{{key}: …{'}' * len(sections)}"
    hint = did_you_mean(name, section.model_fields if section else ())
    is_of_item = any(isinstance(part, int) for part in path)
    near = [] if is_of_item or not hint.startswith("known: ") else near_keys(name, settable_keys(model))
    return f"did you mean {' or '.join(near)}?" if near else hint


def _example_of(section: type[Spec] | None, key: int | str, found: Any) -> str:
    """Returns an example of the mapping that a key of a spec needs, with the value found instead of it."""
    field = section.model_fields.get(str(key)) if section is not None else None
    spec = nested_spec(field.annotation) if field is not None else None
    if spec is None:
        return ""
    first = next(iter(spec.model_fields))
    return f", e.g. {key}: {{{first}: {found if isinstance(found, str) else '…'}}}"


def _origin_of_conflict(tree: Branch, key: str, origin: Origin, error: Exception, found: Any) -> Origin:
    """Returns the value to name where several contradict each other: that which is most likely wrong, or was set."""
    if isinstance(error, InconsistentValues):
        origin = tree.origin_of(next((path for path in error.paths if path[0] in tree), error.paths[-1]))
    if isinstance(found, str) or origin.source.startswith("--set"):  # a single invalid value
        return origin
    overridden = {path: leaf.origin for path, leaf in tree.leaves().items() if leaf.origin.source.startswith("--set")}
    if here := [place for path, place in overridden.items() if path.startswith(key)]:
        return here[-1] if key else Origin(" or ".join(dict.fromkeys(map(str, here))))
    return ([*overridden.values()] or [origin])[-1]


def _locate(model: type[Spec], loc: _Path) -> tuple[_Path, type[Spec] | None]:
    """Returns the path to a value as the file has it, and the spec that the value's key belongs to.

    pydantic names, after the index in a list of :data:`_ITEMS`, the kind of the item, which is no key of the file.
    """
    if len(loc) > 3 and isinstance(loc[2], int):
        return (*loc[:3], *loc[4:]), _ITEMS[str(loc[1])].specs.get(str(loc[3]))
    section: type[Spec] | None = model
    for part in loc[:-1]:
        field = section.model_fields.get(str(part)) if section else None
        section = nested_spec(field.annotation) if field else None
    return loc, section


def format_value(value: Any) -> str:
    """Returns a value that was found, for a message; a text in quotes, with advice where it looks like a boolean."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        is_boolean = value.lower() in ("yes", "no", "on", "off", "true", "false")
        return f"{value!r} (a text{': write true or false' if is_boolean else ''})"
    return str(value).lower() if isinstance(value, bool) else str(value)
