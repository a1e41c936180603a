"""What accuracy a run has under each control of ``plifctl eval``: ``controls.json``, which evaluations write.

An entry states the epoch and the samples that were tested. An epoch never changes once it is trained, so these tell,
after a longer training, whether an entry still is of the network that the run reports
(:meth:`plifctl.runs.records.ResultRecord.control`). Neither the result of the run nor its manifest changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import filelock
from pydantic import Field, ValidationError, model_validator

from plifctl import files
from plifctl.config.base import Spec
from plifctl.config.choices import TauControl, TimeControl
from plifctl.config.problems import first_problem
from plifctl.config.training import MAX_COUNT
from plifctl.errors import RunError
from plifctl.runs.documents import load_document, save_document

if TYPE_CHECKING:
    from plifctl.runs.directory import Run

_log = logging.getLogger(__name__)

FILE_NAME = "controls.json"


class ControlResult(Spec):
    """The test of a network under a control, compared with the unchanged network sample by sample.

    Attributes:
        time: Change of the frames; None: unchanged.
        tau: Change of the time constants, or the time constant of every neuron in steps; None: unchanged.
        accuracy: Test accuracy with the change, 0…1.
        lost: Number of samples that are no longer classified correctly.
        gained: Number of samples that are classified correctly only with the change.
        samples: Number of test samples.
        epoch: Epoch of the network, from 1; None: unknown.
        cache: Content digest of the cache of the samples.
        plifctl: Version that tested it.
    """

    time: TimeControl | None
    tau: TauControl | Annotated[float, Field(gt=1)] | None
    accuracy: float = Field(ge=0, le=1)
    lost: int = Field(ge=0, le=MAX_COUNT)
    gained: int = Field(ge=0, le=MAX_COUNT)
    samples: int = Field(ge=1, le=MAX_COUNT)
    epoch: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None
    cache: str
    plifctl: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.time is None and self.tau is None:
            raise ValueError("neither time nor tau is changed")
        right = round(self.accuracy * self.samples)
        if self.gained > right or self.lost > self.samples - right:
            raise ValueError(f"{self.lost} lost and {self.gained} gained, of {self.samples} samples with {right} right")
        return self

    @property
    def name(self) -> str:
        """The control as it is named in tables: ``shuffled``, ``τ = 2``, ``reversed, no-memory``."""
        tau = f"τ = {self.tau:g}" if isinstance(self.tau, float) else {"mean": "mean τ"}.get(self.tau or "", self.tau)
        return ", ".join(filter(None, (self.time, tau)))

    @property
    def difference(self) -> float:
        """Accuracy with the change minus that without it."""
        return (self.gained - self.lost) / self.samples

    @property
    def right_unchanged(self) -> int:
        """Number of correct predictions without the change."""
        return round(self.accuracy * self.samples) + self.lost - self.gained

    def describe(self) -> dict[str, Any]:
        """Returns plain values, its name among them."""
        return {"name": self.name, **self.model_dump(mode="json")}


class _Document(Spec):
    schema_version: Literal[1] = 1
    controls: tuple[ControlResult, ...]


def read_controls(folder: Path) -> tuple[ControlResult, ...]:
    """Returns the tests under controls that a run keeps, those of other epochs too.

    Raises:
        RunError: The document is damaged.
    """
    path, hint = folder / FILE_NAME, "plifctl eval RUN --controls writes it again"
    if not path.exists():
        return ()
    try:
        return _Document.model_validate_json(json.dumps(load_document(path, ("controls",), hint=hint))).controls
    except ValidationError as error:
        raise RunError(f"{path}: damaged: {first_problem(error)}", hint=hint) from error


def keep_controls(run: Run, found: Sequence[ControlResult]) -> None:
    """Adds tests to those that a run keeps; each replaces that of the same control, and those of other epochs go.

    Raises:
        RunError: A test is not of the network that the run reports, or the run is being trained.
        MachineError: The document cannot be written.
    """
    try:
        with files.machine_errors(run.path), run.lock().acquire(timeout=2):
            record = run.record()
            for problem in filter(None, map(record.control_problem, found)):
                raise RunError(problem)
            replaced = {(one.time, one.tau) for one in found}
            others = [
                one
                for one in _read_or_warn(run.path)
                if (one.time, one.tau) not in replaced and not record.control_problem(one)
            ]
            tree = _Document(controls=(*others, *found)).model_dump(mode="json")
            save_document(run.path / FILE_NAME, tree)
    except filelock.Timeout:
        raise RunError("the run is being trained") from None


def _read_or_warn(folder: Path) -> tuple[ControlResult, ...]:
    try:
        return read_controls(folder)
    except RunError as error:
        _log.warning("replaced: %s", error)
        return ()
