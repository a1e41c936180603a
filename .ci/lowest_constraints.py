"""Prints a constraints file that pins every dependency of pyproject.toml to its lower bound, for `make lowest`.

torch is the exception: its version is the one in constraints.txt.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lowest(extras: tuple[str, ...] = ("test",)) -> list[str]:
    """Returns ``name==lower bound`` of each dependency and of the extras' dependencies.

    Raises:
        ValueError: A dependency has no lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra])]
    pins = []
    for requirement in named:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)", requirement)
        if found is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound")
        if found[1] != "torch":
            pins.append(f"{found[1]}=={found[2]}")
    return pins


if __name__ == "__main__":
    print((ROOT / "constraints.txt").read_text(encoding="utf-8"), end="")
    print("\n".join(lowest()))
