"""plifctl eval: tests a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.config.choices import DataPlacement, RecordedLayers, TimeControl
from plifctl.errors import UsageError, list_names
from plifctl.units import format_bytes

if TYPE_CHECKING:
    from plifctl.evaluation.latency import Latency
    from plifctl.evaluation.layer_times import LayerTimes
    from plifctl.evaluation.operations import Operations
    from plifctl.pipeline.evaluate import EvaluationResult, KeptComparison

_MAX_STEPS_SHOWN = 20


StepsOption = Annotated[
    int | None,
    typer.Option("--T", help="Number of time steps (default: that of the training); needs a cache of that T."),
]
TimeOption = Annotated[
    TimeControl | None,
    typer.Option(
        "--time",
        help="Control: test also with each sample's frames in random order, backwards, in a random order for each "
        "pixel, or all replaced by their mean.",
    ),
]
TauOption = Annotated[
    str | None,
    typer.Option(
        "--tau",
        metavar="[mean|no-leak|no-memory|STEPS]",
        help="Control: test also with the mean of the learnt τ in every layer, with neurons that do not leak, or that "
        "forget each step, or with this τ.",
    ),
]
ControlsOption = Annotated[
    bool,
    typer.Option("--controls", help="Test also under every named control, one after the other; shows accuracies only."),
]
OperationsOption = Annotated[
    int, typer.Option("--operations", min=0, help="Number of test samples to count operations on; 0: do not count.")
]
LayerTimesOption = Annotated[
    float,
    typer.Option(
        "--layer-times", min=0, help="Seconds to measure the time of each layer for, on a CPU; 0: do not measure."
    ),
]
RecordSpikesOption = Annotated[
    int | None,
    typer.Option("--record-spikes", min=1, help="Record the spikes of N test samples, spread over the classes."),
]
SampleOption = Annotated[
    list[str] | None, typer.Option("--sample", help="Record the spikes of this sample (id); can be repeated.")
]
RecordLayersOption = Annotated[RecordedLayers, typer.Option("--record-layers", help="Layers to record.")]
CsvOption = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        parser=options.path,
        help="Write id, true class, predicted class and votes of each test sample; - prints them to stdout.",
    ),
]
DataInOption = Annotated[
    DataPlacement,
    typer.Option("--data-in", help="Where samples are held; each is read once, so the default is disk."),
]


def evaluate(
    run: options.RunName,
    checkpoint: options.CheckpointOption = "best",
    T: StepsOption = None,
    time: TimeOption = None,
    tau: TauOption = None,
    controls: ControlsOption = False,
    fold_bn: options.FoldOption = False,
    kernel: options.KernelOption = "auto",
    operations: OperationsOption = 20,
    layer_times: LayerTimesOption = 5.0,
    record_spikes: RecordSpikesOption = None,
    sample: SampleOption = None,
    record_layers: RecordLayersOption = "first",
    csv: CsvOption = None,
    device: options.DeviceOption = None,
    data_in: DataInOption = "disk",
    cache_dir: options.CacheDirOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Test a run, a checkpoint, or an exported file or folder.

    Shows accuracy, also by class and by time step, how soon predictions are correct, the confusion matrix, firing rate
    and τ of each layer, operations and an estimate of their energy, and on a CPU the measured time of each layer, dense
    and event-driven. Recorded spikes are kept in the run; report --figure S2 to S5 draws them.

    A run and an exported folder keep the prediction for each test sample: eval says whether they are reproduced. Of a
    folder, the exit code is 1 if they are not.

    --time and --tau are controls. They show what accuracy is left when the order of the frames, or the learnt time
    constants, are taken away, beside the accuracy of the unchanged network on the same samples. The times of the layers
    are then not measured. A finished run keeps these accuracies of its best checkpoint: runs show lists them, and
    report --table claims counts them.

    Example: plifctl eval last --record-spikes 10
    """
    from plifctl.training.process import prepare_process

    prepare_process()  # before the imports below import torch
    to_stdout = options.is_stdout(csv, as_json=as_json)
    if controls and to_stdout:
        raise UsageError("--controls shows accuracies only, --csv predictions", hint="omit one of them")
    if record_layers != "first" and not (record_spikes or sample):
        raise UsageError("--record-layers chooses the layers of --record-spikes", hint="--record-spikes 10")

    from plifctl.pipeline.evaluate import EvaluateOptions
    from plifctl.pipeline.evaluate import evaluate as evaluate_model

    result = evaluate_model(
        EvaluateOptions(
            run,
            checkpoint=checkpoint,
            T=T,
            time=time,
            tau=tau,
            controls=controls,
            fold_bn=fold_bn,
            kernel=kernel,
            operations=operations,
            layer_times=layer_times,
            record_spikes=record_spikes,
            samples=tuple(sample or ()),
            record_layers=record_layers,
            device=device,
            csv=None if to_stdout else csv,
            data_in=data_in,
            cache_dir=cache_dir,
            runs_dir=options.existing_runs_dir(runs_dir),
        ),
        console.bar,
    )
    if to_stdout:
        console.emit(result.to_csv().removesuffix("\n"))
    elif as_json:
        console.emit_json(result.to_json())
    else:
        _print(result)
    if Path(result.checkpoint).is_dir() and not (result.unchanged or result).reproduced:
        raise typer.Exit(1)


