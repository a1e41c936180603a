"""Classifies files with a trained network; implements ``plifctl predict``.

Files are read one after the other, while the rows of those before are taken: neither all files nor all windows of a
long recording are held at once. A file that cannot be classified is a row with its error; the others are classified.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from plifctl import files, paths
from plifctl.config.choices import CheckpointName, DataKind, Kernel
from plifctl.data.formats.headers import HEADER_BYTES, format_of, guess_content
from plifctl.errors import (
    MachineError,
    OutOfMemoryError,
    PlifctlError,
    RawDataError,
    UsageError,
    from_os_error,
    list_names,
)
from plifctl.pipeline.device import LESS_MEMORY_HINT
from plifctl.pipeline.predict import Model, Prediction, load_model
from plifctl.pipeline.progress import Progress, silent
from plifctl.training.process import out_of_memory_errors

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
"""Endings of the files of a folder that are taken as images."""


@dataclass(frozen=True)
class PredictOptions:
    """The options of ``plifctl predict``.

    Attributes:
        model: As :func:`~plifctl.pipeline.predict.load_model`.
        files: Files, and folders of which all recordings or images are classified.
        window_us: Length of the windows of a recording that are classified, µs; None: all of it at once.
        stride_us: Time between the beginnings of windows, µs; None: their length.
        resize: Scale images of another size.
        csv: Table to write; None: none.
        out: Picture to write, .png, .svg or .pdf; None: none.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them.
        device: Torch device; None: a GPU where there is one.
        kernel: Kernel of the spiking layers.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """

    model: str
    files: tuple[str, ...]
    window_us: int | None = None
    stride_us: int | None = None
    resize: bool = False
    csv: Path | None = None
    out: Path | None = None
    checkpoint: CheckpointName = "best"
    fold_bn: bool = False
    device: str | None = None
    kernel: Kernel = "auto"
    runs_dir: Path | None = None


@dataclass(frozen=True)
class Row:
    """What the network says of a file, or of a window of it.

    Attributes:
        file: The file.
        window_us: Begin and end of the window, µs from the first event of the recording; None: the whole file.
        prediction: The prediction; None of a window without events, and where there is an error.
        error: Why the file, or the rest of it, is not classified.
    """

    file: str
    window_us: tuple[int, int] | None = None
    prediction: Prediction | None = None
    error: PlifctlError | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the row as JSON values."""
        start, end = (None, None) if self.window_us is None else (us / 1e6 for us in self.window_us)
        found = self.prediction
        named = found is not None and not found.silent
        return {
            "file": self.file,
            "start_s": start,
            "end_s": end,
            "predicted": found.label if found is not None and named else None,
            "predicted_class": found.name if found is not None and named else None,
            "share": None if found is None else round(found.share, 6),
            "decided_after": found.decided_after if found is not None and named else None,
            "votes": None if found is None else _rounded(found.votes),
            "rates": None if found is None else _rounded(found.rates),
        }


@dataclass(frozen=True)
class FilePredictions:
    """The predictions for some files.

    Attributes:
        model: The network.
        skipped: Files of folders that are no recordings or no images.
        rows: The rows, which are computed as they are taken.
    """

    model: Model
    skipped: tuple[str, ...]
    rows: Iterator[Row] = field(repr=False)


def predict_files(options: PredictOptions, progress: Progress = silent) -> FilePredictions:
    """Returns the predictions for files, in the order in which they are named, those of a folder sorted.

    Raises:
        UsageError: There is no such run, a file to write exists, or the options do not fit each other or the network.
        CheckpointError: The checkpoint is missing or damaged.
    """
    if options.stride_us is not None and options.window_us is None:
        raise UsageError("--stride needs --window, the length of a window", hint="--window 1s --stride 0.5s")
    for path in filter(None, (options.csv, options.out)):
        files.check_new_file(path)
    if options.out is not None:
        from plifctl.report.figures.style import check_format  # matplotlib

        check_format(options.out)
    model = load_model(
        options.model,
        checkpoint=options.checkpoint,
        fold_bn=options.fold_bn,
        device=options.device,
        kernel=options.kernel,
        runs_dir=options.runs_dir,
    )
    kind = model.spec.dataset.kind
    if kind == "images" and options.window_us is not None:
        raise UsageError(f"--window: {model.spec.title} classifies images, which have no windows of time")
    if kind == "events" and options.resize:
        raise UsageError(f"--resize: {model.spec.title} classifies recordings of events; images are scaled")
    skipped: list[str] = []
    found = list(_expand(options.files, kind, skipped))
    if options.out is not None:
        from plifctl.report.vote_curves import MAX_PANELS

        if len(found) > MAX_PANELS:
            raise UsageError(f"--out: {len(found)} files, at most {MAX_PANELS} are drawn", hint="name fewer files")
    return FilePredictions(model, tuple(skipped), _rows(model, found, options, progress))


class CsvWriter:
    """Writes rows as CSV for spreadsheets, the votes of each class in a column of its own.

    Args:
        file: What is written to.
        classes: Names of the classes.

    Attributes:
        rows: Number of rows written so far.
    """

    COLUMNS = ("file", "start_s", "end_s", "predicted", "predicted_class", "share", "decided_after")

    def __init__(self, file: SupportsWrite[str], classes: Sequence[str]) -> None:
        from plifctl.report.render import csv_value

        self._value = csv_value
        self._writer = csv.writer(file, lineterminator="\n")
        self.rows = 0
        self._writer.writerow([*self.COLUMNS, *(f"votes_{csv_value(name)}" for name in classes)])

    def write(self, row: Row) -> None:
        """Writes a row that has no error."""
        tree = row.to_json()
        self._writer.writerow([*(self._value(tree[name]) for name in self.COLUMNS), *(tree["votes"] or ())])
        self.rows += 1


