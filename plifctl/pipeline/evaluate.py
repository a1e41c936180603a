"""Tests a trained network: accuracy, latency, firing rates, operations, times; implements ``plifctl eval``."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from plifctl import files, paths
from plifctl.config.choices import CheckpointName, DataPlacement, Kernel, RecordedLayers, TimeControl
from plifctl.config.dataset import MAX_T
from plifctl.errors import MachineError, RunError, UsageError, did_you_mean
from plifctl.evaluation.accuracy import Evaluation, record_spikes
from plifctl.evaluation.extreme_rates import describe_extreme_rates
from plifctl.evaluation.latency import Latency, measure_latency, summarize_steps
from plifctl.evaluation.layer_times import LayerTimes
from plifctl.evaluation.operations import ENERGY_ASSUMPTIONS, Operations
from plifctl.exchange.lookup import find_model
from plifctl.exchange.model import TrainedModel, load_trained
from plifctl.exchange.model_card import Evidence
from plifctl.pipeline.controls import Control, change, check_control, compare, keep, list_controls
from plifctl.pipeline.device import LESS_MEMORY_HINT, choose_device, use_remembered_kernel
from plifctl.pipeline.evaluation_samples import EvaluationSamples, open_samples
from plifctl.pipeline.kept_evidence import kept_evidence
from plifctl.pipeline.progress import Progress, silent
from plifctl.report.render import csv_value
from plifctl.runs import ControlResult, Predictions, Run, SpikeRecording, save_spikes
from plifctl.runs.predictions import Comparison
from plifctl.training.optimizer import autocast
from plifctl.training.process import out_of_memory_errors

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``plifctl eval``.

    Attributes:
        model: A run (path, id, part of an id, ``last``), an exported file or folder, or ``zoo:NAME``.
        checkpoint: Checkpoint of a run to use.
        T: Time steps; None: those that the network was trained with.
        time: Change of the frames (:func:`~plifctl.evaluation.controls.change_time`), to compare with the evaluation
            without it; None: unchanged.
        tau: Change of the time constants (:func:`~plifctl.evaluation.controls.change_tau`); None: unchanged.
        controls: Test under every named control as well, one change each; without operations and times of layers.
        fold_bn: Fold batch norms into the convolutions before them.
        kernel: Kernel of the spiking layers.
        operations: Number of test samples to count operations on; 0: do not count.
        layer_times: Seconds that measuring the time of each layer may take, on a CPU; 0: do not measure.
        record_spikes: Number of test samples whose spikes are kept in the run; None: none, unless some are named.
        samples: Ids of the samples whose spikes are kept.
        record_layers: Spiking layers to record.
        device: Torch device; None: a GPU where there is one.
        csv: File to write the prediction for each test sample to; must not exist; None: not written.
        data_in: Where samples are held; each is needed once.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """

    model: str
    checkpoint: CheckpointName = "best"
    T: int | None = None
    time: TimeControl | None = None
    tau: str | float | None = None
    controls: bool = False
    fold_bn: bool = False
    kernel: Kernel = "auto"
    operations: int = 20
    layer_times: float = 5.0
    record_spikes: int | None = None
    samples: tuple[str, ...] = ()
    record_layers: RecordedLayers = "first"
    device: str | None = None
    csv: Path | None = None
    data_in: DataPlacement = "disk"
    cache_dir: Path | None = None
    runs_dir: Path | None = None

    @property
    def records_spikes(self) -> bool:
        """Whether spikes of some samples are kept in the run."""
        return self.record_spikes is not None or bool(self.samples)


@dataclass(frozen=True)
class ClassAccuracy:
    """Test accuracy of one class, 0…1; None where it has no samples."""

    name: str
    samples: int
    accuracy: float | None


@dataclass(frozen=True)
class LayerActivity:
    """Time constant of a spiking layer, in steps, and its spikes per neuron and step, 0…1."""

    name: str
    tau: float
    firing_rate: float


@dataclass(frozen=True)
class KeptComparison(Comparison):
    """Comparison with the predictions that a run, or a folder, keeps of the same network and samples.

    Attributes:
        path: The run or folder.
    """

    path: str = field(kw_only=True)


@dataclass(frozen=True)
class KeptSpikes:
    """Spikes that an evaluation wrote into the run.

    Attributes:
        path: The file (:func:`plifctl.runs.load_spikes`).
        bytes: Its size.
        samples: Ids of the recorded samples.
        layers: Names of the recorded layers.
    """

    path: str
    bytes: int
    samples: list[str]
    layers: list[str]


