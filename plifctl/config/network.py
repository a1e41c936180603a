"""Schema of a network and of its neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from plifctl.config.base import Spec
from plifctl.config.choices import BatchNorm, NeuronKind, Pooling, PoolTies, Reset, Surrogate, TauScope
from plifctl.config.identity import current_network
from plifctl.config.structure import has_spike_max_pooling, parse_structure, with_pooling

AVERAGE_POOLING = "-avgpool"
"""Ending of the names of networks with average pooling (Table 5)."""


def _check_structure(text: str) -> str:
    parse_structure(text)
    return text


class NetworkSpec(Spec):
    """A network in the notation of Table S1.

    Attributes:
        name: Name in the registry.
        structure: E.g. ``{c128k3s1-BN-SN-MPk2s2}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10``, where SN stands for the
            experiment's spiking neuron.
        dropout: Probability of dropping in each DP layer.
        pooling: Kind of all pooling layers: ``max`` and ``average`` turn those of ``structure`` into it, and add or
            remove the ending ``-avgpool`` of the name; None: as ``structure`` says.
        pool_ties: Neuron of a window that receives the gradient of max pooling of spikes, where several have the
            maximum: the ``first`` of them, a ``random`` one, or ``random-firing``: a random one of those that fire, and
            none where none fires. The output is the same.
        batch_norm: Statistics ``per-step`` (over N, H, W at each t) or ``over-time`` (over T, N, H, W).
    """

    name: Annotated[str, BeforeValidator(current_network)]
    structure: Annotated[str, AfterValidator(_check_structure)]
    dropout: float = Field(ge=0, lt=1)
    batch_norm: BatchNorm
    pooling: Pooling | None = None
    pool_ties: PoolTies = "first"

    @model_validator(mode="before")
    @classmethod
    def _apply_pooling(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        name, structure, pooling = (tree.get(key) for key in ("name", "structure", "pooling"))
        if pooling not in get_args(Pooling) or not isinstance(name, str) or not isinstance(structure, str):
            return tree
        changed = with_pooling(structure, "average" if pooling == "average" else "max")
        if changed != structure:
            name = name.removesuffix(AVERAGE_POOLING) + (AVERAGE_POOLING if pooling == "average" else "")
        return {**tree, "name": name, "structure": changed}

    @model_validator(mode="after")
    def _check_pool_ties(self) -> NetworkSpec:
        if self.pool_ties != "first" and not has_spike_max_pooling(self.structure):
            raise ValueError(f"pool_ties {self.pool_ties}: the structure has no max pooling of spikes (SN-MP…)")
        return self


class NeuronSpec(Spec):
    """The spiking neuron of every SN layer (Eq. 2–7).

    Attributes:
        kind: ``plif`` learns its time constant, ``lif`` has a fixed one.
        tau_0: Initial value of a learnable time constant, in time steps; None for ``lif``.
        tau: Fixed time constant, in time steps; None for ``plif``.
        tau_per: Unit with its own learnable time constant: each ``layer`` (the paper's), each ``channel`` (feature
            of a fully connected layer), or each ``neuron``.
        v_threshold: Firing threshold.
        learn_threshold: Learn the threshold of each layer, from v_threshold on.
        v_reset: Resting potential, to which a ``hard`` reset returns.
        reset: After a spike V = v_reset (``hard``, Eq. 4), or V = H − v_threshold (``soft``).
        surrogate: Replacement of the derivative of the step function, g(x/w)/w with w = surrogate_width and an integral
            of 1: ``arctan`` g(u) = 1/(1 + (πu)²) (supplement F), ``sigmoid`` the logistic function's derivative,
            ``rectangular`` 1 for |u| < 1/2, ``triangular`` max(0, 1 − |u|).
        surrogate_width: w.
        learn_surrogate_width: Learn the width of each layer, from surrogate_width on.
        detach_reset: Leave the spike of the reset out of the gradient.
    """

    kind: NeuronKind
    tau_0: float | None = Field(default=None, gt=1)
    tau: float | None = Field(default=None, gt=1)
    tau_per: TauScope = "layer"
    v_threshold: float
    learn_threshold: bool = False
    v_reset: float
    reset: Reset = "hard"
    surrogate: Surrogate
    surrogate_width: float = Field(default=1.0, gt=0)
    learn_surrogate_width: bool = False
    detach_reset: bool

    @model_validator(mode="after")
    def _check_tau(self) -> NeuronSpec:
        wanted, other = ("tau_0", "tau") if self.kind == "plif" else ("tau", "tau_0")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            changes = [f"neuron.{wanted}=…"] if getattr(self, wanted) is None else []
            changes += [f"neuron.{other}=null"] if getattr(self, other) is not None else []
            raise ValueError(f"kind {self.kind} takes {wanted}, not {other}: set {' and '.join(changes)}")
        if self.kind == "lif" and self.tau_per != "layer":
            raise ValueError(f"tau_per {self.tau_per}: a fixed τ is the same for all neurons; kind plif learns several")
        if self.v_reset >= self.v_threshold:
            raise ValueError(f"v_reset ({self.v_reset}) must be below v_threshold ({self.v_threshold})")
        return self

    @property
    def start_tau(self) -> float:
        """The time constant before training, in time steps."""
        tau = self.tau_0 if self.kind == "plif" else self.tau
        assert tau is not None  # checked by _check_tau
        return tau

    @property
    def start_text(self) -> str:
        """The time constant before training as one text: ``τ₀ = 2``, of a fixed one ``τ = 2``."""
        return f"{'τ₀' if self.kind == 'plif' else 'τ'} = {self.start_tau:g}"

    def describe(self) -> str:
        """Returns the kind and its time constant as one text: ``PLIF, τ₀ = 2``."""
        return f"{self.kind.upper()}, {self.start_text}"
