"""Chooses the kernel of a training: on a GPU by trials, once for each GPU, driver, version and network.

A candidate is a kernel, without or with a CUDA graph of the training step. Each kernel is tried in a process of its own
(:mod:`~plifctl.training.kernel_trial`): compared with the definition, then timed. What does not build, differs, crashes
or hangs is left out, with its reason; the fastest of the others is chosen, and remembered in the user's cache folder.

On the CPU nothing is tried: the kernel ``auto`` is the fused one.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import filelock
import torch

from plifctl import files, paths
from plifctl.config.base import digest_of
from plifctl.config.choices import Kernel
from plifctl.config.dataset import frame_shape
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import MachineError
from plifctl.training.gpus import Gpu, gpu_of
from plifctl.training.kernel_trial import BUSY, TrialRequest, write_request
from plifctl.training.optimizer import graph_unsupported_reason

_log = logging.getLogger(__name__)

TRIALS_VARIABLE = "PLIFCTL_KERNEL_TRIALS"
"""Environment variable; ``off``: nothing is tried, and the definition is used."""

TRIAL_SECONDS = 60.0
"""Seconds that all trials together take at most."""

_TIMED_SECONDS = 1.5
"""Seconds of timed steps of a candidate."""

_LABELS: Mapping[Kernel, str] = {
    "auto": "fused",
    "eager": "definition",
    "compiled": "torch.compile",
    "triton": "triton",
}


@dataclass(frozen=True)
class Candidate:
    """A kernel that may be chosen.

    Attributes:
        kernel: The kernel.
        several_ranks: Whether it may be chosen for several ranks.
        run: ``module:function`` that tries it in a process of its own.
    """

    kernel: Kernel
    several_ranks: bool = True
    run: str = "plifctl.training.kernel_trial:run_trial"


CANDIDATES = (
    Candidate("eager"),
    Candidate("triton"),
    Candidate("compiled", several_ranks=False),  # the exchange of batch norm's sums is not compiled
)
"""In the order of their trials: the definition, with which the others are compared; those that take long come last."""

ChosenBy = Literal["option", "rule", "run", "remembered", "trials", "later"]


@dataclass(frozen=True)
class Selection:
    """The kernel of a training, and why.

    Attributes:
        kernel: The kernel.
        graph: Record training steps as a CUDA graph.
        by: ``option``: the user's; ``rule``: without trials; ``run``: recorded by the run to resume; ``trials``;
            ``remembered``: earlier trials; ``later``: not yet, trials will run when the training starts.
        gpu: Name of the GPU that it is chosen for; empty for other devices.
        speedup: Time of a step of the definition divided by that of this kernel; None: not timed.
        checked: Date of the trials, ``YYYY-MM-DD``; empty without trials.
        seconds: Seconds of a training step of each candidate that was timed, by its label.
        left_out: Why candidates were left out, by their label.
        note: Why the definition is used without a check.
    """

    kernel: Kernel
    graph: bool
    by: ChosenBy
    gpu: str = ""
    speedup: float | None = None
    checked: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def label(self) -> str:
        """``triton + graph``."""
        return label(self.kernel, graph=self.graph)

    def describe(self) -> str:
        """Returns the choice in one line."""
        if self.by == "later":
            return "chosen by trials when the training starts"
        text = self.label
        if self.speedup is not None and (self.kernel, self.graph) != ("eager", False):
            text += f", {self.speedup:.1f} × the definition"
        if self.checked:
            text += "; checked on this GPU" + (f" on {self.checked}" if self.by != "trials" else "")
        return text + (f"; {self.note}" if self.note else "")

    def to_environment(self) -> dict[str, Any]:
        """Returns the fields of a session's environment: the kernel, and how it was chosen if trials decided."""
        choice = {"kernel_choice": asdict(self)} if self.checked or self.note else {}
        return {"kernel": self.kernel, "graph": self.graph, **choice}


def label(kernel: Kernel, graph: bool) -> str:
    """Returns the name of a candidate for messages.

    Example:
        >>> label("eager", graph=True)
        'definition + graph'
    """
    return _LABELS.get(kernel, kernel) + (" + graph" if graph else "")


