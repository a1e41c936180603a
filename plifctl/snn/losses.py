"""Losses of votes over time: all take the votes ``[T, N, C]`` and target distributions ``[N, C]``, mostly one-hot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.config.training import TrainSpec

Loss = Callable[[Tensor, Tensor], Tensor]


def mse_per_step(rates: Tensor, targets: Tensor) -> Tensor:
    """Returns the MSE to the target at each step, averaged over steps.

    Args:
        rates: Output of the voting layer, ``[T, N, C]``.
        targets: ``[N, C]``.

    Raises:
        ValueError: The targets have another shape.

    Source: Sec. 3.7.
    """
    _check_targets(rates, targets)
    return (rates - targets).square().mean()


def mse_rate(rates: Tensor, targets: Tensor) -> Tensor:
    """Returns the MSE of the mean rate over T to the target; arguments as :func:`mse_per_step`.

    Source: the authors' training scripts.
    """
    _check_targets(rates, targets)
    return (rates.mean(0) - targets).square().mean()


def ce_rate(rates: Tensor, targets: Tensor) -> Tensor:
    """Returns the cross-entropy of the softmax of the mean rate over T; arguments as :func:`mse_per_step`."""
    return F.cross_entropy(rates.mean(0), targets)


def tet(rates: Tensor, targets: Tensor, weight: float) -> Tensor:
    """Returns (1 − λ) · mean over t of the cross-entropy at t + λ · mean squared distance of the votes from 1.

    Args:
        rates: Output of the voting layer, ``[T, N, C]``.
        targets: ``[N, C]``.
        weight: λ.

    Raises:
        ValueError: The targets have another shape.

    Source: S. Deng et al., Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting, ICLR 2022,
        eq. 9 to 11, with φ = 1.
    """
    _check_targets(rates, targets)
    per_step = F.cross_entropy(rates.flatten(0, 1), targets.repeat(len(rates), 1))
    return (1.0 - weight) * per_step + weight * (rates - 1.0).square().mean()


def _check_targets(rates: Tensor, targets: Tensor) -> None:
    """Raises ValueError for targets of another shape, such as class indices: ``[N]`` would be broadcast if N = C."""
    if targets.shape != rates.shape[1:]:
        raise ValueError(
            f"found targets of shape {list(targets.shape)}, expected [N, C] = {list(rates.shape[1:])}; "
            "of class indices: torch.nn.functional.one_hot(indices, C).float()"
        )


def loss_function(train: TrainSpec) -> Loss:
    """Returns the loss that ``train.loss`` names."""
    match train.loss:
        case "mse-per-step":
            return mse_per_step
        case "mse-rate":
            return mse_rate
        case "ce-rate":
            return ce_rate
        case "tet":
            assert train.tet_weight is not None  # checked by TrainSpec
            return partial(tet, weight=train.tet_weight)
