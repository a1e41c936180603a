"""Exports of a cache for other tools: SpikingJelly's folders of frames, tonic's cache on disk, or plain ``.npz``.

| to | files | read by |
|---|---|---|
| spikingjelly | ``frames_number_{T}_split_by_number/{split}/{class}/{name}.npz`` | its data sets, SpikingJelly 2.0.0 |
| tonic | ``{split}/{n}_0.hdf5`` | ``DiskCachedDataset``, tonic 1.7.0 |
| npz | ``{split}/{class}/{id}.npz`` | ``numpy.load`` |

The folder also contains ``samples.csv`` (the sample of each file), ``exported.json`` (key and origin of the cache) and
``EXPORTED.txt`` (instructions to load the files).
"""

from __future__ import annotations

import csv
import io
import shlex
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from plifctl import files, paths
from plifctl.cache.file import Block, Cache
from plifctl.cache.key import framing_label
from plifctl.config.choices import SPLITS, ExportTarget, Split
from plifctl.config.identity import current_word
from plifctl.data.datasets.base import Progress
from plifctl.data.thread_map import ordered_map
from plifctl.errors import UsageError

_BLOCK_BYTES = 2**22  # samples read at a time


@dataclass(frozen=True)
class ExportResult:
    """An exported cache.

    Attributes:
        folder: The folder.
        samples: Number of samples, each a file.
        nbytes: Size of these files.
        loading: Instructions to load them, text and Python code; ``EXPORTED.txt`` contains the same.
    """

    folder: Path
    samples: int
    nbytes: int
    loading: str


def export_cache(
    cache: Cache, to: ExportTarget, out: Path, *, progress: Progress = lambda done, total: None, workers: int = 1
) -> ExportResult:
    """Writes the samples of a cache as files for another tool; the complete folder appears at once, or nothing does.

    The numbers have the integer type of the cache. Samples of fixed-duration slices have no padding.

    Args:
        cache: The cache.
        to: The tool, see the table above.
        out: The folder; must be new or empty.
        progress: Called with the number of samples written, and of all samples.
        workers: Threads that compress; the files do not depend on them.

    Raises:
        UsageError: ``out`` is not empty, or the tool has no data sets of this kind.
        CorruptCacheError: A sample fails its checksum.
        MachineError: The disk is full, or the folder cannot be written.
    """
    _require_empty(out)
    plan = {"spikingjelly": _spikingjelly, "tonic": _tonic, "npz": _npz}[to](cache, repr(str(out)))
    lengths, total, done, nbytes = _lengths(cache), len(cache.labels), 0, 0
    with files.atomic_folder(out) as folder:
        for name in {*plan.folders, *(file.rpartition("/")[0] for file in plan.files)}:
            (folder / name).mkdir(parents=True, exist_ok=True)

        def write(block: Block) -> tuple[int, int]:
            written = 0
            for row, sample in enumerate(block.samples, block.rows.start):
                packed = plan.pack(sample[: lengths[row]], int(cache.labels[row]), cache.sample_ids[row])
                written += (folder / plan.files[row]).write_bytes(packed)
            return len(block.samples), written

        # closed first after an error, so that no thread writes to the folder while it is removed
        with closing(ordered_map(write, cache.blocks(_BLOCK_BYTES), workers)) as blocks:
            for samples, written in blocks:
                done, nbytes = done + samples, nbytes + written
                progress(done, total)
        _describe(cache, to, plan, folder)
        _require_empty(out)  # files that appeared there in the meantime are not replaced
    return ExportResult(out, total, nbytes, plan.loading)


def _require_empty(out: Path) -> None:
    with files.machine_errors(out):
        if not out.exists() or (out.is_dir() and files.is_empty(out)):
            return
    found = "a folder that is not empty" if out.is_dir() else "a file"
    raise UsageError(
        f"{out}: found {found}, expected a new or empty folder",
        hint=f"export to another folder: --out {shlex.quote(str(_new_folder(out)))}",
    )


def _new_folder(out: Path) -> Path:
    """Returns a folder that does not exist: beside ``out``, or in it if it has no name (the current folder, a root)."""
    named = out.name not in ("", "..")
    found = (out.with_name(f"{out.name}-{n}") if named else out / f"frames-{n}" for n in count(2))
    return next(path for path in found if not path.exists())


