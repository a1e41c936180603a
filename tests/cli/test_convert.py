"""plifctl convert, as somebody types it who comes with weights of another program."""

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from plifctl.config.lookup import load_experiment
from plifctl.exchange.formats import write_network
from plifctl.exchange.model import load_trained
from plifctl.training.trainer import build_model

Plifctl = Callable[..., Any]
STRUCTURE = "MPk8s8-c4k3s1-BN-SN-MPk2s2-FC20-SN-FC110-SN-APk10s10"
CHANGES = ("--set", f"network.structure={STRUCTURE}", "--set", "T=4")
HERE = ("--experiment", "demo", *CHANGES)


def theirs(**biases: Tensor) -> dict[str, Tensor]:
    """Returns weights of the demo's small network by the names of another program."""
    spec = load_experiment("demo", [f"network.structure={STRUCTURE}"]).spec
    numbers = {"conv0": "0", "bn0": "1", "sn0": "2", "fc0": "6", "sn1": "7", "fc1": "8", "sn2": "9"}
    weights = {}
    torch.manual_seed(4)
    for name, tensor in build_model(spec, torch.device("cpu")).state_dict().items():
        _, layer, last = name.split(".")
        scale = 10 if last == "weight" and tensor.dim() > 1 else 1  # so that every layer fires
        weights[f"net.{numbers[layer]}.{'w' if last == 'a' else last}"] = (tensor * scale).contiguous()
    return weights | biases


@pytest.fixture
def state(places: Path) -> Path:
    torch.save({"net": theirs(), "optimizer": {"state": {}, "param_groups": []}, "epoch": 9}, places / "net.pth")
    return Path("net.pth")


def outputs(path: Path, x: Tensor) -> Tensor:
    """Returns the votes of a converted network, by the definition."""
    network = load_trained(path, kernel="eager").network
    with torch.no_grad():
        votes: Tensor = network(x)
    return votes


def test_convert_then_eval_tests_the_weights_in_every_format(
    plifctl: Plifctl, gestures: Path, state: Path, places: Path
) -> None:
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    result = plifctl("convert", state, "net.pt", *HERE)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "- the weights are the entry net of the file"
    assert lines[1].startswith("- from the experiment, as a state dict does not have them: v_threshold = 1.0, v_reset")
    assert lines[2].startswith("net.pt: synthetic gestures, PLIF")
    assert plifctl("convert", state, "net.npz", *HERE).code == 0
    assert plifctl("convert", state, "folder", *HERE).code == 0

    origin = f"converted from net.pth, sha256 {hashlib.sha256(state.read_bytes()).hexdigest()}"
    assert torch.load("net.pt", weights_only=True)["origin"] == origin
    assert str(np.load("net.npz")["origin"]) == origin
    assert json.loads(Path("folder/config.json").read_text(encoding="utf-8"))["origin"] == origin
    card = Path("folder/README.md").read_text(encoding="utf-8")
    assert f"| weights | {origin} |" in card
    assert "train." not in card
    evaluated = []
    for name in ("net.pt", "net.npz", "folder"):
        assert load_trained(Path(name)).origin == origin
        result = plifctl("eval", name, "--json", "--layer-times", 0, "--operations", 0)
        assert f"{name}: On which samples the weights were trained" in result.err
        evaluated.append(json.loads(result.out))
        evaluated[-1].pop("checkpoint")
    assert evaluated[0]["samples"] == 11
    assert evaluated[0] == evaluated[1] == evaluated[2]
    assert all(layer["firing_rate"] > 0 for layer in evaluated[0]["layers"])

    assert plifctl("export", "net.npz", "again.pt").code == 0  # keeps where the weights came from
    assert torch.load("again.pt", weights_only=True)["origin"] == origin


