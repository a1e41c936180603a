"""Base class of all specs, and the canonical text and digest of a tree of values."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict


class InconsistentValues(ValueError):
    """Values that are each valid on their own but contradict each other.

    Args:
        message: The contradiction.
        paths: Path of the value that is most likely wrong; then those to name where there is none.
    """

    def __init__(self, message: str, *paths: tuple[int | str, ...]) -> None:
        super().__init__(message)
        self.paths = paths


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def nested_spec(annotation: Any) -> type[Spec] | None:
    """Returns the spec that a field's type is or may be (``FramesSpec | None``); None for other types."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Spec)), None)


def _check_plain(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
        raise ValueError(f"found {value}, expected finite numbers")
    numbers = isinstance(value, list) and all(isinstance(part, int | float) for part in value)
    if not numbers and not isinstance(value, bool | int | float | str):
        raise ValueError(f"found {value}, expected a number, a text, true, false, or a [list] of numbers")
    return value


Option = Annotated[Any, AfterValidator(_check_plain)]
"""A value among the own options of an optimizer or a learning-rate schedule."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by dotted path; an empty mapping is a leaf.

    Example:
        >>> flatten({"train": {"lr": 0.1}, "T": 8})
        {'train.lr': 0.1, 'T': 8}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def canonical_json(tree: Any) -> str:
    """Returns JSON with sorted keys and no spaces: one text for one meaning."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(tree: Any) -> str:
    """Returns the sha256 of the canonical JSON of ``tree``, hexadecimal."""
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()
