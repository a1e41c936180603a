"""The trained network of a run or of a file, as eval and export take it up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plifctl.cli import console, options
from plifctl.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch

    from plifctl.config.experiment import ExperimentSpec
    from plifctl.config.network import NetworkSpec
    from plifctl.snn.kernels import Kernel
    from plifctl.snn.networks import SpikingNetwork

Checkpoint = Literal["best", "last"]
CheckpointOption = Annotated[Checkpoint, typer.Option("--checkpoint", help="Which of a run's two.")]
FoldOption = Annotated[
    bool, typer.Option("--fold-bn", help="Fold batch norms into the convolutions before them (Sec. 4.1).")
]


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        path: The file it is of.
        state: What that holds.
        spec: The experiment it was trained by.
        model: On the device; folded if that was asked for.
        folded: Of each batch norm the convolution that it was folded into, None where it was left; empty if not asked.
    """

    path: Path
    state: dict[str, Any]
    spec: ExperimentSpec
    model: SpikingNetwork
    folded: dict[str, str | None]


def checkpoint_of(run: str, which: Checkpoint, runs_dir: Path | None) -> Path:
    """Returns a run's checkpoint, or the file that was named.

    Raises:
        UsageError: There is no such run.
        CheckpointError: It has none so far.
    """
    from plifctl.runs import find_run

    if run.endswith(".npz"):
        raise UsageError(f"{run}: arrays for other programs", hint="plifctl export RUN FILE.pt makes what eval reads")
    if run.endswith(".pt"):
        return Path(run)
    found = find_run(run, options.existing_runs_dir(runs_dir))
    path = found.checkpoint(which)
    if path.exists() or (status := found.status()) == "finished":
        return path  # the checkpoint of a finished run is never wanting, unless somebody took it away
    verb = options.verb_of(found.config().protocol)
    raise CheckpointError(
        f"{found.name} ({status}) has no {which} checkpoint so far; the first epoch's end brings one",
        hint=f"plifctl watch {found.name}" if status == "running" else f"plifctl {verb} --resume {found.name}",
    )


def load_trained(path: Path, device: torch.device, *, fold: bool, kernel: Kernel = "auto") -> Trained:
    """Returns the network of a checkpoint or exported file.

    Raises:
        CheckpointError: There is no such file, or it is damaged or foreign.
    """
    from plifctl.config.experiment import ExperimentSpec
    from plifctl.runs import load_checkpoint
    from plifctl.snn.bn_folding import convolutions_before, fold_batch_norm
    from plifctl.training.trainer import build_model, load_weights

    state = load_checkpoint(path)
    spec = ExperimentSpec.model_validate_json(state["spec"])
    model = build_model(spec, device, kernel)
    load_weights(model, state)
    if not fold:
        return Trained(path, state, spec, model, {})
    folded = convolutions_before(spec.network)
    _say_folded(folded, spec.network)
    return Trained(path, state, spec, fold_batch_norm(model), folded)


def _say_folded(folded: dict[str, str | None], network: NetworkSpec) -> None:
    done = [f"{norm} into {conv}" for norm, conv in folded.items() if conv is not None]
    left = [norm for norm, conv in folded.items() if conv is None]
    console.note(f"folded: {', '.join(done)}" if done else f"nothing to fold: {network.structure}")
    if left:
        console.note(f"left, since no convolution stands right before: {', '.join(left)}")
