"""Digests whatever fields are added, and the words of 0.1.0 wherever they may still be written."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plifctl.config.base import digest_of
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.identity import _FIELDS_OF_0_1_0, _NOT_HASHED, hashed_fields, hashed_words, warn_old_words
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.config.training import TrainSpec
from plifctl.errors import RegistryError
from plifctl.paths import registry_dirs


class _LaterTrainSpec(TrainSpec):
    """Training as a later version has it."""

    warmup: int = 0


class _LaterSpec(ExperimentSpec):
    """An experiment as a later version has it: a new section and a new field of an old one."""

    train: _LaterTrainSpec
    energy: dict[str, float] | None = None


def later(**changes: Any) -> _LaterSpec:
    tree = load_registry().experiment("gesture-plif").spec.model_dump(mode="json")
    return _LaterSpec.model_validate({**tree, **changes, "train": {**tree["train"], **changes.get("train", {})}})


def test_memory_of_a_training_step_leaves_the_digest() -> None:
    full, compact = (
        load_registry().experiment("gesture-plif", overrides=[f"train.memory={memory}"]).spec
        for memory in ("full", "compact")
    )
    assert compact.train.memory == "compact"
    assert compact.digest == full.digest == load_registry().experiment("gesture-plif").spec.digest


class TestNewFields:
    def test_new_fields_at_their_defaults_leave_the_digest(self) -> None:
        assert later().digest == load_registry().experiment("gesture-plif").spec.digest

    @pytest.mark.parametrize("changes", [{"train": {"warmup": 5}}, {"energy": {"spike": 0.9}}])
    def test_new_fields_with_other_values_change_the_digest(self, changes: dict[str, Any]) -> None:
        assert later(**changes).digest != later().digest

    def test_fields_of_0_1_0_are_hashed_at_their_defaults(self) -> None:
        fields = hashed_fields(load_registry().experiment("mnist-plif").spec)
        assert fields["neuron"]["tau"] is None
        assert fields["frames"] is None
        assert "reset" not in fields["neuron"]

    def test_recorded_fields_exist(self) -> None:
        tree = load_registry().experiment("gesture-plif").spec.model_dump()
        for section, names in _FIELDS_OF_0_1_0.items():
            assert set(names) <= set(tree[section] if section else tree)
        for path in _NOT_HASHED:
            section, _, name = path.rpartition(".")
            assert name in (tree[section] if section else tree)


OLD_EXPERIMENTS = """\
extends: _common
dataset: mine
network: cifar10dvs-published
T: 4
recipes:
  published:
    train: {normalise: none}
variants:
  published:
    title: an experiment that is called so
    neuron: {kind: plif, tau_0: 3.0}
    published: {accuracy_a: 75.0, source: my notebook}
    recipes:
      published: {published: {accuracy_a: 76.0, source: my notebook}}
      paper: {train: {normalise: none}}
"""
OLD_DATASET = """\
name: mine
title: mine
layout: cifar10dvs
kind: events
shape: [2, 128, 128]
classes: [airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck]
samples: {train: 9000, test: 1000}
recipes:
  paper:
    frames: {slicing: number, outside_events: refuse, axes: published, test_set: last-100}
  published:
    frames: {slicing: number-remainder, outside_events: refuse, axes: published, test_set: last-100}
"""


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    for name, text in {"experiments": OLD_EXPERIMENTS, "datasets": OLD_DATASET}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def old_registry(old_folder: Path) -> Registry:
    return Registry([*registry_dirs(), old_folder])


@pytest.fixture(autouse=True)
def not_warned_yet() -> Iterator[None]:
    warn_old_words.cache_clear()
    yield
    warn_old_words.cache_clear()


class TestOldWords:
    def test_old_registry_folder_is_read_with_one_warning(
        self, old_registry: Registry, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert old_registry.check() == []
        found = old_registry.experiment("published", recipe="authors").spec  # names of the user's own stay
        assert (found.name, found.recipe, found.network.name) == ("published", "authors", "cifar10dvs-authors")
        assert found.frames is not None
        assert found.frames.axes == "authors"
        assert found.reported is not None
        assert found.reported.accuracy_a == 76.0
        assert old_registry.experiment("published").spec.reported.accuracy_a == 75.0  # type: ignore[union-attr]
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert [record.getMessage().partition(":")[0] for record in warnings] == ["old spelling"]

    def test_old_and_new_word_at_once_is_an_error(self, old_folder: Path) -> None:
        text = OLD_DATASET + "  authors:\n    frames: {slicing: time, outside_events: refuse}\n"
        (old_folder / "datasets/mine.yaml").write_text(text)
        with pytest.raises(RegistryError, match="unknown recipe published"):
            Registry([*registry_dirs(), old_folder]).dataset("mine")

    def test_origin_of_an_old_key_is_its_place(self, old_registry: Registry) -> None:
        origin = old_registry.experiment("published").origins["reported.accuracy_a"]
        line = Path(origin.source).read_text().splitlines()[origin.line - 1]
        assert line[origin.column - 1 :].startswith("accuracy_a: 75.0")

    @pytest.mark.parametrize("old", ["frames.axes=published", "network=cifar10dvs-published"])
    def test_old_override_gives_the_digest_of_the_new_one(self, old: str) -> None:
        new = old.replace("published", "authors")
        specs = [load_registry().experiment("cifar10dvs-plif", overrides=[text]).spec for text in (old, new)]
        assert specs[0] == specs[1]
        assert specs[0].digest == specs[1].digest

    def test_old_recipe_name_is_accepted(self) -> None:
        registry: Any = load_registry()
        assert registry.experiment("gesture-plif", recipe="published") == registry.experiment(
            "gesture-plif", recipe="authors"
        )
        assert registry.dataset("cifar10dvs", "published") == registry.dataset("cifar10dvs", "authors")

    def test_old_document_of_an_experiment_is_the_same_experiment(self) -> None:
        spec = load_registry().experiment("cifar10dvs-plif", recipe="authors").spec
        old = spec.model_dump(mode="json")
        old |= {"recipe": "published", "published": old.pop("reported")}
        old["frames"]["axes"] = "published"
        old["network"]["name"] = "cifar10dvs-published"
        assert ExperimentSpec.model_validate(old) == spec

    def test_hashed_words_are_those_of_0_1_0(self) -> None:
        spec = load_registry().experiment("cifar10dvs-plif-avgpool", recipe="authors").spec
        words = hashed_words(spec.identity())
        assert (words["recipe"], words["frames"]["axes"]) == ("published", "published")
        assert words["network"]["name"] == "cifar10dvs-published-avgpool"
        assert digest_of(words) == spec.digest
        assert spec.identity()["recipe"] == "authors"  # messages say today's
