"""plifctl show: every value of an experiment, data set or network, and its origin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.config.choices import EntryKind, Recipe
from plifctl.errors import UsageError
from plifctl.units import format_bytes

if TYPE_CHECKING:
    from plifctl.config.experiment import Experiment, ExperimentSpec
    from plifctl.config.registry import Registry
    from plifctl.config.yaml_tree import Origin


_SETTABLE = ("frames", "split", "network", "neuron", "train", "validation")
"""Sections whose keys are shown even where they have no value: --set takes them."""


def show(
    name: options.Name,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    kind: Annotated[
        EntryKind | None,
        typer.Option("--kind", help="Kind of the entry, where a data set and a network have the same name."),
    ] = None,
    params: Annotated[
        bool,
        typer.Option("--params", help="Show the network of an experiment: layers, shapes, parameters, operations."),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show every value of an experiment, data set or network, and its origin.

    The keys of an experiment are those that --set takes. The source of a value of the recipe paper is the paper's text,
    the authors' code where the text is silent, or a choice of ours; docs/paper-and-code.md has the reasons.

    Example: plifctl show gesture-plif --recipe authors
    """
    registry, texts = options.registry(), overrides or []
    experiment = _find_experiment(registry, name, kind, recipe, texts)
    if params:
        if experiment is None:
            raise _no_layers(registry, name, kind)
        _show_layers(experiment.spec, as_json)
    elif experiment is not None:
        _show_experiment(registry, experiment, as_json)
    else:
        _show_values(*_find_part(registry, name, kind, recipe, texts), {}, as_json)


def _show_experiment(registry: Registry, experiment: Experiment, as_json: bool) -> None:
    """Shows every value; of the recipe ``paper``, whether it is the text's, the authors' or our choice."""
    from plifctl.config.sources import value_sources

    spec = {**experiment.spec.model_dump(mode="json"), "digest": experiment.spec.digest}
    _show_values(spec, _texts(experiment.origins), value_sources(experiment, registry.folders), as_json)


def _show_values(tree: dict[str, Any], origins: Mapping[str, str], sources: Mapping[str, str], as_json: bool) -> None:
    from plifctl.config.base import flatten

    if as_json:
        console.emit_json({"spec": tree, "origins": origins, "sources": sources})
        return
    rows = [
        (key, _format(value), *([sources.get(key, "")] if sources else []), _short_origin(origins.get(key, "")))
        for key, value in flatten(tree).items()
        if value not in (None, False) or key in origins or key.partition(".")[0] in _SETTABLE
    ]
    console.emit_table(("key", "value", *(["source"] if sources else []), "from"), rows)


def _find_experiment(
    registry: Registry, name: str, kind: EntryKind | None, recipe: Recipe | None, overrides: list[str]
) -> Experiment | None:
    from plifctl.config.lookup import file_of, load_experiment

    known = registry.experiments()
    if kind in (None, "experiment") and (name in known or file_of(name, known) is not None):
        return load_experiment(name, overrides, recipe=recipe, registry=registry)
    return None


def _find_part(
    registry: Registry, name: str, kind: EntryKind | None, recipe: Recipe | None, overrides: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the values of a data set or network, and the origin of each."""
    from plifctl.config.registry import unknown_name

    if kind in (None, "dataset") and name in registry.datasets():
        found = registry.dataset(name, recipe or "paper", overrides)
        tree = found.dataset.model_dump(mode="json")
        origins = _texts(registry.dataset_origins(name, recipe or "paper", overrides))
        own = {key.removeprefix("dataset."): origin for key, origin in origins.items()}
        return {**tree, "frames": found.frames.model_dump(mode="json")} if found.frames else tree, own
    if kind in (None, "network") and name in registry.networks():
        if overrides:
            raise UsageError("--set changes experiments and data sets", hint="plifctl show EXPERIMENT --set …")
        return registry.network(name).model_dump(mode="json"), _texts(registry.network_origins(name))
    names = {"experiment": registry.experiments(), "dataset": registry.datasets(), "network": registry.networks()}
    known = names[kind] if kind is not None else [name for some in names.values() for name in some]
    raise unknown_name(kind or "name", name, known)


def _texts(origins: Mapping[str, Origin]) -> dict[str, str]:
    return {key: str(origin) for key, origin in origins.items()}


def _no_layers(registry: Registry, name: str, kind: EntryKind | None) -> UsageError:
    """Returns the error of ``--params`` without an experiment: a network has no input, classes or neuron."""
    from plifctl.config.registry import unknown_name

    if kind != "experiment" and (name in registry.networks() or name in registry.datasets()):
        specs = [registry.experiment(other).spec for other in registry.experiments()]
        using = [spec.name for spec in specs if name in (spec.network.name, spec.dataset.name)]
        if using:
            hint = f"plifctl show {using[0]} --params"
        elif name in registry.networks():
            hint = f"plifctl show EXPERIMENT --params --set network={name}"
        else:
            hint = f"no experiment has it; write one: a YAML file with like: NAME, dataset: {name}, and a network"
        return UsageError(
            f"--params needs an experiment, which defines input, classes and neuron; {name} is a network or data set",
            hint=hint,
        )
    return unknown_name("experiment", name, registry.experiments())


def _show_layers(spec: ExperimentSpec, as_json: bool) -> None:
    from dataclasses import asdict

    from plifctl.evaluation.summary import summarize_experiment, total_operations

    shape = spec.framing.shape
    layers = summarize_experiment(spec)
    parameters = sum(layer.parameters for layer in layers)
    operations = total_operations(layers)
    if as_json:
        console.emit_json(
            {
                "experiment": spec.name,
                "recipe": spec.recipe,
                "network": spec.network.name,
                "T": spec.T,
                "input": list(shape),
                "layers": [asdict(layer) for layer in layers],
                "parameters": parameters,
                "operations": {
                    kind: {"per_step": step, "per_sample": sample} for kind, (step, sample) in operations.items()
                },
            }
        )
        return
    size = "×".join(map(str, shape))
    console.emit(f"{spec.name} ({spec.recipe} recipe): network {spec.network.name}, input {size}, T = {spec.T}\n")
    rows = [
        (
            layer.name,
            layer.description,
            "×".join(map(str, layer.shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.operations:,}" if layer.operations else "",
            layer.kind if layer.operations else "",
            layer.runs,
        )
        for layer in layers
    ]
    columns = ("layer", "description", "output", "parameters", "operations", "kind", "steps")
    console.emit_table(columns, rows, title="One sample, one time step")
    console.emit(f"\n{parameters:,} parameters, {format_bytes(4 * parameters)} as float32\n")
    sums = [(kind, f"{step:,}", f"{sample:,}") for kind, (step, sample) in operations.items()]
    console.emit_table(("operations", "per step", f"per sample (T = {spec.T})"), sums)
    console.emit("\nMACs are dense: zeros count. Spikes are sparse; plifctl eval shows how sparse.")
    if spec.dataset.kind == "images":
        console.emit("An image is the same at each step: layers before the first neuron run once per sample.")


def _format(value: Any) -> str:
    """Returns a value as written in YAML, e.g. ``{name: drop-events, p: 0.1}``."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_format, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_format(part)}" for key, part in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short_origin(origin: str) -> str:
    """Returns an origin without the path of its registry folder: ``experiments/nmnist.yaml:30:3``."""
    path, *place = origin.split(":")
    return ":".join(["/".join(Path(path).parts[-2:]), *place]) if place else origin