@dataclass(frozen=True)
class Differences:
    """Numbers of predictions that a control changes.

    Attributes:
        different: Predictions of another class than without the change.
        lost: Those that are no longer correct.
        gained: Those that are correct only with the change.
    """

    different: int
    lost: int
    gained: int


@dataclass(frozen=True)
class EvaluationResult:
    """Results of a trained network on the test set.

    Attributes:
        experiment: Name of the experiment.
        recipe: Its recipe.
        checkpoint: The file that was tested.
        saved_after: After how much of a run's training it was saved (``epoch 3``); empty: not stated.
        folded: For each batch norm the convolution it was folded into; empty if not asked for.
        T: Time steps.
        trained_steps: Time steps that it was trained with.
        samples: Number of test samples.
        accuracy: Fraction of correct predictions, 0…1.
        classes: Accuracy of each class.
        confusion: Counts; true class in rows, predicted class in columns.
        layers: Activity of each spiking layer.
        accuracy_after_steps: Accuracy if the network stopped after each step.
        latency: Steps until the prediction of each sample is correct.
        operations: Operations per sample, and an energy estimate; None if not counted.
        layer_times: Time of each layer that has weights, dense and event-driven; None if not measured.
        predictions: Predicted class of each test sample, in the order of the cache.
        votes: Mean rate of each class over the steps, of each test sample ``[N, classes]``, 0…1.
        kept_predictions: Comparison with the predictions that the run, or the folder, keeps; None if it keeps none, or
            those of another epoch, T or test samples.
        spikes: Recorded samples and layers, and the file; None if none were recorded.
        control: What was changed; None for an ordinary evaluation.
        unchanged: Results without that change, of the same network, samples and time steps, without operations and
            times; None for an ordinary evaluation.
        controls: Tests under every named control, if they were asked for.
        kept_in: The run that keeps the tests under controls; None if none does.
        differences: Numbers of predictions that differ from the unchanged ones; None for an ordinary evaluation.
    """

    experiment: str
    recipe: str
    checkpoint: str
    saved_after: str
    folded: dict[str, str | None]
    T: int
    trained_steps: int
    samples: int
    accuracy: float
    classes: list[ClassAccuracy]
    confusion: list[list[int]]
    layers: list[LayerActivity]
    accuracy_after_steps: list[float]
    latency: Latency
    operations: Operations | None
    layer_times: LayerTimes | None
    predictions: Predictions = field(repr=False)
    votes: np.ndarray = field(repr=False)
    kept_predictions: KeptComparison | None = None
    spikes: KeptSpikes | None = None
    control: Control | None = None
    unchanged: EvaluationResult | None = None
    controls: tuple[ControlResult, ...] = ()
    kept_in: str | None = None
    differences: Differences | None = None

    @property
    def reproduced(self) -> bool:
        """False if a prediction, or the true class of a sample, differs from what the run or folder keeps.

        A changed evaluation reproduces nothing; ask its ``unchanged``.
        """
        kept = self.kept_predictions
        return self.control is None and (kept is None or not (kept.different or kept.other_label))

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, as ``plifctl eval --json`` prints them: not the predictions for single samples."""
        left_out = {"predictions", "votes", "unchanged", "controls"} | {
            name for name in ("spikes", "control", "kept_in", "differences") if getattr(self, name) is None
        }
        tree = {name: value for name, value in asdict(self).items() if name not in left_out}
        tree["latency"] = _describe_latency(self.latency)
        tree["operations"] = self.operations and _describe_operations(self.operations)
        tree["layer_times"] = self.layer_times and _describe_layer_times(self.layer_times)
        tree["kept_predictions"] = self.kept_predictions and _describe_kept(self.kept_predictions)
        if self.controls:
            tree["controls"] = [one.describe() for one in self.controls]
        if self.unchanged is not None:
            tree["unchanged"] = self.unchanged.to_json()
        return tree

    def to_csv(self) -> str:
        """Returns a CSV document with a row for each test sample: id, true class, predicted class, votes.

        That of a changed evaluation also has the predicted class without the change.
        """
        names = [csv_value(entry.name) for entry in self.classes]
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        added = ["unchanged_predicted", "unchanged_predicted_class"] if self.unchanged is not None else []
        votes_columns = [f"votes_{name}" for name in names]
        writer.writerow(["sample_id", "label", "class", "predicted", "predicted_class", *added, *votes_columns])
        kept = self.predictions
        before = kept if self.unchanged is None else self.unchanged.predictions
        for sample, label, predicted, unchanged, votes in zip(
            kept.sample_ids,
            kept.labels.tolist(),
            kept.predicted.tolist(),
            before.predicted.tolist(),
            self.votes.tolist(),
            strict=True,
        ):
            begin = [csv_value(sample), label, names[label], predicted, names[predicted]]
            middle = [unchanged, names[unchanged]] if self.unchanged is not None else []
            writer.writerow([*begin, *middle, *(f"{rate:.6g}" for rate in votes)])
        return output.getvalue()


def evaluate(options: EvaluateOptions, progress: Progress = silent) -> EvaluationResult:
    """Tests a run, a checkpoint or an exported file on the test set.

    Raises:
        UsageError: There is no such run, sample or device; or spikes are requested of a file outside a run.
        CacheError: There is no cache of the data set.
        CheckpointError: The checkpoint is missing or damaged.
        OutOfMemoryError: The device ran out of memory.
    """
    with out_of_memory_errors("out of memory", LESS_MEMORY_HINT):
        return _evaluate(options, progress)


def _evaluate(options: EvaluateOptions, progress: Progress) -> EvaluationResult:
    control = _check_options(options)
    device = choose_device(options.device, options.kernel)
    path = find_model(options.model, options.checkpoint, options.runs_dir or paths.runs_dir())
    trained = load_trained(path, device, fold=options.fold_bn, kernel=options.kernel)
    use_remembered_kernel(trained.network, trained.spec, device)
    if trained.unstated:
        _log.info("%s: %s", path, trained.unstated)
    _warn_of_an_early_test(trained)
    if options.records_spikes and trained.run is None:
        raise UsageError(
            f"{path}: not in a run directory, so spikes cannot be saved", hint="name the run: plifctl eval RUN"
        )
    if options.records_spikes and trained.run is not None and not os.access(trained.run, os.W_OK):
        raise MachineError(
            f"{trained.run}: permission denied, so spikes cannot be saved",
            hint="copy the run to a folder of your own, and name the copy",
        )
    if options.fold_bn:
        log_folded(trained)
    trained_steps = trained.spec.T
    # images do not depend on T, frames of events do
    content = trained.cache if options.T in (None, trained_steps) or trained.spec.frames is None else None
    if options.T not in (None, trained_steps):
        trained = _with_T(trained, options)
    changed = trained if control is None else change(trained, control)
    kept = _kept_evidence(trained)
    samples = open_samples(trained, kept, device, options.cache_dir, content=content, data_in=options.data_in)
    chosen = _recorded_rows(samples, options) if options.records_spikes else None
    if options.controls:
        result = _measure_controls(samples, options, trained_steps, progress)
    elif control is None:
        result = _measure(samples, options, trained_steps, progress)
    else:
        result = _measure_both(samples, changed, control, options, trained_steps, progress)
    if chosen is not None:
        result = replace(result, spikes=_record(samples, chosen, options))
    if options.csv is not None:
        files.write_text(options.csv, result.to_csv())
    return result


def _warn_of_an_early_test(trained: TrainedModel) -> None:
    """Logs that a run whose protocol tests it once, at the end, is tested before."""
    if trained.run is None or (status := (run := Run(trained.run)).status()) == "finished":
        return
    if (config := run.config()).tests_once:
        _log.warning(
            "%s (%s) is tested before the end of its training, and protocol %s tests it once, afterwards: what is "
            "changed because of this accuracy is chosen by the test samples",
            run.name,
            status,
            config.protocol,
        )


def _check_options(options: EvaluateOptions) -> Control | None:
    """Returns what the evaluation changes; None: nothing.

    Raises:
        UsageError: An option has an invalid value, or the file to write exists.
    """
    if options.operations < 0:
        raise UsageError(f"--operations {options.operations}: expected a number of samples, or 0")
    if not 0 <= options.layer_times < math.inf:
        raise UsageError(f"--layer-times {options.layer_times}: expected a number of seconds, or 0")
    if options.csv is not None:
        files.check_new_file(options.csv)
    control = check_control(options.time, options.tau)
    if options.controls and (control is not None or options.records_spikes or options.csv is not None):
        raise UsageError(
            "--controls tests under each control and shows accuracies only",
            hint="omit --controls, or --time, --tau, --csv, --record-spikes and --sample",
        )
    if control is not None and options.records_spikes:
        raise UsageError(
            "the spikes that a run keeps are those of its own network and samples, not of changed ones",
            hint="omit --time and --tau, or --record-spikes and --sample",
        )
    return control


def _measure_both(
    samples: EvaluationSamples,
    changed: TrainedModel,
    control: Control,
    options: EvaluateOptions,
    trained_steps: int,
    progress: Progress,
) -> EvaluationResult:
    """Evaluates a network on its samples as they are, and then with the change."""
    if control.time in ("shuffled", "scattered"):
        control = replace(control, seed=changed.spec.train.seed)
    unchanged = _measure(samples, replace(options, operations=0, layer_times=0.0), trained_steps, progress)
    other = replace(samples, trained=changed, time=control.time)
    result = _measure(other, replace(options, layer_times=0.0), trained_steps, progress, control)
    found = compare(samples, control, unchanged.predictions, result.predictions)
    different = int((unchanged.predictions.predicted != result.predictions.predicted).sum())
    differences = Differences(different, found.lost, found.gained)
    return replace(result, unchanged=unchanged, differences=differences, kept_in=keep(samples.trained, [found]))


def _measure_controls(
    samples: EvaluationSamples, options: EvaluateOptions, trained_steps: int, progress: Progress
) -> EvaluationResult:
    """Evaluates a network on its samples, and tests it under every named control that means something for it."""
    trained = samples.trained
    unchanged = _measure(samples, replace(options, operations=0, layer_times=0.0), trained_steps, progress)
    found = []
    for control in list_controls(trained):
        other = replace(samples, trained=change(trained, control), time=control.time)
        predictions = other.predictions(other.evaluate(progress))
        found.append(compare(samples, control, unchanged.predictions, predictions))
    return replace(unchanged, controls=tuple(found), kept_in=keep(trained, found))


def _measure(
    samples: EvaluationSamples,
    options: EvaluateOptions,
    trained_steps: int,
    progress: Progress,
    control: Control | None = None,
) -> EvaluationResult:
    """Evaluates a network on its samples; both may be changed, by ``control``."""
    trained, spec = samples.trained, samples.trained.spec
    found = samples.evaluate(progress)
    counted = samples.count_operations(options.operations) if options.operations else None
    timed = samples.time_layers(options.layer_times) if options.layer_times else None
    predictions = samples.predictions(found)
    result = _result(found, trained, predictions, counted, timed, trained_steps)
    if control is not None:
        return replace(result, control=control)
    for warning in describe_extreme_rates(found.firing_rate, spec.network, spec.neuron):
        _log.warning(warning)
    kept = _compare_with_kept(samples, predictions) if trained_steps == spec.T else None
    return replace(result, kept_predictions=kept)


def _kept_evidence(trained: TrainedModel) -> Evidence:
    """Returns what the run, or the folder, keeps of the network; of a run nothing, with a warning, if it is damaged."""
    try:
        return kept_evidence(trained)
    except RunError as error:
        if trained.run is None:  # a folder's predictions are what its result is verified by
            raise
        _log.warning("not compared: %s", error)
        return Evidence()


def _compare_with_kept(samples: EvaluationSamples, predictions: Predictions) -> KeptComparison | None:
    """Compares predictions with those that the run, or the folder, keeps of the same network and the same samples."""
    trained, kept = samples.trained, samples.kept.predictions
    if kept is None and trained.run is None and trained.path.is_dir():
        _log.warning("%s keeps no predictions: nothing was compared", trained.path)
    if kept is None or (compared := predictions.compare(kept)) is None:
        return None
    return KeptComparison(**vars(compared), path=str(trained.run or trained.path))


def _with_T(trained: TrainedModel, options: EvaluateOptions) -> TrainedModel:  # noqa: N802
    """Returns the trained network with another number of time steps."""
    spec, T = trained.spec, options.T
    if T is None or not 1 <= T <= MAX_T:
        raise UsageError(f"--T {T}: expected a number from 1 to {MAX_T}")
    if spec.frames is not None and not spec.framing.needs_T:
        raise UsageError(
            f"--T {T}: slices have a fixed duration, so the longest sample determines the number of frames",
            hint="omit --T",
        )
    if options.records_spikes:
        raise UsageError(f"--T {T}: the spikes that a run keeps are those of its own T = {spec.T}", hint="omit --T")
    _log.warning("T = %d, but the network was trained with T = %d", T, spec.T)
    return replace(trained, spec=spec.model_copy(update={"T": T}))


def log_folded(trained: TrainedModel) -> None:
    """Logs which batch norms were folded, and which were kept."""
    done = [f"{norm} into {conv}" for norm, conv in trained.folded.items() if conv is not None]
    kept = [norm for norm, conv in trained.folded.items() if conv is None]
    if done:
        _log.info("folded: %s", ", ".join(done))
    else:
        _log.info("nothing to fold: %s", trained.spec.network.structure)
    if kept:
        _log.info("not folded, no convolution directly before: %s", ", ".join(kept))


def _recorded_rows(samples: EvaluationSamples, options: EvaluateOptions) -> np.ndarray:
    """Returns the rows of the named samples, else ``record_spikes`` test samples, class after class."""
    cache, rows = samples.cache, samples.rows
    if options.samples:
        known = {name: row for row, name in enumerate(cache.sample_ids)}
        for name in options.samples:
            if name not in known:
                raise UsageError(f"no sample {name!r}", hint=did_you_mean(name, known))
        return np.array([known[name] for name in options.samples])
    labels = cache.labels[rows]
    # the first sample of each class, then the second of each, and so on
    occurrence = np.array([int((labels[:index] == label).sum()) for index, label in enumerate(labels)])
    return rows[np.lexsort((labels, occurrence))[: options.record_spikes]]


def _record(samples: EvaluationSamples, rows: np.ndarray, options: EvaluateOptions) -> KeptSpikes:
    """Writes the spikes of some samples into the run."""
    trained, cache = samples.trained, samples.cache
    spec, network = trained.spec, trained.network
    layers = list(network.spiking_layers())
    kept = layers[:1] if options.record_layers == "first" else layers
    with autocast(spec.train, samples.loader.device):  # as they are evaluated
        votes, spikes = record_spikes(network, samples.pairs(rows), spec.T, kept)
    inputs = cache.read(rows)
    recording = SpikeRecording(
        tuple(cache.sample_ids[row] for row in rows),
        cache.labels[rows],
        tuple(spec.dataset.classes),
        inputs[:, None] if inputs.ndim == 4 else inputs,
        votes,
        spikes,
        trained.saved_after,
    )
    assert trained.run is not None
    path = trained.run / "spikes.npz"
    save_spikes(path, recording)
    return KeptSpikes(str(path), path.stat().st_size, list(recording.sample_ids), list(spikes))


def _result(
    found: Evaluation,
    trained: TrainedModel,
    predictions: Predictions,
    counted: Operations | None,
    timed: LayerTimes | None,
    trained_steps: int,
) -> EvaluationResult:
    spec, network = trained.spec, trained.network
    confusion = found.confusion(len(spec.dataset.classes))
    samples = confusion.sum(1)
    taus = dict(zip(network.spiking_layers(), network.taus(), strict=True))
    assert found.over_time is not None
    assert found.votes is not None
    return EvaluationResult(
        experiment=spec.name,
        recipe=spec.recipe,
        checkpoint=str(trained.path),
        saved_after=trained.saved_after,
        folded=trained.folded,
        T=spec.T,
        trained_steps=trained_steps,
        samples=len(found.labels),
        accuracy=found.accuracy,
        classes=[
            ClassAccuracy(name, int(n), int(confusion[index, index]) / int(n) if n else None)
            for index, (name, n) in enumerate(zip(spec.dataset.classes, samples, strict=True))
        ],
        confusion=confusion.tolist(),
        layers=[LayerActivity(name, taus[name], rate) for name, rate in found.firing_rate.items()],
        accuracy_after_steps=(found.over_time == found.labels).mean(1).tolist(),
        latency=measure_latency(found.over_time, found.labels),
        operations=counted,
        layer_times=timed,
        predictions=predictions,
        votes=found.votes,
    )


def _describe_latency(latency: Latency) -> dict[str, Any]:
    first, stable = summarize_steps(latency.first_correct), summarize_steps(latency.stable_from)
    return {
        "first_right": first and asdict(first),
        "right_from": stable and asdict(stable),
        "never_right": latency.never_correct,
        "wrong_at_the_end": latency.wrong_at_end,
    }


def _describe_operations(counted: Operations) -> dict[str, Any]:
    total = asdict(counted.total)
    del total["name"]
    return {
        "samples": counted.samples,
        "layers": [asdict(layer) for layer in counted.layers],
        "total": total,
        "energy_estimate_joule": counted.energy,
        "dense_energy_estimate_joule": counted.dense_energy,
        "assumptions": ENERGY_ASSUMPTIONS,
    }


def _describe_layer_times(timed: LayerTimes) -> dict[str, Any]:
    return {
        "samples": timed.samples,
        "batch": timed.batch,
        "threads": timed.threads,
        "layers": [
            {
                "name": layer.name,
                "active_inputs": layer.active_inputs,
                "dense_seconds": layer.dense,
                "event_driven_seconds": layer.event_driven,
                "chosen": layer.chosen,
            }
            for layer in timed.layers
        ],
        "total": {"dense_seconds": timed.dense, "chosen_seconds": timed.chosen},
    }


def _describe_kept(compared: KeptComparison) -> dict[str, Any]:
    return {
        "path": compared.path,
        "equal": compared.equal,
        "different": list(compared.different),
        "other_label": list(compared.other_label),
    }
