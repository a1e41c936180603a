"""plifctl ls: experiments, data sets, networks and sweeps of the registry, and trained networks in its zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.config.registry import Registry

_KINDS = ("experiments", "datasets", "networks", "sweeps", "zoo")


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in _KINDS if kind.startswith(incomplete)]


def ls(
    kind: Annotated[
        str,
        typer.Argument(
            help="experiments, datasets, networks, sweeps or zoo (trained networks).", autocompletion=_kinds
        ),
    ] = "experiments",
    as_json: options.JsonOption = False,
) -> None:
    """List experiments, data sets, networks, sweeps or the zoo.

    A and B are the accuracies that the paper reports for an experiment (protocols of train and validate). Eight
    variants of MNIST and N-MNIST are not in the paper; theirs are from the authors' logs. The zoo has small trained
    networks: plifctl predict zoo:NAME FILE.

    Example: plifctl ls datasets
    """
    if kind == "runs":
        raise UsageError("ls runs was replaced", hint="use plifctl runs ls")
    if kind not in _KINDS:
        raise UsageError(f"unknown kind {kind!r}", hint=did_you_mean(kind, _KINDS))
    if kind == "zoo":
        entries = _zoo()
    else:
        readers = {"experiments": _experiments, "datasets": _datasets, "networks": _networks, "sweeps": _sweeps}
        entries = readers[kind](options.registry())
    if as_json:
        console.emit_json(entries)
    else:
        rows = [["" if value is None else value for value in entry.values()] for entry in entries]
        console.emit_table([name.replace("_", " ") for name in entries[0]], rows)


def _experiments(registry: Registry) -> list[dict[str, Any]]:
    entries = []
    for name in registry.experiments():
        spec = registry.experiment(name).spec
        reported = spec.reported
        entries.append(
            {
                "name": name,
                "T": spec.T,
                "A_%": f"{reported.accuracy_a:.2f}" if reported else None,
                "B_%": f"{reported.accuracy_b:.2f}" if reported and reported.accuracy_b else None,
                "reported_in": reported.source if reported else None,
                "title": spec.title,
            }
        )
    return entries


def _datasets(registry: Registry) -> list[dict[str, Any]]:
    entries = []
    for name in registry.datasets():
        spec = registry.dataset(name).dataset
        entries.append(
            {
                "name": name,
                "title": spec.title,
                "kind": spec.kind,
                "shape": "×".join(map(str, spec.shape)),
                "classes": len(spec.classes),
                "train": spec.samples.train if spec.samples else None,
                "test": spec.samples.test if spec.samples else None,
            }
        )
    return entries


def _zoo() -> list[dict[str, Any]]:
    from plifctl.exchange.folder import describe_folder
    from plifctl.exchange.lookup import ZOO, zoo_folders

    return [{"name": f"{ZOO}{name}", **describe_folder(path)} for name, path in zoo_folders().items()]


def _networks(registry: Registry) -> list[dict[str, Any]]:
    return [{"name": name, "structure": registry.network(name).structure} for name in registry.networks()]


def _sweeps(registry: Registry) -> list[dict[str, Any]]:
    from plifctl.sweep.expansion import expand
    from plifctl.sweep.registered import load_sweeps

    sweeps = load_sweeps(registry).items()
    return [{"name": name, "runs": len(expand(sweep)), "title": sweep.title} for name, sweep in sweeps]
