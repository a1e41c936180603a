"""The weights that a training begins with: found, matched with its network, kept in the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from plifctl.cache import Cache
from plifctl.config.choices import Protocol
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CheckpointError
from plifctl.exchange.lookup import find_model
from plifctl.exchange.model import TrainedModel, load_trained
from plifctl.pipeline.kept_evidence import kept_evidence
from plifctl.runs import Run, StartedFrom, load_checkpoint
from plifctl.training.fine_tuning import describe_layers, match_weights, weights_digest
from plifctl.training.splits import Split
from plifctl.training.trainer import build_model


@dataclass(frozen=True)
class StartWeights:
    """Weights that a training begins with.

    Attributes:
        taken: Tensors by their name in the state dict.
        source: Where they come from.
        has_seen: Returns whether the network was trained on a sample of the data set to train on; takes its id, and
            whether it is a test sample of that data set.
        selected_by: Ids of the test samples that selected the network.
    """

    taken: dict[str, Tensor] = field(repr=False)
    source: StartedFrom
    has_seen: Callable[[str, bool], bool] = field(repr=False)
    selected_by: frozenset[str] = field(default=frozenset(), repr=False)

    def for_split(self, split: Split, cache: Cache, protocol: Protocol) -> StartWeights:
        """Returns them with the numbers of test and validation samples that the network has seen.

        In protocol A test samples select the weights anyway: those that only selected the network are not counted.
        """

        def is_seen(row: int) -> bool:
            name = cache.sample_ids[row]
            return self.has_seen(name, bool(cache.is_test[row])) or (protocol != "A" and name in self.selected_by)

        seen_test, seen_validation = (sum(map(is_seen, rows)) for rows in (split.test, split.validation))
        counts = {"seen_test": seen_test, "seen_validation": seen_validation}
        return replace(self, source=self.source.model_copy(update=counts))


def describe_start(source: StartedFrom | None) -> list[str]:
    """Returns which weights a training takes, which begin anew, and what they have seen; empty if all are drawn."""
    if source is None:
        return []
    taken, anew = source.taken, source.anew
    lines = [f"weights of {source.describe()}: {describe_layers(taken, (*taken, *anew))}"]
    lines += [f"begin anew: {describe_layers(anew, (*taken, *anew))}"] if anew else []
    if source.unused:
        lines.append(f"not used: {describe_layers(source.unused, (*taken, *anew, *source.unused))}")
    return [*lines, *filter(None, [source.describe_seen()])]


def find_start_weights(name: str, spec: ExperimentSpec, runs_dir: Path) -> StartWeights:
    """Returns the weights of another network that fit that of an experiment.

    Args:
        name: A run, whose best checkpoint is meant, or anything else that :func:`plifctl.load` takes.
        spec: The experiment.
        runs_dir: Runs directory.

    Raises:
        UsageError: There is no such run, or none of its weights fit.
        CheckpointError: The file is missing, damaged, or of another program.
    """
    trained = load_trained(find_model(name, "best", runs_dir))
    source = trained.run.name if trained.run is not None else name
    matched = match_weights(trained.network, build_model(spec, torch.device("cpu")), source)
    epoch, accuracy = _epoch_and_accuracy(trained)
    described = StartedFrom(
        name=source,
        digest=weights_digest(matched.taken),
        experiment=trained.spec.name,
        epoch=epoch,
        accuracy=accuracy,
        taken=tuple(matched.taken),
        anew=matched.anew,
        unused=matched.unused,
        presumed=trained.run is None,
    )
    if trained.spec.dataset.name != spec.dataset.name:
        return StartWeights(matched.taken, described, lambda name, is_test: False)
    return StartWeights(matched.taken, described, trained.has_seen(), trained.selecting_tests())


def _epoch_and_accuracy(trained: TrainedModel) -> tuple[int | None, float | None]:
    """Returns what a best checkpoint, or an exported folder with its result, states of itself; None of other files."""
    if trained.path.is_file() and trained.path.suffix == ".pt":
        state = load_checkpoint(trained.path)
        return state.get("epoch"), state.get("accuracy")
    record = kept_evidence(trained).record
    return (None, None) if record is None else (record.best_epoch, record.accuracy)


def kept_start_weights(run: Run, digest: str | None) -> dict[str, Tensor] | None:
    """Returns the weights that a run keeps to begin with; None if it begins with drawn ones.

    Args:
        run: The run.
        digest: ``train.weights`` of its experiment.

    Raises:
        CheckpointError: They are missing, damaged, or others.
    """
    if digest is None:
        return None
    weights: dict[str, Tensor] = load_checkpoint(run.start_weights)["model"]
    if (found := weights_digest(weights)) != digest:
        raise CheckpointError(
            f"{run.start_weights}: weights with the digest {found[:12]}, the run began with {digest[:12]}",
            hint="start a new run: omit --resume",
        )
    return weights
