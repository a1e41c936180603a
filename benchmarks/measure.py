"""Shared by all benchmarks: interleaved pairs, medians and quartiles, targets, the table and the JSON document."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.tables import TextTable
from plifctl import paths
from plifctl.training.gpus import list_gpus
from plifctl.training.process import processor_name

ROOT = Path(__file__).resolve().parents[1]
"""The repository: where child processes run, so that they import this checkout."""

_LEAST_SECONDS = 0.05  # shorter work is repeated until it takes this long, far more than the resolution of the clock
_SIGNS = {">=": "≥", "<=": "≤", "<": "<"}
_PACKAGES = (
    "numpy",
    "numba",
    "h5py",
    "hdf5plugin",
    "torch",
    "triton",
    "spikingjelly",
    "tonic",
    "faery",
    "evt3",
    "expelliarmus",
)


@dataclass(frozen=True)
class Setting:
    """Settings of a benchmark.

    Attributes:
        recordings: The folder of real recordings; None in a script that needs none.
        work: An empty folder on disk, removed at the end.
        quick: Measure less.
        kept: A folder for what another call can use again; within ``work`` unless one was named.
    """

    recordings: Path | None
    work: Path
    quick: bool
    kept: Path

    @property
    def shared(self) -> Path:
        """The folder of real recordings."""
        assert self.recordings is not None, "run() was called with recordings=False"
        return self.recordings

    @property
    def pairs(self) -> int:
        """Number of pairs of measurements, ours and the peer's."""
        return 3 if self.quick else 7

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yields an empty folder that is removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.work) as name:
            yield Path(name)


@dataclass(frozen=True)
class Figure:
    """One measured figure and the target it is compared with.

    Attributes:
        name: What was measured.
        unit: Unit of ``ours`` and ``peer``.
        ours: All our measurements.
        peer: All measurements of the peer, each taken next to one of ours; empty without a peer.
        peer_name: Name of the peer.
        ratios: Values compared with the target, one for each pair: see :attr:`relation`; without a peer, ours itself.
        relation: Meaning of the ratio, e.g. ``peer/ours``.
        target: E.g. ``(">=", 100)``; None: the figure is only for information.
        note: Remarks for the reader.
        labels: What was measured, for tables and pictures: e.g. layer, part, share of active inputs.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    peer_name: str
    ratios: Sequence[float]
    relation: str
    target: tuple[Literal[">=", "<=", "<"], float] | None
    note: str
    labels: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Returns whether the median ratio meets the target; None without one."""
        if self.target is None:
            return None
        relation, value = self.target
        median = float(np.median(self.ratios))
        return {">=": median >= value, "<=": median <= value, "<": median < value}[relation]

    def to_json(self) -> dict[str, Any]:
        """Returns the figure as JSON values."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": _spread(self.ours),
            "peer": _spread(self.peer) if self.peer else None,
            "peer_name": self.peer_name or None,
            "ratio": _spread(self.ratios) if self.peer else None,
            "ratio_is": self.relation or None,
            "target": f"{self.target[0]} {self.target[1]:g}" if self.target else None,
            "passed": self.passed,
            "note": self.note or None,
            "labels": dict(self.labels),
        }


Benchmark = Callable[[Setting], Iterator[Figure]]


def faster(
    name: str, ours: Sequence[float], peer: Sequence[float], peer_name: str, target: float | None, note: str = ""
) -> Figure:
    """Returns a figure of seconds: the peer's time over ours must reach ``target``."""
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    return Figure(
        name, "s", ours, peer, peer_name, ratios, "peer/ours", None if target is None else (">=", target), note
    )


def within(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    target: float | None,
    note: str = "",
    *,
    sign: Literal["<=", ">="] = "<=",
) -> Figure:
    """Returns a figure of ours over the peer's, which must be at most ``target``, or at least, if there is one."""
    ratios = [own / theirs for own, theirs in zip(ours, peer, strict=True)]
    limit: tuple[Literal["<=", ">="], float] | None = None if target is None else (sign, target)
    return Figure(name, unit, ours, peer, peer_name, ratios, "ours/peer", limit, note)


