"""Imported runs: made from the logs of other code.

The names that the authors' code gives to the folders and files of its logs contain the settings. By them a log is
matched to an experiment of the registry, whoever ran the code. Whether the run is one of the authors' own is told by
its test accuracies, which only theirs have. Of logs of other code only the scalars are known.
"""

from __future__ import annotations

import bisect
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.choices import Protocol
from plifctl.errors import DamagedFileError, RunError, UsageError
from plifctl.runs import folders
from plifctl.runs.documents import add_checksum, fingerprint, load_document
from plifctl.runs.event_logs import Log, Series
from plifctl.runs.records import ResultRecord, best_epoch, is_of_authors, record_text

_FILE = folders.IMPORTED
_FILES = (_FILE, "result.json")
_AUTHORS_SEED = 2020
_PREFIX, _AUTHORS_PREFIX = "imported-", "authors-"

ACCURACIES = ("test_accuracy", "validation_accuracy", "train_accuracy")
TAGS: dict[str, tuple[str, ...]] = {
    "test_accuracy": ("test_accuracy", "test_acc", "test/accuracy", "test/acc", "acc/test", "accuracy/test"),
    "validation_accuracy": ("validation_accuracy", "val_accuracy", "val_acc", "val/accuracy", "val/acc", "acc/val"),
    "train_accuracy": ("train_accuracy", "train_acc", "train/accuracy", "train/acc", "acc/train"),
    "loss": ("loss", "train_loss", "train/loss", "loss/train"),
}
"""Tags of each series, the most likely first: those of the authors, SpikingJelly, Lightning and plifctl."""

_AUTHORS = re.compile(
    r"(?:val_(?P<validation>\d+(?:\.\d+)?)_)?(?P<dataset>[A-Za-z0-9]+)_init_tau_(?P<tau>\d+(?:\.\d+)?)_use_plif_(?P<plif>True|False)"
    r"_use_max_pool_(?P<max_pool>True|False)_T_(?P<T>\d+)"
    r"(?:_c_(?P<channels>\d+)_n_(?P<convs>\d+)_split_by_(?P<slicing>[a-z]+)_normalization_(?P<normalization>\w+?))?"
    r"_detach_reset_(?P<detach>True|False)"
)
_DATASETS = {
    "MNIST": "mnist",
    "FashionMNIST": "fashion-mnist",
    "CIFAR10": "cifar10",
    "NMNIST": "nmnist",
    "CIFAR10DVS": "cifar10dvs",
    "DVS128Gesture": "gesture",
}
_CONVS = {"nmnist": 2, "cifar10dvs": 4, "gesture": 5}
"""Convolutions of the paper's networks for events; the authors also ran others, and frames sliced by time."""

_PERCENT = 1.001
"""Accuracies above are percentages; a mean in float32 may exceed 1 by rounding."""

_MAX_EPOCHS = 1_000_000
_MIN_W = -50.0
_W = re.compile(r"w(\d+)")
_TAU = re.compile(r"tau/(.+)")


