"""Describes the machine: hardware, versions, chosen kernels, folders, and what is missing; implements ``doctor``.

Everything is found without opening a GPU, except where the driver's own tool is missing.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plifctl import paths
from plifctl.errors import PlifctlError, first_line
from plifctl.training.process import installed_memory, processor_name, usable_cores

_NEEDED = ("torch", "numba", "numpy", "h5py", "hdf5plugin", "pydantic", "yaml", "tensorboard", "tonic")
"""Modules without which nothing can be trained, beside those that the command line itself needs."""

_SHOWN = ("torch", "numba", "triton", "numpy", "h5py")
"""Packages whose versions are shown."""

_LOW_DISK_BYTES = 2**30


@dataclass(frozen=True)
class Place:
    """A folder that plifctl uses.

    Attributes:
        name: What it holds.
        path: The folder.
        set_by: Environment variable that can set it, or empty.
        exists: It exists; otherwise it is created when it is needed.
        writable: It, or the folder in which it would be created, can be written.
        entries: Number of caches, runs, files of experiments or remembered choices.
        bytes: Their size; None: not measured.
        free_bytes: Free space of its disk.
        total_bytes: Size of its disk.
    """

    name: str
    path: str
    set_by: str
    exists: bool
    writable: bool
    entries: int
    bytes: int | None
    free_bytes: int
    total_bytes: int

    @property
    def nearly_full(self) -> bool:
        """Whether less than 1 GiB is free."""
        return self.free_bytes < _LOW_DISK_BYTES


@dataclass(frozen=True)
class Missing:
    """An optional part that is not installed.

    Attributes:
        part: What is missing.
        used_for: What it is used for.
        command: What adds it.
    """

    part: str
    used_for: str
    command: str


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`examine` found.

    Attributes:
        machine: Processor, memory, GPUs.
        versions: Versions by package; None: not installed.
        kernels: For the CPU and each remembered choice, the kernel and why.
        places: The folders.
        missing: Optional parts that are not installed.
        problems: What prevents a training, each with what to do.
    """

    machine: dict[str, Any]
    versions: dict[str, str | None]
    kernels: list[dict[str, Any]]
    places: list[Place]
    missing: list[Missing]
    problems: list[str] = field(default_factory=list)

    @property
    def can_train(self) -> bool:
        """Whether nothing that training needs is missing."""
        return not self.problems


def examine(*, cache_dir: Path | None = None, runs_dir: Path | None = None) -> Diagnosis:
    """Examines this machine; changes nothing.

    Args:
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """
    problems = list(_import_problems())
    broken = {problem.split(":")[0] for problem in problems}
    with_torch = not broken & {"torch", "numpy"}
    machine = _machine(with_numba="numba" not in broken, with_torch=with_torch)
    places = list(_places(cache_dir or paths.cache_dir(), runs_dir or paths.runs_dir(), problems))
    for place in places:
        if place.name in ("caches", "runs") and not place.writable:
            problems.append(f"{place.path}: cannot be written; set {place.set_by} to a folder of yours")
    problems += [] if broken & {"pydantic", "yaml"} else _registry_problems()
    return Diagnosis(
        machine,
        {
            "plifctl": paths.code_version(),
            "python": platform.python_version(),
            **{package: paths.package_version(package) for package in _SHOWN},
        },
        _kernels(machine["gpus"]) if with_torch else [],
        places,
        list(_missing(machine)),
        list(dict.fromkeys(problems)),
    )


def _import_problems() -> Iterator[str]:
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken library raises anything
            package = {"yaml": "pyyaml"}.get(name, name)
            install = f"{sys.executable} -m pip install --force-reinstall {package}"
            yield f"{name}: cannot be imported: {first_line(error)}; {install}"


def _registry_problems() -> list[str]:
    from plifctl.config.lookup import load_registry

    try:
        found = load_registry().check()
    except PlifctlError as error:
        return [str(error)]
    return [f"the registry has {len(found)} problems, the first: {found[0]}; plifctl check"] if found else []