class VoteCurves:
    """Collects what a picture of predictions needs: of each file the shares of the votes over time.

    Args:
        classes: Names of the classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._curves: dict[str, tuple[list[float], list[np.ndarray]]] = {}
        self._xlabel = "time step; votes up to it"

    def add(self, row: Row) -> None:
        """Adds a row that has no error."""
        x, votes = self._curves.setdefault(row.file, ([], []))
        if row.window_us is not None:
            self._xlabel = "time (middle of the window), s"
            x.append(sum(row.window_us) / 2e6)
            votes.append(np.zeros(len(self._classes)) if row.prediction is None else row.prediction.votes)
        elif row.prediction is not None:
            sums = row.prediction.rates.cumsum(0, dtype=np.float64)
            x[:], votes[:] = range(1, len(sums) + 1), sums

    def draw(self, path: Path) -> None:
        """Writes the picture of the rows, at least one.

        Raises:
            MachineError: The file cannot be written.
        """
        from plifctl.report.vote_curves import Panel, draw_vote_curves

        panels = []
        for name, (x, votes) in self._curves.items():
            sums = np.array(votes)
            total = sums.sum(1, keepdims=True)
            shares = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
            panels.append(Panel(Path(name).name, np.array(x), shares))
        draw_vote_curves(panels, self._classes, self._xlabel, path)


def _rows(model: Model, found: Sequence[Row], options: PredictOptions, progress: Progress) -> Iterator[Row]:
    with progress("classifying", "files") as task:
        done, windows, file, failed = 0, 0, None, ""
        for row, prediction in model.classify(_inputs(model, found, options)):
            done += file not in (None, row.file)
            windows, file = windows + 1, row.file
            task.update(done, len(found), detail=f"windows: {windows:,}" if row.window_us else "")
            if not isinstance(prediction, OutOfMemoryError):
                yield replace(row, prediction=prediction)
            elif row.file != failed:  # its other windows would say the same
                failed = row.file
                others = "; other windows of it are missing, too, if they need as much" if row.window_us else ""
                yield replace(row, error=OutOfMemoryError(f"{prediction}{others}", hint=prediction.hint))


def _inputs(model: Model, found: Sequence[Row], options: PredictOptions) -> Iterator[tuple[Row, str, Tensor | None]]:
    """Yields each row to fill in with its file, and the network's input for it."""
    for row in found:
        if row.error is not None:
            yield row, row.file, None
            continue
        try:
            with out_of_memory_errors(f"{row.file}: out of memory", LESS_MEMORY_HINT):
                if options.window_us is None:
                    yield row, row.file, model.to_input(row.file, resize=options.resize)
                else:
                    stride_us = options.stride_us or options.window_us
                    for window, x in model.window_inputs(row.file, options.window_us, stride_us):
                        yield replace(row, window_us=window), row.file, x
        except (PlifctlError, OSError) as error:
            yield replace(row, error=_as_error(error, row.file)), row.file, None


def _as_error(error: PlifctlError | OSError, name: str) -> PlifctlError:
    if isinstance(error, PlifctlError):
        return error
    return from_os_error(error, name) or MachineError(f"{name}: {error.strerror or error}")


def _expand(names: Iterable[str], kind: DataKind, skipped: list[str]) -> Iterator[Row]:
    """Yields a row for each file, to be filled in; folders are replaced by what is in them."""
    for name in names:
        try:
            path = paths.expand(name)
            if not path.is_dir():
                yield Row(name)
                continue
            inside, others = _list_folder(path, kind)
            skipped += [str(path / other) for other in others]
            if not inside:
                what = "image" if kind == "images" else "recording"
                hint = f"its files are {list_names(others, 3)}" if others else "it is empty"
                raise RawDataError(f"{path}: no {what} in this folder", hint=hint)
            yield from (Row(str(path / one)) for one in inside)
        except (PlifctlError, OSError) as error:
            yield Row(name, error=_as_error(error, name))


def _list_folder(folder: Path, kind: DataKind) -> tuple[list[str], list[str]]:
    """Returns the images or the recordings of a folder and of those in it, and its other files, sorted."""
    from plifctl.data.datasets.own import tables_beside
    from plifctl.data.inspection.listing import list_files

    names = [file.name for file in list_files(folder)]
    if kind == "images":
        wanted = [name for name in names if name.lower().endswith(IMAGE_ENDINGS)]
    else:
        wanted = [name for name in names if _is_recording(folder / name)]
        tables = set(tables_beside(wanted))
        wanted = [name for name in wanted if name not in tables]
    taken = set(wanted)
    return wanted, [name for name in names if name not in taken]


def _is_recording(path: Path) -> bool:
    """Returns whether a file of a folder is taken as a recording: by its header, or else by its name or columns."""
    from plifctl.data.datasets.own import NOT_RECORDINGS
    from plifctl.data.formats.detect import DECODER_VERSIONS
    from plifctl.data.inspection.recording import should_be_recording
    from plifctl.data.storage import is_archive

    if NOT_RECORDINGS.search(path.name) or is_archive(path):
        return False
    head = b""
    with suppress(OSError):  # reading it says why
        head = files.read_regular(path, HEADER_BYTES)
    if (name := format_of(head)) is not None:
        return name in DECODER_VERSIONS
    return should_be_recording(path.name, guess_content(head) or "")


def _rounded(numbers: np.ndarray) -> list[Any]:
    """Returns numbers without the digits that float32 adds to tenths."""
    values: list[Any] = numbers.astype(np.float64).round(6).tolist()
    return values
