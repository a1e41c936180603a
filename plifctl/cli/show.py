"""plifctl show: one entry of the registry, resolved, with where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from plifctl import console
from plifctl.cli import options
from plifctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("show")(show)


def show(
    name: options.Name,
    recipe: options.RecipeOption = "paper",
    overrides: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show an entry of the registry, resolved.

    Of an experiment, a data set or a network: every value, and of experiments where each was written.

    Example: plifctl show gesture-plif --recipe published
    """
    registry = options.registry()
    tree, origins = _resolve(registry, name, recipe, overrides or [])
    if as_json:
        console.emit_json({"spec": tree, "origins": origins})
        return
    rows = [(key, _text(value), _near(origins.get(key, ""))) for key, value in _leaves(tree)]
    console.emit_table(("key", "value", "from"), rows)


def _resolve(registry: Registry, name: str, recipe: str, overrides: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    if name in registry.experiments():
        resolved = registry.experiment(name, recipe=options.recipe(recipe), overrides=overrides)
        origins = {key: str(origin) for key, origin in resolved.origins.items()}
        return {**resolved.spec.model_dump(mode="json"), "digest": resolved.spec.digest}, origins
    if name in registry.datasets():
        dataset, frames = registry.dataset(name, options.recipe(recipe), overrides)
        tree = dataset.model_dump(mode="json")
        return {**tree, "frames": frames.model_dump(mode="json")} if frames else tree, {}
    if name in registry.networks():
        return registry.network(name).model_dump(mode="json"), {}
    known = [*registry.experiments(), *registry.datasets(), *registry.networks()]
    raise UsageError(f"unknown name {name!r}", hint=did_you_mean(name, known))


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _near(origin: str) -> str:
    """The file of an origin as short as it can be."""
    path, *place = origin.split(":")
    try:
        short = Path(path).relative_to(Path.cwd())
    except ValueError:
        short = Path(*Path(path).parts[-3:])
    return ":".join([str(short), *place]) if place else origin
