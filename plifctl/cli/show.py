"""plifctl show: one entry of the registry, resolved, with where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plifctl import console
from plifctl.cli import options
from plifctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.registry import Registry
    from plifctl.specs import Recipe


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("show")(show)


def show(
    name: options.Name,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    kind: Annotated[
        Literal["experiment", "dataset", "network"] | None,
        typer.Option("--kind", help="Which, where a data set and a network have one name."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show an entry of the registry, resolved.

    Of an experiment, a data set or a network: every value, and of experiments where each was written.

    Example: plifctl show gesture-plif --recipe published
    """
    from plifctl.specs import flattened

    registry = options.registry()
    tree, origins = _resolve(registry, name, kind, recipe or "paper", overrides or [])
    if as_json:
        console.emit_json({"spec": tree, "origins": origins})
        return
    rows = [(key, _text(value), _near(origins.get(key, ""))) for key, value in flattened(tree).items()]
    console.emit_table(("key", "value", "from"), rows)


def _resolve(
    registry: Registry, name: str, kind: str | None, recipe: Recipe, overrides: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
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
    raise UsageError(f"unknown {kind or 'name'} {name!r}", hint=did_you_mean(name, known))


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