def select_kernel(
    spec: ExperimentSpec,
    device: torch.device,
    *,
    kernel: Kernel = "auto",
    graph: bool | None = None,
    processes: int = 1,
    recorded: Mapping[str, Any] | None = None,
    trials: Literal["run", "later", "never"] = "run",
    candidates: Sequence[Candidate] = CANDIDATES,
    seconds: float = TRIAL_SECONDS,
) -> Selection:
    """Returns the kernel of a training.

    Args:
        spec: The experiment.
        device: Where it trains.
        kernel: The user's choice; ``auto``: none.
        graph: The user's choice for CUDA graphs; None: none.
        processes: Number of ranks.
        recorded: Environment of the last session of the run to resume.
        trials: ``never``: remembered trials are not used either; ``later``: only those.
        candidates: What is tried.
        seconds: Time limit of all trials.
    """
    if kernel != "auto":
        return Selection(kernel, bool(graph), "option")
    if device.type != "cuda":
        return Selection("auto", bool(graph), "rule")
    if graph_unsupported_reason(spec.train, device, processes) is not None:
        graph = False
    gpu = gpu_of(device)
    if recorded is not None and (chosen := _recorded_selection(recorded, gpu, graph)) is not None:
        return chosen
    if trials == "never" or os.environ.get(TRIALS_VARIABLE) == "off":
        return Selection("eager", bool(graph), "rule", gpu.name)
    request = _Request.of(spec, device, gpu, graph, processes, candidates)
    if (known := request.remembered()) is not None:
        return known
    if trials == "later":
        return Selection("eager", bool(graph), "later", gpu.name)
    with request.lock():  # trials at the same time would disturb each other
        return request.remembered() or request.choose(seconds)


def remembered_selections() -> list[tuple[Path, dict[str, Any]]]:
    """Returns the documents of all remembered trials, with their files; damaged ones are left out."""
    found = []
    for path in sorted(paths.kernels_dir().glob("*.json")):
        if (tree := _read(path)) is not None:
            found.append((path, tree))
    return found


def _recorded_selection(recorded: Mapping[str, Any], gpu: Gpu, graph: bool | None) -> Selection | None:
    """Returns the choice that a session recorded; None if it trained on another device."""
    choice = dict(recorded.get("kernel_choice") or {})
    if "kernel" not in recorded or recorded.get("device") == "cpu" or choice.get("gpu", gpu.name) != gpu.name:
        return None
    kernel: Kernel = "eager" if recorded["kernel"] == "auto" else recorded["kernel"]  # before there were trials
    graph = bool(recorded.get("graph")) if graph is None else graph
    with suppress(TypeError):
        return replace(Selection(**{**choice, "kernel": kernel, "graph": graph, "by": "run"}), gpu=gpu.name)
    return Selection(kernel, graph, "run", gpu.name)


