"""The reproducibility statement: data, code, hardware, hours and deviations behind results, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plifctl import __version__
from plifctl.config.choices import PROTOCOL_ACCURACY
from plifctl.config.experiment import ExperimentSpec
from plifctl.runs import ResultRecord
from plifctl.runs.changes import CHANGED_SINCE
from plifctl.units import markdown_table, plain

FINDINGS = (
    (
        "gesture",
        "DVS128 Gesture: the authors' converter took the first 78 of 98 recordings, 936 of 1,176 training samples "
        "(recipe authors); the recipe paper takes all.",
    ),
    ("nmnist", "N-MNIST, protocol B: the authors' log is of T = 20, the text states T = 10."),
    (
        "nmnist",
        "N-MNIST: PLIF is not above LIF: 99.61 % (Table 2) against 99.64 % in the authors' log of LIF, τ = 2.",
    ),
)
"""What was found about the published runs of a data set; docs/paper-and-code.md has every difference."""


@dataclass(frozen=True)
class StatedRun:
    """A finished run.

    Attributes:
        record: Its result.
        registered: The experiment as it is in the registry now, with the changes of the run; None: not in the registry.
        changes: How its experiment differs from that of its name, as :meth:`~plifctl.report.results.Results.changes`
            returns it.
        hours: Time of training and evaluation of each epoch.
    """

    record: ResultRecord
    registered: ExperimentSpec | None
    changes: tuple[str, ...]
    hours: tuple[float, ...]

    def deviations(self) -> Iterable[str]:
        """Yields how the run differs from what its experiment states."""
        record, data, registered = self.record, self.record.data, self.registered
        if registered is None:
            yield "the experiment is not in the registry"
        elif record.epochs != registered.train.epochs:
            early = ", stopped by early_stop" if record.stopped_early else ""
            yield f"{record.epochs} of {registered.train.epochs} epochs{early}"
        if settings := [text for text in self.changes if text != CHANGED_SINCE]:
            yield f"changed: {', '.join(settings)}"
        if CHANGED_SINCE in self.changes:
            yield CHANGED_SINCE
        if data is not None and not data.complete:
            yield f"a subset: {data.train + data.validation:,} training and {data.test:,} test samples"
        if data is not None and not data.verified:
            yield "raw files not verified by checksums"
        if data is not None and data.without_events:
            yield f"{data.without_events} samples without events"
        versions = {str(session.facts) for session in record.sessions}
        if len(versions) > 1:
            yield f"trained by {len(versions)} kinds of versions or devices, one after the other"
        if record.started_from is not None:
            yield f"began with the weights of {record.started_from.name}"
            if seen := record.started_from.describe_seen():
                yield seen


def statement(runs: Sequence[StatedRun]) -> str:
    """Returns the statement on some runs, at least one."""
    sections = [
        "# Reproducibility statement",
        f"{len(runs)} finished {'run' if len(runs) == 1 else 'runs'}; written by plifctl {__version__}.",
        "## Results",
        _results(runs),
        "\n".join(f"- Protocol {name}: {accuracy.short}." for name, accuracy in PROTOCOL_ACCURACY.items()),
        "## Data",
        _data(runs),
        "## Code and hardware",
        _machines(runs),
        "## Deviations",
        _deviations(runs),
    ]
    datasets = {run.record.dataset for run in runs}
    if findings := [f"- {text}" for dataset, text in FINDINGS if dataset in datasets]:
        sections += ["## Findings about the published runs", "\n".join(findings)]
    return "\n\n".join(sections) + "\n"


def _results(runs: Sequence[StatedRun]) -> str:
    has_folds = any(run.record.fold is not None for run in runs)
    rows = []
    for run in runs:
        record = run.record
        fold = (record.fold.text if record.fold is not None else "",) if has_folds else ()
        accuracy, hours = f"{100 * record.accuracy:.2f}", f"{sum(run.hours):.2f}"
        facts = (record.recipe, record.protocol, record.T, record.epochs, record.seed, *fold, accuracy, hours)
        rows.append((record.experiment, *facts, f"`{record.run}`"))
    fold_head = ("fold",) if has_folds else ()
    heads = ("experiment", "recipe", "protocol", "T", "epochs", "seed", *fold_head, "accuracy, %", "hours", "run")
    return markdown_table(heads, rows)


def _data(runs: Sequence[StatedRun]) -> str:
    rows = set()
    for record in (run.record for run in runs):
        if (data := record.data) is not None:
            kind = "complete" if data.complete else "a subset"
            verified = "verified" if data.verified else "not verified"
            counts = f"{data.train:,} + {data.validation:,} + {data.test:,}"
            rows.add((record.dataset, record.T, f"`{data.cache[:16]}`", counts, kind, verified))
    heads = ("data set", "T", "content of the cache", "training + validation + test", "set", "raw files")
    return markdown_table(heads, sorted(rows))


_MACHINE = ("plifctl", "torch", "python", "device", "platform", "threads")


def _machines(runs: Sequence[StatedRun]) -> str:
    hours: dict[tuple[str, ...], float] = {}
    for run in runs:
        record = run.record
        of_epoch = {
            epoch: session.environment
            for session in record.sessions
            for epoch in range(session.epochs[0], session.epochs[1] + 1)
        }
        for epoch, spent in enumerate(run.hours, start=1):
            environment = of_epoch.get(epoch, record.environment)
            machine = tuple(str(environment.get(key, "")) for key in _MACHINE)
            hours[machine] = hours.get(machine, 0.0) + spent
    rows = [(*machine, f"{spent:.2f}") for machine, spent in sorted(hours.items())]
    return markdown_table(("plifctl", "torch", "Python", "device", "platform", "threads", "hours"), rows)


def _deviations(runs: Sequence[StatedRun]) -> str:
    lines = [f"- `{plain(run.record.run)}`: {'; '.join(found)}." for run in runs if (found := list(run.deviations()))]
    return "\n".join(lines) or "None: every run has the epochs, data and settings of its experiment."