def _print(result: EvaluationResult) -> None:
    other = f" (trained with T = {result.trained_steps})" if result.trained_steps != result.T else ""
    after = f" ({result.saved_after})" if result.saved_after else ""
    console.emit(f"{result.experiment} ({result.recipe} recipe), T = {result.T}{other}, {result.checkpoint}{after}")
    unchanged = result.unchanged
    if unchanged is not None:
        _print_control(result, unchanged)
        _print_kept_in(result.kept_in)
    else:
        console.emit(f"test accuracy: {console.percent(result.accuracy)} % of {result.samples} samples")
    ordinary = unchanged or result
    if (kept := ordinary.kept_predictions) is not None:
        console.emit(f"{'' if unchanged is None else 'unchanged: '}{_describe_kept(kept, ordinary)}")
    if result.controls:
        print_controls([one.describe() for one in result.controls])
        _print_kept_in(result.kept_in)
        return
    _print_classes(result)
    _print_layers(result)
    _print_over_time(result)
    _print_latency(result.latency)
    if result.operations is not None:
        _print_operations(result.operations)
    if result.layer_times is not None:
        _print_layer_times(result.layer_times)
    if (spikes := result.spikes) is not None:
        console.emit(
            f"\nspikes of {len(spikes.samples)} samples in {', '.join(spikes.layers)}: {spikes.path} "
            f"({format_bytes(spikes.bytes)})"
        )


def print_controls(found: Sequence[dict[str, Any]]) -> None:
    """Prints tests under controls, as :meth:`plifctl.runs.ControlResult.describe` gives them."""
    rows = [
        (
            one["name"],
            console.percent(one["accuracy"]),
            f"{100 * (one['gained'] - one['lost']) / one['samples']:+.2f}",
            one["lost"],
            one["gained"],
        )
        for one in found
    ]
    console.emit("")
    console.emit_table(("control", "accuracy %", "change", "no longer correct", "newly correct"), rows)


def _print_kept_in(run: str | None) -> None:
    from plifctl.runs import run_argument

    if run is not None:
        console.emit(f"kept with the run: plifctl runs show {run_argument(Path(run))} lists all controls")


_TIME_TEXTS = {
    "shuffled": "frames of each sample in random order",
    "reversed": "frames backwards",
    "scattered": "frames of each sample in random order, another one for each pixel",
    "collapsed": "every frame replaced by the mean of the sample's frames",
}
_TAU_TEXTS = {
    "mean": "every layer has the mean of the learnt τ",
    "no-leak": "neurons do not leak (H = V + X/τ)",
    "no-memory": "neurons forget each step (H = V_reset + X/τ)",
}


def _print_control(result: EvaluationResult, unchanged: EvaluationResult) -> None:
    """Prints what was changed, and the accuracy with and without the change."""
    control, found, samples = result.control, result.differences, result.samples
    assert control is not None  # there are two evaluations
    assert found is not None
    changes = []
    if control.time is not None:
        seed = f" (seed {control.seed})" if control.seed is not None else ""
        changes.append(f"{_TIME_TEXTS[control.time]}{seed}")
    if control.tau is not None:
        changes.append(
            f"every neuron has τ = {control.tau}" if isinstance(control.tau, float) else _TAU_TEXTS[control.tau]
        )
    console.emit(f"changed: {'; '.join(changes)}")
    pairs = (("unchanged", unchanged), ("changed", result))
    rows = [(name, console.percent(one.accuracy), round(one.accuracy * samples)) for name, one in pairs]
    console.emit_table(("test", "accuracy %", f"correct of {samples:,}"), rows)
    largest = max(entry.samples for entry in result.classes)
    console.emit(
        f"predictions that differ: {found.different:,}; no longer correct: {found.lost:,}; "
        f"newly correct: {found.gained:,}; "
        f"the largest class has {console.percent(largest / samples)} % of the samples"
    )


def _print_classes(result: EvaluationResult) -> None:
    """Prints the accuracy of each class, and the confusion matrix."""
    numbers = [str(index) for index in range(len(result.classes))]
    titles = ["", "class", "samples", "accuracy %"]
    columns = [[entry.accuracy for entry in result.classes]]
    if result.unchanged is not None:
        titles.append("unchanged %")
        columns.append([entry.accuracy for entry in result.unchanged.classes])
    rows = [
        (index, entry.name, entry.samples, *(console.percent(column[index]) for column in columns), *counts)
        for index, (entry, counts) in enumerate(zip(result.classes, _blank(result.confusion), strict=True))
    ]
    console.emit("")
    console.emit_table((*titles, *numbers), rows, title="True class in rows, predicted class in columns")


