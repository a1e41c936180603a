"""plifctl doctor: the machine, versions, chosen kernels, folders, and what is missing; times of an experiment."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.units import format_bytes, format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from plifctl.config.choices import Kernel, Recipe
    from plifctl.pipeline.bench import ExperimentTimes
    from plifctl.pipeline.doctor import Diagnosis, Place

_WIDTH, _LABEL_WIDTH = 80, 12

BenchOption = Annotated[
    str | None,
    typer.Option(
        "--bench", metavar="EXPERIMENT", help="Time epochs of an experiment here.", autocompletion=options.experiments
    ),
]
SecondsOption = Annotated[
    float | None, typer.Option("--seconds", min=0.1, help="With --bench: time to spend on timed steps (default: 30).")
]


def doctor(
    bench: BenchOption = None,
    seconds: SecondsOption = None,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    device: options.DeviceOption = None,
    kernel: options.KernelOption = "auto",
    cache_dir: options.CacheDirOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show the machine, versions, kernels and folders, and what is missing.

    Ends with exit code 1 if something is missing that training needs. With --bench EXPERIMENT it times training steps
    and test batches instead, and estimates how long an epoch and the experiment take on this machine.

    Example: plifctl doctor --bench fashion-mnist-plif
    """
    from plifctl.errors import UsageError

    if bench is not None:
        _bench(bench, seconds, recipe, overrides, device, kernel, cache_dir, as_json)
        return
    chosen = device is not None and device != os.environ.get("PLIFCTL_DEVICE")
    if seconds is not None or recipe is not None or overrides or kernel != "auto" or chosen:
        raise UsageError(
            "--seconds, --recipe, --set, --device and --kernel require --bench", hint="add --bench EXPERIMENT"
        )
    from plifctl.pipeline.doctor import examine

    found = examine(cache_dir=cache_dir, runs_dir=runs_dir)
    if as_json:
        console.emit_json({**asdict(found), "can_train": found.can_train})
    else:
        console.emit("\n".join(_lines(found)))
    if not found.can_train:
        raise typer.Exit(1)