@dataclass(frozen=True)
class _Request:
    """What a choice depends on, and its place on the disk."""

    spec: ExperimentSpec
    device: torch.device
    gpu: Gpu
    variants: Mapping[Candidate, tuple[bool, ...]]
    key: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        spec: ExperimentSpec,
        device: torch.device,
        gpu: Gpu,
        graph: bool | None,
        processes: int,
        candidates: Sequence[Candidate],
    ) -> _Request:
        wanted: tuple[bool, ...] = (False, True) if graph is None else (graph,)
        used = [candidate for candidate in candidates if candidate.several_ranks or processes == 1]
        size = -(-spec.train.batch_size // processes)
        spec = spec.model_copy(update={"train": spec.train.model_copy(update={"batch_size": size})})
        train = ("batch_size", "precision", "optimizer", "optimizer_options", "clip_norm", "loss", "accumulate")
        key = {
            "gpu": gpu.name,
            "driver": gpu.driver,
            "torch": torch.__version__,
            "triton": _version("triton"),
            "plifctl": paths.code_version(),
            "candidates": {candidate.kernel: list(wanted) for candidate in used},
            "network": spec.network.model_dump(mode="json", exclude={"name"}),
            "neuron": spec.neuron.model_dump(mode="json"),
            "input": [spec.dataset.kind, *frame_shape(spec.dataset, spec.frames)],
            "classes": len(spec.dataset.classes),
            "T": spec.T,
            "train": spec.train.model_dump(mode="json", include=set(train)),
        }
        return cls(spec, device, gpu, dict.fromkeys(used, wanted), key)

    @property
    def path(self) -> Path:
        return paths.kernels_dir() / f"{digest_of(self.key)[:16]}.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Waits for other processes that try kernels here; where nothing can be written, there is no lock."""
        lock = filelock.FileLock(paths.kernels_dir() / ".lock")
        with suppress(OSError, filelock.Timeout):
            files.make_dir(paths.kernels_dir())
            lock.acquire(timeout=2 * TRIAL_SECONDS)
        try:
            yield
        finally:
            if lock.is_locked:
                lock.release()

    def remembered(self) -> Selection | None:
        """Returns the choice of earlier trials of the same; None if there were none."""
        tree = _read(self.path)
        if tree is None or tree["key"] != self.key:
            return None
        with suppress(TypeError):
            return replace(Selection(**tree["choice"]), by="remembered")
        return None

    def choose(self, seconds: float) -> Selection:
        """Tries all candidates, and remembers the choice if any could be timed."""
        number = sum(map(len, self.variants.values()))
        _log.info("kernel: trying %d ways to compute a step on %s, at most %.0f s", number, self.gpu.name, seconds)
        timed, left_out = _try_all(self, seconds)
        for reason in dict.fromkeys(left_out.values()):
            _log.warning("kernel left out: %s: %s", ", ".join(n for n in left_out if left_out[n] == reason), reason)
        if not timed:
            busy = self.gpu.exclusive or BUSY in left_out.values()
            note = _EXCLUSIVE_NOTE if busy else "not checked: no candidate could be tried"
            graph = (True,) in self.variants.values()
            return Selection("eager", graph, "rule", self.gpu.name, left_out=left_out, note=note)
        kernel, graph = min(timed, key=timed.__getitem__)
        definition = timed.get(("eager", False))
        chosen = Selection(
            kernel,
            graph,
            "trials",
            self.gpu.name,
            definition / timed[kernel, graph] if definition is not None else None,
            time.strftime("%Y-%m-%d"),
            {label(*variant): value for variant, value in timed.items()},
            left_out,
        )
        try:
            files.write_json(self.path, {"experiment": self.spec.name, "key": self.key, "choice": asdict(chosen)})
        except (OSError, MachineError) as error:  # a full disk, or a home folder that cannot be written
            _log.warning("kernel: the choice is not remembered: %s", error)
        return chosen


_EXCLUSIVE_NOTE = (
    "not checked: the GPU is in exclusive mode and open already, by this or another process, so that no other one can "
    "try kernels; the next training tries again (nvidia-smi -c 0 ends the mode)"
)


def _try_all(request: _Request, seconds: float) -> tuple[dict[tuple[Kernel, bool], float], dict[str, str]]:
    """Tries each candidate in a process of its own.

    Returns:
        Seconds of a step of each variant that was timed, and why the others were left out.
    """
    timed: dict[tuple[Kernel, bool], float] = {}
    left_out: dict[str, str] = {}
    until = time.monotonic() + seconds
    for number, (candidate, graphs) in enumerate(request.variants.items()):
        following = len(request.variants) - number - 1
        left = until - time.monotonic()
        limit = left / 2 if following else left  # one that hangs leaves time for the others
        answers, failure = _run_process(request, candidate, graphs, max(limit, 0.0))
        for graph in graphs:
            answer = answers.get(graph, {"left_out": failure})
            if "seconds" in answer:
                timed[candidate.kernel, graph] = float(answer["seconds"])
            else:
                left_out[label(candidate.kernel, graph=graph)] = str(answer["left_out"])
    return timed, left_out


def _run_process(
    request: _Request, candidate: Candidate, graphs: tuple[bool, ...], limit: float
) -> tuple[dict[bool, dict[str, Any]], str]:
    """Runs the trial of a candidate; returns its answers by variant, and why there are no more."""
    with tempfile.TemporaryDirectory(prefix="plifctl-kernel-") as folder:
        place, answers = Path(folder, "request.json"), Path(folder, "answers.jsonl")
        spec = request.spec.model_dump_json()
        seconds = min(_TIMED_SECONDS, limit / 8)
        wanted = TrialRequest(spec, str(request.device), candidate.kernel, graphs, seconds, str(answers), candidate.run)
        write_request(wanted, place)
        # the modules that this process imports are found in the other one, too
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        command = [sys.executable, "-P", "-m", "plifctl.training.kernel_trial", str(place)]
        with (
            Path(folder, "stderr").open("w+b") as stderr,
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
            ) as process,
        ):
            try:
                process.wait(limit)
                stderr.seek(0)
                failure = _describe_end(process.returncode, stderr.read().decode(errors="replace"), request.gpu)
            except subprocess.TimeoutExpired:
                failure = f"no answer within {limit:.0f} s"
            finally:
                process.kill()  # also if a signal ends this process
        return _read_answers(answers), failure


def _describe_end(code: int, stderr: str, gpu: Gpu) -> str:
    """Returns why a process that ended has not answered."""
    if code < 0:
        with suppress(ValueError):
            return f"its process died of {signal.Signals(-code).name}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f"its process ended with code {code}: {lines[-1][:200] if lines else 'no message'}"


def _read_answers(path: Path) -> dict[bool, dict[str, Any]]:
    found = {}
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError, TypeError):  # the last line of a process that was stopped
                answer = files.parse_json(line)
                found[bool(answer["graph"])] = answer
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the document of a remembered choice; None if there is none that can be read."""
    with suppress(OSError, ValueError):
        tree = files.parse_json(files.read_regular(path))
        if isinstance(tree, dict) and isinstance(tree.get("key"), dict) and isinstance(tree.get("choice"), dict):
            return tree
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
