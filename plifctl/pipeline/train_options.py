"""The options of a training, and the callbacks by which others follow it and can stop it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plifctl.config.choices import TRAINING_VERBS, DataPlacement, Kernel, Protocol, Recipe
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.data.source import RawSource
from plifctl.runs import Run, StepProgress


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``plifctl train``, ``validate`` and ``refit``: a new training, or one to resume.

    Attributes:
        protocol: A (``train``), B (``validate``) or C (``refit``).
        experiment: A name in the registry, or an experiment; None: that of the run to resume.
        name: Name of a new run; None: one of time, experiment, digest and seed.
        resume: Run to resume: path, id, part of an id, or ``last``; ``auto``: the run called ``name``, or a new one if
            there is none; None: a new run.
        recipe: Recipe of a named experiment; None: ``paper``, or that of the run to resume.
        overrides: Changes to a named experiment, texts ``key=value``.
        digest: Digest that the experiment must have, or how it begins; None: any.
        weights: Network whose weights a new training begins with, where they fit: a run, or anything else that can be
            evaluated; None: all weights are drawn.
        build_cache: Build the cache if it does not exist.
        source: Raw data to build it from.
        device: Torch device; None: a GPU where there is one.
        data_in: Where samples are held; None: wherever they fit.
        kernel: Implementation of the spiking layers; ``auto`` is fused on the CPU, and chosen by trials on a GPU.
        deterministic: Only use deterministic algorithms; changes torch's settings in the whole process. None: as the
            resumed run was begun, a new one without.
        graph: Record a training step as a CUDA graph and replay it; None: if trials choose it.
        checkpoint_every: Save the state every so many steps as well; 0: after epochs and on signals only.
        rank_timeout: Seconds to wait for a rank that does not answer.
        copy_cache: Folder on this machine's own disk, to which the cache is copied first; None: it is read where it is.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """

    protocol: Protocol = "A"
    experiment: str | Experiment | None = None
    name: str | None = None
    resume: str | None = None
    recipe: Recipe | None = None
    overrides: tuple[str, ...] = ()
    digest: str | None = None
    weights: str | None = None
    build_cache: bool = False
    source: RawSource = field(default_factory=RawSource)
    device: str | None = None
    data_in: DataPlacement | None = None
    kernel: Kernel = "auto"
    deterministic: bool | None = None
    graph: bool | None = None
    checkpoint_every: int = 0
    rank_timeout: float = 120.0
    copy_cache: Path | None = None
    cache_dir: Path | None = None
    runs_dir: Path | None = None

    @property
    def verb(self) -> str:
        """The subcommand of the protocol."""
        return TRAINING_VERBS[self.protocol]


class TrainObserver:
    """Callbacks of a training, which can also stop the training; all do nothing unless overridden."""

    def on_rank(self, rank: int) -> None:
        """Called first, in each of several processes."""

    def on_run(self, run: Run) -> None:
        """Called on every rank with the run, before it is trained."""

    def on_rank_failure(self, *, reported: bool) -> None:
        """Called when this rank fails; ``reported`` is whether the first rank has already reported the failure."""

    def training(self) -> AbstractContextManager[None]:
        """Context of the training on every rank: signal handlers can be installed here."""
        return nullcontext()

    def display(self, run: Run, spec: ExperimentSpec) -> AbstractContextManager[None]:
        """Context of the training on the first rank: a live display can be shown here."""
        return nullcontext()

    def on_step(self, progress: StepProgress) -> None:
        """Called after each batch, on the first rank."""

    def on_epoch(self, row: dict[str, Any]) -> bool | None:
        """Called with each epoch's row of ``metrics.jsonl`` once its weights are saved; False stops the training.

        It is called on the first rank.
        """
        return None

    def stop_signal(self) -> int | None:
        """Returns the number of the signal that asks the training to stop, or None."""
        return None
