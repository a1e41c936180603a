"""The GPUs of the machine, as the driver describes them: without opening one.

A process that has opened a GPU keeps others out if the GPU is in exclusive mode. ``nvidia-smi`` opens none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_FIELDS = ("index", "uuid", "name", "driver_version", "compute_mode", "mig.mode.current", "memory.total")


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: Its number for nvidia-smi, or torch's.
        uuid: Its unique id; empty if unknown.
        name: Name of the model; of a MIG instance, with the id of the instance.
        driver: Version of the driver; empty if unknown.
        exclusive: Only one process at a time may open it.
        memory_mib: Its memory; None if unknown.
    """

    index: int
    uuid: str
    name: str
    driver: str
    exclusive: bool = False
    memory_mib: int | None = None


def list_gpus() -> list[Gpu]:
    """Returns all GPUs of the machine that nvidia-smi knows; none where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (dict(zip(_FIELDS, map(str.strip, line.split(",")), strict=False)) for line in found.stdout.splitlines())
    return [_gpu(row) for row in rows if len(row) == len(_FIELDS) and row["index"].isdigit()]


def _gpu(row: Mapping[str, str]) -> Gpu:
    partitioned = row["mig.mode.current"] == "Enabled"
    memory = row["memory.total"]
    return Gpu(
        int(row["index"]),
        row["uuid"],
        f"{row['name']} (MIG)" if partitioned else row["name"],
        row["driver_version"],
        row["compute_mode"].startswith("Exclusive"),
        int(memory) if memory.isdigit() else None,
    )


def known_gpu(device: torch.device, environment: Mapping[str, str] = os.environ) -> Gpu | None:
    """Returns the GPU that torch calls ``device``, without opening it; None if nvidia-smi does not know it.

    Args:
        device: A CUDA device.
        environment: CUDA_VISIBLE_DEVICES renumbers the GPUs.
    """
    number, known = device.index or 0, list_gpus()
    visible = [entry.strip() for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    entry = visible[number] if number < len(visible) else str(number)
    if entry.startswith("MIG-") and known:
        return Gpu(number, entry, f"{known[0].name} {entry}", known[0].driver, known[0].exclusive)
    for gpu in known:
        if entry == str(gpu.index) or (entry.startswith("GPU-") and gpu.uuid.startswith(entry)):
            return gpu
    return None


def gpu_of(device: torch.device, environment: Mapping[str, str] = os.environ) -> Gpu:
    """Returns the GPU that torch calls ``device``; torch, which may open it, is asked only if nvidia-smi is missing.

    Arguments as of :func:`known_gpu`.
    """
    if (gpu := known_gpu(device, environment)) is not None:
        return gpu
    import torch  # not imported where nvidia-smi answers: sweeps ask for GPUs in processes without torch

    driver = torch.version.cuda or torch.version.hip or ""
    name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else str(device)
    return Gpu(device.index or 0, "", name, f"of {driver}" if driver else "")