@dataclass(frozen=True)
class ImportedRun:
    """A run of other code.

    Attributes:
        name: Name of its folder in the runs directory.
        source: Folder of the logs.
        files: Size in bytes and SHA-256 of each log, by name.
        settings: Known settings: ``experiment``, ``protocol``, ``T``, ``seed`` and others.
        tags: Tag of each series (:data:`TAGS`), and of the τ of each layer, ``tau/NAME``.
        percent: The accuracies that are percentages.
        finished: When the last value was written.
        series: Scalars by tag.
        imported: When it was imported, in seconds since 1970.
    """

    name: str
    source: str
    files: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    tags: dict[str, str]
    percent: tuple[str, ...]
    finished: str
    series: dict[str, Series]
    imported: float = field(default=0.0, compare=False)

    @cached_property
    def epochs(self) -> dict[str, dict[int, float]]:
        """Each series of :attr:`tags` by epoch, from 1; accuracies are fractions, τ in time steps."""
        logged = {name: self.logged_values(name) for name in self.tags}
        return {
            name: dict(zip(values, self._convert(name, values.values()), strict=True))
            for name, values in logged.items()
        }

    @property
    def logged(self) -> list[int]:
        """Epochs that have a value, ascending."""
        return sorted(set().union(*self.epochs.values()))

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy by epoch; if there is none, validation or training accuracy."""
        return next(self.epochs[name] for name in ACCURACIES if name in self.tags)

    @property
    def layers(self) -> list[str]:
        """Spiking layers whose τ was logged."""
        return [name.removeprefix("tau/") for name in self.tags if name.startswith("tau/")]

    def logged_values(self, name: str) -> dict[int, float]:
        """Returns a series of :attr:`tags` by epoch, from 1, as logged; of a repeated epoch, the last value."""
        axis, series = self._axis, self.series[self.tags[name]]
        # one series may lack its first epoch: exports of TensorBoard have a random part of long ones
        from_zero = any(min(self.series[self.tags[one]].steps) == 0 for one in ACCURACIES if one in self.tags)
        if max(series.steps) <= max(axis.steps):
            epochs = [step + from_zero for step in series.steps]
        else:
            epochs = list(_epochs_of(series, axis, from_zero))
        return dict(sorted(dict(zip(epochs, series.values, strict=True)).items()))

    def _convert(self, name: str, values: Iterable[float]) -> Iterable[float]:
        """Returns logged values of a series as fractions or in time steps."""
        if name in ACCURACIES:
            scale = 100 if name in self.percent else 1
            return [min(1.0, value / scale) for value in values]
        return [1 + math.exp(-value) for value in values] if _W.fullmatch(self.tags[name]) else values

    @property
    def _axis(self) -> Series:
        return next(self.series[self.tags[name]] for name in ACCURACIES if name in self.tags)

    def record(self) -> ResultRecord | None:
        """Returns the result record of a run whose experiment is known, else None; its origin is ``imported``.

        Accuracy A is the maximum over the test epochs. Accuracy B is the test accuracy at the epoch with the highest
        validation accuracy; among equal epochs the latest counts, as in the authors' code.
        """
        experiment = self.settings.get("experiment")
        test, validation = self.epochs.get("test_accuracy"), self.epochs.get("validation_accuracy")
        if experiment is None or not test:
            return None
        chosen_by = test if self.settings["protocol"] == "A" else validation or {}
        chosen_by = {epoch: value for epoch, value in chosen_by.items() if epoch in test}
        if not chosen_by:
            return None
        best = best_epoch(chosen_by, "latest")
        last = self.logged[-1]
        span = range(1, last + 1)
        layers = [[self.epochs[f"tau/{name}"].get(epoch) for epoch in span] for name in self.layers]
        tau: Iterable[tuple[Any, ...]] = zip(*layers, strict=True) if layers else [()] * last
        return ResultRecord(
            schema_version=1,
            origin="imported",
            run=self.name,
            experiment=experiment,
            recipe="authors",
            protocol=self.settings["protocol"],
            dataset=self.settings["dataset"],
            T=self.settings["T"],
            seed=self.settings["seed"],
            epochs=last,
            digest=None,
            overrides=(),
            data=None,
            accuracy=test[best],
            best_epoch=best,
            validation_accuracy=None if self.settings["protocol"] == "A" else chosen_by[best],
            test_accuracy=tuple(test.get(epoch) for epoch in span),
            tau=tuple(row if None not in row else () for row in tau),
            environment={},
            finished=self.finished,
        )


def import_log(
    log: Log,
    folder: Path,
    *,
    tags: Mapping[str, str],
    experiments: Sequence[str],
    authors: Sequence[ResultRecord] = (),
) -> ImportedRun:
    """Returns the run that a log describes; of the authors' logs it has the name of their run, ``authors-EXPERIMENT``.

    Args:
        log: The log.
        folder: The folder that was searched.
        tags: Tags of series that have none of the usual names.
        experiments: Names of the experiments in the registry.
        authors: Records of the authors' runs.

    Raises:
        UsageError: No series is an accuracy, or a tag does not exist.
        DamagedFileError: A value is out of its range.
    """
    settings = _settings(log.name, experiments)
    found = _tags(log, tags)
    greatest = {name: max(log.series[tag].values) for name, tag in found.items() if name in ACCURACIES}
    least = min(min(log.series[found[name]].values) for name in greatest)
    if not (least >= 0 and max(greatest.values()) <= 100):
        raise DamagedFileError(
            f"{log.files[0]}: accuracies from {least:g} to {max(greatest.values()):g}, expected 0 to 1, or percent"
        )
    for name, tag in found.items():
        steps, values = log.series[tag].steps, log.series[tag].values
        if name in ACCURACIES and max(steps) >= _MAX_EPOCHS:
            raise DamagedFileError(f"{log.files[0]}: {tag} at step {max(steps)}, expected epochs")
        if _W.fullmatch(tag) and min(values) < _MIN_W:
            raise DamagedFileError(f"{log.files[0]}: {tag} is {min(values):g}, out of range for τ = 1 + exp(−w)")
    files = {path.relative_to(folder).as_posix(): fingerprint(path) for path in log.files}
    percent = tuple(name for name, value in greatest.items() if value > _PERCENT)
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(log.finished))
    validated = "-validated" if settings.get("protocol") == "B" else ""
    name = f"{_PREFIX}{settings.get('experiment') or _slug(log.name)}{validated}"
    run = ImportedRun(name, str(folder.resolve()), files, settings, found, percent, finished, dict(log.series))
    record = run.record()
    known = (one.run for one in authors if record is not None and is_of_authors(record, [one]))
    return replace(run, name=next(known, name))


def save_imported(run: ImportedRun, runs_dir: Path) -> Path:
    """Saves an imported run in the runs directory, replacing an earlier import of the same logs.

    Raises:
        UsageError: Another folder has this name.
    """
    path = runs_dir / run.name
    former = [runs_dir / name for name in _former_names(run)]
    if before := [folder for folder in former if (folder / _FILE).is_file() and _same_logs(run, folder)]:
        path = before[0]  # it keeps its name; twice in a table it would be two runs
    elif path.exists() or path.is_symlink():
        if not folders.is_imported(path):
            raise UsageError(f"{path}: exists and is not an imported run", hint="choose another name: --name NAME")
        if not _same_logs(run, path):
            raise UsageError(
                f"{run.name}: already imported from other logs: {load_imported(path).source}",
                hint=f"choose another name: --name NAME; or plifctl runs rm {folders.run_argument(path)}",
            )
    there = [file.name for file in path.iterdir() if not file.name.startswith(".")] if path.exists() else []
    others = sorted(set(there) - set(_FILES))
    if others or path.is_symlink():
        what = f"has files of yours: {', '.join(others[:5])}" if others else f"is a link to {path.resolve()}"
        raise UsageError(f"{path}: {what}; it is not replaced", hint="choose another name: --name NAME")
    with files.atomic_folder(path) as temporary:
        tree = {"schema_version": 1, **asdict(run)}
        del tree["imported"]
        files.write_text(
            temporary / _FILE, json.dumps(add_checksum(json.loads(json.dumps(tree))), ensure_ascii=False) + "\n"
        )
        record = run.record()
        if record is not None:
            files.write_text(temporary / "result.json", record_text(record))
    return path


def _former_names(run: ImportedRun) -> list[str]:
    """Returns the names that earlier versions gave to imports of such logs, which they all called the authors'."""
    if run.name.startswith(_AUTHORS_PREFIX):
        return [run.name.replace(_AUTHORS_PREFIX, "published-", 1)]
    if run.name.startswith(_PREFIX) and run.settings:
        return [run.name.replace(_PREFIX, prefix, 1) for prefix in (_AUTHORS_PREFIX, "published-")]
    return []


