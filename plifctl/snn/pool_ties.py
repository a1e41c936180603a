"""Max pooling of spikes whose gradient goes to a neuron of the window drawn at random.

Spikes are 0 or 1, so that several neurons of a window have the maximum. The output is the same for each choice; the
neuron that receives the gradient is not. torch's max pooling takes the first. The draws are a function of each sample's
key, the layer, the step and the window: the same in any batch, process or memory layout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plifctl.config.choices import PoolTies
from plifctl.snn.keyed_random import hash_keys, small_integers


def draw_max_pool(spikes: Tensor, keys: Tensor, kernel: int, stride: int, ties: PoolTies) -> Tensor:
    """Max pooling without padding; the gradient of a window goes to one neuron that is drawn.

    Args:
        spikes: ``[T, N, C, H, W]``, values 0 and 1.
        keys: int64 ``[N]``, one per sample, for this layer.
        kernel: Side of the windows.
        stride: Distance of the windows.
        ties: ``random``: any of the maxima, in a window where none fires any of its neurons; ``random-firing``: one of
            those that fire, and none where none fires.

    Returns:
        ``[T, N, C, H', W']``.

    Source: Figure 5: of several neurons of a window that fire, a random one is connected.
    """
    with torch.no_grad():
        drawn = [
            _draw(one, hash_keys(keys, t), kernel, stride, only_firing=ties == "random-firing")
            for t, one in enumerate(spikes)
        ]
        index = torch.stack([place for place, _ in drawn])
    pooled = spikes.flatten(3).gather(3, index.flatten(3)).view(index.shape)
    if ties == "random-firing":
        pooled = pooled * torch.stack([fires for _, fires in drawn])
    return pooled


def _draw(spikes: Tensor, keys: Tensor, kernel: int, stride: int, *, only_firing: bool) -> tuple[Tensor, Tensor]:
    """Returns the place of the drawn neuron in its map, int64 ``[N, C, H', W']``, and whether the window fires.

    Args:
        spikes: Those of one step, ``[N, C, H, W]``.
        keys: int64 ``[N]``, for this step.
        kernel: Side of the windows.
        stride: Distance of the windows.
        only_firing: In a window where none fires, the draw is not used.
    """
    windows = spikes.unfold(2, kernel, stride).unfold(3, kernel, stride).bool().flatten(4)
    fires = windows.any(-1)
    candidates = windows if only_firing else windows | ~fires[..., None]
    number = candidates.cumsum(-1, dtype=torch.int32)
    wanted = small_integers(keys, number[..., -1]) + 1
    inside = (number < wanted[..., None]).sum(-1) % kernel**2  # the wanted-th candidate; without any, the first neuron
    rows, columns = (torch.arange(size, device=spikes.device) * stride for size in inside.shape[2:])
    row = rows[:, None] + torch.div(inside, kernel, rounding_mode="floor")
    return row * spikes.shape[3] + columns + inside % kernel, fires