def _print_layers(result: EvaluationResult) -> None:
    """Prints τ and firing rate of each layer."""
    titles = ["layer", "τ (steps)", "firing rate (spikes per neuron and step)"]
    rows = [[entry.name, f"{entry.tau:.3f}", f"{entry.firing_rate:.4f}"] for entry in result.layers]
    if result.unchanged is not None:
        titles += ["τ unchanged", "firing rate unchanged"]
        for row, entry in zip(rows, result.unchanged.layers, strict=True):
            row += [f"{entry.tau:.3f}", f"{entry.firing_rate:.4f}"]
    console.emit("")
    console.emit_table(titles, rows)


def _describe_kept(kept: KeptComparison, result: EvaluationResult) -> str:
    """Returns a sentence on whether the predictions that a run or a folder keeps are reproduced."""
    begin = f"{result.predictions.right:,} of {result.samples:,} right"
    place = kept.path if Path(result.checkpoint).is_dir() else "the run"
    folded = " (by the network that is not folded)" if result.folded else ""
    if other := kept.other_label:
        return f"{begin}; {len(other):,} samples have another class than in {place}: {list_names(other, 5)}"
    if different := kept.different:
        count = f"{len(different):,} of {result.samples:,} predictions"
        return f"{begin}, {count} differ from those kept in {place}{folded}: {list_names(different, 5)}"
    return f"{begin}, all {result.samples:,} predictions equal those kept in {place}{folded}"


def _print_over_time(result: EvaluationResult) -> None:
    accuracies = result.accuracy_after_steps
    columns, titles = [accuracies], ["steps", "accuracy %"]
    if result.unchanged is not None:
        columns.append(result.unchanged.accuracy_after_steps)
        titles.append("unchanged %")
    shown = sorted({*range(1, len(accuracies) + 1, -(-len(accuracies) // _MAX_STEPS_SHOWN)), len(accuracies)})
    console.emit("")
    rows = [(t, *(console.percent(column[t - 1]) for column in columns)) for t in shown]
    console.emit("If the network stopped after fewer steps:")
    console.emit_table(titles, rows)


def _print_latency(latency: Latency) -> None:
    from plifctl.evaluation.latency import summarize_steps

    rows = []
    for name, steps, others in (
        ("first correct prediction", latency.first_correct, f"{latency.never_correct} never correct"),
        ("correct until the end", latency.stable_from, f"{latency.wrong_at_end} wrong at the end"),
    ):
        found = summarize_steps(steps)
        values = (None,) * 4 if found is None else (found.mean, found.p50, found.p90, found.p99)
        rows.append((name, *("" if value is None else f"{value:.2f}" for value in values), others))
    console.emit("")
    console.emit_table(("steps until", "mean", "median", "90 %", "99 %", "other samples"), rows)


def _print_operations(counted: Operations) -> None:
    from plifctl.evaluation.operations import ENERGY_ASSUMPTIONS

    rows = [
        (layer.name, *map(_count, (layer.dense, layer.effective_macs, layer.effective_acs, layer.updates)))
        for layer in (*counted.layers, counted.total)
    ]
    console.emit("")
    console.emit_table(
        ("layer", "dense MACs", "effective MACs", "effective ACs", "membrane updates"),
        rows,
        title=f"Operations per sample, mean of {counted.samples} samples",
    )
    console.emit(
        f"estimated energy: {1e6 * counted.energy:.3g} µJ per sample; if zeros were multiplied, too: "
        f"{1e6 * counted.dense_energy:.3g} µJ"
    )
    console.emit(f"assumed: {ENERGY_ASSUMPTIONS}")


def _print_layer_times(timed: LayerTimes) -> None:
    rows = [
        (
            layer.name,
            f"{100 * layer.active_inputs:.1f}",
            f"{1e3 * layer.dense:.3g}",
            f"{1e3 * layer.event_driven:.3g}",
            f"{layer.event_driven / layer.dense:.2f}",
            layer.chosen,
        )
        for layer in timed.layers
    ]
    threads = "1 thread" if timed.threads == 1 else f"{timed.threads} threads"
    console.emit("")
    console.emit_table(
        ("layer", "active inputs %", "dense ms", "event-driven ms", "ratio", "auto takes"),
        rows,
        title=f"Measured time per sample of each layer ({threads}, batch {timed.batch})",
    )
    console.emit(
        f"all layers: {1e3 * timed.dense:.3g} ms per sample dense, {1e3 * timed.chosen:.3g} ms as auto takes them "
        f"(ratio {timed.chosen / timed.dense:.2f})"
    )
    console.emit("active inputs are those that are not 0; batch norm, neurons and pooling after a layer are included")


def _count(value: float) -> str:
    return f"{value:,.0f}" if value else ""


def _blank(confusion: list[list[int]]) -> list[list[object]]:
    """Returns dots for zeros, so that errors are easy to see."""
    return [["·" if count == 0 else count for count in row] for row in confusion]