def _same_logs(run: ImportedRun, path: Path) -> bool:
    """Returns whether the run in ``path`` was imported from the logs of ``run``, or is damaged and may be replaced."""
    try:
        previous = load_imported(path)
    except RunError:
        return True
    known = {facts["sha256"] for facts in previous.files.values()}
    return previous.source == run.source or not known.isdisjoint(facts["sha256"] for facts in run.files.values())


def load_imported(path: Path) -> ImportedRun:
    """Returns the imported run in a folder.

    Raises:
        RunError: It is damaged.
    """
    file, hint = path / _FILE, "import the logs again: plifctl runs import DIR"
    tree = load_document(file, ("source", "series"), hint=hint)
    try:
        if tree.pop("schema_version") != 1:
            raise ValueError("written by another version of plifctl")
        series = {tag: Series(**{key: tuple(s[key]) for key in s}) for tag, s in tree.pop("series").items()}
        tree |= {"name": path.name, "percent": tuple(tree["percent"])}
        return ImportedRun(**tree, series=series, imported=file.stat().st_mtime)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{file}: damaged: {error}", hint=hint) from error


def _settings(name: str, experiments: Sequence[str]) -> dict[str, Any]:
    match = _AUTHORS.fullmatch(name)
    if match is None or match["dataset"] not in _DATASETS:
        return {}
    dataset, tau_0 = _DATASETS[match["dataset"]], float(match["tau"])
    neuron = "plif" if match["plif"] == "True" else "lif"
    parts = [dataset, neuron, *([] if tau_0 == 2 else [f"tau{tau_0:g}"])]
    experiment = "-".join(parts if match["max_pool"] == "True" else [*parts, "avgpool"])
    validation = None if match["validation"] is None else float(match["validation"])
    protocol: Protocol = "A" if validation is None else "B"
    settings = {
        "experiment": None,
        "dataset": dataset,
        "neuron": neuron,
        "tau_0": tau_0,
        "pooling": "max" if match["max_pool"] == "True" else "average",
        "T": int(match["T"]),
        "detach_reset": match["detach"] == "True",
        "protocol": protocol,
        "seed": _AUTHORS_SEED,
    }
    others = {
        "validation": validation,
        "channels": match["channels"] and int(match["channels"]),
        "convolutions": match["convs"] and int(match["convs"]),
        "slicing": match["slicing"],
        "normalization": match["normalization"],
    }
    settings |= {key: value for key, value in others.items() if value is not None}
    if experiment in experiments and _as_in_paper(settings):
        settings["experiment"] = experiment
    return settings


