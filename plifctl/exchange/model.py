"""The trained network of a run, a checkpoint, an exported file or folder, or the zoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.problems import first_problem
from plifctl.errors import CheckpointError, RunError
from plifctl.exchange.lookup import refuse_written_only
from plifctl.runs import Run, is_trained, load_checkpoint
from plifctl.snn.bn_folding import fold_batch_norm, fold_targets
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.trainer import build_model, load_weights

CONVERTED, IN_MEMORY = "converted from ", "a model in memory that was loaded from "
"""How the origin of weights begins that were converted, or that a program had in memory and may have changed."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained network with what it was trained by.

    Attributes:
        path: The checkpoint, exported file or folder.
        spec: The experiment it was trained by.
        network: The network on its device, in evaluation mode; batch norms folded if that was asked for.
        cache: Content digest of the cache it was trained on; None: unknown.
        digest: Digest of the experiment that was trained, folded or not.
        folded: For each batch norm the convolution it was folded into, None where it was kept; empty if not asked for.
        origin: Where the weights come from, a sentence that begins as :data:`CONVERTED` or :data:`IN_MEMORY`; empty:
            they are as plifctl trained them.
        test_samples: Ids of the test samples that the run, or the file, lists, of weights whose run made its own split,
            or took that of a label table; None: there is no list.
        run: The run directory that the checkpoint belongs to; None for a file of its own.
        saved_after: After how much of the run's training they were saved (``epoch 3``); empty: not stated.
    """

    path: Path
    spec: ExperimentSpec
    network: SpikingNetwork
    cache: str | None
    digest: str
    folded: dict[str, str | None]
    origin: str = ""
    test_samples: tuple[str, ...] | None = None
    run: Path | None = None
    saved_after: str = ""

    @property
    def in_memory(self) -> bool:
        """Whether a program had the weights in memory, and may have changed them."""
        return self.origin.startswith(IN_MEMORY)

    @property
    def converted(self) -> bool:
        """Whether another program trained the weights, whatever happened to them later."""
        return self.origin.startswith(CONVERTED) or f", {CONVERTED}" in self.origin

    @property
    def unstated(self) -> str:
        """What is not known of the training, if others than plifctl trained the weights or may have; else empty."""
        if self.in_memory:
            return (
                "A program had the weights in memory and may have changed them: on which samples it trained, and by "
                "what it chose the weights, is not stated."
            )
        if self.converted:
            return "On which samples the weights were trained, and by what they were chosen, is not stated."
        return ""

    def listed_test_samples(self) -> tuple[str, ...] | None:
        """Returns the ids of the test samples that a run, or a file of it, lists; None: no list.

        Raises:
            RunError: The list of the run is damaged, which is no obstacle to other uses of the weights.
        """
        if self.test_samples is None and self.run is not None:
            return list_test_samples(self.run, self.spec)
        return self.test_samples

    def has_seen(self) -> Callable[[str, bool], bool]:
        """Returns a function that says of a sample of its data set whether it was trained on, or validated by, it.

        Its arguments are the id of the sample, and whether the data set has it as a test sample. A file lists no
        training samples: all but its test samples count as seen, if those are known, and the training is plifctl's.

        Raises:
            RunError: The list of the run is damaged.
        """
        if self.run is not None:
            split = Run(self.run).split()
            seen = {*split["train"], *split.get("validation", [])}
            return lambda name, is_test: name in seen
        if (tested := self.test_samples) is not None:
            return lambda name, is_test: name not in tested
        is_official = self.spec.split.method == "official" and not self.unstated
        return lambda name, is_test: is_official and not is_test

    def selecting_tests(self) -> frozenset[str]:
        """Returns the ids of the test samples by which a run selected these weights; empty of a file: it lists none.

        Raises:
            RunError: The list of the run is damaged.
        """
        if self.run is None or (run := Run(self.run)).config().protocol != "A":
            return frozenset()
        return frozenset(run.split()["test"] if self.path.name == run.checkpoint("best").name else ())

    def fold(self) -> TrainedModel:
        """Returns the model with its batch norms folded into the convolutions before them (Sec. 4.1)."""
        return replace(self, network=fold_batch_norm(self.network), folded=fold_targets(self.network.network))


def load_trained(
    path: Path, device: torch.device | None = None, *, fold: bool = False, kernel: Kernel = "auto"
) -> TrainedModel:
    """Returns the network of a checkpoint, or of an exported file or folder.

    Args:
        path: The file or folder.
        device: Where the network goes; None: the CPU.
        fold: Fold batch norms into the convolutions before them (Sec. 4.1).
        kernel: Kernel of the spiking layers.

    Raises:
        CheckpointError: There is no such file, or it is damaged or has another format.
    """
    state = _read_state(path)
    try:
        spec = ExperimentSpec.model_validate_json(state["spec"])
    except ValidationError as error:
        raise CheckpointError(f"{path}: damaged: its experiment is invalid: {first_problem(error)}") from error
    network = build_model(spec, device or torch.device("cpu"), kernel)
    try:
        load_weights(network, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", hint=error.hint) from error
    digest, origin = str(state.get("digest", spec.digest)), str(state.get("origin", ""))
    ids, run = state.get("test_samples"), run_of_checkpoint(path)  # older files list none
    listed = tuple(map(str, ids)) if isinstance(ids, list) and ids else None
    if run is not None:
        with suppress(RunError):  # raised where the list is needed
            listed = list_test_samples(run, spec)  # now: later, the run may be gone, or be on another machine
    path = path if path.name not in ("", "..") else path.resolve()  # so that it has a name
    cache, after = str(state["cache"]) or None, _saved_after(state)
    trained = TrainedModel(path, spec, network.eval(), cache, digest, {}, origin, listed, run, after)
    return trained.fold() if fold else trained


def _saved_after(state: Mapping[str, Any]) -> str:
    """Returns after how much training a checkpoint was saved; empty of an exported file, which does not state it."""
    progress = state.get("progress", state)  # of the best epoch, the epoch alone
    if not isinstance(progress, Mapping) or "epoch" not in progress:
        return ""
    steps = f" and {progress['step']} steps" if progress.get("step") else ""
    return f"epoch {progress['epoch']}{steps}"


def run_of_checkpoint(path: Path) -> Path | None:
    """Returns the run directory that a checkpoint belongs to, wherever it is named from; None for a file of its own."""
    place = path.resolve() if ".." in path.parts or len(path.parts) < 3 else path  # named from inside of the run
    folder = place.parent.parent
    return folder if place.parent.name == "checkpoints" and is_trained(folder) else None


def list_test_samples(run: Path, spec: ExperimentSpec) -> tuple[str, ...] | None:
    """Returns the ids of the test samples of a run that made its own split, or took that of a label table; else None.

    A split that the paths of the recordings decide needs no list. A label table may be edited.

    Raises:
        RunError: The list is damaged.
    """
    in_paths = spec.split.method == "official" and spec.dataset.labels is None
    return None if in_paths else tuple(Run(run).split()["test"])


def _read_state(path: Path) -> dict[str, Any]:
    """Returns the weights (``model``) and the description of a file or folder, by the keys of ``arrays``."""
    if path.is_dir():
        from plifctl.exchange.folder import read_folder

        return read_folder(path)
    if path.suffix == ".npz" and path.is_file():
        from plifctl.exchange.arrays import read_numpy

        return read_numpy(path)
    refuse_written_only(path, hint="export the network to .pt, .npz or a folder as well")
    return load_checkpoint(path)
