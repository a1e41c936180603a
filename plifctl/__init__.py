"""plifctl: spiking networks with learnable membrane time constants, from raw recordings to the paper's tables.

The Python API: the commands as functions. They print nothing, and change no threads, seeds or signal handlers unless
requested; messages go to the logger ``plifctl``.

Example:
    import plifctl

    plifctl.prepare("gesture", T=20, raw="~/DvsGesture")
    run = plifctl.train("gesture-plif", epochs=64, seed=1)
    model = plifctl.load(run)
    model.predict("recording.aedat4").name
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plifctl import errors

if TYPE_CHECKING:
    from plifctl.cache import Cache
    from plifctl.config.choices import (
        CheckpointName,
        Compression,
        DataPlacement,
        Kernel,
        NetworkFormat,
        Protocol,
        Recipe,
        ResultSource,
        TauControl,
        TimeControl,
    )
    from plifctl.config.dataset import Framing
    from plifctl.config.experiment import Experiment, ExperimentSpec
    from plifctl.config.overrides import Overrides
    from plifctl.data.events import Events
    from plifctl.pipeline.convert import Converted
    from plifctl.pipeline.dataset import CachedDataset, Part
    from plifctl.pipeline.evaluate import EvaluationResult
    from plifctl.pipeline.export import Exported
    from plifctl.pipeline.predict import Model, Prediction
    from plifctl.report.table import Table
    from plifctl.runs import Run
    from plifctl.snn.neurons import LIF, PLIF

__version__ = "0.2.0.dev0"

__all__ = [
    "LIF",
    "PLIF",
    "Cache",
    "CachedDataset",
    "EvaluationResult",
    "Experiment",
    "Model",
    "Prediction",
    "Run",
    "convert",
    "dataset",
    "errors",
    "evaluate",
    "experiment",
    "export",
    "load",
    "prepare",
    "read_events",
    "refit",
    "table",
    "train",
    "validate",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "Cache": "plifctl.cache",
    "CachedDataset": "plifctl.pipeline.dataset",
    "EvaluationResult": "plifctl.pipeline.evaluate",
    "Experiment": "plifctl.config.experiment",
    "LIF": "plifctl.snn.neurons",
    "Model": "plifctl.pipeline.predict",
    "PLIF": "plifctl.snn.neurons",
    "Prediction": "plifctl.pipeline.predict",
    "Run": "plifctl.runs",
}
"""Modules of the public classes, which are imported when they are first used: ``import plifctl`` loads no torch."""

if not TYPE_CHECKING:  # otherwise every name would exist for type checkers

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def prepare(
    dataset: str | Path,
    T: int | None = None,
    *,
    raw: str | Path | None = None,
    recipe: Recipe | None = None,
    overrides: Overrides = (),
    verify: bool = True,
    download: bool = True,
    workers: int | None = None,
    force: bool = False,
    compression: Compression = "zstd",
    cache_dir: str | Path | None = None,
) -> Cache:
    """Returns the cache of a data set, built from its raw files unless it exists.

    Args:
        dataset: Name of a data set in the registry, or of ``NAME.yaml`` in the working directory; or a YAML file of a
            data set or an experiment.
        T: Number of frames of each sample; required for event data sets, unless the file is of an experiment.
        raw: Folder of the raw files; None: that of the file, PLIFCTL_RAW_DIR, then the system's folders of data sets.
        recipe: Choices of framing: of the paper's text or of the authors' code; None: of the file, or ``paper``.
        overrides: Changes to them, e.g. ``{"frames.slicing": "time"}``.
        verify: Refuse files whose checksum differs from the published one.
        download: Download missing files, where they are published.
        workers: Threads; None: as many as cores, at most 8.
        force: Build the cache even if it exists.
        compression: Compression of the samples.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.

    Raises:
        errors.UsageError: Unknown data set, T is missing, or a value is wrong.
        errors.RawDataError: Raw files are missing, damaged, or differ from the published ones.
    """
    from plifctl.config.overrides import override_texts
    from plifctl.data.source import DEFAULT_WORKERS, RawSource
    from plifctl.pipeline.prepare import PrepareOptions
    from plifctl.pipeline.prepare import prepare as prepare_cache

    threads = DEFAULT_WORKERS if workers is None else workers
    source = RawSource(_path(raw), verify=verify, download=download, workers=threads)
    options = PrepareOptions(
        dataset,
        T=T,
        recipe=recipe,
        overrides=override_texts(overrides),
        source=source,
        force=force,
        compression=compression,
        cache_dir=_path(cache_dir),
    )
    cache = prepare_cache(options).cache
    cache.path = cache.path.absolute()  # the working directory may change
    return cache


def dataset(
    name: str | Path | Experiment | ExperimentSpec | Framing | Run,
    T: int | None = None,
    split: Part = "train",
    *,
    recipe: Recipe | None = None,
    overrides: Overrides = (),
    cache_dir: str | Path | None = None,
) -> CachedDataset:
    """Returns a torch data set of ``(sample, class)`` from a cache; works in a DataLoader with workers.

    Args:
        name: Name of a data set or YAML file, as of :func:`prepare`; or an experiment or ``model.spec``: its data set,
            framed as it says; or a run: that of its experiment, in the run's own split (``split.json``).
        T: Number of frames; required for event data sets that are named.
        split: ``train``, ``validation`` or ``test`` of the run, otherwise of the official split; or ``all``.
        recipe: Recipe of framing; None: of the file, or ``paper``.
        overrides: Changes to it.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.

    Raises:
        errors.UsageError: Unknown data set, T is missing, or the experiment makes its split when a run begins.
        errors.CacheError: There is no such cache, or it lacks samples of the run; the hint has the command that builds
            it.
    """
    from plifctl.config.dataset import Framing
    from plifctl.config.experiment import Experiment, ExperimentSpec
    from plifctl.config.overrides import override_texts
    from plifctl.pipeline.dataset import open_dataset
    from plifctl.runs import Run

    known = name.spec if isinstance(name, Experiment) else name
    if not isinstance(known, str | Path | Framing | ExperimentSpec | Run):
        raise errors.UsageError(
            f"found {name!r:.80}, expected the name of a data set, a YAML file, an experiment or a run"
        )
    if not isinstance(known, str | Path) and (T is not None or recipe is not None or overrides):
        raise errors.UsageError(
            "T, recipe and overrides are those of the experiment",
            hint='change a copy: plifctl.experiment(experiment, {"T": 8})',
        )
    return open_dataset(
        known,
        T,
        split,
        recipe=recipe,
        overrides=override_texts(overrides),
        cache_dir=_path(cache_dir),
    )


def read_events(path: str | Path, *, dataset: str | None = None) -> Events:
    """Returns the events of a recording of any known format, sorted by time.

    Args:
        path: The file; its header decides the format.
        dataset: Name of a data set whose choices apply (units, orientation of x and y, invalid events of AEDAT 3.1);
            None: x and y as the file has them, of AEDAT 2.0 as the authors' code reads them, and no invalid events.

    Raises:
        errors.RawDataError: The file cannot be read.
    """
    from plifctl.pipeline.model_inputs import read_events as read

    return read(_expand(path), dataset)


def experiment(
    source: str | Path | Experiment, overrides: Overrides = (), *, recipe: Recipe | None = None
) -> Experiment:
    """Returns an experiment with every value looked up, to look at, change and save.

    Args:
        source: A name in the registry, a YAML file, or an experiment to change.
        overrides: Values to change, e.g. ``{"neuron.tau_0": 4.0}``.
        recipe: Recipe of a named experiment; None: ``paper``, or the recipe of the file.

    Raises:
        errors.UsageError: Unknown experiment or key, or an invalid value.
        errors.RegistryError: A file is invalid.
    """
    from plifctl.config.lookup import load_experiment

    return load_experiment(source, overrides, recipe=recipe)


def train(
    experiment: str | Path | Experiment | None = None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    subset: float | None = None,
    overrides: Overrides = (),
    recipe: Recipe | None = None,
    weights: str | Path | Run | None = None,
    freeze: str | Sequence[str] = (),
    resume: str | Path | Run | None = None,
    name: str | None = None,
    on_epoch: Callable[[dict[str, Any]], bool | None] | None = None,
    build_cache: bool = False,
    raw: str | Path | None = None,
    device: str | None = None,
    data_in: DataPlacement | None = None,
    kernel: Kernel = "auto",
    deterministic: bool | None = None,
    graph: bool | None = None,
    checkpoint_every: int = 0,
    cache_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
) -> Run:
    """Trains on the whole training set and tests after each epoch (protocol A); returns the run.

    Args:
        experiment: A name in the registry, a YAML file, or an experiment; None with ``resume``.
        epochs: Passes over the training set; None: the experiment's.
        seed: Seed of weights, order, dropout and augmentation; None: the experiment's.
        subset: Fraction of each class to train and test on; None: the experiment's.
        overrides: Other values to change, e.g. ``{"neuron.tau_0": 4.0}``.
        recipe: Recipe of a named experiment; None: ``paper``.
        weights: Run, checkpoint or exported file whose weights training begins with, where name and shape fit; None:
            all weights are drawn.
        freeze: Patterns of the layers or parameters that are not trained, e.g. ``"conv*"``.
        resume: Run to resume, instead of a new one; ``"auto"`` with a name: that run if it exists, else a new one.
        name: Name of the new run; None: one of time, experiment, digest and seed.
        on_epoch: Called after each epoch with its row of ``metrics.jsonl``, once its weights are saved; returning False
            stops the training, whose run can be resumed.
        build_cache: Build the cache if it does not exist.
        raw: Folder of the raw files to build it from.
        device: Torch device; None: a GPU if there is one.
        data_in: Where samples are held; None: wherever they fit.
        kernel: Implementation of the spiking layers; ``auto``: on a GPU that which trials choose when training starts.
        deterministic: Only use deterministic algorithms; changes torch's settings in the whole process. None: as the
            resumed run was begun, a new one without.
        graph: On a GPU, record a training step as a CUDA graph and replay it; None: if trials choose it.
        checkpoint_every: Save the state every so many steps as well.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        errors.UsageError: Unknown experiment, run or option.
        errors.ResumeError: The run to resume was made with other settings.
        errors.CacheError: There is no cache; the hint has the command that builds it.
        errors.RunError: The training failed.
    """
    return _train("A", **locals())


def validate(
    experiment: str | Path | Experiment | None = None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    subset: float | None = None,
    overrides: Overrides = (),
    recipe: Recipe | None = None,
    weights: str | Path | Run | None = None,
    freeze: str | Sequence[str] = (),
    resume: str | Path | Run | None = None,
    name: str | None = None,
    on_epoch: Callable[[dict[str, Any]], bool | None] | None = None,
    build_cache: bool = False,
    raw: str | Path | None = None,
    device: str | None = None,
    data_in: DataPlacement | None = None,
    kernel: Kernel = "auto",
    deterministic: bool | None = None,
    graph: bool | None = None,
    checkpoint_every: int = 0,
    cache_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
) -> Run:
    """Trains on 85 % of each class, selects the model on the other 15 %, tests it once (protocol B).

    Args and Raises: As :func:`train`.
    """
    return _train("B", **locals())


def refit(
    experiment: str | Path | Experiment | None = None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    subset: float | None = None,
    overrides: Overrides = (),
    recipe: Recipe | None = None,
    weights: str | Path | Run | None = None,
    freeze: str | Sequence[str] = (),
    resume: str | Path | Run | None = None,
    name: str | None = None,
    on_epoch: Callable[[dict[str, Any]], bool | None] | None = None,
    build_cache: bool = False,
    raw: str | Path | None = None,
    device: str | None = None,
    data_in: DataPlacement | None = None,
    kernel: Kernel = "auto",
    deterministic: bool | None = None,
    graph: bool | None = None,
    checkpoint_every: int = 0,
    cache_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
) -> Run:
    """Trains on all samples but the test samples, and tests once, after the last epoch (protocol C).

    For settings that :func:`validate` has chosen, the number of epochs included.

    Args and Raises: As :func:`train`.
    """
    return _train("C", **locals())


def _train(protocol: Protocol, **given: Any) -> Run:
    from plifctl.config.overrides import override_texts, training_overrides
    from plifctl.data.source import RawSource
    from plifctl.pipeline.train import train_with_callback
    from plifctl.pipeline.train_options import TrainOptions

    if given["raw"] is not None and not given["build_cache"]:
        raise errors.UsageError("raw: the raw files are read to build the cache", hint="build_cache=True")
    flags = training_overrides(**{key: given.pop(key) for key in ("epochs", "subset", "seed", "freeze")})
    experiment, resume, weights = (given.pop(key) for key in ("experiment", "resume", "weights"))
    options = TrainOptions(
        protocol=protocol,
        experiment=str(experiment) if isinstance(experiment, Path) else experiment,
        resume=_model_name(resume) if resume is not None else None,
        weights=_model_name(weights) if weights is not None else None,
        overrides=(*override_texts(given.pop("overrides")), *flags),
        source=RawSource(_path(given.pop("raw"))),
        cache_dir=_path(given.pop("cache_dir")),
        runs_dir=_path(given.pop("runs_dir")),
        **{key: value for key, value in given.items() if key != "on_epoch"},
    )
    run = train_with_callback(options, given["on_epoch"])
    return type(run)(run.path.absolute())  # the working directory may change


def evaluate(
    model: str | Path | Run,
    *,
    checkpoint: CheckpointName = "best",
    T: int | None = None,
    time: TimeControl | None = None,
    tau: TauControl | float | None = None,
    controls: bool = False,
    fold_bn: bool = False,
    operations: int = 20,
    layer_times: float = 5.0,
    device: str | None = None,
    kernel: Kernel = "auto",
    cache_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
) -> EvaluationResult:
    """Tests a trained network on the test set: accuracy, latency, firing rates, operations, times of the layers.

    Args:
        model: A run, its path, id, part of its id, ``last``; an exported ``.pt``, ``.npz`` or folder; or ``zoo:NAME``.
        checkpoint: Checkpoint of a run to use.
        T: Time steps; None: those that the network was trained with.
        time: Control: ``shuffled``, ``reversed``, ``scattered`` or ``collapsed`` frames; the result's ``unchanged`` is
            the evaluation without it. None: unchanged.
        tau: Control: ``mean`` (the mean of the learnt τ in every layer), ``no-leak``, ``no-memory``, or the τ of all
            neurons; as ``time``.
        controls: Test under every named control as well; the result's ``controls`` has the accuracies.
        fold_bn: Fold batch norms into the convolutions before them.
        operations: Number of test samples to count operations on; 0: do not count.
        layer_times: Seconds that measuring the time of each layer, dense and event-driven, may take; 0: do not measure.
        device: Torch device; None: a GPU if there is one.
        kernel: Implementation of the spiking layers.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        errors.UsageError: There is no such run, or a control means nothing for it.
        errors.CacheError: There is no cache of its data set.
        errors.CheckpointError: The checkpoint is missing or damaged.
    """
    from plifctl.pipeline.evaluate import EvaluateOptions
    from plifctl.pipeline.evaluate import evaluate as evaluate_model

    options = EvaluateOptions(
        _model_name(model),
        checkpoint=checkpoint,
        T=T,
        time=time,
        tau=tau,
        controls=controls,
        fold_bn=fold_bn,
        operations=operations,
        layer_times=layer_times,
        device=device,
        kernel=kernel,
        cache_dir=_path(cache_dir),
        runs_dir=_path(runs_dir),
    )
    return evaluate_model(options)


def load(
    model: str | Path | Run,
    *,
    checkpoint: CheckpointName = "best",
    fold_bn: bool = False,
    device: str | None = None,
    kernel: Kernel = "auto",
    runs_dir: str | Path | None = None,
) -> Model:
    """Returns a trained network, a torch module in evaluation mode with ``predict`` and ``step``.

    Args:
        model: A run, its path, id, part of its id, ``last``; an exported ``.pt``, ``.npz`` or folder; or ``zoo:NAME``.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them.
        device: Torch device; None: a GPU if there is one.
        kernel: Implementation of the spiking layers.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        errors.UsageError: There is no such run.
        errors.CheckpointError: The checkpoint is missing or damaged.
    """
    from plifctl.pipeline.predict import load_model

    return load_model(
        _model_name(model),
        checkpoint=checkpoint,
        fold_bn=fold_bn,
        device=device,
        kernel=kernel,
        runs_dir=_path(runs_dir),
    )


def export(
    model: str | Path | Run | Model,
    file: str | Path,
    *,
    to: NetworkFormat | None = None,
    checkpoint: CheckpointName = "best",
    fold_bn: bool = False,
    half: bool = False,
    cache_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
) -> Exported:
    """Writes a trained network for other programs, or as a folder as on the Hugging Face hub.

    Args:
        model: As :func:`load`; or a model, with the weights that it has now, to a file only: a folder states a result,
            and that of the run it was loaded from is not one of these weights.
        file: The file or folder to write; must not exist.
        to: The format: ``pt`` (torch), ``npz`` (numpy), ``nir``, ``onnx``, ``folder`` or ``spikingjelly``; None: that
            of the file's ending, a folder if it has none.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them; NIR has no batch norm, so there they always are.
        half: Write the weights in half precision; for a folder only.
        cache_dir: Cache directory, for the energy and the accuracy that a model card states; None: PLIFCTL_CACHE_DIR,
            or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        errors.UsageError: There is no such run, the file exists or has another ending, the format cannot describe the
            network, or its library is not installed.
        errors.CheckpointError: The checkpoint is missing or damaged.
    """
    from plifctl.pipeline.export import export as export_model
    from plifctl.pipeline.predict import Model

    if isinstance(model, Model) and checkpoint != "best":
        raise errors.UsageError(f"checkpoint {checkpoint!r} is of a run; a model is exported as it is")
    return export_model(
        model.snapshot() if isinstance(model, Model) else _model_name(model),
        _expand(file),
        to=to,
        checkpoint=checkpoint,
        fold_bn=fold_bn,
        half=half,
        cache_dir=_path(cache_dir),
        runs_dir=_path(runs_dir),
    )


def convert(
    source: str | Path,
    file: str | Path,
    experiment: str | Path | Experiment,
    *,
    recipe: Recipe | None = None,
    overrides: Overrides = (),
    to: NetworkFormat | None = None,
    outputs: str | Path | None = None,
) -> Converted:
    """Writes a network with the weights of a state dict that another program saved; executes no code from it.

    Args:
        source: A state dict of torch, numpy or safetensors, of SpikingJelly or of any program with the same layers in
            the same order.
        file: The file or folder to write; must not exist.
        experiment: The experiment whose network it is: a name, a YAML file, or what :func:`experiment` returns.
        recipe: As :func:`prepare`.
        overrides: As :func:`experiment`, e.g. ``{"neuron.v_threshold": 0.5}``.
        to: As :func:`export`.
        outputs: ``.npz`` or ``.pt`` file with inputs ``x`` and outputs ``y`` of the other program; if its votes differ
            from those of the converted network, nothing is written, and ``exported`` of the result is None.

    Raises:
        errors.UsageError: There is no such experiment, the file exists, or the format cannot describe the network.
        errors.CheckpointError: The state dict cannot be read, or is of another network.
    """
    from plifctl.pipeline.convert import convert as convert_state

    return convert_state(
        _expand(source),
        _expand(file),
        experiment,
        recipe=recipe,
        overrides=overrides,
        to=to,
        outputs=_path(outputs),
    )


def table(
    name: str,
    *,
    source: ResultSource = "mine",
    include_modified: bool = False,
    epochs: int | None = None,
    runs_dir: str | Path | None = None,
) -> Table:
    """Returns a table of the report, such as the paper's Table 4 with our results beside the reported ones.

    Args:
        name: 1, 2, 3, 4, 5, S1, S2, or another table of the registry.
        source: Source of the results: ``mine``, the runs in the runs directory; ``shipped`` with plifctl; ``authors``;
            ``imported`` from other logs; or ``added``, runs of others.
        include_modified: Use runs with overrides too; they are marked.
        epochs: Count only the first epochs of every run, those of the authors too; None: all.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        errors.UsageError: There is no such table.
    """
    from plifctl.pipeline.report import build_table
    from plifctl.report import TableOptions

    return build_table(name, _path(runs_dir), TableOptions(source, include_modified, epochs))


def _path(path: str | Path | None) -> Path | None:
    return _expand(path) if path is not None else None


def _expand(path: str | Path) -> Path:
    from plifctl import paths

    return paths.expand(path)


def _model_name(model: str | Path | Run) -> str:
    """Returns the name under which a run, a path or a name is looked up."""
    from plifctl import paths

    if isinstance(model, str | Path):
        return paths.lookup_name(model)
    from plifctl.runs import Run

    if isinstance(model, Run):
        return paths.lookup_name(model.path)
    from plifctl.pipeline.predict import Model

    in_memory = 'a model in memory has no name: plifctl.export(model, "file.pt"), then name the file'
    raise errors.UsageError(
        f"found {type(model).__name__}, expected a run, its path or id, an exported file or folder, or zoo:NAME",
        hint=in_memory if isinstance(model, Model) else "name the run: 'last'",
    )