def _as_in_paper(settings: Mapping[str, Any]) -> bool:
    """Returns whether the settings that are not part of an experiment's name are those of the paper."""
    dataset, protocol = settings["dataset"], settings["protocol"]
    steps = {"nmnist": 20 if protocol == "B" else 10, "cifar10dvs": 20, "gesture": 20}.get(dataset, 8)
    wanted: dict[str, Any] = {"T": steps, "detach_reset": True}
    if protocol == "B":
        wanted["validation"] = 0.15
    if dataset in _CONVS:
        wanted |= {"channels": 128, "convolutions": _CONVS[dataset], "slicing": "number", "normalization": "None"}
    return all(settings.get(key) == value for key, value in wanted.items())


def _tags(log: Log, chosen: Mapping[str, str]) -> dict[str, str]:
    for name, tag in chosen.items():
        if tag not in log.series:
            raise UsageError(f"{log.name}: no scalar {tag!r}", hint=f"its scalars: {', '.join(sorted(log.series))}")
        if name not in TAGS:
            raise UsageError(f"no series {name!r}", hint=f"known: {', '.join(TAGS)}")
    found, lower = dict(chosen), {tag.lower(): tag for tag in log.series}
    for name, tags in TAGS.items():
        for tag in tags:
            if tag in lower:
                found.setdefault(name, lower[tag])
    if not set(found) & set(ACCURACIES):
        raise UsageError(
            f"{log.name}: none of its scalars has a known name of an accuracy: {', '.join(sorted(log.series))}",
            hint="name its tag: --tag test_accuracy=TAG",
        )
    axis = next(log.series[found[name]] for name in ACCURACIES if name in found)
    found = {  # a series by training step has no epochs
        name: tag for name, tag in found.items() if max(log.series[tag].steps) <= max(axis.steps)
    }
    layers = {f"tau/sn{match[1]}": tag for tag in log.series if (match := _W.fullmatch(tag))}
    layers = dict(sorted(layers.items(), key=lambda item: int(item[0].removeprefix("tau/sn"))))
    layers |= {tag: tag for tag in log.series if _TAU.fullmatch(tag)}
    return found | layers


def _epochs_of(series: Series, axis: Series, from_zero: bool) -> Iterator[int]:
    """Yields the epoch of each value of a series that was written once per epoch, by training step.

    Steps of epochs that a resumed training repeated count twice. The epoch is therefore that of the accuracy
    nearest in time, plus the number of epochs in between (by steps) whose accuracy is missing in the log.
    """
    every = math.gcd(*series.steps)
    for step, when in zip(series.steps, series.times, strict=True):
        accuracy = _nearest(axis.times, when)
        neighbour = _nearest(series.times, axis.times[accuracy])
        yield axis.steps[accuracy] + from_zero + (step - series.steps[neighbour]) // every


def _nearest(times: tuple[float, ...], when: float) -> int:
    after = bisect.bisect_left(times, when)
    return min((index for index in (after - 1, after) if 0 <= index < len(times)), key=lambda i: abs(times[i] - when))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:160] or "run"
