"""How a run differs from the experiment of its name: one rule for everything that shows it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plifctl.config.lookup import load_experiment, load_registry
from plifctl.config.overrides import fold_overrides
from plifctl.config.registry import Registry
from plifctl.paths import registry_dirs
from plifctl.runs import RegisteredExperiments
from plifctl.runs.changes import CHANGED_SINCE
from plifctl.runs.directory import RunConfig

OWN = """\
like: gesture-plif
name: mine
split: {method: folds, folds: 5, fold: 1}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An experiment of one's own whose samples are split into folds."""
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    return path


def settings(source: str | Path, *overrides: str, digest: str = "") -> Any:
    """Returns the settings of a run of an experiment."""
    found = load_experiment(source, overrides)
    config = RunConfig(found.spec.name, found.spec.recipe, "A", found.overrides, found.spec, {})
    return config if not digest else _OfDigest(config, digest)


class _OfDigest:
    """Settings of a run whose experiment had another digest."""

    def __init__(self, config: RunConfig, digest: str) -> None:
        self.experiment, self.recipe, self.protocol = config.experiment, config.recipe, config.protocol
        self.overrides, self.fold, self.digest = config.overrides, config.fold, digest


def changes(run: Any) -> tuple[str, ...]:
    return RegisteredExperiments(load_registry()).changes(run)


def test_seed_and_epochs_are_no_changes_and_other_overrides_are() -> None:
    overrides = ("train.epochs=3", "train.lr=1", "train.seed=1", "T=10")
    assert changes(settings("gesture-plif", *overrides)) == ("train.lr=1", "T=10")


@pytest.mark.parametrize("fold", [fold_overrides(2, None), fold_overrides(2, 3)])
def test_fold_of_an_experiment_of_ones_own_is_no_change(own: Path, fold: list[str]) -> None:
    assert changes(settings(own, *fold)) == ()
    assert changes(settings(own, *fold, "train.lr=1")) == ("train.lr=1",)


def test_fold_of_a_registered_experiment_is_a_change() -> None:
    fold = fold_overrides(2, 5)
    assert changes(settings("gesture-plif", *fold)) == tuple(text for text in fold if text != "split.test=null")


def test_stated_value_that_the_registry_has_anyway_is_no_change() -> None:
    lr = load_experiment("gesture-plif").spec.train.lr
    assert changes(settings("gesture-plif", f"train.lr={lr}")) == ()
    assert changes(settings("gesture-plif", f"train.lr={lr}", "T=10")) == ("T=10",)
    assert changes(settings("gesture-plif", f"train.lr={lr}", digest="d" * 64)) == (f"train.lr={lr}", CHANGED_SINCE)


def test_early_stop_that_protocol_c_refuses_is_no_change_in_it() -> None:
    run = settings("gesture-plif", "train.early_stop=3", "train.lr=1")
    assert changes(run) == ("train.early_stop=3", "train.lr=1")
    assert changes(replace(run, protocol="C")) == ("train.lr=1",)


def test_experiment_that_the_registry_has_otherwise_now_was_changed_since() -> None:
    assert changes(settings("gesture-plif", digest="d" * 64)) == (CHANGED_SINCE,)
    assert changes(settings("gesture-plif", "train.lr=1", digest="d" * 64)) == ("train.lr=1", CHANGED_SINCE)


def test_change_that_can_no_longer_be_made_is_a_change_since(own: Path) -> None:
    run = settings("gesture-plif", digest="d" * 64)
    run.overrides = ("train.gone=1",)
    assert changes(run) == ("train.gone=1", CHANGED_SINCE)
    assert RegisteredExperiments(load_registry()).find(run) is None


def test_experiment_of_ones_own_has_nothing_that_it_could_have_been_changed_from(own: Path) -> None:
    assert changes(settings(own, digest="d" * 64)) == ()


def test_with_an_invalid_registry_the_stated_changes_are_known(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/broken.yaml").write_text("variants: [")
    experiments = RegisteredExperiments(Registry([tmp_path]))
    run = settings("gesture-plif", "train.lr=1")
    assert (experiments.changes(run), experiments.find(run)) == (("train.lr=1",), None)


def test_experiment_whose_data_set_cannot_be_read_is_not_called_changed(tmp_path: Path) -> None:
    (tmp_path / "registry/datasets").mkdir(parents=True)
    (tmp_path / "registry/datasets/gesture.yaml").write_text("nonsense: 3")
    broken = RegisteredExperiments(Registry([tmp_path / "registry", *registry_dirs()]))
    run = settings("gesture-plif", "train.lr=1", digest="d" * 64)
    assert (broken.changes(run), broken.find(run)) == (("train.lr=1",), None)
