"""plifctl eval: what a trained network does on the test set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plifctl import paths
from plifctl.cli import console, models, options
from plifctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from plifctl.cache import Cache
    from plifctl.evaluation.accuracy import Evaluation, Latency
    from plifctl.evaluation.operations import Operations
    from plifctl.training.batches import BatchLoader

_MOST_STEPS = 20


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("eval")(evaluate)


def evaluate(
    run: options.RunName,
    checkpoint: models.CheckpointOption = "best",
    fold_bn: models.FoldOption = False,
    kernel: options.KernelOption = "auto",
    operations: Annotated[
        int, typer.Option("--operations", min=0, help="Count operations on so many test samples; 0: do not.")
    ] = 20,
    record_spikes: Annotated[
        int | None,
        typer.Option(
            "--record-spikes", min=1, help="Keep the spikes of so many test samples, spread over the classes."
        ),
    ] = None,
    sample: Annotated[
        list[str] | None, typer.Option("--sample", help="Keep the spikes of this sample, by its id; may be repeated.")
    ] = None,
    record_layers: Annotated[
        Literal["first", "all"], typer.Option("--record-layers", help="Whose spikes are kept.")
    ] = "first",
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

    Shows accuracy, also per class and if the network stopped after fewer steps, how soon answers are right, the
    confusion matrix, firing rate and τ of each layer, operations, and an estimate of their energy. Spikes that are kept
    lie in the run; report --figure S2 to S5 draws them.

    Example: plifctl eval last --record-spikes 10
    """
    from plifctl.cache import find_cache, raw_independent_key
    from plifctl.cli.job import check_frames, choose_device
    from plifctl.evaluation.accuracy import evaluate as evaluate_model
    from plifctl.evaluation.operations import count_operations
    from plifctl.training.batches import BatchLoader
    from plifctl.training.memory import keep_freed_memory
    from plifctl.training.optimizer import autocast
    from plifctl.training.sample_store import choose_place
    from plifctl.training.splits import split_a

    target = choose_device(device, kernel)
    if target.type == "cpu":
        keep_freed_memory()
    path = models.checkpoint_of(run, checkpoint, runs_dir)
    recording = record_spikes is not None or bool(sample)
    if recording and not (path.parent.parent / "config.yaml").is_file():
        raise UsageError(f"{path}: lies in no run, so that spikes have no place", hint="plifctl eval RUN, a run's name")
    trained = models.load_trained(path, target, fold=fold_bn, kernel=kernel)
    spec, state, model = trained.spec, trained.state, trained.model
    prepare = options.prepare_command_of(spec, cache_dir=cache_dir)
    wanted = raw_independent_key(spec.dataset, spec.T, spec.frames)
    cache = find_cache(wanted, cache_dir or paths.cache_dir(), prepare=prepare, content=state["cache"])
    if cache.content_digest != state["cache"]:
        console.warn(f"trained on a cache of content {state['cache'][:12]}; testing on {cache.content_digest[:12]}")
    check_frames(cache, spec)
    for text in cache.notes:
        console.warn(text)
    place, why = choose_place(cache.nbytes, target, data_in)
    console.note(why)
    feeder = BatchLoader(cache, spec, target, data_in=place)
    rows = split_a(cache.labels, cache.is_test, spec.train.subset, spec.dataset.classes).test
    chosen = _rows(cache, rows, record_spikes, sample or ()) if recording else None
    steps = -(-len(rows) // spec.train.batch_size)
    with console.bar(f"testing {spec.title}", "batches") as bar:

        def watched() -> Any:
            for step, batch in enumerate(feeder.plain(rows), 1):
                yield batch.x, batch.labels
                bar.update(step, steps)

        with autocast(spec.train, target):
            found = evaluate_model(model, watched(), spec.T, over_time=True)
    counted = None
    if operations:
        some = _spread(rows, operations)
        counted = count_operations(model, _few(feeder, some), spec.T)
    tree = _tree(found, trained, dict(zip(model.spiking_layers(), model.taus(), strict=True)), counted)
    if chosen is not None:
        tree["spikes"] = _record(trained, feeder, cache, chosen, record_layers)
    if as_json:
        console.emit_json(tree)
    else:
        _print(tree)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Of some rows ``count``, or all, at equal distances."""
    import numpy as np

    spread: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    return spread


def _few(feeder: BatchLoader, rows: np.ndarray) -> Iterator[Tensor]:
    """Inputs of samples, two at a time: whole spikes of all steps are in memory at once."""
    for batch in feeder.plain(rows):
        for at in range(0, len(batch.x), 2):
            yield batch.x[at : at + 2]


def _rows(cache: Cache, rows: np.ndarray, count: int | None, samples: Sequence[str]) -> np.ndarray:
    """Rows of the test set: the samples that are named, else ``count`` of them, class after class.

    Raises:
        UsageError: There is no such sample.
    """
    import numpy as np

    if samples:
        known = {name: row for row, name in enumerate(cache.sample_ids)}
        for name in samples:
            if name not in known:
                raise UsageError(f"no sample {name!r}", hint=did_you_mean(name, known))
        return np.array([known[name] for name in samples])
    labels = cache.labels[rows]
    # the first of each class, then the second of each, and so on
    turn = np.array([int((labels[:index] == label).sum()) for index, label in enumerate(labels)])
    return rows[np.lexsort((labels, turn))[:count]]


def _record(
    trained: models.Trained, feeder: BatchLoader, cache: Cache, rows: np.ndarray, which: Literal["first", "all"]
) -> dict[str, Any]:
    """Writes the spikes of some samples into the run, and says what was written."""
    from plifctl.evaluation.accuracy import record_spikes
    from plifctl.runs import SpikeRecording, save_spikes

    spec, model = trained.spec, trained.model
    layers = list(model.spiking_layers())
    kept = layers[:1] if which == "first" else layers
    votes, spikes = record_spikes(model, _few(feeder, rows), spec.T, kept)
    inputs = cache.read(rows)
    path = trained.path.parent.parent / "spikes.npz"
    recording = SpikeRecording(
        tuple(cache.sample_ids[row] for row in rows),
        cache.labels[rows],
        tuple(spec.dataset.classes),
        inputs[:, None] if inputs.ndim == 4 else inputs,
        votes,
        spikes,
    )
    save_spikes(path, recording)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "samples": list(recording.sample_ids),
        "layers": list(spikes),
    }


def _tree(
    found: Evaluation, trained: models.Trained, tau: dict[str, float], counted: Operations | None
) -> dict[str, Any]:
    spec = trained.spec
    confusion = found.confusion(len(spec.dataset.classes))
    samples = confusion.sum(1)
    assert found.over_time is not None
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
        "accuracy_after_steps": (found.over_time == found.labels).mean(1).tolist(),
        "latency": _latency(found.latency()),
        "operations": None if counted is None else _operations(counted),
    }


def _latency(latency: Latency) -> dict[str, Any]:
    import numpy as np

    def of(steps: np.ndarray) -> dict[str, float] | None:
        if not len(steps):
            return None
        quantiles = {f"p{share}": float(np.percentile(steps, share)) for share in (50, 90, 99)}
        return {"mean": float(steps.mean()), **quantiles}

    return {
        "first_right": of(latency.first),
        "right_from": of(latency.settled),
        "never_right": latency.never,
        "wrong_at_the_end": latency.wrong,
    }


def _operations(counted: Operations) -> dict[str, Any]:
    from plifctl.evaluation.operations import PICOJOULES

    names = ("dense", "effective_macs", "effective_acs", "updates")
    return {
        "samples": counted.samples,
        "layers": [{"name": layer.name, **{name: getattr(layer, name) for name in names}} for layer in counted.layers],
        "total": {name: counted.total(name) for name in names},
        "energy_estimate_joule": counted.energy,
        "dense_energy_estimate_joule": counted.dense_energy,
        "assumptions": f"{PICOJOULES['MAC']} pJ a MAC, {PICOJOULES['AC']} pJ an AC (32-bit floating point, 45 nm CMOS, "
        "Horowitz 2014); effective operations of synapses only, neither neurons nor memory",
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
    _print_over_time(tree)
    if tree["operations"] is not None:
        _print_operations(tree["operations"])
    if (spikes := tree.get("spikes")) is not None:
        console.emit(
            f"\nspikes of {len(spikes['samples'])} samples in {', '.join(spikes['layers'])}: {spikes['path']} "
            f"({spikes['bytes'] / 1e6:.1f} MB)"
        )


def _print_over_time(tree: dict[str, Any]) -> None:
    accuracies = tree["accuracy_after_steps"]
    shown = sorted({*range(1, len(accuracies) + 1, -(-len(accuracies) // _MOST_STEPS)), len(accuracies)})
    console.emit("")
    rows = [(t, f"{100 * accuracies[t - 1]:.2f}") for t in shown]
    console.emit("If the network stopped after fewer steps:")
    console.emit_table(("steps", "accuracy %"), rows)
    latencies = []
    for name, key, rest, count in (
        ("first right answer", "first_right", "never right", "never_right"),
        ("right from there on", "right_from", "wrong at the end", "wrong_at_the_end"),
    ):
        found = tree["latency"][key]
        values = ["", "", "", ""] if found is None else [f"{found[n]:.2f}" for n in ("mean", "p50", "p90", "p99")]
        latencies.append((name, *values, f"{tree['latency'][count]} {rest}"))
    console.emit("")
    console.emit_table(("steps until", "mean", "median", "90 %", "99 %", "other samples"), latencies)


def _print_operations(tree: dict[str, Any]) -> None:
    names = ("dense", "effective_macs", "effective_acs", "updates")
    rows = [(layer["name"], *(_count(layer[name]) for name in names)) for layer in tree["layers"]]
    rows.append(("total", *(_count(tree["total"][name]) for name in names)))
    console.emit("")
    console.emit_table(
        ("layer", "dense MACs", "effective MACs", "effective ACs", "membrane updates"),
        rows,
        title=f"Operations a sample, mean of {tree['samples']}",
    )
    used, dense = tree["energy_estimate_joule"], tree["dense_energy_estimate_joule"]
    console.emit(
        f"energy, an estimate: {1e6 * used:.3g} µJ a sample; if all products were calculated {1e6 * dense:.3g} µJ"
    )
    console.emit(f"assumed: {tree['assumptions']}")


def _count(value: float) -> str:
    return f"{value:,.0f}" if value else ""


def _blank(confusion: list[list[int]]) -> list[list[object]]:
    """Zeros shown as dots, so that the mistakes stand out."""
    return [["·" if count == 0 else count for count in row] for row in confusion]
