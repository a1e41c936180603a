"""Trained networks remember their run and its test samples, wherever they are used later."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from untrained import FIRES, event_spec, make_model

import plifctl
from plifctl.errors import RunError
from plifctl.exchange.arrays import write_torch
from plifctl.exchange.formats import write_network
from plifctl.exchange.model import load_trained
from plifctl.runs.documents import save_document

LISTED = ("left/2", "right/1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a split of its own."""
    folder = tmp_path / "runs/h1"
    (folder / "checkpoints").mkdir(parents=True)
    write_torch(folder / "checkpoints/best.pt", make_model(event_spec(tmp_path)).trained)
    save_document(folder / "run.json", {"cache": "c" * 64})
    save_document(folder / "split.json", {"train": ["left/1"], "test": list(LISTED)})
    return folder


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (".", "runs/h1/checkpoints/best.pt"),
        ("runs/h1", "checkpoints/best.pt"),
        ("runs/h1/checkpoints", "best.pt"),
        ("runs/other", "../h1/checkpoints/best.pt"),
        ("runs/h1/other", "../checkpoints/best.pt"),
    ],
)
def test_checkpoint_named_from_anywhere_lists_the_test_samples_of_its_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / place)
    exported = plifctl.export(plifctl.load(name, device="cpu"), tmp_path / "net.pt")
    assert exported.trained.origin == "a model in memory that was loaded from h1"
    assert load_trained(exported.path).test_samples == LISTED


def test_model_of_a_run_that_is_gone_lists_its_test_samples(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = pickle.dumps(plifctl.load("runs/h1/checkpoints/best.pt", device="cpu"))
    shutil.rmtree(run)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = pickle.loads(stored)
    found = load_trained(plifctl.export(model, "net.pt").path)
    assert (found.test_samples, found.origin) == (LISTED, "a model in memory that was loaded from h1")


def test_folder_without_a_name_has_that_of_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_network(tmp_path / "mine", make_model(event_spec(tmp_path)).trained, "folder")
    monkeypatch.chdir(tmp_path / "mine")
    model = plifctl.load(".", device="cpu")
    monkeypatch.chdir(tmp_path)
    assert model.snapshot().origin == "a model in memory that was loaded from mine"


def test_damaged_list_of_test_samples_is_an_error_where_it_is_needed(run: Path, tmp_path: Path) -> None:
    (run / "split.json").write_text("{}")
    model = plifctl.load(run / "checkpoints/best.pt", device="cpu")
    model.predict(torch.rand(4, *model.input_shape))
    with pytest.raises(RunError, match=r"split\.json"):
        plifctl.export(model, tmp_path / "net.pt")


@pytest.mark.parametrize("of_run", [False, True])
def test_convert_of_weights_on_own_recordings_keeps_their_test_samples(run: Path, tmp_path: Path, of_run: bool) -> None:
    source = run / "checkpoints/best.pt"
    if not of_run:
        source = tmp_path / "own.pt"
        write_torch(source, replace(load_trained(run / "checkpoints/best.pt"), cache="c" * 64))
    experiment = tmp_path / "own.yaml"  # has raw:, which no file has
    kept = load_trained(plifctl.convert(source, tmp_path / "kept.pt", experiment, overrides=FIRES).exported.path)
    assert (kept.test_samples, kept.cache) == (LISTED, None if of_run else "c" * 64)
    others = (*FIRES, "split.test=0.5")
    assert (
        load_trained(
            plifctl.convert(source, tmp_path / "o.pt", experiment, overrides=others).exported.path
        ).test_samples
        is None
    )
