"""How a run differs from the experiment of its name: the one rule, for tables, figures, the page and the commands.

A run states its changes as overrides. Seed, epochs and memory are none, and neither is the fold of a cross-validation
in an experiment of one's own; the experiments of a registry have another split. ``train.early_stop=null`` is none in
protocol C, which cannot train an experiment otherwise. A registered experiment may have been changed since the run was
trained: that is a difference, too, which the digests tell.
"""

from __future__ import annotations

from typing import Protocol as StructuralType

from plifctl.config.choices import Protocol, Recipe
from plifctl.config.experiment import ExperimentSpec, needed_overrides
from plifctl.config.overrides import is_modification, override_key
from plifctl.config.registry import Registry
from plifctl.errors import RegistryError, UsageError

CHANGED_SINCE = "the experiment has been changed since"
"""How the experiment of a run differs from that of its name, beside the changes that the run states."""


class TrainedExperiment(StructuralType):
    """What says which experiment a run has trained: its settings, its record or its curve have it."""

    @property
    def experiment(self) -> str | None:
        """Name of the experiment; None if unknown, as for recipe and protocol."""

    @property
    def recipe(self) -> Recipe | None:
        """Its recipe."""

    @property
    def protocol(self) -> Protocol | None:
        """A, B or C."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Changes that were stated, texts ``key=value``."""

    @property
    def digest(self) -> str | None:
        """Digest of the experiment; None if unknown."""

    @property
    def fold(self) -> object:
        """The fold of a cross-validation; None of other runs."""


class RegisteredExperiments:
    """The experiments of a registry, each with the changes of a run; one that was looked up is kept.

    Args:
        registry: The registry; where one of its files is invalid, no experiment is known.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[tuple[object, ...], ExperimentSpec | None] = {}

    def find(self, run: TrainedExperiment) -> ExperimentSpec | None:
        """Returns the experiment of a run as it is in the registry now, with the changes of the run.

        Seed, epochs and memory are those of the registry. None: it is not there, or a change can no longer be made.
        """
        return self._find(run, tuple(filter(is_modification, run.overrides)))

    def _find(self, run: TrainedExperiment, overrides: tuple[str, ...]) -> ExperimentSpec | None:
        """Returns the experiment of a run as it is in the registry now, with changes; None: see :meth:`find`."""
        if run.experiment is None:
            return None
        recipe, protocol = run.recipe or "authors", run.protocol or "A"
        key = run.experiment, recipe, protocol, overrides
        if key not in self._found:
            try:
                found = self._registry.experiment(run.experiment, recipe=recipe, overrides=overrides)
                self._found[key] = found.for_protocol(protocol).spec
            except (UsageError, RegistryError):
                self._found[key] = None
        return self._found[key]

    def changes(self, run: TrainedExperiment) -> tuple[str, ...]:
        """Returns how the experiment of a run differs from that of its name: the registry's, or the user's own.

        Returns:
            The overrides that make it another experiment, in the order in which they were stated, then
            :data:`CHANGED_SINCE` if that holds. Empty: it is the experiment of its name.
        """
        is_registered = run.experiment in self._names()
        is_own_fold = run.fold is not None and not is_registered
        changes = tuple(
            text
            for text in run.overrides
            if is_modification(text)
            and not (is_own_fold and override_key(text).startswith("split."))
            and not (run.protocol == "C" and override_key(text) == "train.early_stop")
        )
        if not is_registered or run.digest is None:
            return changes
        if (registered := self._find(run, ())) is None:
            return changes  # one of its files cannot be read: whether it was changed is unknown
        if registered.digest == run.digest:
            return ()  # each stated value is the one that the registry has anyway
        now = self.find(run)
        if now is None or now.digest != run.digest:
            return (*changes, CHANGED_SINCE)
        needed = needed_overrides(changes, registered, now)
        shorter = self._find(run, needed)
        return needed if shorter is not None and shorter.digest == run.digest else changes

    def _names(self) -> list[str]:
        try:
            return self._registry.experiments()
        except RegistryError:
            return []
