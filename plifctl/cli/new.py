"""plifctl new: write an experiment of one's own as a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options
from plifctl.errors import UsageError


def new(
    file: Annotated[Path, typer.Argument(parser=options.path, help="The file to write, e.g. mine.yaml.")],
    like: Annotated[
        str,
        typer.Option(
            "--like",
            help="Experiment to begin with: a name (plifctl ls lists them), a YAML file, a run, or an exported folder.",
            autocompletion=lambda incomplete: [*options.experiments(incomplete), *options.runs(incomplete)],
        ),
    ],
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write an experiment of your own: one file with every value, data set and network included.

    The experiment has the name of the file. Change the file, then train it.

    Example: plifctl new mine.yaml --like gesture-plif
    """
    from plifctl.pipeline.new import write_experiment

    if file.suffix not in (".yaml", ".yml"):
        hint = f"plifctl new {shlex.quote(f'{file}.yaml')} --like {shlex.quote(like)}"
        raise UsageError(f"{file}: an experiment is a .yaml file", hint=hint)
    experiment = write_experiment(file, like, tuple(overrides or ()), recipe=recipe, runs_dir=runs_dir)
    if as_json:
        console.emit_json({"file": str(file), "experiment": experiment.spec.name, "digest": experiment.spec.digest})
        return
    console.emit(f"written: {file}")
    quoted = shlex.quote(str(file))
    console.emit(f"next: change it, then plifctl check {quoted}; plifctl train {quoted}")