@pytest.mark.parametrize("own", ["own.pt", "own.npz", "own"])
def test_convert_of_a_file_of_plifctl_names_the_values_that_its_description_has_otherwise(
    plifctl: Plifctl, state: Path, own: str
) -> None:
    changes = ("--set", "neuron.v_threshold=0.15", "--set", "neuron.reset=soft")
    assert plifctl("convert", state, own, *HERE, *changes).code == 0
    result = plifctl("convert", own, "other.pt", *HERE)
    assert result.code == 0
    assert "- from the experiment, not from the description that the file has: v_threshold = 1.0, " in result.out
    differences = "v_threshold 0.15 in the file, 1.0 here, v_reset None (soft reset) in the file, 0.0 here"
    assert f"with other values than the experiment: {differences}; plifctl.load and plifctl export" in result.err
    assert load_trained(Path("other.pt")).spec.neuron.v_threshold == 1.0
    listed = replace(load_trained(Path(own)), cache="c" * 64, test_samples=("a/1", "b/2"))
    kind = {".pt": "pt", ".npz": "npz", "": "folder"}[Path(own).suffix]
    write_network(Path(f"listed-{own}"), listed, kind)
    assert plifctl("convert", f"listed-{own}", "kept.pt", *HERE).code == 0  # of the same data set and split
    kept = load_trained(Path("kept.pt"))
    assert (kept.cache, kept.test_samples) == ("c" * 64, ("a/1", "b/2"))
    elsewhere = ("--set", "split.method=share", "--set", "split.test=0.5")
    assert plifctl("convert", f"listed-{own}", "split.pt", *HERE, *elsewhere).code == 0
    assert load_trained(Path("split.pt")).test_samples is None
    same = plifctl("convert", own, "same.pt", *HERE, *changes)
    assert (same.code, "other values than the experiment" in same.err) == (0, False)


def test_convert_to_half_precision_says_in_which_precision_it_compares(plifctl: Plifctl, state: Path) -> None:
    note = "- eval and predict compute in bf16, as train.precision says; --compare in float32\n"
    assert note in plifctl("convert", state, "net.pt", *HERE, "--set", "train.precision=bf16").out
    assert note not in plifctl("convert", state, "single.pt", *HERE).out


def test_convert_with_biases_prints_the_structure(plifctl: Plifctl, places: Path) -> None:
    save_file(theirs(**{"net.6.bias": torch.ones(20), "net.8.bias": torch.zeros(110)}), "net.safetensors")
    result = plifctl("convert", "net.safetensors", "net.pt", *HERE)
    assert result.code == 0
    structure = "MPk8s8-c4k3s1-BN-SN-MPk2s2-FC20b-SN-FC110-SN-APk10s10"
    assert f"- fc0 has a bias, so the structure is now {structure}\n" in result.out
    assert "- the biases of fc1 are all 0 and were left out\n" in result.out
    trained = load_trained(Path("net.pt"))
    assert trained.spec.network.structure == structure
    assert trained.digest == load_experiment("demo", [f"network.structure={structure}", "T=4"]).spec.digest
    assert trained.cache is None
    assert "bias" in plifctl("show", "demo", "--params", "--set", f"network.structure={structure}").out


class TestCompare:
    @pytest.fixture
    def votes(self, plifctl: Plifctl, state: Path) -> tuple[Tensor, Tensor]:
        """Returns inputs, and the votes of the network on them."""
        assert plifctl("convert", state, "first.pt", *HERE).code == 0
        torch.manual_seed(1)
        x = torch.poisson(torch.full((20, 4, 2, 128, 128), 0.5))
        y = outputs(Path("first.pt"), x)
        assert 0.01 < y.mean() < 0.99
        return x, y

    def test_compare_equal_votes_writes_the_network(
        self, plifctl: Plifctl, state: Path, votes: tuple[Tensor, Tensor]
    ) -> None:
        x, y = votes
        np.savez("votes.npz", x=x.numpy().astype(np.uint8), y=y.numpy())
        torch.save({"x": x, "y": y.mean(0)}, "mean.pt")
        result = plifctl("convert", state, "a.pt", *HERE, "--compare", "votes.npz")
        assert result.code == 0
        assert "- 0 of 880 votes differ, 0 of 20 predictions\n" in result.out
        tree = json.loads(plifctl("convert", state, "b.pt", *HERE, "--compare", "mean.pt", "--json").out)
        assert tree["comparison"] == {"votes": 220, "different": 0, "samples": 20, "predictions": 0, "first": ""}
        assert tree["exported"]["file"] == "b.pt"
        assert tree["origin"].startswith("converted from net.pth, sha256 ")

    def test_compare_other_votes_writes_nothing(
        self, plifctl: Plifctl, state: Path, votes: tuple[Tensor, Tensor]
    ) -> None:
        x, y = votes
        other = y.clone()
        other[2, 5, 7] += 0.1
        np.savez("votes.npz", x=x.numpy(), y=other.numpy())
        result = plifctl("convert", state, "a.pt", *HERE, "--compare", "votes.npz")
        assert result.code == 1
        here, there = y[2, 5, 7].item(), other[2, 5, 7].item()
        assert "- 1 of 880 votes differ, " in result.out
        assert f"first: step 2, sample 5, class 7 (from 0): {here:.4g} here, {there:.4g} in" in result.out
        assert "votes differ, so a.pt was not written" in result.err
        assert not Path("a.pt").exists()
        mean = y.mean(0)
        mean[3, 0] = torch.nan
        np.savez("votes.npz", x=x.numpy(), y=mean.numpy())
        result = plifctl("convert", state, "a.pt", *HERE, "--compare", "votes.npz", "--json")
        assert result.code == 1
        tree = json.loads(result.out)
        assert tree["exported"] is None
        assert tree["comparison"]["different"] == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                {"x": np.zeros((2, 4, 2, 64, 64)), "y": np.zeros((4, 2, 11))},
                "x has the shape [2, 4, 2, 64, 64], expected",
            ),
            ({"x": np.zeros((0, 4, 2, 128, 128)), "y": np.zeros((4, 0, 11))}, "x has the shape [0, 4"),
            ({"x": np.zeros((2, 4, 2, 128, 128)), "y": np.zeros((2, 4, 11))}, "y has the shape [2, 4, 11]"),
            ({"x": np.zeros((2, 4, 2, 128, 128)), "y": np.zeros(2)}, "y has the shape [2], expected"),
            ({"inputs": np.zeros(2)}, "no arrays x and y"),
            (None, "no such file"),
        ],
    )
    def test_compare_with_a_wrong_file_is_refused(
        self, plifctl: Plifctl, state: Path, content: dict[str, Any] | None, message: str
    ) -> None:
        if content is not None:
            np.savez("votes.npz", **content)
        result = plifctl("convert", state, "a.pt", *HERE, "--compare", "votes.npz")
        assert result.code == 2
        assert f"error: votes.npz: {message}" in result.err
        assert not Path("a.pt").exists()