def _lengths(cache: Cache) -> list[int]:
    """Returns the length of each sample's first axis without the padding."""
    if (_frames_of(cache) or {}).get("slicing") != "duration":
        return [cache.shape[1]] * len(cache.labels)
    return [max(1, int(n)) for n in cache.counts["n_frames"]]


def _frames_of(cache: Cache) -> dict[str, Any] | None:
    """Returns how events were framed; None for images."""
    frames: dict[str, Any] | None = cache.key.fields["frames"]
    return frames


def _present_splits(cache: Cache) -> list[Split]:
    """Returns the splits that have samples."""
    found = set(cache.splits)
    return [split for split in SPLITS if split in found]


def _describe(cache: Cache, to: ExportTarget, plan: _Plan, folder: Path) -> None:
    """Writes samples.csv, exported.json and EXPORTED.txt."""
    classes = cache.key.fields["classes"]
    # the id of a sample is the path of its recording, which may contain bytes that are not UTF-8
    with (folder / "samples.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        groups = cache.groups
        table.writerow(("file", "split", "label", "class", "id", *(["group"] if groups else [])))
        for row, (name, split, label) in enumerate(zip(plan.files, cache.splits, cache.labels, strict=True)):
            group = [groups[row]] if groups else []
            table.writerow((name, split, int(label), classes[label], cache.sample_ids[row], *group))
    origin = {
        "exported_to": to,
        "dataset": cache.key.fields["dataset"],
        "cache": cache.path.name,
        "content_digest": cache.content_digest,
        "key_digest": cache.key.digest,
        "key": dict(cache.key.fields),
        "made_by": cache.made_by,
        "verified": cache.verified,
        "complete_set": cache.complete_set,
        "notes": list(cache.notes),
        "plifctl": paths.code_version(),
    }
    files.write_json(folder / "exported.json", origin)
    notes = "".join(f"{note}\n" for note in cache.notes)
    files.write_text(
        folder / "EXPORTED.txt",
        f"""{len(plan.files)} samples of {cache.key.fields["dataset"]}, exported by plifctl for {to}.

Cache: {cache.path.name}
Content digest: {cache.content_digest}
{notes}
{plan.loading}
samples.csv lists the sample of each file, exported.json what the cache was built from.
""",
    )


# ---- layouts of the tools


@dataclass(frozen=True)
class _Plan:
    """The files of an export.

    Attributes:
        files: The file of each sample.
        pack: Returns the content of a file, given a sample, its label and its id.
        loading: See :class:`ExportResult`.
        folders: Folders that must exist even if they contain no sample.
    """

    files: Sequence[str]
    pack: Callable[[np.ndarray, int, str], bytes]
    loading: str
    folders: Sequence[str] = ()


def _npz(cache: Cache, root: str) -> _Plan:
    kind, classes = _kind(cache), _unique_paths(cache.key.fields["classes"])
    folders = [f"{split}/{classes[label]}" for split, label in zip(cache.splits, cache.labels, strict=True)]
    return _Plan(
        _unique_paths(cache.sample_ids, folders, ".npz"),
        lambda sample, label, name: _npz_of({kind: sample, "label": np.int64(label), "id": np.array(name)}),
        f"""A file contains {kind} ({_describe_samples(cache)}), label (an integer) and id (text):

    from pathlib import Path
    import numpy as np

    for path in sorted(Path({root}, "{_present_splits(cache)[0]}").glob("*/*.npz")):
        with np.load(path) as sample:
            {kind}, label = sample["{kind}"], int(sample["label"])
""",
    )


def _tonic(cache: Cache, root: str) -> _Plan:
    numbers = {split: count() for split in SPLITS}
    loading = "".join(
        f'    {split} = DiskCachedDataset(None, cache_path={root} + "/{split}")\n' for split in _present_splits(cache)
    )
    return _Plan(
        [f"{split}/{next(numbers[split])}_0.hdf5" for split in cache.splits],
        lambda sample, label, name: _hdf5_of(sample, label),
        f"""tonic's DiskCachedDataset reads a split without the data set that it would cache. A sample is
{_kind(cache)} ({_describe_samples(cache)}) and label:

    from tonic import DiskCachedDataset

{loading}    {_kind(cache)}, label = {_present_splits(cache)[0]}[0]
""",
    )


def _kind(cache: Cache) -> str:
    return "frames" if _frames_of(cache) else "image"


def _describe_samples(cache: Cache) -> str:
    return f"{cache.dtype}, {'[T, P, H, W], polarity 0 off, 1 on' if _frames_of(cache) else '[C, H, W]'}"


_SPIKINGJELLY = {
    "gesture": "DVS128Gesture",
    "synthetic-gesture": "DVS128Gesture",
    "nmnist": "NMNIST",
    "cifar10dvs": "CIFAR10DVS",
}
"""SpikingJelly's data set of each layout; for other layouts torchvision's DatasetFolder reads the files."""


def _spikingjelly(cache: Cache, root: str) -> _Plan:
    """Returns the layout in which its data sets convert nothing: ``events_np`` and a folder named after the framing.

    Source: NeuromorphicDatasetFolder and its builders in spikingjelly/datasets/base.py, 2.0.0.
    """
    fields, frames = cache.key.fields, _frames_of(cache)
    if frames is None:
        raise UsageError(
            f"{cache.path}: {fields['dataset']} is an image data set, SpikingJelly's folders are of event frames",
            hint="export it for another tool: --to npz\nor: --to tonic",
        )
    peer = _SPIKINGJELLY.get(fields["layout"])
    difference = _difference_to_spikingjelly(cache, frames)
    folder, arguments = _spikingjelly_folder(cache, frames, own=not difference)
    names = _class_folders(cache, peer)
    has_splits = peer != "CIFAR10DVS"
    parents = {split: f"{folder}/{split}" if has_splits else folder for split in _present_splits(cache)}
    places = [
        f"{parents[split]}/{names[label]}" for split, label in zip(cache.splits, cache.labels.tolist(), strict=True)
    ]
    folders = [f"{parent}/{name}" for parent in dict.fromkeys(parents.values()) for name in names]
    remarks = [""]
    if peer:
        remarks.append("events_np is empty: this folder cannot be converted to other frames.")
    if peer and difference:
        remarks.append(
            f"The folder does not have SpikingJelly's own name, since its frames would differ: {difference}."
        )
    if not has_splits:
        remarks.append("SpikingJelly's CIFAR10DVS has no split; samples.csv contains the split of the cache.")
    if sorted(names) != names:
        remarks.append(
            f"SpikingJelly numbers classes as their folders sort as text: {', '.join(sorted(names))}.\n"
            "The label in the cache is int(train.classes[label])."
        )
    if empty := sorted(set(folders) - set(places)):
        remarks.append(
            f"Without samples: {', '.join(empty)}; torchvision, which reads folders for SpikingJelly, may refuse that."
        )
    return _Plan(
        _unique_paths(_sample_names(cache, peer), places, ".npz"),
        lambda sample, label, name: _npz_of({"frames": sample}),
        _loading_in_spikingjelly(peer, root, folder, arguments, _present_splits(cache)) + "\n".join(remarks) + "\n",
        [*(["events_np"] if peer else []), *folders],
    )


def _difference_to_spikingjelly(cache: Cache, frames: dict[str, Any]) -> str:
    """Returns why SpikingJelly's frames of the same recordings would differ; empty if they would be the same."""
    slicing = frames["slicing"]
    if slicing == "number":
        return "the cache is cut at ⌊N·j/T⌋ events, SpikingJelly cuts at ⌊N/T⌋·j (frames.slicing=number-remainder)"
    if slicing == "time":
        return "SpikingJelly rounds the time spans down to whole µs, and its last frame contains the rest"
    if slicing == "duration-first":
        return "the cache has the first T slices of each sample, SpikingJelly cuts all"
    if frames.get("overlap_us"):
        return "the slices of the cache overlap"
    if slicing == "duration" and (n := int((cache.counts["duration_us"] % frames["duration_us"] == 0).sum())):
        return f"the last event of {n} samples begins a slice, which SpikingJelly leaves out"
    if frames.get("transforms"):
        return "the events were transformed"
    if current_word(frames.get("axes")) == "authors":
        return "SpikingJelly reads other axes (frames.axes=spikingjelly)"
    if n := int((cache.counts["n_events"] != cache.counts["n_raw"]).sum()):
        return f"events of {n} samples were left out, SpikingJelly keeps all"
    return ""


def _spikingjelly_folder(cache: Cache, frames: dict[str, Any], *, own: bool) -> tuple[str, str]:
    """Returns the name of the folder of frames, and the arguments with which SpikingJelly reads it."""
    T, duration = cache.key.fields["T"], frames.get("duration_us")
    if not own:
        folder = f"plifctl_{framing_label(cache.key.fields)}"
        return folder, f'custom_integrate_function=print, custom_integrated_frames_dir_name="{folder}"'
    if T is None:
        return f"duration_{duration}", f"duration={duration}"
    return f"frames_number_{T}_split_by_number", f'frames_number={T}, split_by="number"'


def _class_folders(cache: Cache, peer: str | None) -> list[str]:
    """Returns SpikingJelly's names of the class folders; for other layouts names that sort like the labels."""
    classes: list[str] = cache.key.fields["classes"]
    if peer == "CIFAR10DVS":
        return _unique_paths(classes)
    if peer:
        return [str(label) for label in range(len(classes))]
    width = len(str(len(classes) - 1))
    return _unique_paths([f"{label:0{width}d} {name}" for label, name in enumerate(classes)])


def _sample_names(cache: Cache, peer: str | None) -> list[str]:
    """Returns SpikingJelly's names of the samples' files, without the ending."""
    classes, names = cache.key.fields["classes"], []
    seen: Counter[tuple[str, int]] = Counter()
    for sample, label, length in zip(cache.sample_ids, cache.labels.tolist(), _lengths(cache), strict=True):
        folder, _, name = sample.rpartition("/")
        if peer == "DVS128Gesture":  # the recording, and the index among those of its class
            name = f"{folder}_{seen[folder, label]}"
            seen[folder, label] += 1
        elif peer == "CIFAR10DVS":
            name = f"cifar10_{classes[label]}_{int(name)}"
        elif peer is None:
            name = sample
        names.append(name if cache.key.fields["T"] is not None else f"{name}_{length}")
    return names


def _loading_in_spikingjelly(peer: str | None, root: str, folder: str, arguments: str, splits: Sequence[Split]) -> str:
    if peer is None:
        read = "".join(
            f'    {split} = DatasetFolder(Path({root}, "{folder}", "{split}"), load_npz_frames, (".npz",))\n'
            for split in splits
        )
        return f"""SpikingJelly has no data set of this layout; torchvision reads the folders, with labels of the cache:

    from pathlib import Path
    from spikingjelly.datasets.utils import load_npz_frames
    from torchvision.datasets import DatasetFolder

{read}"""
    variables = {"": "data"} if peer == "CIFAR10DVS" else {"train=True, ": "train", "train=False, ": "test"}
    called = "".join(
        f'    {name} = {peer}({root}, {split}data_type="frame", {arguments})\n' for split, name in variables.items()
    )
    never = "SpikingJelly requires custom_integrate_function, but never calls it, because the frames exist.\n"
    return f"""SpikingJelly finds the frames and converts nothing (float32, [T, P, H, W]):

    from spikingjelly.datasets import {peer}

{called}
{never if "print" in arguments else ""}"""


# ---- files


_MAX_NAME_BYTES = 200  # file systems allow 255


def _unique_paths(names: Sequence[str], folders: Sequence[str] = (), ending: str = "") -> list[str]:
    """Returns paths with file names that every system allows, each unique in its folder.

    Example:
        >>> _unique_paths(["a/b", "a_b", "..", "A?B"])
        ['a_b', 'a_b-2', '_', 'A_B-3']
    """
    taken: set[tuple[str, str]] = set()
    numbers: Counter[tuple[str, str]] = Counter()
    found = []
    for name, folder in zip(names, folders or [""] * len(names), strict=True):
        safe = _safe(name)
        unique, first = safe, (folder, safe.casefold())
        while (folder, unique.casefold()) in taken:  # some file systems ignore case
            numbers[first] += 1
            unique = f"{safe}-{numbers[first] + 1}"
        taken.add((folder, unique.casefold()))
        found.append(f"{folder}/{unique}{ending}" if folder else f"{unique}{ending}")
    return found


def _safe(name: str) -> str:
    normal = unicodedata.normalize("NFC", name)
    plain = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in normal)
    return plain.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip(" .") or "_"


def _npz_of(arrays: dict[str, np.ndarray | np.generic]) -> bytes:
    """Returns an archive as numpy.savez_compressed writes it, at a level that takes a quarter of the time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _hdf5_of(sample: np.ndarray, label: int) -> bytes:
    """Returns a file as tonic's save_to_disk_cache writes it."""
    buffer = io.BytesIO()  # in memory, since HDF5's error on a full disk does not name the file
    with h5py.File(buffer, "w") as file:
        file.create_dataset("data/0", data=sample, compression="lzf")
        file.create_dataset("target/0", data=label)
    return buffer.getvalue()