def _lines(found: Diagnosis) -> list[str]:
    lines = ["machine", *_machine(found.machine), "", "versions", *_versions(found), "", "kernels"]
    for entry in found.kernels:
        lines += _kernel(entry)
    lines += ["", "folders"]
    for place in found.places:
        lines += _place(place)
    if found.missing:
        lines += ["", "optional parts that are missing"]
        for part in found.missing:
            lines += [*_row(part.part, f"for {part.used_for}"), *_row("", part.command)]
    lines += ["", "problems"] if found.problems else ["", "training can run"]
    for problem in found.problems:
        lines += textwrap.wrap(
            problem,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _row(label: str, text: str) -> list[str]:
    """Returns the lines of a labelled text; words are never broken, so that paths and commands can be copied."""
    indent = " " * (_LABEL_WIDTH + 2)
    start = f"  {label:<{_LABEL_WIDTH}}"
    if len(label) >= _LABEL_WIDTH:
        return [f"  {label}", *_row("", text)]
    return textwrap.wrap(
        text, _WIDTH, initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _machine(machine: dict[str, Any]) -> list[str]:
    cores = f"{machine['usable_cores']} of {machine['cores']} cores"
    bits = machine["vector_bits"]
    vectors = f", vectors of {bits} bits" if bits else ""
    lines = [*_row("processor", f"{machine['processor']}, {cores}{vectors}"), *_row("system", machine["system"])]
    if machine["memory_bytes"]:
        free, all_of_it = machine["free_memory_bytes"], format_bytes(machine["memory_bytes"])
        lines += _row("memory", all_of_it if free is None else f"{format_bytes(free)} free of {all_of_it}")
    for gpu in machine["gpus"]:
        parts = [gpu["name"]]
        parts += [f"{gpu['memory_mib'] / 1024:.0f} GiB"] if gpu.get("memory_mib") else []
        parts += [f"driver {gpu['driver']}"] if gpu.get("driver") else []
        parts += ["exclusive mode: one process at a time"] if gpu.get("exclusive") else []
        lines += _row("GPU", ", ".join(parts))
    return lines if machine["gpus"] else [*lines, *_row("GPU", "none")]


def _versions(found: Diagnosis) -> list[str]:
    names = [f"{name} {version or '–'}" for name, version in found.versions.items()]
    cuda = found.machine["torch_cuda"]
    return _row("", ", ".join(names) + f"; torch is built {f'for CUDA {cuda}' if cuda else 'for CPUs only'}")


def _kernel(entry: dict[str, Any]) -> list[str]:
    if "file" not in entry:
        return _row(
            {"cpu": "CPU", "gpu": "GPU"}[entry["device"]], ": ".join(filter(None, (entry["kernel"], entry["why"])))
        )
    times = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in entry["seconds"].items())
    lines = [*_row("GPU", f"{entry['device']}, {entry['experiment']}, T = {entry['T']}: {entry['why']}")]
    lines += _row("", f"steps: {times}") if times else []
    for name, reason in entry["left_out"].items():
        lines += _row("", f"left out: {name}: {reason}")
    return [*lines, *_row("", "to choose again, remove"), *_row("", entry["file"])]


def _place(place: Place) -> list[str]:
    unit = {"caches": "cache", "runs": "run", "registry": "experiment file", "kernels": "remembered choice"}[place.name]
    count = f"{place.entries} {unit}{'' if place.entries == 1 else 's'}"
    state = "writable" if place.writable else "cannot be written"
    disk = (
        f"{format_bytes(place.free_bytes)} free of {format_bytes(place.total_bytes)}"
        + ", nearly full" * place.nearly_full
    )
    held = count + (f" of {format_bytes(place.bytes)}" if place.bytes else "")
    facts = [held if place.exists else "does not exist yet", state, disk]
    facts += [f"{place.set_by} changes it"] if place.set_by else []
    return [*_row(place.name, place.path), *_row("", "; ".join(facts))]


def _bench(
    experiment: str,
    seconds: float | None,
    recipe: Recipe | None,
    overrides: Sequence[str] | None,
    device: str | None,
    kernel: Kernel,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    from plifctl.training.process import prepare_process

    prepare_process()  # before the imports below import torch

    from plifctl.pipeline.bench import BenchOptions, bench_experiment

    spent = {} if seconds is None else {"seconds": seconds}
    wanted = BenchOptions(experiment, tuple(overrides or ()), recipe, device, kernel, cache_dir=cache_dir, **spent)
    found = bench_experiment(wanted)
    if as_json:
        console.emit_json(asdict(found))
    else:
        _print_times(found)


def _print_times(found: ExperimentTimes) -> None:
    on = found.environment["device"]
    rows = [
        ("experiment", f"{found.experiment}, {found.recipe} recipe, T = {found.T}, batches of {found.batch_size}"),
        ("device", f"{on}, {found.environment['threads']} threads; kernel {found.kernel}"),
        ("epoch", f"{found.steps_per_epoch:,} steps for {found.train:,} samples, then a test of {found.test:,}"),
        ("training step", f"{format_duration(found.step)} without loading"),
    ]
    if found.loaded_step is not None:
        rows.append(("", f"{format_duration(found.loaded_step)} with loading and augmentation"))
    rows.append(("test batch", format_duration(found.evaluation_batch)))
    rows.append(("epoch takes", f"{format_duration(found.epoch_without_loading)} without loading"))
    if found.epoch is not None:
        rows.append(("", f"{format_duration(found.epoch)} with loading"))
    rows.append(("experiment", f"{format_duration(found.training)} for {found.epochs:,} epochs"))
    for label, text in rows:
        console.emit("\n".join(_row(label, text)).removeprefix("  "))
    if found.prepare is not None:
        console.note("samples are random, loading was not timed: there is no cache")
        console.note(f"to time it as well: {found.prepare}")
