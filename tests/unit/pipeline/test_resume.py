"""Which run is resumed, with which experiment, and when there is nothing left to train: no cache and no training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_run

from plifctl.config.lookup import load_experiment
from plifctl.errors import ResumeError, UsageError
from plifctl.pipeline.resume import find_resumed, resumed_experiment
from plifctl.pipeline.train import train
from plifctl.pipeline.train_options import TrainOptions
from plifctl.runs.folders import ADDED, EXTERNAL_PREFIX

pytestmark = pytest.mark.usefixtures("places")


@pytest.mark.parametrize(
    ("key", "change"), [("classes", lambda names: tuple(reversed(names))), ("shape", lambda shape: (*shape[:2], 64))]
)
def test_resumed_experiment_of_another_data_set_of_the_same_digest_is_refused(
    tmp_path: Path, key: str, change: Any
) -> None:
    run = make_run(tmp_path / "runs", name="g1")
    experiment = load_experiment("demo", ["train.epochs=4"])
    spec = experiment.spec
    dataset = spec.dataset.model_copy(update={key: change(getattr(spec.dataset, key))})
    changed = replace(experiment, spec=spec.model_copy(update={"dataset": dataset}))
    assert changed.spec.digest == spec.digest
    for resume in ("auto", "g1"):
        options = TrainOptions(experiment=experiment, name="g1", resume=resume)
        assert resumed_experiment(options, run).spec.train.epochs == 4
        with pytest.raises(ResumeError, match=f"dataset.{key}: was .*, now"):
            resumed_experiment(replace(options, experiment=changed), run)


@pytest.mark.parametrize("resume", ["auto", "g1"])
def test_longer_training_of_a_run_that_has_tested_once_is_refused(tmp_path: Path, resume: str) -> None:
    tested = make_run(tmp_path / "runs", name="g1", protocol="B")
    options = TrainOptions(experiment="demo", overrides=("train.epochs=4",), name="g1", resume=resume, protocol="B")
    with pytest.raises(ResumeError, match="epoch 3 has been tested, and protocol B tests once"):
        resumed_experiment(options, tested)
    shorter = replace(options, overrides=("train.epochs=3",))
    assert resumed_experiment(shorter, tested).spec.train.epochs == 3
    untested = make_run(tmp_path / "runs", name="g2", protocol="B", finished=False)
    assert resumed_experiment(options, untested).spec.train.epochs == 4
    each = "validation.test=every-epoch"
    tests_all = make_run(tmp_path / "runs", each, name="g3", protocol="B")
    longer = replace(options, overrides=("train.epochs=4", each))
    assert resumed_experiment(longer, tests_all).spec.train.epochs == 4


def test_name_of_a_run_that_was_added_is_refused_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ADDED).write_bytes(EXTERNAL_PREFIX)
    with pytest.raises(UsageError, match="a run that was added or imported, and cannot be continued") as error:
        find_resumed(TrainOptions(experiment="demo", name="a", resume="auto"), tmp_path)
    assert error.value.hint.startswith("rename its folder")


def test_train_of_a_finished_run_needs_neither_its_cache_nor_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs", name="g1")
    monkeypatch.setattr("plifctl.pipeline.train_setup.find_device", lambda *_: pytest.fail("the device was looked for"))
    options = TrainOptions(
        experiment="demo", overrides=("train.epochs=3",), name="g1", resume="auto", copy_cache=tmp_path / "copy"
    )
    result = train(options)
    assert (result.run.path, result.trained) == (run.path, False)
    assert train(TrainOptions(resume="g1", build_cache=True)).trained is False
