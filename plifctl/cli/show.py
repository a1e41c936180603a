"""plifctl show: one entry of the registry, resolved, with where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.config.choices import EntryKind, Recipe
from plifctl.errors import UsageError

if TYPE_CHECKING:
    from plifctl.config.experiment import ExperimentSpec
    from plifctl.config.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("show")(show)


def show(
    name: options.Name,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    kind: Annotated[
        EntryKind | None,
        typer.Option("--kind", help="Which, where a data set and a network have one name."),
    ] = None,
    params: Annotated[
        bool,
        typer.Option("--params", help="Of an experiment: its network's layers, shapes, parameters and operations."),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show an entry of the registry, resolved.

    Of an experiment, a data set or a network: every value, and of experiments where each was written.

    Example: plifctl show gesture-plif --recipe authors
    """
    from plifctl.config.base import flatten

    registry = options.registry()
    if params:
        _show_layers(_experiment(registry, name, kind, recipe or "paper", overrides or []), as_json)
        return
    tree, origins = _resolve(registry, name, kind, recipe or "paper", overrides or [])
    if as_json:
        console.emit_json({"spec": tree, "origins": origins})
        return
    rows = [(key, _text(value), _near(origins.get(key, ""))) for key, value in flatten(tree).items()]
    console.emit_table(("key", "value", "from"), rows)


def _experiment(
    registry: Registry, name: str, kind: str | None, recipe: Recipe, overrides: list[str]
) -> ExperimentSpec:
    """The experiment whose layers are asked for: of a network alone neither input, classes nor neuron are known."""
    from plifctl.config.registry import unknown_name

    if kind in (None, "experiment") and name in registry.experiments():
        return registry.experiment(name, recipe=recipe, overrides=overrides).spec
    if kind != "experiment" and (name in registry.networks() or name in registry.datasets()):
        specs = [registry.experiment(other).spec for other in registry.experiments()]
        using = [spec.name for spec in specs if name in (spec.network.name, spec.dataset.name)]
        raise UsageError(
            f"--params needs an experiment, which gives a network its input, classes and neuron; {name} is none",
            hint=f"plifctl show {using[0]} --params"
            if using
            else f"plifctl show EXPERIMENT --params --set network={name}",
        )
    raise unknown_name("experiment", name, registry.experiments())


def _show_layers(spec: ExperimentSpec, as_json: bool) -> None:
    from dataclasses import asdict

    from plifctl.config.dataset import frame_shape
    from plifctl.evaluation.summary import summarize_network, total_operations

    shape = frame_shape(spec.dataset, spec.frames)
    static = spec.dataset.kind == "images"
    layers = summarize_network(spec.network, spec.neuron, shape, len(spec.dataset.classes), spec.T, static=static)
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
            layer.what,
            "×".join(map(str, layer.shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.operations:,}" if layer.operations else "",
            layer.kind if layer.operations else "",
            layer.runs,
        )
        for layer in layers
    ]
    columns = ("layer", "is", "output", "parameters", "operations", "of", "steps")
    console.emit_table(columns, rows, title="Of one sample, at one step")
    console.emit(f"\n{parameters:,} parameters, {4 * parameters / 1e6:,.2f} MB as float32\n")
    sums = [(kind, f"{step:,}", f"{sample:,}") for kind, (step, sample) in operations.items()]
    console.emit_table(("operations", "a step", f"a sample (T = {spec.T})"), sums)
    console.emit("\nMACs are dense: zeros are multiplied, too. Spikes are sparse: plifctl eval shows how sparse.")
    if static:
        console.emit("An image is the same at each step: layers before the first neuron run once a sample.")


def _resolve(
    registry: Registry, name: str, kind: str | None, recipe: Recipe, overrides: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    from plifctl.config.registry import unknown_name

    if kind in (None, "experiment") and name in registry.experiments():
        resolved = registry.experiment(name, recipe=recipe, overrides=overrides)
        origins = {key: str(origin) for key, origin in resolved.origins.items()}
        return {**resolved.spec.model_dump(mode="json"), "digest": resolved.spec.digest}, origins
    if kind in (None, "dataset") and name in registry.datasets():
        found = registry.dataset(name, recipe, overrides)
        tree = found.dataset.model_dump(mode="json")
        return {**tree, "frames": found.frames.model_dump(mode="json")} if found.frames else tree, {}
    if kind in (None, "network") and name in registry.networks():
        if overrides:
            raise UsageError("--set changes experiments and data sets", hint="plifctl show EXPERIMENT --set …")
        return registry.network(name).model_dump(mode="json"), {}
    names = {"experiment": registry.experiments(), "dataset": registry.datasets(), "network": registry.networks()}
    known = names[kind] if kind is not None else [name for some in names.values() for name in some]
    raise unknown_name(kind or "name", name, known)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):  # as a file has it: {name: drop-events, p: 0.1}
        return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _near(origin: str) -> str:
    """An origin without the way to its registry folder: ``experiments/nmnist.yaml:30:3``."""
    path, *place = origin.split(":")
    return ":".join(["/".join(Path(path).parts[-2:]), *place]) if place else origin
