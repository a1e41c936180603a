"""Prints a constraints file that pins every dependency of pyproject.toml to its lower bound, for `make lowest`.

torch is the exception: its version is the one in constraints.txt.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def lowest(extra: str = "test") -> list[str]:
    """Returns ``name==lower bound`` of each dependency of the project and of an extra.

    Raises:
        ValueError: A dependency has no lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = []
    for requirement in [*project["dependencies"], *_expand(project, extra)]:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)", requirement)
        if found is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound")
        if found[1] != "torch":
            pins.append(f"{found[1]}=={found[2]}")
    return pins


def _expand(project: dict[str, Any], extra: str) -> Iterator[str]:
    """Yields the dependencies of an extra, and of the extras of this project that it names."""
    for requirement in project["optional-dependencies"][extra]:
        named = re.fullmatch(rf"{project['name']}\[([\w,]+)\]", requirement)
        if named is None:
            yield requirement
        else:
            for one in named[1].split(","):
                yield from _expand(project, one)


if __name__ == "__main__":
    print((ROOT / "constraints.txt").read_text(encoding="utf-8"), end="")
    print("\n".join(lowest()))
