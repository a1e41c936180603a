"""Documents of a run: mappings in JSON or YAML that carry a checksum of their content.

Documents of earlier versions are read here, and never rewritten.

| written by | key of the checksum | read |
|---|---|---|
| this version | ``checksum`` | yes |
| plifctl 0.1.0 | ``seal`` | yes |
| earlier | none | no: "made by an older plifctl" |

Words renamed since then (:mod:`plifctl.config.identity`) are mapped by the schemas of the content; rows of
``metrics.jsonl`` are read by :mod:`plifctl.runs.metrics`. The checksum detects damage, not forgery.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.yaml_tree import read_dumped
from plifctl.errors import RunError

_CHECKSUM = "checksum"
SEAL = "seal"
"""The key of the checksum in 0.1.0."""


class _OlderError(ValueError):
    """A document that is complete except for the checksum."""


def add_checksum(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a document with its checksum.

    Args:
        tree: JSON values; keys are strings.
    """
    return {**tree, _CHECKSUM: _digest(tree)}


def verify_content(tree: object, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the content of a document without its checksum.

    Args:
        tree: The document.
        keys: Keys that every document of this kind has, with or without a checksum.

    Raises:
        ValueError: The checksum is missing, or does not match.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"expected a mapping, found {type(tree).__name__}")
    name = _CHECKSUM if _CHECKSUM in tree else SEAL
    if name not in tree:
        if keys and all(key in tree for key in keys):
            raise _OlderError("it has no checksum")
        raise ValueError("its checksum is missing")
    content = {key: value for key, value in tree.items() if key != name}
    if tree[name] != _digest(content):
        raise ValueError("checksum mismatch: the file was modified")
    return content


def save_document(path: Path, tree: dict[str, Any]) -> None:
    """Writes a document with its checksum as JSON, atomically; ``tree`` as :func:`add_checksum` takes it."""
    files.write_json(path, add_checksum(tree))


def load_document(path: Path, keys: Sequence[str], *, hint: str = "") -> dict[str, Any]:
    """Reads a document and verifies its checksum.

    Args:
        path: The file, ``.json`` or ``.yaml``.
        keys: Keys that every document of this kind has, by which one without a checksum is recognised.
        hint: Hint for a missing or damaged file.

    Raises:
        RunError: The file is missing, damaged, or was made by a plifctl older than 0.1.0.
    """
    try:
        tree = read_dumped(path) if path.suffix == ".yaml" else files.parse_json(files.read_regular(path))
        return verify_content(tree, keys)
    except _OlderError as error:
        raise RunError(
            f"{path}: made by an older plifctl: {error}", hint="plifctl reads files of version 0.1.0 and later"
        ) from error
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", hint=hint) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {error}", hint=hint) from error


def fingerprint(path: Path) -> dict[str, Any]:
    """Returns size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def fingerprint_of(content: bytes) -> dict[str, Any]:
    """Returns size and SHA-256 of the content of a file, as :func:`fingerprint` does."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def file_problem(path: Path, facts: Mapping[str, Any]) -> str:
    """Returns what is wrong with a file that is not the one whose :func:`fingerprint` was recorded; empty if it is."""
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != facts["bytes"]:
        return f"{size:,} bytes, expected {facts['bytes']:,}"
    return "" if fingerprint(path)["sha256"] == facts["sha256"] else "checksum mismatch: the file was modified"


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
