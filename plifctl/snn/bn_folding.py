"""Batch normalisation folded into the convolutions before it: the same network with fewer layers, for evaluation.

With its running statistics batch norm is an affine map of each channel, so the convolution before it can contain it:

    γ (w ∗ x + b − μ) / √(σ² + ε) + β  =  (w s) ∗ x + ((b − μ) s + β),   s = γ / √(σ² + ε)

Source: Sec. 4.1, which removes batch norm for inference in this way.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from plifctl.config.network import NetworkSpec
from plifctl.config.structure import Conv, Layer, Plain, layer_names, parse_structure, structure_of
from plifctl.snn.layers import BatchNorm
from plifctl.snn.networks import SpikingNetwork, drawing_weights

_BATCH_NORM = Plain("batch-norm")


@torch.no_grad()
def fold_batch_norm(model: SpikingNetwork) -> SpikingNetwork:
    """Returns the network equal to ``model`` in evaluation, without the batch norms that follow a convolution.

    Several in a row are folded one after the other. A batch norm after any other layer is kept, even directly before a
    convolution: its shift does not apply to the zeros of the padding. :func:`fold_targets` tells them apart.

    Args:
        model: It is not changed, and shares no weights with the result.

    Returns:
        A network in evaluation mode, of ``model``'s type and device; convolutions with a folded batch norm are written
        ``c…b`` in its structure. In float64 its potentials equal those of ``model`` to 1e-9; in float32 a spike
        differs only where the potential is within rounding of the threshold.

    Example:
        >>> from plifctl.config.network import NetworkSpec, NeuronSpec
        >>> small = NetworkSpec(name="s", structure="c4k3s1-BN-SN-FC20-SN-APk10s10", dropout=0.0, batch_norm="per-step")
        >>> lif = NeuronSpec(
        ...     kind="lif", tau=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True
        ... )
        >>> fold_batch_norm(SpikingNetwork(small, lif, (1, 8, 8), classes=2)).network.structure
        'c4k3s1b-SN-FC20-SN-APk10s10'
    """
    targets = fold_targets(model.network)
    kept: list[Layer] = []
    kept_weights: list[dict[str, Tensor]] = []  # of each layer kept, by their name in it
    layers = parse_structure(model.network.structure)
    for name, layer in zip(layer_names(layers), layers, strict=True):
        layer_weights: dict[str, Tensor] = model.layers[name].state_dict() if name in model.layers else {}
        if targets.get(name) is not None:
            norm, conv = model.layers[name], kept[-1]
            assert isinstance(norm, BatchNorm)
            assert isinstance(conv, Conv)
            kept_weights[-1] = _fold_weights(kept_weights[-1], layer_weights, norm.eps)
            kept[-1] = replace(conv, bias=True)
        else:
            kept.append(layer)
            kept_weights.append(layer_weights)
    network = model.network.model_copy(update={"structure": structure_of(kept)})
    with drawing_weights():  # which are replaced below
        folded = SpikingNetwork(network, model.neuron, model.input_shape, model.classes, model.kernel)
    folded.gpu_kernel = model.gpu_kernel
    like = next(weight for weight in model.state_dict().values() if weight.is_floating_point())
    folded.to(like.device, like.dtype)
    folded.layers.load_state_dict(
        {
            f"{name}.{key}": weight
            for name, layer_weights in zip(layer_names(kept), kept_weights, strict=True)
            for key, weight in layer_weights.items()
        }
    )
    return folded.eval()


def fold_targets(network: NetworkSpec) -> dict[str, str | None]:
    """Returns the convolution that each batch norm of a network folds into; None if there is none before it.

    Example:
        >>> fold_targets(
        ...     NetworkSpec(name="s", structure="BN-c4k3s1-BN-BN-SN-FC20-SN-APk10s10", dropout=0, batch_norm="per-step")
        ... )
        {'bn0': None, 'bn1': 'conv0', 'bn2': 'conv0'}
    """
    layers = parse_structure(network.structure)
    targets: dict[str, str | None] = {}
    conv: str | None = None  # the convolution that only batch norms separate from here
    for name, layer in zip(layer_names(layers), layers, strict=True):
        if layer == _BATCH_NORM:
            targets[name] = conv
        else:
            conv = name if isinstance(layer, Conv) else None
    return targets


def _fold_weights(conv: dict[str, Tensor], norm: dict[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Returns the weights of one convolution equal to a convolution and a batch norm; float64, rounded once."""
    weight = conv["weight"].double()
    mean, bias = norm["running_mean"].double(), conv.get("bias")
    scale = norm["weight"].double() * (norm["running_var"].double() + eps).rsqrt()
    shifted = (bias.double() - mean if bias is not None else -mean) * scale + norm["bias"].double()
    return {
        "weight": (weight * scale[:, None, None, None]).to(conv["weight"]),
        "bias": shifted.to(conv["weight"]),
    }