def below(name: str, unit: str, ours: Sequence[float], target: float | None, note: str = "") -> Figure:
    """Returns a figure without a peer: ours must be below ``target``, if there is one."""
    return Figure(name, unit, ours, (), "", ours, "", None if target is None else ("<", target), note)


def interleaved(ours: Callable[[], object], peer: Callable[[], object], pairs: int) -> tuple[list[float], list[float]]:
    """Times two functions in turn, each first as often as the other, after one call of each that is not counted.

    Returns:
        Seconds a call, of ours and of the peer's.
    """
    loops = [_loops(ours), _loops(peer)]
    found: tuple[list[float], list[float]] = [], []
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            found[which].append(seconds((ours, peer)[which], loops[which]))
    return found


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times functions in turn, in every other round from the last to the first, after a call that is not counted.

    Args:
        works: The functions by name.
        rounds: Number of measurements of each.

    Returns:
        Seconds a call, of each function by its name, one for each round.
    """
    loops = {name: _loops(work) for name, work in works.items()}
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(list(works)):
            found[name].append(seconds(works[name], loops[name]))
    return found


def _loops(work: Callable[[], object]) -> int:
    work()
    return max(1, round(_LEAST_SECONDS / seconds(work)))


def seconds(work: Callable[[], object], loops: int = 1) -> float:
    """Returns the seconds a call takes."""
    start = time.perf_counter()
    for _ in range(loops):
        work()
    return (time.perf_counter() - start) / loops


def run(
    description: str,
    benchmarks: Mapping[str, Benchmark],
    *,
    recordings: bool = True,
    peers: bool = True,
    keeps: str = "",
    tables: Callable[[Sequence[dict[str, Any]]], Iterable[TextTable]] | None = None,
) -> None:
    """The command line of a benchmark script: measures, prints the figures, and exits with 1 if a target is missed.

    Args:
        description: What the script measures.
        benchmarks: By the name that ``--only`` takes.
        recordings: Whether they need the folder of real recordings.
        peers: Whether they compare with SpikingJelly or tonic.
        tables: Makes tables of the figures as :meth:`Figure.to_json` gives them; None: one, with a row for each figure.
        keeps: What they leave in ``Setting.kept`` for another call; empty: nothing.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", metavar="NAME", choices=list(benchmarks), help=f"one of {', '.join(benchmarks)}")
    parser.add_argument("--quick", action="store_true", help="smaller inputs, fewer pairs")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of the table")
    if recordings:
        parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data", help="the real recordings")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure on; default: the temporary folder")
    parser.add_argument("--results", type=Path, metavar="DIR", help="append each figure to a file in DIR once measured")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no figure after so many minutes")
    if keeps:
        parser.add_argument("--keep", type=Path, metavar="DIR", help=f"keep {keeps} in this folder, and use them again")
    options = parser.parse_args()
    shared: Path | None = options.shared if recordings else None
    if shared is not None and not ((shared / "DvsGesture").is_dir() and (shared / "NMNIST").is_dir()):
        sys.exit(f"{shared}: no DvsGesture and NMNIST here; name the folder of real recordings: --shared DIR")
    if peers and (metadata_of("spikingjelly") is None or metadata_of("tonic") is None):
        sys.exit("the peers are not installed: make bench-env, then run with .bench-venv/bin/python")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="plifctl-bench-", dir=options.work) as work:
        kept = Path(work, "kept") if not keeps or options.keep is None else options.keep.resolve()
        setting = Setting(shared, Path(work), options.quick, kept)
        wanted = {name: part for name, part in benchmarks.items() if options.only in (None, name)}
        for figure in _measured(wanted, setting, time.monotonic() + 60 * options.minutes):
            figures.append(figure)
            if options.results is not None:
                _append(options.results, description, figure, first=len(figures) == 1)
    if options.json:
        document = {
            "benchmark": description,
            "quick": options.quick,
            "hardware": hardware(),
            "versions": versions(),
            "figures": [figure.to_json() for figure in figures],
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        if tables is None:
            _print_figures(description, figures)
        else:
            _print_tables(tables([figure.to_json() for figure in figures]))
        _print_machine()
    sys.exit(any(figure.passed is False for figure in figures))


def _measured(parts: Mapping[str, Benchmark], setting: Setting, until: float) -> Iterator[Figure]:
    """Yields the figures of all parts in order; after the time ``until`` none is started."""
    for name, part in parts.items():
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        for figure in part(setting):
            yield figure
            if time.monotonic() > until:
                print(f"the time is over in {name}; what follows was not measured", file=sys.stderr, flush=True)
                return


def _append(folder: Path, description: str, figure: Figure, *, first: bool) -> None:
    """Appends a figure to the results of this script, a line of JSON; the first one after a line of the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{Path(sys.argv[0]).stem}.jsonl").open("a", encoding="utf-8") as file:
        if first:
            machine = {"benchmark": description, "hardware": hardware(), "versions": versions()}
            file.write(json.dumps(machine, ensure_ascii=False) + "\n")
        file.write(json.dumps(figure.to_json(), ensure_ascii=False) + "\n")


def hardware() -> dict[str, Any]:
    """Returns the machine: processor, cores that this process may use, memory, GPUs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = [f"{gpu.name}, driver {gpu.driver}" for gpu in list_gpus()]
    found = {"cpu": processor_name(), "cores": os.cpu_count(), "memory_GiB": round(memory, 1)}
    return {**found, "system": platform.platform(), "gpus": gpus}


def versions() -> dict[str, str | None]:
    """Returns the versions of all packages measured."""
    ours = {"python": platform.python_version(), "plifctl": paths.code_version()}
    return {**ours, **{name: metadata_of(name) for name in _PACKAGES}}


def metadata_of(package: str) -> str | None:
    """Returns the version of an installed package, None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _spread(values: Sequence[float]) -> dict[str, Any]:
    q1, median, q3 = np.percentile(values, (25, 50, 75))
    return {"median": float(median), "q1": float(q1), "q3": float(q3), "n": len(values)}


def _print_tables(tables: Iterable[TextTable]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for text in tables:
        console.print(text.title)
        table = Table(box=None, pad_edge=False)
        for index, column in enumerate(text.columns):
            table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in text.rows:
            table.add_row(*row)
        console.print(table)
        console.print(f"{text.note}\n")


def _print_figures(description: str, figures: Sequence[Figure]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=description, title_justify="left")
    table.add_column("figure", overflow="fold")
    for column in ("ours", "peer", "ratio", "target"):
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("")
    for figure in figures:
        table.add_row(
            figure.name + (f"\nagainst {figure.peer_name}" if figure.peer else ""),
            _format_values(figure.ours, figure.unit),
            _format_values(figure.peer, figure.unit) if figure.peer else "–",
            _format_values(figure.ratios, figure.relation) if figure.peer else "–",
            f"{_SIGNS[figure.target[0]]} {figure.target[1]:g}" if figure.target else "–",
            {True: "met", False: "MISSED", None: ""}[figure.passed],
        )
    console.print(table)
    for figure in figures:
        if figure.note:
            console.print(f"{figure.name}: {figure.note}", highlight=False)


def _print_machine() -> None:
    from rich.console import Console

    console = Console()
    machine, software = hardware(), versions()
    console.print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_GiB']} GiB", highlight=False)
    console.print(", ".join(f"{name} {version}" for name, version in software.items() if version), highlight=False)
    console.print("median (quartiles) of interleaved pairs", highlight=False)


def _format_values(values: Sequence[float], unit: str) -> str:
    """The median with its unit, and below it the quartiles."""
    median, q1, q3 = (_spread(values)[name] for name in ("median", "q1", "q3"))
    scale = 1.0
    if unit == "s" and median < 1:
        scale, unit = (1e3, "ms") if median >= 1e-3 else (1e6, "µs")
    number, low, high = (
        f"{value * scale:.3g}" if value * scale < 1000 else f"{value * scale:,.0f}" for value in (median, q1, q3)
    )
    return f"{number} {unit}" + (f"\n({low}–{high})" if len(values) > 1 else "")
