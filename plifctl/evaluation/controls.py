"""Controls: a trained network tested with the order of the frames, or the time constants, taken away.

The accuracy that is left tells what the network uses. Frames are changed sample by sample, whatever the batch; neurons
are changed in a copy of the network, whose weights stay as they were trained.
"""

from __future__ import annotations

import copy
import math
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from plifctl.config.choices import TauControl, TimeControl
from plifctl.errors import UsageError, did_you_mean
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.networks import SpikingNetwork

_ORDER, _PIXEL_ORDER = 5, 6  # purpose of a random number: part of its key

_LEAKS: dict[TauControl, float] = {"no-leak": 0.0, "no-memory": 1.0}


def change_time(x: Tensor, control: TimeControl, keys: Tensor, lengths: Tensor) -> Tensor:
    """Returns samples whose frames are in another order, or replaced by their mean.

    Only the first ``lengths`` frames of a sample are changed: empty frames with which a shorter one is padded stay at
    its end.

    Args:
        x: Event frames ``[N, T, P, H, W]``.
        control: ``shuffled``: one of all orders at random, the original one included; ``reversed``: backwards;
            ``scattered``: the same as shuffled, but each pixel of each polarity has an order of its own; ``collapsed``:
            each frame is their mean, computed in float64 and rounded once. The sum over time of each pixel is the same.
        keys: int64 ``[N]``, one per sample, from which the orders are drawn.
        lengths: int64 ``[N]``, frames of each sample without padding.

    Example:
        >>> x, one = torch.arange(4.0).view(1, 4, 1, 1, 1), torch.tensor([1])
        >>> change_time(x, "reversed", one, torch.tensor([3])).flatten().tolist()
        [2.0, 1.0, 0.0, 3.0]
        >>> change_time(x, "collapsed", one, torch.tensor([4])).flatten().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    steps = torch.arange(x.shape[1], device=x.device)
    own = steps < lengths[:, None]
    if control == "collapsed":
        wide = own.view(*own.shape, 1, 1, 1)
        mean = (x.double() * wide).sum(1, keepdim=True) / lengths.clamp_min(1).view(-1, 1, 1, 1, 1)
        return torch.where(wide, mean.to(x), x)
    if control == "reversed":
        order = torch.where(own, lengths[:, None] - 1 - steps, steps)[:, :, None]
    elif control == "shuffled":
        order = _draw_orders(hash_keys(keys[:, None], steps, _ORDER)[:, :, None], own)
    else:
        pixels = torch.arange(x.shape[2:].numel(), device=x.device)
        order = _draw_orders(hash_keys(keys[:, None, None], steps[:, None], pixels, _PIXEL_ORDER), own)
    pixels_over_time = x.flatten(2)
    return pixels_over_time.gather(1, order.expand_as(pixels_over_time)).view_as(x)


def _draw_orders(draws: Tensor, own: Tensor) -> Tensor:
    """Returns the steps of each sample ordered by random numbers ``[N, T, K]``, those that are not its own last."""
    last = torch.iinfo(torch.int64).max
    return draws.masked_fill(~own[:, :, None], last).argsort(dim=1, stable=True)


def check_tau(value: str | float) -> TauControl | float:
    """Returns the change of the time constants that a user named.

    Args:
        value: ``mean``, ``no-leak`` or ``no-memory``; or a time constant in time steps, above 1, as a number or text.

    Raises:
        UsageError: It is none of these.
    """
    names = get_args(TauControl)
    if value in names:
        return value  # type: ignore[return-value]
    try:
        tau = float(value)
    except (TypeError, ValueError):
        expected = f"expected {', '.join(names)}, or a number of time steps above 1"
        raise UsageError(f"--tau {value}: {expected}", hint=did_you_mean(str(value), names)) from None
    if tau == math.inf:
        raise UsageError(
            f"--tau {value}: with 1/τ = 0 the neurons of Eq. 5 ignore their input as well, so none fires",
            hint="--tau no-leak: they integrate their input without leak",
        )
    if not tau > 1:
        raise UsageError(
            f"--tau {value}: expected a number of time steps above 1",
            hint="--tau no-memory: the potential of the step before is forgotten",
        )
    return tau


def change_tau(network: SpikingNetwork, control: TauControl | float) -> SpikingNetwork:
    """Returns a copy of a network in which every spiking layer has other dynamics.

    Args:
        network: It is not changed.
        control: A time constant in time steps, for all neurons; ``mean``: that of the layers' learnt ones, where a
            layer with several counts with their mean; ``no-leak`` and ``no-memory``: the input keeps its weight 1/τ,
            and from step to step the potential loses nothing (H_t = V_{t−1} + X_t/τ), or everything
            (H_t = V_reset + X_t/τ).

    Raises:
        UsageError: ``mean`` of time constants that were not learnt, or one of which is infinite.
    """
    changed = copy.deepcopy(network)
    if isinstance(control, str) and control != "mean":
        for layer in changed.spiking_layers().values():
            layer.leak = _LEAKS[control]
        return changed
    tau = _mean_tau(network) if control == "mean" else control
    for layer in changed.spiking_layers().values():
        # a PLIF neuron with a given τ is a LIF neuron
        layer.a = None
        layer.spec = layer.spec.model_copy(update={"kind": "lif", "tau_0": None, "tau": tau, "tau_per": "layer"})
    return changed


def list_tau_controls(network: SpikingNetwork) -> list[TauControl]:
    """Returns the named changes of the time constants that :func:`change_tau` can make."""
    has_mean = network.neuron.kind == "plif" and all(map(math.isfinite, network.taus()))
    return [control for control in get_args(TauControl) if control != "mean" or has_mean]


def _mean_tau(network: SpikingNetwork) -> float:
    if network.neuron.kind == "lif":
        raise UsageError("--tau mean: the neurons are LIF: their time constant was not learnt", hint="--tau VALUE")
    tau = float(np.mean(network.taus()))
    if math.isinf(tau):
        raise UsageError("--tau mean: a learnt time constant is infinite (1/τ = 0)", hint="--tau VALUE")
    return tau
