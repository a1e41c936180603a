"""Sources of the recipe ``paper``: which of its values the text states, and which it does not.

``registry/sources.yaml`` has an entry for each choice. ``plifctl show`` prints the source of a value, and the page
``paper-and-code.md`` is made of the entries. No digest contains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from plifctl.config.base import Spec, flatten
from plifctl.config.choices import ValueSource
from plifctl.config.experiment import Experiment
from plifctl.config.problems import validate_tree
from plifctl.config.yaml_tree import Branch, read_tree
from plifctl.errors import RegistryError

PAPER_DATA_SETS = ("mnist", "fashion-mnist", "cifar10", "nmnist", "cifar10dvs", "gesture")
"""Names of the data sets of the paper."""

FILE_NAME = "sources.yaml"


class Choice(Spec):
    """A choice of the recipe ``paper``.

    Attributes:
        source: Where our value comes from.
        text: What the paper says.
        authors: What the authors' code does.
        why: Why ours is as it is; empty where the source says it.
        keys: Keys of an experiment; empty where the value is in the code.
        data_sets: Names of the data sets it is about.
    """

    source: ValueSource
    text: str
    authors: str
    why: str
    keys: tuple[str, ...] = Field(default=(), strict=False)
    data_sets: tuple[str, ...] = Field(default=PAPER_DATA_SETS, strict=False)


def load_choices(folders: Sequence[Path]) -> dict[str, Choice]:
    """Returns the choices in the file ``sources.yaml`` of registry folders, by name.

    Raises:
        RegistryError: A file is invalid.
    """
    found: dict[str, Choice] = {}
    for path in (folder / FILE_NAME for folder in folders):
        if not path.is_file():
            continue
        for name, entry in read_tree(path).items():
            if not isinstance(entry, Branch):
                raise RegistryError(f"{entry.origin}: {name}: expected a mapping")
            found[name] = validate_tree(Choice, entry, name)
    return found


def check_choices(folders: Sequence[Path]) -> list[str]:
    """Returns the problems of the files ``sources.yaml`` of registry folders."""
    try:
        load_choices(folders)
    except RegistryError as error:
        return [str(error)]
    return []


def value_sources(experiment: Experiment, folders: Sequence[Path]) -> dict[str, ValueSource]:
    """Returns the source of each value of an experiment of the paper, by dotted key.

    Empty for another recipe or data set. Values written elsewhere than in the folder that has their source, as in a
    user's file or on the command line, have none.

    Args:
        experiment: The experiment.
        folders: Registry folders.
    """
    spec = experiment.spec
    if spec.recipe != "paper" or spec.dataset.name not in PAPER_DATA_SETS:
        return {}
    values: dict[str, Any] = flatten(spec.model_dump(mode="json"))

    def is_written_in(folder: Path, key: str) -> bool:
        origin = experiment.origins.get(key)
        return origin is None or Path(origin.source).is_relative_to(folder)

    return {
        key: choice.source
        for folder in folders
        for choice in load_choices([folder]).values()
        if spec.dataset.name in choice.data_sets
        for key in choice.keys
        if values.get(key) is not None and is_written_in(folder, key)
    }
