"""The trained network of a run, a checkpoint or an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from plifctl.config.choices import CheckpointName, Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CheckpointError, UsageError, check_choice
from plifctl.runs.checkpoints import load_checkpoint
from plifctl.runs.directory import find_run
from plifctl.runs.folders import is_trained
from plifctl.snn.bn_folding import fold_batch_norm, fold_targets
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.trainer import build_model, load_weights


@dataclass(frozen=True)
class TrainedModel:
    """A trained network with what it was trained by.

    Attributes:
        path: The checkpoint or exported file.
        spec: The experiment it was trained by.
        network: The network on its device, in evaluation mode; batch norms folded if that was asked for.
        cache: Content digest of the cache it was trained on.
        digest: Digest of the experiment that was trained, folded or not.
        folded: For each batch norm the convolution it was folded into, None where it was kept; empty if not asked for.
    """

    path: Path
    spec: ExperimentSpec
    network: SpikingNetwork
    cache: str
    digest: str
    folded: dict[str, str | None]

    @property
    def run(self) -> Path | None:
        """The run directory that the checkpoint belongs to; None for a file of its own."""
        folder = self.path.parent.parent
        return folder if is_trained(folder) else None


def find_checkpoint(name: str, which: CheckpointName, runs_dir: Path) -> Path:
    """Returns the checkpoint of a run, or the file that was named.

    Args:
        name: A run (path, id, part of an id, ``last``), a ``.pt`` file, or any other file that there is.
        which: Which of a run's checkpoints.
        runs_dir: Runs directory.

    Raises:
        UsageError: There is no such run.
        CheckpointError: The run has no such checkpoint yet.
    """
    if name.endswith(".npz"):
        raise UsageError(f"{name}: arrays for other programs", hint="export a .pt file: plifctl export RUN FILE.pt")
    if name.endswith(".pt") or Path(name).is_file():
        return Path(name)
    check_choice("checkpoint", which, get_args(CheckpointName))
    run = find_run(name, runs_dir)
    path = run.checkpoint(which)
    if path.exists() or (status := run.status()) == "finished":
        return path  # a finished run always has its checkpoints; if one was deleted, loading says so
    verb = "train" if run.config().protocol == "A" else "validate"
    raise CheckpointError(
        f"{run.name} ({status}) has no {which} checkpoint yet; the first one is written after the first epoch",
        hint=f"plifctl watch {run.name}" if status == "running" else f"plifctl {verb} --resume {run.name}",
    )


def load_trained(
    path: Path, device: torch.device | None = None, *, fold: bool = False, kernel: Kernel = "auto"
) -> TrainedModel:
    """Returns the network of a checkpoint or exported file.

    Args:
        path: The file.
        device: Where the network goes; None: the CPU.
        fold: Fold batch norms into the convolutions before them (Sec. 4.1).
        kernel: Kernel of the spiking layers.

    Raises:
        CheckpointError: There is no such file, or it is damaged or has another format.
    """
    state: dict[str, Any] = load_checkpoint(path)
    spec = ExperimentSpec.model_validate_json(state["spec"])
    network = build_model(spec, device or torch.device("cpu"), kernel)
    try:
        load_weights(network, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", hint=error.hint) from error
    folded: dict[str, str | None] = {}
    if fold:
        folded, network = fold_targets(spec.network), fold_batch_norm(network)
    digest = str(state.get("digest", spec.digest))
    return TrainedModel(path, spec, network.eval(), str(state["cache"]), digest, folded)
