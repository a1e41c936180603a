"""Sources of the values of the recipe paper: every value has one, and they agree with the values of both recipes."""

from pathlib import Path
from typing import Any

import pytest

from plifctl.config.base import flatten
from plifctl.config.lookup import load_experiment, load_registry
from plifctl.config.sources import PAPER_DATA_SETS, check_choices, load_choices, value_sources

REGISTRY = load_registry()
CHOICES = load_choices(REGISTRY.folders)
NAMES = [name for name in REGISTRY.experiments() if REGISTRY.experiment(name).spec.dataset.name in PAPER_DATA_SETS]
_NAMES_OF_PARTS = ("name", "recipe", "dataset.name", "network.name")


def values(name: str, recipe: Any = "paper") -> dict[str, Any]:
    return flatten(REGISTRY.experiment(name, recipe=recipe).spec.model_dump(mode="json"))


@pytest.mark.parametrize("name", NAMES)
def test_value_sources_have_every_value_of_the_digest(name: str) -> None:
    experiment = REGISTRY.experiment(name)
    hashed = {key for key, value in flatten(experiment.spec.identity()).items() if value is not None}
    assert hashed - set(value_sources(experiment, REGISTRY.folders)) <= set(_NAMES_OF_PARTS)


@pytest.mark.parametrize("name", NAMES)
def test_value_sources_have_one_choice_for_each_key(name: str) -> None:
    dataset = REGISTRY.experiment(name).spec.dataset.name
    keys = [key for choice in CHOICES.values() if dataset in choice.data_sets for key in choice.keys]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", NAMES)
def test_values_of_the_authors_are_those_of_their_recipe(name: str) -> None:
    paper, authors = values(name), values(name, "authors")
    sources = value_sources(REGISTRY.experiment(name), REGISTRY.folders)
    assert {key for key, source in sources.items() if source == "authors" and paper[key] != authors[key]} == set()


def test_choices_name_keys_and_data_sets_that_exist() -> None:
    known = {key for name in NAMES for key in values(name)}
    for choice in CHOICES.values():
        assert set(choice.keys) <= known
        assert set(choice.data_sets) <= set(PAPER_DATA_SETS)
        assert choice.source != "choice" or choice.why


@pytest.mark.parametrize(
    ("name", "key", "source"),
    [
        ("cifar10-plif", "dataset.std", "authors"),
        ("cifar10-plif", "train.schedule", "authors"),
        ("cifar10-plif", "train.cosine_period", "text"),
        ("mnist-plif", "train.epochs", "authors"),
        ("mnist-plif", "train.drop_last", "authors"),
        ("mnist-plif", "train.augmentation", "text"),
        ("nmnist-plif", "train.augmentation", "authors"),
        ("cifar10dvs-plif", "network.structure", "choice"),
        ("gesture-plif", "frames.training_set", "choice"),
    ],
)
def test_value_sources_of_what_the_text_leaves_open(name: str, key: str, source: str) -> None:
    assert value_sources(REGISTRY.experiment(name), REGISTRY.folders)[key] == source


def test_value_sources_of_changed_values_other_recipes_and_data_sets_are_none() -> None:
    changed = value_sources(REGISTRY.experiment("mnist-plif", overrides={"train.lr": 0.1}), REGISTRY.folders)
    assert "train.lr" not in changed
    assert changed["train.loss"] == "text"
    assert value_sources(REGISTRY.experiment("mnist-plif", recipe="authors"), REGISTRY.folders) == {}
    assert value_sources(REGISTRY.experiment("demo"), REGISTRY.folders) == {}


def test_check_choices_of_a_wrong_source_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("loss:\n  source: paper\n  text: a\n  authors: b\n  why: c\n")
    (problem,) = check_choices([tmp_path])
    assert f"{tmp_path / 'sources.yaml'}:2:3" in problem
    assert check_choices(REGISTRY.folders) == []


def test_value_sources_of_values_in_a_users_file_are_none(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("like: mnist-plif\nT: 4\ntrain: {lr: 0.1}\n")
    sources = value_sources(load_experiment(str(tmp_path / "mine.yaml")), REGISTRY.folders)
    assert {"T", "train.lr"}.isdisjoint(sources)
    assert sources["train.loss"] == "text"
