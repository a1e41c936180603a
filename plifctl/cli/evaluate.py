"""plifctl eval: what a trained network does on the test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plifctl import console, paths
from plifctl.cli import models, options

if TYPE_CHECKING:
    from plifctl.evaluation import Evaluation


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("eval")(evaluate)


def evaluate(
    run: options.RunName,
    checkpoint: models.CheckpointOption = "best",
    fold_bn: models.FoldOption = False,
    kernel: options.KernelOption = "auto",
    device: options.DeviceOption = None,
    data_in: Annotated[
        Literal["device", "memory", "disk"],
        typer.Option("--data-in", help="Where samples are held; each is needed once, so by default on disk."),
    ] = "disk",
    cache_dir: options.CacheDirOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Test a run, a checkpoint or an exported file.

    Shows accuracy, also per class, the confusion matrix, and firing rate and τ of each layer.

    Example: plifctl eval last
    """
    from plifctl.cache import find_cache, recipe_of
    from plifctl.cli.job import check_frames, choose_device
    from plifctl.evaluation import evaluate as evaluate_model
    from plifctl.splits import split_a
    from plifctl.training.data import Feeder
    from plifctl.training.memory import keep_freed_memory
    from plifctl.training.optimise import autocast
    from plifctl.training.samples import choose_place

    target = choose_device(device)
    if target.type == "cpu":
        keep_freed_memory()
    trained = models.load_trained(models.checkpoint_of(run, checkpoint, runs_dir), target, fold=fold_bn, kernel=kernel)
    spec, state, model = trained.spec, trained.state, trained.model
    prepare = options.prepare_command_of(spec, cache_dir=cache_dir)
    wanted = recipe_of(spec.dataset, spec.T, spec.frames)
    cache = find_cache(wanted, cache_dir or paths.cache_dir(), prepare=prepare, content=state["cache"])
    if cache.content_digest != state["cache"]:
        console.warn(f"trained on a cache of content {state['cache'][:12]}; testing on {cache.content_digest[:12]}")
    check_frames(cache, spec)
    for text in cache.notes:
        console.warn(text)
    place, why = choose_place(cache.nbytes, target, data_in)
    console.note(why)
    feeder = Feeder(cache, spec, target, data_in=place)
    rows = split_a(cache.labels, cache.is_test, spec.train.subset, spec.dataset.classes).test
    steps = -(-len(rows) // spec.train.batch_size)
    with console.bar(f"testing {spec.title}", "batches") as bar:

        def watched() -> Any:
            for step, batch in enumerate(feeder.plain(rows), 1):
                yield batch.x, batch.labels
                bar.update(step, steps)

        with autocast(spec.train, target):
            found = evaluate_model(model, watched(), spec.T)
    tree = _tree(found, trained, dict(zip(model.spiking_layers(), model.taus(), strict=True)))
    if as_json:
        console.emit_json(tree)
    else:
        _print(tree)


def _tree(found: Evaluation, trained: models.Trained, tau: dict[str, float]) -> dict[str, Any]:
    spec = trained.spec
    confusion = found.confusion(len(spec.dataset.classes))
    samples = confusion.sum(1)
    return {
        "experiment": spec.name,
        "recipe": spec.recipe,
        "checkpoint": str(trained.path),
        "folded": trained.folded,
        "T": spec.T,
        "samples": len(found.labels),
        "accuracy": found.accuracy,
        "classes": [
            {"name": name, "samples": int(n), "accuracy": int(confusion[i, i]) / int(n) if n else None}
            for i, (name, n) in enumerate(zip(spec.dataset.classes, samples, strict=True))
        ],
        "confusion": confusion.tolist(),
        "layers": [{"name": name, "tau": tau[name], "firing_rate": rate} for name, rate in found.firing_rate.items()],
    }


def _print(tree: dict[str, Any]) -> None:
    console.emit(f"{tree['experiment']} ({tree['recipe']} recipe), T = {tree['T']}, {tree['checkpoint']}")
    console.emit(f"test accuracy: {100 * tree['accuracy']:.2f} % of {tree['samples']} samples\n")
    numbers = [str(index) for index in range(len(tree["classes"]))]
    rows = [
        (
            index,
            entry["name"],
            entry["samples"],
            "" if entry["accuracy"] is None else f"{100 * entry['accuracy']:.2f}",
            *counts,
        )
        for index, (entry, counts) in enumerate(zip(tree["classes"], _blank(tree["confusion"]), strict=True))
    ]
    console.emit_table(
        ("", "class", "samples", "accuracy %", *numbers), rows, title="Right class in rows, answers in columns"
    )
    console.emit("")
    layers = [(entry["name"], f"{entry['tau']:.3f}", f"{entry['firing_rate']:.4f}") for entry in tree["layers"]]
    console.emit_table(("layer", "τ (steps)", "firing rate (spikes per neuron and step)"), layers)


def _blank(confusion: list[list[int]]) -> list[list[object]]:
    """Zeros shown as dots, so that the mistakes stand out."""
    return [["·" if count == 0 else count for count in row] for row in confusion]
