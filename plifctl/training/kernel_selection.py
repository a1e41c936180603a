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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import filelock
import torch
from pydantic import TypeAdapter

from plifctl import files, paths
from plifctl.config.base import digest_of
from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import MachineError
from plifctl.snn.kernels import unsupported_reason
from plifctl.training.gpus import Gpu, gpu_of
from plifctl.training.kernel_trial import BUSY, OUT_OF_MEMORY, TrialRequest, known_cause, write_request
from plifctl.training.optimizer import graph_unsupported_reason

_log = logging.getLogger(__name__)

TRIALS_VARIABLE = "PLIFCTL_KERNEL_TRIALS"
"""Environment variable; ``off``: nothing is tried, and the definition is used."""

TRIAL_SECONDS = 60.0
"""Seconds that all trials together take at most."""

_SHARE = 2 / 3
"""Share of the time left that a kernel may take which is not the last one."""

_TIMED_SECONDS = 1.5
"""Seconds of timed steps of a candidate."""

_GRACE_SECONDS = 10
"""Seconds after the time limit of a trial in which this process stops it; then it ends by itself."""

_MAX_ATTEMPTS = 3
"""Trainings that try a candidate whose trial did not finish."""

_KILLED = -9
"""Exit code of a process that the system killed, as it does where memory is short."""

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
        unfinished: Those of them whose trial did not finish, for lack of time or memory or because of another process,
            with the number of attempts; the next training tries them again.
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
    unfinished: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def label(self) -> str:
        """``triton + graph``."""
        return label(self.kernel, graph=self.graph)

    @property
    def is_final(self) -> bool:
        """Whether no candidate is tried again; kernels that a stopped process has built are found by the next one."""
        return all(attempts >= _MAX_ATTEMPTS for attempts in self.unfinished.values())

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
        summary = replace(self, by="run").describe()
        choice = {"kernel_choice": {"summary": summary, **asdict(self)}} if self.checked or self.note else {}
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
        trials: On a GPU, ``never``: neither are remembered ones used, nor what the run recorded; ``later``: only those.
        candidates: What is tried.
        seconds: Time limit of all trials.
    """
    if kernel != "auto":
        return Selection(kernel, bool(graph), "option")
    if device.type == "cpu" and (kept := _recorded_on_cpu(recorded or {}, processes)) is not None:
        return Selection(kept, bool(graph), "run")
    if device.type != "cuda":
        return Selection("auto" if device.type == "cpu" else "eager", bool(graph), "rule")
    if graph_unsupported_reason(spec.train, device, processes) is not None:
        graph = False
    gpu = gpu_of(device)
    if recorded is not None and trials != "never":
        chosen = _recorded_selection(recorded, gpu, graph)
        alone = {candidate.kernel for candidate in candidates if not candidate.several_ranks}
        if chosen is not None and (processes == 1 or chosen.kernel not in alone):
            return chosen
    if trials == "never" or os.environ.get(TRIALS_VARIABLE) == "off":
        return Selection("eager", bool(graph), "rule", gpu.name)
    request = _Request.of(spec, device, gpu, graph, processes, candidates)
    known = request.remembered()
    if known is not None and (known.is_final or trials == "later"):
        return known
    if trials == "later":
        return Selection("eager", bool(graph), "later", gpu.name)
    with request.lock():  # trials at the same time would disturb each other
        known = request.remembered()
        return known if known is not None and known.is_final else request.choose(known, seconds)


class Remembered(NamedTuple):
    """A choice of earlier trials.

    Attributes:
        path: Its file.
        experiment: Name of the experiment that was trained.
        key: What the choice depends on.
        selection: The choice.
    """

    path: Path
    experiment: str
    key: Mapping[str, Any]
    selection: Selection


def remembered_selections() -> list[Remembered]:
    """Returns all remembered choices; files that cannot be read are left out."""
    found = map(_read, sorted(paths.kernels_dir().glob("*.json")))
    return [remembered for remembered in found if remembered is not None]


def _recorded_on_cpu(recorded: Mapping[str, Any], processes: int) -> Kernel | None:
    """Returns the kernel other than ``auto`` that a session on a CPU recorded, and that can be used here; else None."""
    kernel = recorded.get("kernel")
    if recorded.get("device") != "cpu" or kernel not in ("eager", "fused", "compiled"):
        return None
    alone = processes > 1 and any(one.kernel == kernel and not one.several_ranks for one in CANDIDATES)
    return None if alone or unsupported_reason(kernel, torch.device("cpu")) is not None else kernel


def _recorded_selection(recorded: Mapping[str, Any], gpu: Gpu, graph: bool | None) -> Selection | None:
    """Returns the choice that a session recorded; None if it trained on another device."""
    choice = dict(recorded.get("kernel_choice") or {})
    if "kernel" not in recorded or recorded.get("device") == "cpu" or choice.get("gpu", gpu.name) != gpu.name:
        return None
    kernel: Kernel = "eager" if recorded["kernel"] == "auto" else recorded["kernel"]  # before there were trials
    graph = bool(recorded.get("graph")) if graph is None else graph
    with suppress(ValueError):  # recorded by another version
        return _PARSER.validate_python({**choice, "kernel": kernel, "graph": graph, "by": "run", "gpu": gpu.name})
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
            "triton": paths.package_version("triton"),
            "plifctl": paths.code_version(),
            "candidates": {candidate.kernel: list(wanted) for candidate in used},
            "network": spec.network.model_dump(mode="json", exclude={"name"}),
            "neuron": spec.neuron.model_dump(mode="json"),
            "input": [spec.dataset.kind, *spec.framing.shape],
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
        with suppress(OSError, MachineError, filelock.Timeout):
            files.make_dir(paths.kernels_dir())
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                _log.info("kernel: waiting for another process that tries kernels")
                lock.acquire(timeout=2 * TRIAL_SECONDS)
        try:
            yield
        finally:
            if lock.is_locked:
                lock.release()

    def remembered(self) -> Selection | None:
        """Returns the choice of earlier trials of the same; None if there were none."""
        found = _read(self.path)
        return found.selection if found is not None and found.key == self.key else None

    def choose(self, earlier: Selection | None, seconds: float) -> Selection:
        """Tries the candidates, and remembers the choice if at least one was timed.

        Args:
            earlier: Choice of earlier trials, some of which did not finish: only those are tried.
            seconds: Time limit.
        """
        before = earlier or Selection("eager", False, "trials")
        variants = {
            label(one.kernel, graph=graph): (one.kernel, graph)
            for one, graphs in self.variants.items()
            for graph in graphs
        }
        wanted = set(before.unfinished or variants)
        _log.info("kernel: trying %d ways to compute a step on %s, at most %.0f s", len(wanted), self.gpu.name, seconds)
        found = _try_all(self, wanted, seconds)
        timed = {**before.seconds, **found.seconds}
        left_out = {**before.left_out, **found.left_out}
        left_out = {name: reason for name, reason in left_out.items() if name not in timed}
        unfinished = {name: before.unfinished.get(name, 0) + 1 for name in found.unfinished}
        chosen = Selection(
            kernel="eager",
            graph=(True,) in self.variants.values(),
            by="trials",
            gpu=self.gpu.name,
            checked=time.strftime("%Y-%m-%d") if timed else "",
            seconds=timed,
            left_out=left_out,
            unfinished=unfinished,
        )
        _warn_left_out(chosen, found)
        if not timed:  # not even the definition: the reason is not the kernels
            exclusive = self.gpu.exclusive or BUSY in left_out.values()
            return replace(chosen, note=_EXCLUSIVE_NOTE if exclusive else _UNTRIED_NOTE)
        fastest = min(timed, key=timed.__getitem__)
        speedup = timed["definition"] / timed[fastest] if "definition" in timed else None
        kernel, graph = variants[fastest]
        chosen = replace(chosen, kernel=kernel, graph=graph, speedup=speedup)
        try:
            files.write_json(self.path, {"experiment": self.spec.name, "key": self.key, "choice": asdict(chosen)})
        except (OSError, MachineError) as error:  # a full disk, or a home folder that cannot be written
            _log.warning("kernel: the choice is not remembered: %s", error)
        return chosen


_EXCLUSIVE_NOTE = (
    "not checked: the GPU is in exclusive mode and open already, by this or another process, so that no other one can "
    "try kernels; the next training tries again (nvidia-smi -c 0 ends the mode)"
)
_UNTRIED_NOTE = "not checked: no candidate could be tried; the next training tries again"


class _Results(NamedTuple):
    """Results of trials, by label: seconds of a step, or why a candidate was left out, and which did not finish."""

    seconds: dict[str, float]
    left_out: dict[str, str]
    unfinished: list[str]


def _warn_left_out(chosen: Selection, found: _Results) -> None:
    """Warns of the candidates that these trials left out, once for each reason."""
    for reason in dict.fromkeys(found.left_out.values()):
        names = [name for name in found.left_out if found.left_out[name] == reason]
        again = any(chosen.unfinished.get(name, _MAX_ATTEMPTS) < _MAX_ATTEMPTS for name in names)
        later = "; the next training tries again" if again else ""
        _log.warning("kernel left out: %s: %s%s", ", ".join(names), reason, later)


def _try_all(request: _Request, wanted: Collection[str], seconds: float) -> _Results:
    """Tries each kernel in a process of its own.

    Args:
        request: What is tried.
        wanted: Labels of the candidates to try.
        seconds: Time limit.
    """
    results = _Results({}, {}, [])
    until = time.monotonic() + seconds
    kernels = {
        candidate: tuple(graph for graph in graphs if label(candidate.kernel, graph=graph) in wanted)
        for candidate, graphs in request.variants.items()
    }
    kernels = {candidate: graphs for candidate, graphs in kernels.items() if graphs}
    for number, (candidate, graphs) in enumerate(kernels.items(), 1):
        left = max(0.0, until - time.monotonic())
        # one that hangs leaves time for the others
        limit = left if number == len(kernels) else _SHARE * left
        answers, failure, unfinished = _run_process(request, candidate, graphs, limit)
        for graph in graphs:
            name, answer = label(candidate.kernel, graph=graph), answers.get(graph, {"left_out": failure})
            if "seconds" in answer:
                results.seconds[name] = float(answer["seconds"])
                continue
            reason = results.left_out[name] = str(answer["left_out"])
            if (unfinished and graph not in answers) or reason in (OUT_OF_MEMORY, BUSY):
                results.unfinished.append(name)
    return results


def _run_process(
    request: _Request, candidate: Candidate, graphs: tuple[bool, ...], limit: float
) -> tuple[dict[bool, dict[str, Any]], str, bool]:
    """Runs the trial of a candidate in a process.

    Returns:
        Its answers by variant; why there are no more; and whether that says nothing about the kernel: time was up, the
        process did not start, or it was killed.
    """
    with tempfile.TemporaryDirectory(prefix="plifctl-kernel-") as folder:
        place, answers = Path(folder, "request.json"), Path(folder, "answers.jsonl")
        spec = request.spec.model_dump_json()
        seconds = min(_TIMED_SECONDS, limit / 8)
        wanted = TrialRequest(
            spec=spec,
            device=str(request.device),
            kernel=candidate.kernel,
            graphs=graphs,
            seconds=seconds,
            limit=int(limit) + _GRACE_SECONDS,
            answers=str(answers),
            run=candidate.run,
        )
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
                code, text = process.returncode, stderr.read().decode(errors="replace")
                failure = _describe_end(code, text)
                unfinished = code == _KILLED or (code > 0 and known_cause(text) is None)
            except subprocess.TimeoutExpired:
                failure, unfinished = f"no answer within {limit:.0f} s", True
            finally:
                process.kill()  # also if a signal ends this process
        return _read_answers(answers), failure, unfinished


def _describe_end(code: int, stderr: str) -> str:
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


_PARSER = TypeAdapter(Selection)


def _read(path: Path) -> Remembered | None:
    """Returns a remembered choice; None if there is none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        tree = files.parse_json(files.read_regular(path))
        selection = _PARSER.validate_python({**tree["choice"], "by": "remembered"})
        return Remembered(path, str(tree["experiment"]), dict(tree["key"]), selection)
    return None
