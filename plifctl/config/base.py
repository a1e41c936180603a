"""What all specs have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Misfit(ValueError):
    """Values that do not fit each other.

    Args:
        message: What does not fit.
        blame: The dotted path, as a tuple, of the value that is likeliest wrong.
    """

    def __init__(self, message: str, blame: tuple[str, ...]) -> None:
        super().__init__(message)
        self.blame = blame


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _plain(value: Any) -> Any:
    numbers = isinstance(value, list) and all(isinstance(part, int | float) for part in value)
    if not numbers and not isinstance(value, bool | int | float | str):
        raise ValueError(f"found {value}, expected a number, a text, true, false, or a [list] of numbers")
    return value


Option = Annotated[Any, AfterValidator(_plain)]
"""A value of an optimiser's or a schedule's own options."""


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by dotted path.

    Example:
        >>> flattened({"train": {"lr": 0.1}, "T": 8})
        {'train.lr': 0.1, 'T': 8}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and value  # an empty mapping is a value
        flat |= flattened(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def canonical_json(tree: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one meaning."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(tree: Any) -> str:
    """sha256 of the canonical JSON of ``tree``, hexadecimal."""
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()
