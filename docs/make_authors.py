"""Writes the authors' runs into the registry, from their training logs: ``python docs/make_authors.py LOGS``.

LOGS is a folder with the CSV files of the folder ``LOGS`` of the authors' repository, and its two TensorBoard folders
``val/val_0.15_CIFAR10DVS…`` and ``val/val_0.15_DVS128Gesture…``; ``registry/authors/runs.json`` names each file that
was read. plifctl/runs/authors.py describes the files that are written.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from plifctl.config.registry import Registry
from plifctl.runs import ImportedRun, find_logs, import_log
from plifctl.runs.authors import digest_of
from plifctl.runs.documents import add_checksum

SOURCE = "github.com/fangwei123456/Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron, folder LOGS"
REGISTRY = Path(__file__).resolve().parents[1] / "registry"


def is_single(run: ImportedRun) -> bool:
    """Returns whether all values of a run are numbers of single precision, as TensorBoard stores them."""
    values = np.array([value for tag in run.tags.values() for value in run.series[tag].values])
    return bool((values.astype(np.float32) == values).all())


def name_of(run: ImportedRun) -> str:
    """Returns the name of the authors' run of an experiment."""
    return f"authors-{run.settings['experiment']}{'-validated' if run.settings['protocol'] == 'B' else ''}"


def column(run: ImportedRun, name: str) -> dict[int, str]:
    """Returns the values of a series by epoch, each with the fewest digits that determine it."""
    text = (lambda value: np.format_float_positional(np.float32(value))) if is_single(run) else repr
    return {epoch: text(value) for epoch, value in run.logged_values(name).items()}


def table_text(columns: dict[str, dict[int, str]]) -> str:
    """Returns columns as CSV, with a row for each epoch."""
    epochs = range(1, max(map(max, columns.values())) + 1)
    rows = [["epoch", *columns], *([str(e), *(c.get(e, "") for c in columns.values())] for e in epochs)]
    return "".join(",".join(row) + "\n" for row in rows)


def write_authors(logs: Path, folder: Path) -> None:
    """Writes the runs whose experiments are in the registry."""
    experiments = Registry([REGISTRY]).experiments()
    found = [import_log(log, logs, tags={}, experiments=experiments) for log in find_logs(logs)]
    named = [replace(run, name=name_of(run)) for run in found if run.settings.get("experiment")]
    runs = sorted(named, key=lambda run: run.name)
    tables: dict[str, dict[str, dict[int, str]]] = {"accuracy.csv": {}, "w.csv": {}}
    for run in runs:
        for name, tag in run.tags.items():
            file = "w.csv" if name.startswith("tau/") else "accuracy.csv"
            tables[file][f"{run.name.removeprefix('authors-')} {tag}"] = column(run, name)
    for file, columns in tables.items():
        (folder / file).write_text(table_text(columns), encoding="utf-8", newline="\n")
    entries = [
        {
            "name": run.name,
            "settings": run.settings,
            "tags": run.tags,
            "single_precision": is_single(run),
            "finished": run.finished,
            "files": run.files,
        }
        for run in runs
    ]
    digests = {file: digest_of((folder / file).read_bytes()) for file in tables}
    tree = {"schema_version": 1, "source": SOURCE, "sha256": digests, "runs": entries}
    (folder / "runs.json").write_text(json.dumps(add_checksum(tree), indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {len(runs)} runs")


if __name__ == "__main__":
    write_authors(Path(sys.argv[1]), REGISTRY / "authors")
