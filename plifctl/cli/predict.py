"""plifctl predict: what a trained network says of recordings or images."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl import files
from plifctl.cli import console, options
from plifctl.errors import PlifctlError, UsageError

if TYPE_CHECKING:
    from plifctl.pipeline.predict_files import FilePredictions, Row

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(s|ms|us|µs|μs)")
_MICROSECONDS = {"s": 1_000_000, "ms": 1000}
_SHORT_US = 10_000  # shorter windows are shown to the microsecond
_PLAIN_CELLS = 4  # in a row without a window


def predict(
    model: options.RunName,
    file: Annotated[
        list[str],
        typer.Argument(help="Recordings or images, or folders of them; - reads a list of files from stdin."),
    ],
    window: Annotated[
        str | None,
        typer.Option("--window", metavar="TIME", help="Classify windows of this length: 1s, 500ms, 20000us."),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option("--stride", metavar="TIME", help="Time from one window to the next (default: its length)."),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Scale images to the size of the network, bilinear.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", parser=options.path, metavar="FILE", help="Write the rows as CSV; - writes to stdout."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=options.path,
            help="Picture of the votes over time, .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    checkpoint: options.CheckpointOption = "best",
    fold_bn: options.FoldOption = False,
    kernel: options.KernelOption = "auto",
    device: options.DeviceOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Classify recordings or images with a trained network.

    Framing, number of time steps, transforms and normalisation are those of the training. A row is a file: its class,
    the share of the votes that the class has, and the number of steps after which the answer did not change. With
    --window a row is a window of a recording, in seconds from its first event; the last window ends with the recording.
    Of a folder, all recordings or images are classified, also in its subfolders. A file that cannot be read does not
    stop the others; the exit code is then that of its error.

    Example: plifctl predict last recordings/ --csv answers.csv
    """
    from plifctl.training.process import prepare_process

    to_stdout = options.is_stdout(csv, as_json=as_json)
    prepare_process()  # before the imports below import torch

    from plifctl.pipeline.predict_files import PredictOptions, predict_files

    found = predict_files(
        PredictOptions(
            model,
            tuple(_names(file)),
            window_us=_microseconds("--window", window),
            stride_us=_microseconds("--stride", stride),
            resize=resize,
            csv=None if to_stdout else csv,
            out=out,
            checkpoint=checkpoint,
            fold_bn=fold_bn,
            device=device,
            kernel=kernel,
            runs_dir=options.existing_runs_dir(runs_dir),
        ),
        # a bar would take rows that are written to stdout
        *([] if to_stdout else [console.bar]),
    )
    _report_skipped(found)
    _show(found, csv, out, as_json=as_json)


def _names(given: Sequence[str]) -> Iterator[str]:
    """Yields the files and folders that were named, those listed on stdin in place of ``-``.

    Raises:
        UsageError: The list is empty.
    """
    for name in given:
        if name != "-":
            options.path(name)  # refuses an empty one
            yield name
        elif listed := list(filter(None, map(os.fsdecode, sys.stdin.buffer.read().splitlines()))):
            yield from listed
        else:
            raise UsageError("-: stdin lists no files", hint="find FOLDER -name '*.aedat4' | plifctl predict MODEL -")


