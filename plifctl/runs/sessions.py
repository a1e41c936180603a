"""Sessions of a training: which process trained which epochs of a run, on which machine and with which versions.

A run is often trained by several processes: it is stopped and resumed, or made longer. ``run.json`` lists them under
``sessions``; each entry states where its process started: the epoch, and the number of its batches done before.
An entry ends where the next one begins. A process that was killed before it saved anything leaves nothing in the
weights: its entry is replaced by that of the process that began at the same place again.

The result record has the same list, with the first and last epoch of each. An epoch that two processes shared is in
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from plifctl.config.base import Spec
from plifctl.errors import RunError
from plifctl.training.progress import TRAINING_VERSION

COMPARED = ("torch", "device", "plifctl")
"""Parts of the environment that seeds with one mean are compared by, beside the training version."""

_BITS = ("numpy", "threads", "kernel")
"""Parts of the environment that change at most the last bits, or the order of samples."""


class Session(Spec):
    """The epochs of a run that one process trained.

    Attributes:
        epochs: First and last epoch, from 1.
        training_version: :data:`plifctl.training.progress.TRAINING_VERSION` of the process.
        host: Name of the machine; with several ranks, that of the first.
        environment: Versions and machine, as :func:`plifctl.runs.describe_machine` gives them, and options.
    """

    epochs: tuple[int, int]
    training_version: int
    host: str
    environment: dict[str, Any]

    @property
    def facts(self) -> dict[str, str]:
        """What numbers of different sessions are compared by."""
        found = {name: str(self.environment[name]) for name in COMPARED if name in self.environment}
        return {"training version": str(self.training_version), **found}


def versions_of(sessions: Iterable[Session]) -> tuple[int, ...]:
    """Returns the training versions of sessions, each once; 0.1.0, which wrote no sessions, has version 1."""
    return tuple(sorted({session.training_version for session in sessions} or {1}))


def entry(epoch: int, step: int, host: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entry of a process of this version, which continues training in ``epoch`` after ``step`` batches."""
    version = {"training_version": TRAINING_VERSION, "host": host}
    return {"epoch": epoch, "step": step, **version, "environment": dict(environment)}


def first_entry(host: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entry of a run of 0.1.0, which recorded only the process that created it; its version is 1."""
    return {**entry(1, 0, host, environment), "training_version": 1}


def append_entry(entries: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the entries with a new one, without those that begin where it begins, or later."""
    return [*(old for old in entries if (old["epoch"], old["step"]) < (new["epoch"], new["step"])), new]


def summarize_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an environment for reading: the kernel and how it was chosen are one text.

    Example:
        >>> summarize_environment({"kernel": "triton", "graph": True, "kernel_choice": {"summary": "triton + graph"}})
        {'kernel': 'triton + graph'}
    """
    choice = environment.get("kernel_choice")
    if not isinstance(choice, Mapping) or "summary" not in choice:
        return dict(environment)
    rest = {name: value for name, value in environment.items() if name not in ("graph", "kernel_choice")}
    return {**rest, "kernel": str(choice["summary"])}


def sessions_of(entries: Sequence[Mapping[str, Any]], epochs: int) -> tuple[Session, ...]:
    """Returns the sessions of a training of ``epochs`` epochs; processes that trained none of them are left out.

    Raises:
        RunError: An entry is damaged.
    """
    found = []
    try:
        for this, following in zip_longest(entries, entries[1:]):
            last = epochs if following is None else following["epoch"] - (following["step"] == 0)
            if this["epoch"] <= min(last, epochs):
                values = {name: this[name] for name in ("training_version", "host", "environment")}
                found.append(Session(epochs=(this["epoch"], min(last, epochs)), **values))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"run.json: damaged: its sessions: {error}") from error
    return tuple(found)


def describe_change(before: Session, after: Session) -> str:
    """Returns how two sessions differ in what the bits of a training depend on; empty if they do not.

    Example: ``torch 2.5.1, now 2.6.0; threads 4, now 2``
    """
    old, new = (
        {**session.facts, **{name: str(session.environment[name]) for name in _BITS if name in session.environment}}
        for session in (before, after)
    )
    changed = [name for name in old if name in new and old[name] != new[name]]
    return "; ".join(f"{name} {old[name]}, now {new[name]}" for name in changed)
