"""Eq. 2 to 17 of the paper, written out step by step in numpy for a layer, against the gradients of the kernels.

Eq. 16 has two readings that agree, and one that counts a term twice. The parameter a of a layer acts at every step, and
its effect on H_t continues through V_t to H_{t+1}. That path is either part of ∂H_t/∂a (Eq. 15, with ∂L_t/∂H_t of
Eq. 10) or of ∂L/∂H_t (Eq. 8, with ∂H_t/∂a of step t alone); Eq. 8 and Eq. 15 together contain it twice.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from plifctl.config.network import NeuronSpec
from plifctl.snn.functional import tau_to_a
from plifctl.snn.kernels import spiking_stage
from plifctl.snn.neurons import SpikingLayer

T, N, INPUTS, NEURONS = 12, 3, 5, 40
V_TH, V_RESET = 0.8, -0.25

DERIVATIVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "arctan": lambda u: 1 / (1 + (np.pi * u) ** 2),
    "sigmoid": lambda u: 1 / (1 + np.exp(-u)) * (1 - 1 / (1 + np.exp(-u))),
    "rectangular": lambda u: np.where(np.abs(u) < 0.5, 1.0, 0.0),
    "triangular": lambda u: np.where(np.abs(u) < 1, 1 - np.abs(u), 0.0),
}


class Gradients(NamedTuple):
    spikes: np.ndarray  # [T, N, NEURONS]
    weight: np.ndarray  # Eq. 17, [NEURONS, INPUTS]
    x: np.ndarray  # [T, N, NEURONS]
    a: np.ndarray  # Eq. 16 through Eq. 15, of each neuron
    a_through_eq_8: np.ndarray
    a_counted_twice: np.ndarray


def by_the_equations(spec: NeuronSpec, inputs: np.ndarray, weight: np.ndarray, upstream: np.ndarray) -> Gradients:
    """Gradients of L = Σ_t ⟨upstream_t, S_t⟩, of which ∂L_t/∂S_t is upstream_t."""
    k = 1 / spec.start_tau
    dk_da = k * (1 - k)
    soft, detach, width = spec.reset == "soft", spec.detach_reset, spec.surrogate_width
    x = inputs @ weight.T
    v = np.full((T + 1, N, NEURONS), V_RESET)  # v[t] is V_{t−1}
    h, s = np.zeros((T, N, NEURONS)), np.zeros((T, N, NEURONS))
    for t in range(T):
        h[t] = v[t] + k * (x[t] - (v[t] - V_RESET))  # Eq. 2, 6
        s[t] = h[t] >= V_TH  # Eq. 3
        v[t + 1] = h[t] - V_TH * s[t] if soft else h[t] * (1 - s[t]) + V_RESET * s[t]  # Eq. 4
    ds_dh = DERIVATIVES[spec.surrogate]((h - V_TH) / width) / width  # Eq. 13
    kept, moved = (np.ones_like(h), -V_TH) if soft else (1 - s, V_RESET - h)
    dv_dh = kept + (0.0 if detach else moved * ds_dh)  # Eq. 12; of the soft reset, the same of its V
    dh_dv = 1 - k  # Eq. 11
    own = upstream * ds_dh  # Eq. 10

    dl_dh = np.zeros_like(h)
    for t in reversed(range(T)):
        dl_dh[t] = own[t]  # Eq. 8, and nothing comes after the last step
        if t + 1 < T:
            dl_dh[t] += dl_dh[t + 1] * dh_dv * dv_dh[t]  # Eq. 9
    at_once = (x - (v[:-1] - V_RESET)) * dk_da  # the first terms of Eq. 15, with the brackets that the print lacks
    dh_da = np.zeros_like(h)
    for t in range(T):
        dh_da[t] = at_once[t] + (dh_dv * dv_dh[t - 1] * dh_da[t - 1] if t > 0 else 0.0)  # Eq. 15

    return Gradients(
        spikes=s,
        weight=np.einsum("tno,tni->oi", dl_dh * k, inputs),  # Eq. 17 with Eq. 14
        x=dl_dh * k,  # Eq. 14
        a=(own * dh_da).sum((0, 1)),  # Eq. 16
        a_through_eq_8=(dl_dh * at_once).sum((0, 1)),
        a_counted_twice=(dl_dh * dh_da).sum((0, 1)),
    )


def by_autograd(
    spec: NeuronSpec, kernel: Any, inputs: np.ndarray, weight: np.ndarray, upstream: np.ndarray
) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Spikes, and gradients of the weight, of X, and of a."""
    layer = SpikingLayer(spec, (NEURONS,)).double()
    if layer.a is not None:
        torch.nn.init.constant_(layer.a, tau_to_a(spec.start_tau))  # to float64's last digit
    w = torch.from_numpy(weight).requires_grad_()
    x = torch.from_numpy(inputs) @ w.T
    x.retain_grad()
    spikes = spiking_stage(x, T, layer.dynamics(x), kernel=kernel).pooled
    (spikes * torch.from_numpy(upstream)).sum().backward()
    return spikes.detach(), {"weight": w.grad, "x": x.grad, "a": None if layer.a is None else layer.a.grad}