class TestRefused:
    def test_convert_of_another_network_shows_both_sides(self, plifctl: Plifctl, state: Path) -> None:
        result = plifctl("convert", state, "net.pt", "--experiment", "gesture-plif")
        assert result.code == 6
        assert "these weights are not those of gesture-plif; first difference at →:\n" in result.err
        assert "  → net.0.weight" in result.err
        assert "hint: plifctl show gesture-plif --params" in result.err
        assert not Path("net.pt").exists()

    def test_convert_without_experiment_or_with_a_wrong_name_is_a_usage_error(
        self, plifctl: Plifctl, state: Path
    ) -> None:
        result = plifctl("convert", state, "net.pt")
        assert result.code == 2
        assert "--experiment" in result.err
        result = plifctl("convert", state, "net.pt", "--experiment", "gesture-pli")
        assert result.code == 2
        assert "did you mean gesture-plif" in result.err
        assert plifctl("convert", "none.pth", "net.pt", *HERE).code == 6

    def test_convert_over_a_file_is_refused(self, plifctl: Plifctl, state: Path) -> None:
        Path("net.pt").write_text("mine", encoding="utf-8")
        result = plifctl("convert", state, "net.pt", *HERE)
        assert result.code == 2
        assert "rm net.pt" in result.err
        assert Path("net.pt").read_text(encoding="utf-8") == "mine"

    def test_convert_of_field_files_says_what_to_do(self, plifctl: Plifctl, shared: Path) -> None:
        folder = shared / "data/field/foreign-checkpoints"
        if not folder.is_dir():
            pytest.skip("no checkpoints of other programs here")
        result = plifctl("convert", folder / "authors.pt", "net.pt", *HERE)
        assert result.code == 6
        assert "loading it would execute code" in result.err
        assert "hint: python -c 'import torch; o = torch.load(" in result.err
        for name in ("sj_ckpt.pt", "sj_state.pth"):  # the first two layers of a network
            result = plifctl("convert", folder / name, "net.pt", *HERE)
            assert result.code == 6
            assert "– " in result.err


@pytest.mark.parametrize("name", ["their net.pth", "net.safetensors", "net.npz"])
@pytest.mark.parametrize("command", [("eval",), ("export", "OUT.npz")])
def test_file_of_another_program_elsewhere_hints_the_command_which_works(
    plifctl: Plifctl, places: Path, name: str, command: tuple[str, ...]
) -> None:
    weights = theirs()
    if name.endswith(".npz"):
        np.savez(name, **{key: tensor.numpy() for key, tensor in weights.items()})
    elif name.endswith(".safetensors"):
        save_file(weights, name)
    else:
        torch.save(weights, name)
    result = plifctl(command[0], name, *command[1:])
    assert result.code == 6
    (hint,) = [line for line in result.err.splitlines() if line.startswith("hint: ")]
    program, *words = shlex.split(hint.removeprefix("hint: "))
    assert (program, words[0], words[1]) == ("plifctl", "convert", name)
    assert plifctl(*("demo" if word == "NAME" else word for word in words), *CHANGES).code == 0
    assert load_trained(Path("OUT.pt")).spec.T == 4
