"""Controls of an evaluation: what is changed in a network or its samples, and the tests that a run keeps."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import get_args

from plifctl import paths
from plifctl.config.choices import TauControl, TimeControl
from plifctl.errors import MachineError, RunError, UsageError, check_choice
from plifctl.evaluation.controls import change_tau, check_tau, list_tau_controls
from plifctl.exchange.model import TrainedModel
from plifctl.pipeline.evaluation_samples import EvaluationSamples
from plifctl.runs import ControlResult, Predictions, Run, keep_controls

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """What an evaluation changed, to see what is left of the accuracy.

    Attributes:
        time: Change of the frames; None: unchanged.
        tau: Change of the time constants, or the time constant of every neuron; None: unchanged.
        seed: Seed of the experiment, from which, with the id of each sample, random orders are drawn; None if none are.
    """

    time: TimeControl | None
    tau: TauControl | float | None
    seed: int | None = None


def check_control(time: TimeControl | None, tau: str | float | None) -> Control | None:
    """Returns the control that a user named; None: nothing is changed.

    Raises:
        UsageError: There is no such control.
    """
    checked = None if tau is None else check_tau(tau)
    if time is not None:
        check_choice("--time", time, get_args(TimeControl))
    return None if time is None and checked is None else Control(time, checked)


def list_controls(trained: TrainedModel) -> list[Control]:
    """Returns every named control that means something for a network and its samples, one change each."""
    times = get_args(TimeControl) if trained.spec.dataset.kind == "events" else ()
    taus = list_tau_controls(trained.network)
    return [*(Control(time, None) for time in times), *(Control(None, tau) for tau in taus)]


def change(trained: TrainedModel, control: Control) -> TrainedModel:
    """Returns the network with other time constants, if it is to have others.

    Raises:
        UsageError: The change means nothing for this network or its samples.
    """
    if control.time is not None and trained.spec.dataset.kind == "images":
        raise UsageError(
            f"--time {control.time}: {trained.spec.dataset.title} has images, which are the same at every time step",
            hint="omit --time; --tau changes the neurons",
        )
    if control.tau is None:
        return trained
    return replace(trained, network=change_tau(trained.network, control.tau))


def compare(
    samples: EvaluationSamples, control: Control, unchanged: Predictions, changed: Predictions
) -> ControlResult:
    """Returns the test under a control, from the predictions for the same samples without and with it."""
    discordant = unchanged.count_discordant(changed)
    assert discordant is not None  # both are of these samples
    return ControlResult(
        time=control.time,
        tau=control.tau,
        accuracy=changed.accuracy,
        lost=discordant[0],
        gained=discordant[1],
        samples=len(changed),
        epoch=unchanged.epoch,
        cache=samples.cache.content_digest,
        plifctl=paths.code_version(),
    )


def keep(trained: TrainedModel, found: list[ControlResult]) -> str | None:
    """Keeps tests under controls with the run whose result the network is; logs why if they are not kept.

    Args:
        trained: The unchanged network.
        found: Its tests.

    Returns:
        The path of the run; None: they are not kept, or the network is not of a run.
    """
    if trained.run is None:
        return None
    run = Run(trained.run)
    if problem := _other_than_result(trained, run):
        _log.info("not kept with the run: %s", problem)
        return None
    try:
        keep_controls(run, found)
    except (RunError, MachineError, OSError) as error:
        _log.warning("not kept with the run: %s", error)
        return None
    return str(run.path)


def _other_than_result(trained: TrainedModel, run: Run) -> str:
    """Returns in what a network of a run differs from the one that the run reports; empty: in nothing."""
    if (status := run.status()) != "finished":
        return f"the run is {status}"
    if trained.path.name != run.checkpoint("best").name:
        return "not of the checkpoint whose accuracy the run reports"
    if trained.folded:
        return "of folded batch norms"
    T = run.record().T
    return "" if trained.spec.T == T else f"of T = {trained.spec.T}, and the result is of T = {T}"