def _microseconds(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    us = round(float(match[1]) * _MICROSECONDS.get(match[2], 1)) if match else 0
    if not us:
        raise UsageError(f"{option} {text}: expected a time of at least 1 µs with its unit", hint=f"{option} 0.5s")
    return us


def _report_skipped(found: FilePredictions) -> None:
    if not found.skipped:
        return
    from plifctl.data.datasets.own import describe_files

    kind = "no images" if found.model.spec.dataset.kind == "images" else "no recordings"
    console.note(describe_files([(len(found.skipped), found.skipped[0])], kind) or "")


def _show(found: FilePredictions, csv: Path | None, out: Path | None, *, as_json: bool) -> None:
    """Takes the rows and writes each where it belongs; then reports the files that could not be classified."""
    from plifctl.pipeline.predict_files import VoteCurves

    kept: list[Any] = []
    failed: list[tuple[str, PlifctlError]] = []
    curves = VoteCurves(found.model.classes)
    with _csv_writer(csv, found.model.classes) as write_csv:
        for row in found.rows:
            if row.error is not None:
                failed.append((row.file, row.error))
                continue
            write_csv(row)
            if out is not None:
                curves.add(row)
            kept.append(row.to_json() if as_json else _cells(row))
        if len(failed) == 1 and not kept:
            raise failed[0][1]
    if out is not None and kept:
        curves.draw(out)
    if as_json:
        console.emit_json(_document(found, kept, failed, out))
    elif csv is None and kept:
        _print(found, kept)
    elif csv not in (None, options.STDOUT):
        console.emit(f"written: {csv}, {len(kept):,} row{'' if len(kept) == 1 else 's'}")
    if out is not None and kept and not as_json:
        (console.note if csv == options.STDOUT else console.emit)(f"written: {out}")
    _report_failed(failed)


@contextmanager
def _csv_writer(csv: Path | None, classes: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """Yields a function that writes a row to the file or to stdout; it does nothing if there is none."""
    from plifctl.pipeline.predict_files import CsvWriter

    if csv is None:
        yield lambda row: None
    elif csv == options.STDOUT:
        yield CsvWriter(SimpleNamespace(write=console.emit), classes).write
    else:
        with (
            files.atomic_write(csv) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = CsvWriter(file, classes)
            try:
                yield writer.write
            except BaseException:  # what took hours is kept, and not taken for all of it
                with suppress(OSError):
                    file.flush()
                    if writer.rows:
                        _keep_part(temporary, csv)
                raise


def _keep_part(temporary: Path, csv: Path) -> None:
    """Copies the rows that were written to a new file beside the one that was to be written."""
    names = (csv.with_name(f"{csv.stem}.partial{n or ''}{csv.suffix}") for n in itertools.count())
    partial = next(name for name in names if not os.path.lexists(name))
    shutil.copyfile(temporary, partial)
    console.note(f"written: {partial}, the rows until then")


def _cells(row: Row) -> tuple[str, ...]:
    """Returns the cells of a row of the table."""
    start, end = row.window_us or (0, 0)
    digits = 3 if end - start >= _SHORT_US else 6
    window = () if row.window_us is None else tuple(f"{us / 1e6:.{digits}f}" for us in row.window_us)
    found = row.prediction
    if found is None:
        return (row.file, *window, "no events", "", "")
    if found.silent:
        return (row.file, *window, "none: no output neuron fired", "0.0", "")
    return (row.file, *window, found.name, f"{100 * found.share:.1f}", f"{found.decided_after} of {len(found.rates)}")


def _print(found: FilePredictions, cells: Sequence[tuple[str, ...]]) -> None:
    spec, path = found.model.spec, found.model.trained.path
    console.emit(f"{spec.name} ({spec.recipe} recipe), T = {spec.T}, {path}\n\n")
    window = ("from s", "to s") if len(cells[0]) > _PLAIN_CELLS else ()
    console.emit_table(("file", *window, "class", "share %", "decided after"), cells)


def _document(
    found: FilePredictions, rows: Sequence[Any], failed: Sequence[tuple[str, PlifctlError]], out: Path | None
) -> dict[str, Any]:
    spec = found.model.spec
    return {
        "experiment": spec.name,
        "recipe": spec.recipe,
        "checkpoint": str(found.model.trained.path),
        "T": spec.T,
        "classes": list(found.model.classes),
        "predictions": list(rows),
        "failed": [{"file": file, "message": str(error), "hint": error.hint} for file, error in failed],
        "skipped": len(found.skipped),
        "out": None if out is None else str(out),
    }


def _report_failed(failed: Sequence[tuple[str, PlifctlError]]) -> None:
    """Reports the files that could not be classified, and each hint once.

    Raises:
        typer.Exit: There are some.
    """
    for _, error in failed:
        console.warn(f"not classified: {error}")
    for hint in dict.fromkeys(error.hint for _, error in failed):
        console.hint(hint)
    if failed:
        raise typer.Exit(failed[0][1].exit_code)
