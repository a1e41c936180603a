"""Compares runs: their settings, accuracy and τ by epoch; implements ``plifctl runs compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plifctl import paths
from plifctl.config.base import flatten
from plifctl.config.lookup import load_registry
from plifctl.errors import UsageError
from plifctl.runs import Curve, RegisteredExperiments, Run, find_curves


def compare_runs(names: Sequence[str], runs_dir: Path | None = None) -> dict[str, Any]:
    """Returns the settings in which runs differ, and accuracy and τ of each at the same epochs.

    The accuracy is the one by which a run selects its model: on validation samples where there are any, else on test
    samples. ``accuracy_of`` has the samples of each run, ``validation`` or ``test``.

    Args:
        names: Runs, imported runs, or records of the registry.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: No such run, or fewer than two different ones.
    """
    folder, registry = runs_dir or paths.runs_dir(), load_registry()
    found = find_curves(names, folder, registry.folders)
    curves = list({curve.identity: curve for curve in found}.values())
    names = [curve.name for curve in curves]
    if len(curves) < 2:
        raise UsageError(
            "found one run, expected two or more to compare",
            hint="plifctl runs ls lists all runs; shipped:NAME is the record of that name that comes with plifctl",
        )
    kinds = ["validation" if "validation_accuracy" in curve.series else "test" for curve in curves]
    accuracies = [_accuracy(curve, kind) for curve, kind in zip(curves, kinds, strict=True)]
    taus = [_tau(curve) for curve in curves]
    epochs = [
        {
            "epoch": epoch,
            "accuracy": [values.get(epoch) for values in accuracies],
            "tau": [[values.get(epoch) for values in layers] for layers in taus],
        }
        for epoch in sorted(set().union(*(curve.epochs for curve in curves)))
    ]
    layers = max((curve.layers for curve in curves), key=len)
    return {
        "runs": [_place(curve) if names.count(curve.name) > 1 else curve.name for curve in curves],
        "settings": _differences(curves, RegisteredExperiments(registry)),
        "layers": list(layers),
        "accuracy_of": kinds,
        "epochs": epochs,
    }


def _accuracy(curve: Curve, kind: str) -> dict[int, float | None]:
    return dict(zip(curve.epochs, curve.series.get(f"{kind}_accuracy", ()), strict=False))


def _tau(curve: Curve) -> list[dict[int, float | None]]:
    return [dict(zip(curve.epochs, values, strict=True)) for values in curve.tau]


def _differences(curves: Sequence[Curve], experiments: RegisteredExperiments) -> dict[str, list[Any]]:
    """The settings in which runs differ, data and machine included, with the value in each run."""
    others = any(curve.folder is None for curve in curves)  # what is known of those is compared with the same of all
    alike = len({curve.digest for curve in curves}) == 1 and curves[0].digest is not None
    settings = []
    for curve in curves:
        known: dict[str, Any] = {
            name: getattr(curve, name) for name in ("origin", "experiment", "recipe", "protocol", "T")
        }
        known["train.seed"] = curve.seed
        known |= _recorded_settings(curve, experiments) if others else {}
        if alike:  # one states in a file what another states by an option
            known.pop("changes", None)
        settings.append(known | (_own_settings(curve) if curve.folder is not None else {}))
    keys = {key: None for setting in settings for key in setting if key != "name"}
    values = {key: [setting.get(key) for setting in settings] for key in keys}
    # an unknown value is not a difference
    return {key: found for key, found in values.items() if len({repr(v) for v in found if v is not None}) > 1}


def _place(curve: Curve) -> str:
    """Returns what tells a run from others of its name."""
    return str(curve.folder) if curve.folder is not None else f"{curve.origin}:{curve.name}"


def _own_settings(curve: Curve) -> dict[str, Any]:
    """All settings of a run that was trained here, with its data and its machine."""
    assert curve.spec is not None
    assert curve.folder is not None
    run, spec = Run(curve.folder), curve.spec
    about = {"cache": run.content_digest[:12], "environment": _environment(run)}
    return {"train.epochs": spec.train.epochs, **flatten(spec.identity()), **flatten(about)}


def _recorded_settings(curve: Curve, experiments: RegisteredExperiments) -> dict[str, Any]:
    """What is known of any run, one of which only a record or a log is left included; None: unknown."""
    if curve.origin == "imported":
        return {"epochs": curve.epochs[-1]}
    return {
        "epochs": curve.epochs[-1] if curve.epochs else 0,
        "changes": ", ".join(sorted(experiments.changes(curve))) or "none",
        "fold": curve.fold and curve.fold.text,
        "part of the samples": "yes" if curve.subset else "no",
        "experiment digest": curve.digest and curve.digest[:12],
        "cache": curve.cache and curve.cache[:12],
        "training_version": ", ".join(map(str, curve.training_versions)) or None,
    }


def _environment(run: Run) -> dict[str, str]:
    """Versions and machine of a run; where its processes differ, the values of all of them."""
    sessions = run.sessions()
    if not sessions:
        return run.environment()
    found = [{"training_version": s.training_version, "host": s.host, **s.environment} for s in sessions]
    keys = dict.fromkeys(key for values in found for key in values if key != "kernel_choice")  # times always differ
    return {key: ", then ".join(dict.fromkeys(str(v[key]) for v in found if key in v)) for key in keys}
