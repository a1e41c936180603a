"""Networks whose numbers say nothing: layers without spikes, and weights that are no finite real numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", "--set", "T=4", "--epochs", "2")


def test_train_and_eval_of_a_network_that_never_fires_warn_once(prepared: Plifctl, places: Path) -> None:
    silent = prepared("-q", "train", "demo", *TINY, "--set", "neuron.v_threshold=1000")
    assert silent.code == 0
    layers = "layers sn0, sn1, sn2, sn3, sn4 never fire (firing rate 0)"
    assert silent.err.count(f"warning: after epoch 1: {layers}") == silent.err.count("never fire") == 1
    assert "--set neuron.tau_0=1.5" in silent.err
    assert "--set neuron.v_threshold=500" in silent.err
    tested = prepared("-q", "eval", "last", "--operations", 0)
    assert tested.code == 0
    assert tested.err.count(f"warning: {layers}") == 1


def test_train_and_eval_of_a_network_that_fires_do_not_warn(prepared: Plifctl) -> None:
    assert "never fire" not in prepared("train", "demo", *TINY, "--set", "neuron.v_threshold=0.01").err
    assert "never fire" not in prepared("eval", "last", "--operations", 0).err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight * float("nan"), "values that are not finite (NaN)"),
        (lambda weight: weight / 0, "not finite ("),
        (lambda weight: weight.to(torch.complex64), "contains torch.complex64, expected torch.float32"),
        (lambda weight: weight.to(torch.int64), "contains torch.int64, expected torch.float32"),
        (lambda weight: weight.to_sparse(), "is stored as torch.sparse_coo, expected a dense tensor"),
    ],
)
def test_eval_of_weights_that_are_no_finite_real_numbers_is_refused(
    prepared: Plifctl, places: Path, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    assert prepared("train", "demo", *TINY[:-1], "1").code == 0
    (path,) = places.glob("runs/*/checkpoints/best.pt")
    state = torch.load(path, weights_only=True)
    name = "layers.conv0.weight"
    state["model"][name] = change(state["model"][name])
    torch.save(state, places / "changed.pt")
    result = prepared("eval", places / "changed.pt")
    assert result.code == 6
    assert f"changed.pt: the weights cannot be used: {name}" in result.err
    assert message in result.err


def test_train_lif_with_tau_alone_says_that_tau_0_must_be_null(plifctl: Plifctl) -> None:
    result = plifctl("train", "demo", "--set", "neuron.kind=lif", "--set", "neuron.tau=2.0")
    assert result.code == 2
    assert "kind lif takes tau, not tau_0: set neuron.tau_0=null" in result.err
