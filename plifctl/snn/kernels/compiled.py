"""The definition, compiled by ``torch.compile``: machine code that torch generates for the device.

It needs a C compiler, on a GPU Triton as well. Every layer is compiled in its first batch, which takes seconds to
minutes, once for training and once for evaluation, for all batch sizes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels.reference import run_stage_eager
from plifctl.snn.layers import BatchNorm, Pool

_MAX_VERSIONS = 256
"""Versions of the machine code: a network has two for each layer. Beyond torch's own limit of 8 nothing is compiled."""


def run_stage_compiled(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None
) -> tuple[Tensor, Tensor]:
    """Runs :func:`plifctl.snn.kernels.spiking_stage`; returns pooled spikes and the number of spikes before pooling."""
    dynamo: Any = torch._dynamo
    dynamo.maybe_mark_dynamic(x, 1)  # the number of samples; the last batch of an epoch is smaller
    with dynamo.config.patch(recompile_limit=_MAX_VERSIONS, accumulated_recompile_limit=_MAX_VERSIONS):
        pooled, count = _compiled_stage()(x, T, dynamics, norm, pooling)
    return pooled, count


@lru_cache(maxsize=1)
def _compiled_stage() -> Any:
    return torch.compile(run_stage_eager)
