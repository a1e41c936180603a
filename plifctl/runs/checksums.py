"""A seal in a document: what is read is what was written, or an error. It guards against damage, not forgers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_NAME = "seal"


def sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a document with its seal.

    Args:
        tree: Of what JSON knows; keys are text.
    """
    return {**tree, _NAME: _seal_of(tree)}


def unsealed(tree: object) -> dict[str, Any]:
    """Returns a document without its seal.

    Raises:
        ValueError: It has none, or is not as it was sealed.
    """
    if not isinstance(tree, dict) or _NAME not in tree:
        raise ValueError("no sealed document")
    found = {key: value for key, value in tree.items() if key != _NAME}
    if tree[_NAME] != _seal_of(found):
        raise ValueError("its seal is broken: it is not as it was written")
    return found


def _seal_of(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