def _machine(*, with_numba: bool, with_torch: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "vector_bits": None,
        "memory_bytes": installed_memory(),
        "free_memory_bytes": None,
        "torch_cuda": None,
        "gpus": [],
    }
    if with_numba:
        from plifctl.snn.kernels.registers import VECTOR_BYTES

        found["vector_bits"] = 8 * VECTOR_BYTES
    if with_torch:
        import torch

        from plifctl.training.gpus import list_gpus
        from plifctl.training.sample_store import free_memory

        found["free_memory_bytes"] = free_memory()
        found["torch_cuda"] = torch.version.cuda or torch.version.hip
        names = [vars(gpu) for gpu in list_gpus()]
        if not names and torch.cuda.is_available():  # without nvidia-smi
            names = [{"name": torch.cuda.get_device_name(n), "driver": ""} for n in range(torch.cuda.device_count())]
        found["gpus"] = names
        found["usable_gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return found


def _kernels(gpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from plifctl.training.kernel_selection import TRIALS_VARIABLE, remembered_selections

    found: list[dict[str, Any]] = [
        {"device": "cpu", "kernel": "fused", "why": "compiled for this processor; nothing is timed"}
    ]
    remembered = [
        {
            "device": chosen.gpu,
            "kernel": chosen.label,
            "why": chosen.describe(),
            "experiment": experiment,
            "T": key.get("T"),
            "key": dict(key),
            "seconds": dict(chosen.seconds),
            "left_out": dict(chosen.left_out),
            "file": str(path),
        }
        for path, experiment, key, chosen in remembered_selections()
    ]
    if os.environ.get(TRIALS_VARIABLE) == "off":
        found.append({"device": "gpu", "kernel": "definition", "why": f"{TRIALS_VARIABLE}=off"})
    elif gpus and not remembered:
        found.append({"device": "gpu", "kernel": None, "why": "chosen by trials when the first training starts"})
    return [*found, *remembered]


def _places(cache_dir: Path, runs_dir: Path, problems: list[str]) -> Iterator[Place]:
    caches, runs = list(cache_dir.glob("*/*.h5")), list(runs_dir.glob("[!.]*/run.json"))
    yield _place("caches", cache_dir, "PLIFCTL_CACHE_DIR", len(caches), sum(path.stat().st_size for path in caches))
    yield _place("runs", runs_dir, "PLIFCTL_RUNS_DIR", len(runs), None)
    try:
        registries = paths.registry_dirs()
    except PlifctlError as error:
        problems.append(str(error))
        registries = []
    for folder in registries:
        n_files = len(list(folder.glob("experiments/*.yaml")))
        yield _place("registry", folder, "PLIFCTL_REGISTRY" if folder != registries[0] else "", n_files, None)
    kernels = paths.kernels_dir()
    yield _place("kernels", kernels, "", len(list(kernels.glob("*.json"))), None)


def _place(name: str, path: Path, variable: str, entries: int, size: int | None) -> Place:
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    disk = shutil.disk_usage(existing)
    writable = os.access(existing, os.W_OK | os.X_OK) and existing.is_dir()
    return Place(name, str(path.absolute()), variable, path.is_dir(), writable, entries, size, disk.free, disk.total)


def _missing(machine: dict[str, Any]) -> Iterator[Missing]:
    pip = "python -m pip install"
    gpus, usable = machine["gpus"], machine.get("usable_gpus", 0)
    if gpus and not machine["torch_cuda"]:
        yield Missing("torch with CUDA", "training on the GPU of this machine", f"{pip} --force-reinstall torch")
    elif gpus and not usable:
        yield Missing("a driver that torch can use", "training on the GPU of this machine", "nvidia-smi")
    for package, used_for in _OPTIONAL_PACKAGES:
        if find_spec(package) is None:
            yield Missing(package, used_for, f"{pip} {package}")
    for part, used_for, command, found in _OPTIONAL_PROGRAMS:
        if not found():
            yield Missing(part, used_for, command)


def _has_compiler() -> bool:
    return any(map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang", "cl"))))


_OPTIONAL_PACKAGES = (
    *((("triton", "the kernels triton and compiled on a GPU"),) if sys.platform == "linux" else ()),
    ("nir", "export to .nir"),
    ("onnx", "export to .onnx"),
    ("onnxruntime", "export to .onnx"),
    ("submitit", "sweep run --engine slurm"),
    ("ray", "sweep run --engine ray"),
)
_OPTIONAL_PROGRAMS: tuple[tuple[str, str, str, Callable[[], bool]], ...] = (
    ("a C compiler", "the kernels triton and compiled", "apt install gcc python3-dev", _has_compiler),
    ("git", "the commit of the code in records", "apt install git", lambda: shutil.which("git") is not None),
)
