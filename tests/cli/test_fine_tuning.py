"""plifctl train --weights --freeze: from a trained network to other classes, and what a run records of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import write_gestures
from raw_files import encode_npy

import plifctl as library
from plifctl.runs import Run, list_runs

Plifctl = Callable[..., Any]
LAYERS = "APk8s8-c4k3s1-BN-SN-c6k3s1-BN-SN-MPk4s4-FC22-SN-FC{}-SN-APk10s10"
TRAIN = ("--set", "T=4", "--set", "neuron.v_threshold=0.1", "--set", "train.batch_size=8", "--device", "cpu")
DEMO = ("train", "demo", *TRAIN, "--epochs", 2, "--set", f"network.structure={LAYERS.format(110)}")
HANDS = ("train", "hands", *TRAIN, "--epochs", 2, "--set", f"network.structure={LAYERS.format(20)}")
BEGUN = ("layers.fc1.weight",)
FREEZE = ("--freeze", "conv*", "--freeze", "bn1.bias")
KEPT = ("layers.conv0.weight", "layers.conv1.weight", "layers.bn1.bias")


def write_hands(folder: Path) -> None:
    """Recordings of a DVS128 of two classes: CLASS/NUMBER.npy."""
    rng = np.random.default_rng(2)
    for column, label in enumerate(("left", "right")):
        for number in range(6):
            array = np.zeros(300, [("x", "<u2"), ("y", "<u2"), ("polarity", "?"), ("timestamp", "<i8")])
            array["x"] = 90 * column + rng.integers(0, 30, 300)
            array["y"], array["polarity"] = rng.integers(0, 128, 300), rng.integers(0, 2, 300)
            array["timestamp"] = np.sort(rng.integers(0, 50_000, 300))
            array["x"][0] = array["y"][0] = 127  # the size of the sensor shows
            path = folder / label / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_npy(array))


def train_demo_and_prepare_hands(plifctl: Plifctl, folder: Path) -> None:
    write_gestures(folder / "raw")
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw").code == 0
    assert plifctl(*DEMO).code == 0
    write_hands(folder / "hands")
    assert plifctl("data", "init", "hands", "--name", "hands").code == 0
    assert plifctl("prepare", "hands", "--T", 4).code == 0


@pytest.fixture
def hands(plifctl: Plifctl, made_once: Callable[..., None]) -> Plifctl:
    """The command line with a run of the demo, and an experiment of other classes: ``hands``."""
    made_once(train_demo_and_prepare_hands)
    return plifctl


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return weights


def test_train_with_weights_of_other_classes_keeps_the_frozen_ones(hands: Plifctl, places: Path) -> None:
    (demo,) = list_runs(places / "runs")
    planned = hands(*HANDS, "--weights", "last", *FREEZE, "--dry-run", "--json")
    plan = json.loads(planned.out)
    result = hands(*HANDS, "--weights", "last", *FREEZE)
    assert result.code == 0, result.err
    record = demo.record()
    source = f"{demo.name} (demo, epoch {record.best_epoch}, {100 * record.accuracy:.2f} %)"
    told = [f"weights of {source}: conv0, bn0, sn0, conv1, bn1, sn1, fc0, sn2, sn3", "begin anew: fc1"]
    frozen = "conv0, conv1, bn1 (bias)"
    assert (plan["state"], plan["run"], plan["started_from"], plan["frozen"]) == ("new", None, told, frozen)
    for line in (*told, f"frozen: {frozen}", "of them frozen"):
        assert line in result.err
    run = list_runs(places / "runs")[-1]
    before, after = weights_of(demo.checkpoint("best")), weights_of(run.checkpoint("last"))
    equal = [name for name, weight in before.items() if name not in BEGUN and torch.equal(weight, after[name])]
    assert set(equal) == set(KEPT)
    found = run.record()
    assert found.started_from is not None
    assert found.started_from == run.started_from()
    assert (found.started_from.name, found.started_from.experiment) == (demo.name, "demo")
    assert found.started_from.anew == BEGUN
    spec = run.config().spec
    assert spec.train.weights == found.started_from.digest
    assert spec.train.freeze == ("bn1.bias", "conv*")
    shown = hands("runs", "show", "last")
    assert source in shown.out
    assert hands("runs", "verify", "last").code == 0
    named_again = hands(*HANDS, *FREEZE, "--resume", "last", "--epochs", 3)
    assert (named_again.code, "of 3)" in named_again.out) == (0, True), named_again.err
    assert run.record().started_from == found.started_from


def test_train_of_a_registry_experiment_with_weights_is_modified(hands: Plifctl) -> None:
    again = (*DEMO, "--weights", "last", *FREEZE, "--dry-run", "--json")
    *_, frozen, weights = json.loads(hands(*again).out)["modified"]
    assert frozen == 'train.freeze=["conv*", "bn1.bias"]'
    assert weights.startswith("train.weights=")


def test_run_killed_before_its_first_state_resumes_without_the_file(hands: Plifctl, places: Path) -> None:
    (demo,) = list_runs(places / "runs")
    assert hands("export", demo.name, "demo.pt").code == 0
    assert hands(*HANDS, "--weights", "demo.pt", "--freeze", "conv*").code == 0
    whole = list_runs(places / "runs")[-1]
    assert whole.record().started_from.name == "demo.pt"  # type: ignore[union-attr]
    killed = Run(whole.path.rename(whole.path.with_name("killed")))
    assert hands(*HANDS, "--weights", "demo.pt", "--freeze", "conv*").code == 0
    other = list_runs(places / "runs")[-1]
    (places / "demo.pt").unlink()
    for name in ("last.pt", "best.pt"):
        killed.checkpoint(name.removesuffix(".pt")).unlink()  # type: ignore[arg-type]
    for name in ("result.json", "manifest.json", "predictions.npz"):
        (killed.path / name).unlink()
    for name in ("metrics.jsonl", "metrics.sha256"):
        (killed.path / name).write_text("")
    assert hands("train", "--resume", "killed", "--weights", "demo.pt").code == 2
    resumed = hands("train", "--resume", "killed", "--device", "cpu")
    assert resumed.code == 0, resumed.err
    expected, found = (weights_of(run.checkpoint("last")) for run in (other, killed))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    state = torch.load(killed.start_weights, weights_only=True)
    state["model"]["layers.bn0.bias"] += 1
    torch.save(state, killed.start_weights)
    killed.checkpoint("last").unlink()
    (killed.path / "result.json").unlink()
    for name in ("metrics.jsonl", "metrics.sha256"):
        (killed.path / name).write_text("")
    refused = hands("train", "--resume", "killed", "--device", "cpu")
    assert (refused.code, "start.pt: weights with the digest" in refused.err) == (6, True), refused.err


def test_run_with_the_weights_of_the_last_run_is_continued_by_the_line_that_began_it(
    hands: Plifctl, places: Path
) -> None:
    line = (*HANDS, "--weights", "last", "--name", "h1", "--resume", "auto")
    assert hands(*line).code == 0
    assert "h1 is finished" in hands(*line).err  # last is the run itself now
    run = Run(places / "runs/h1")
    plan = json.loads(hands(*line, "--epochs", 3, "--dry-run", "--json").out)
    assert (plan["state"], plan["run"]) == ("resumed", "h1")
    assert plan["started_from"][0].startswith(f"weights of {run.started_from().describe()}: ")  # type: ignore[union-attr]
    assert json.loads(hands(*line, "--dry-run", "--json").out)["state"] == "finished"


@pytest.mark.parametrize(
    ("options", "code", "message", "hint"),
    [
        (("--weights", "unknown"), 2, "no run 'unknown'", "plifctl runs"),
        (("--weights", "other.pt"), 6, "weights of another program", ""),
        (("--freeze", "conv2"), 2, "train.freeze: 'conv2' selects no parameter", "layers: conv0, bn0"),
        (("--freeze", "*"), 2, "selects all parameters", ""),
        (("--set", f"train.weights={'a' * 64}"), 2, "train.weights); none were given", "--weights RUN"),
        (("--set", f"train.weights={'a' * 64}", "--weights", "last"), 2, "those of last have the digest", ""),
        (("--set", "network.structure=FC30-SN-FC20-SN-APk10s10", "--weights", "last"), 2, "no weights fit", "--params"),
    ],
)
def test_train_with_weights_or_patterns_that_do_not_fit_is_refused(
    hands: Plifctl, places: Path, options: tuple[str, ...], code: int, message: str, hint: str
) -> None:
    torch.save({"fc.weight": torch.zeros(3, 4)}, places / "other.pt")
    result = hands(*HANDS, *options)
    assert (result.code, message in result.err, hint in result.err) == (code, True, True), result.err
    assert len(list_runs(places / "runs")) == 1


def test_weights_that_the_network_has_no_place_for_are_named(hands: Plifctl, places: Path) -> None:
    shorter = f"network.structure={LAYERS.format(20).replace('FC22-SN-', '')}"
    plan = json.loads(hands(*HANDS, "--set", shorter, "--weights", "last", "--dry-run", "--json").out)
    assert plan["started_from"][1:] == ["begin anew: fc0", "not used: fc1, sn3"]
    assert hands(*HANDS, "--set", shorter, "--weights", "last", "--epochs", 1).code == 0
    assert list_runs(places / "runs")[-1].started_from().unused == (  # type: ignore[union-attr]
        "layers.fc1.weight",
        "layers.sn3.a",
    )


def test_weights_of_a_folded_file_are_refused_where_there_is_batch_norm(hands: Plifctl) -> None:
    assert hands("export", "last", "net.pt", "--fold-bn").code == 0
    result = hands(*DEMO, "--weights", "net.pt", "--freeze", "conv*", "--freeze", "bn*", "--dry-run")
    assert (result.code, "net.pt: conv0, conv1 with a bias and without batch norm" in result.err) == (2, True)
    assert "hint: begin with the run, or with a file that was exported without --fold-bn" in result.err


@pytest.mark.parametrize(("name", "known"), [("net.pt", False), ("net.npz", False), ("net", True)])
def test_weights_of_an_exported_network_are_those_of_its_run(
    hands: Plifctl, places: Path, name: str, known: bool
) -> None:
    (demo,) = list_runs(places / "runs")
    assert hands("export", "last", name).code == 0
    plans = [json.loads(hands(*DEMO, "--weights", source, "--dry-run", "--json").out) for source in (demo.name, name)]
    of_run, of_file = (plan["modified"][-1] for plan in plans)
    assert of_run.startswith("train.weights=")
    assert of_file == of_run
    epoch = f", epoch {demo.record().best_epoch}, " if known else ")"
    assert plans[1]["started_from"][0].startswith(f"weights of {name} (demo{epoch}")


def test_weights_that_have_seen_samples_of_the_new_split_are_a_warning(hands: Plifctl, places: Path) -> None:
    assert hands(*HANDS, "--epochs", 1).code == 0
    source = list_runs(places / "runs")[-1]
    assert hands("export", source.name, "hands.pt").code == 0
    fold = (*HANDS, "--epochs", 1, "--cv-fold", "1/2")
    result = hands(*fold, "--weights", source.name, "--name", "fold")
    assert result.code == 0, result.err
    run = Run(places / "runs/fold")
    seen = len({*run.split()["test"]} & {*source.split()["train"]})
    warning = f"{source.name} was trained on, or selected by, {seen} of the test samples: the test accuracy"
    assert warning in result.err
    started = run.record().started_from
    assert started is not None
    assert (started.seen_test, started.seen_validation, run.started_from()) == (seen, 0, started)
    resumed = hands("train", "--resume", "fold", "--epochs", 2, "--dry-run", "--json")
    assert warning in json.loads(resumed.out)["started_from"][-1]
    of_file = f"hands.pt may have been trained on {seen} of the test samples: the test accuracy may be too high"
    assert of_file in hands(*fold, "--weights", "hands.pt", "--dry-run").err
    validated = hands("validate", *HANDS[1:], "--weights", source.name, "--dry-run", "--json")
    plan = json.loads(validated.out)
    both = f"{plan['test']} of the test and {plan['validation']} of the validation samples"
    assert both.replace("test and", "test samples and") in plan["started_from"][-1]
    assert "selected by" not in hands(*HANDS, "--weights", source.name, "--dry-run").err


def test_api_takes_a_run_and_patterns(hands: Plifctl, places: Path) -> None:
    (demo,) = list_runs(places / "runs")
    changes = {"T": 4, "neuron.v_threshold": 0.1, "train.batch_size": 8, "network.structure": LAYERS.format(20)}
    run = library.train(
        "hands", epochs=1, overrides=changes, weights=demo, freeze="conv*", on_epoch=lambda _: False, device="cpu"
    )
    assert run.started_from().name == demo.name  # type: ignore[union-attr]
    assert run.config().spec.train.freeze == ("conv*",)
    assert run.config().spec.train.weights == run.started_from().digest  # type: ignore[union-attr]