def random_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.normal(0.4, 1, (T, N, INPUTS)), rng.normal(0.5, 2, (NEURONS, INPUTS)), rng.normal(0, 1, (T, N, NEURONS))


def neuron(**choices: Any) -> NeuronSpec:
    base = {"kind": "plif", "v_threshold": V_TH, "v_reset": V_RESET, "surrogate": "arctan", "detach_reset": True}
    tau = "tau" if choices.get("kind") == "lif" else "tau_0"
    return NeuronSpec(**(base | {tau: 2.6} | choices))


@pytest.mark.parametrize("kernel", ["eager", "fused"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    "choices",
    [
        {"kind": "plif"},
        {"kind": "plif", "tau_0": 5.0},
        {"kind": "lif"},
        {"surrogate_width": 0.4},
        {"surrogate": "sigmoid", "surrogate_width": 0.3},
        {"surrogate": "rectangular", "surrogate_width": 1.3},
        {"surrogate": "triangular"},
    ],
    ids=str,
)
def test_gradients_shared_a_equal_the_equations(choices: dict[str, Any], detach: bool, reset: str, kernel: str) -> None:
    spec = neuron(**choices, detach_reset=detach, reset=reset)
    expected = by_the_equations(spec, *random_inputs())
    spikes, found = by_autograd(spec, kernel, *random_inputs())
    assert np.array_equal(spikes, expected.spikes)
    assert 0.05 < spikes.mean() < 0.6
    for name in ("weight", "x"):
        np.testing.assert_allclose(found[name], getattr(expected, name), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(expected.a_through_eq_8, expected.a, rtol=1e-9, atol=1e-12)
    if spec.kind == "plif":
        assert found["a"] is not None
        assert found["a"].item() == pytest.approx(expected.a.sum(), rel=1e-9)
        assert found["a"].item() != pytest.approx(expected.a_counted_twice.sum(), rel=1e-2)
    else:
        assert found["a"] is None


@pytest.mark.parametrize("kernel", ["eager", "fused"])
def test_gradients_a_per_neuron_equal_the_equations(kernel: str) -> None:
    expected = by_the_equations(neuron(), *random_inputs())
    _, found = by_autograd(neuron(tau_per="neuron"), kernel, *random_inputs())
    np.testing.assert_allclose(found["a"], expected.a, rtol=1e-9, atol=1e-12)  # type: ignore[arg-type]


def test_eq_15_as_printed_differs_from_measured_gradient() -> None:
    """−(V_{t−1} − V_reset) + X_t k'(a), as printed, is not what the chain rule gives: a small step in a shows it."""
    v, x, a, step = 0.3, 1.7, 0.4, 1e-6

    def h(a: float) -> float:
        return v + (x - (v - V_RESET)) / (1 + math.exp(-a))

    k = 1 / (1 + math.exp(-a))
    measured = (h(a + step) - h(a - step)) / (2 * step)
    assert measured == pytest.approx((x - (v - V_RESET)) * k * (1 - k), rel=1e-6)
    assert measured != pytest.approx(-(v - V_RESET) + x * k * (1 - k), rel=1e-2)


@pytest.mark.parametrize("tau", [1.0001, 1.5, 2.0, 3.7, 16.0, 1e4])
def test_tau_to_a_inverted_gives_tau(tau: float) -> None:
    assert 1 + math.exp(-tau_to_a(tau)) == pytest.approx(tau, rel=1e-12)
    assert SpikingLayer(neuron(tau_0=tau), (4,)).double().tau == pytest.approx(tau, rel=1e-6)  # a starts as float32
    assert SpikingLayer(neuron(kind="lif", tau=tau), (4,)).tau == tau
