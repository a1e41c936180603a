"""The data sets in the layouts that people keep them in: which files, which samples and labels, which official split.

A file for each data set, a class for each layout; :func:`open_raw` finds the files and returns the one that fits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from plifctl import files, paths
from plifctl.config.choices import Layout
from plifctl.config.dataset import DatasetSpec, Framing
from plifctl.data.datasets.base import EventDataset, ImageDataset, Progress, RawDataset, Visit
from plifctl.data.datasets.cifar10 import Cifar10
from plifctl.data.datasets.cifar10dvs import Cifar10Dvs
from plifctl.data.datasets.folders import Folders
from plifctl.data.datasets.gesture import Gesture, SpikingJellyGesture, SyntheticGesture, TonicGesture
from plifctl.data.datasets.idx import FashionMnist, Mnist
from plifctl.data.datasets.nmnist import Nmnist, SpikingJellyNmnist
from plifctl.data.source import RawSource, RemoteFile
from plifctl.errors import MissingRawDataError, RawDataError

_LAYOUTS: dict[Layout, tuple[type[RawDataset], ...]] = {
    "mnist": (Mnist,),
    "fashion-mnist": (FashionMnist,),
    "cifar10": (Cifar10,),
    "nmnist": (Nmnist, SpikingJellyNmnist),
    "cifar10dvs": (Cifar10Dvs,),
    "gesture": (Gesture, SpikingJellyGesture, TonicGesture),
    "synthetic-gesture": (SyntheticGesture,),
    "folders": (Folders,),
}
"""The classes that read a layout, the original first."""


def layout_formats(layout: Layout) -> list[str]:
    """Returns the formats that the files of a layout may have."""
    return sorted({name for kind in _LAYOUTS[layout] for name in kind.formats})


_CONVERTED = "events_np"
"""SpikingJelly's folder of recordings that it converted."""


def open_raw(
    framing: Framing,
    source: RawSource,
    *,
    progress: Progress = lambda done, total: None,
    visit: Callable[[], Visit | None] = lambda: None,
) -> EventDataset | ImageDataset:
    """Finds a data set's raw files and checks what is there; downloads nothing.

    Originals come before what other programs made of them, and of each archives, which have checksums, before folders.

    Args:
        framing: The data set, and how it will be framed.
        source: Where to look, and how to read; downloaded files are looked for last, unless ``source.root`` is given.
        progress: Called with the bytes read so far, and all bytes.
        visit: Called once, when files are found and about to be read; returns what receives their samples meanwhile.

    Raises:
        MissingRawDataError: Nothing, or not everything, was found; says where it looked and how to get the files.
        RawDataError: What was found is no such data set.
        ChecksumError: A checksum differs.
        DamagedFileError: A file cannot be read.
    """
    dataset, root = framing.dataset, source.root
    layouts = _LAYOUTS[dataset.layout]
    base, named = _base(root)
    if named is not None:
        layouts = _that_know(layouts, named)
    downloads = source.download_dir(dataset.name) if root is None else None
    searched: list[Path] = []
    partial: MissingRawDataError | None = None
    for layout in layouts:
        places = list(_places(dataset, layout, base, only=named is not None, first=root is not None))
        places += [downloads] if downloads is not None else []
        searched += places
        found = [(folder, layout.find(folder, dataset.name, named)) for folder in _folders(layout, places)]
        if (complete := _complete(found)) is not None:
            folder, parts = complete
            _check_finished(folder)
            with files.machine_errors(folder), _gc_relaxed():
                raw = layout(framing, folder, parts, source, progress, visit())
            assert isinstance(raw, EventDataset | ImageDataset)
            return raw
        started = ((folder, parts) for folder, parts in found if any(parts.values()))
        if partial is None and (one := next(started, None)):
            partial = _missing(dataset, layout, *one)
    raise partial or _nothing_found(dataset, layouts[0], searched)


def _complete(found: Sequence[tuple[Path, dict[str, Path | None]]]) -> tuple[Path, dict[str, Path]] | None:
    """Returns the folder that holds every part, and the parts; of several the one with most archives."""
    whole = [(folder, parts) for folder, parts in found if all(parts.values())]
    if not whole:
        return None
    folder, parts = min(whole, key=lambda one: sum(path is None or not path.is_file() for path in one[1].values()))
    return folder, {part: path for part, path in parts.items() if path is not None}


def _nothing_found(dataset: DatasetSpec, original: type[RawDataset], searched: Sequence[Path]) -> MissingRawDataError:
    wanted = ", ".join(names[0] for names in original.files.values()) or "train/ and test/"
    where = ", ".join(dict.fromkeys(map(str, searched))) or "no folder: PLIFCTL_RAW_DIR is not set"
    return MissingRawDataError(
        f"no raw data of {dataset.title}: looked for {wanted} (or extracted) in {where}",
        hint=f"get it from {original.sources}\nthen name the folder: --raw DIR, or export PLIFCTL_RAW_DIR=DIR",
        parts=original.files,
    )


@contextmanager
def _gc_relaxed() -> Iterator[None]:
    """Lists of 60,000 files live long: to look through them for garbage every 700 objects takes a fifth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def published_files(dataset: DatasetSpec, parts: Iterable[str]) -> list[RemoteFile]:
    """Returns the published archives of some parts of a data set; none of a set of one's own."""
    return _LAYOUTS[dataset.layout][0].published(parts) if dataset.name == dataset.layout else []


def _folders(layout: type[RawDataset], places: Sequence[Path]) -> Iterator[Path]:
    """The places, and what may be inside them; a place that is such an inside has none of its own."""
    for place in places:
        yield from [place] if place.name in layout.inside else [place / name for name in layout.inside]


def _missing(
    dataset: DatasetSpec, layout: type[RawDataset], folder: Path, parts: Mapping[str, Path | None]
) -> MissingRawDataError:
    missing = [part for part, path in parts.items() if path is None]
    names = ", ".join(layout.files[part][0] for part in missing)
    return MissingRawDataError(
        f"{folder}: {names} missing (or extracted); the other files of {dataset.title} are there",
        hint=f"get the rest from {layout.sources}",
        parts=missing,
        folder=folder,
    )


def _check_finished(folder: Path) -> None:
    mark = folder.with_name(f"{folder.name}.building")
    if folder.name == _CONVERTED and mark.exists():
        raise RawDataError(
            f"{folder}: SpikingJelly did not finish it, as {mark.name} beside it says",
            hint="remove both and convert again, or name the folder of the original files: --raw DIR",
        )


def _base(root: Path | None) -> tuple[Path | None, str | None]:
    """The folder that the user or the environment names, and the file in it, where a file was named."""
    base, named_by = (root, "--raw") if root is not None else (paths.raw_dir(), "PLIFCTL_RAW_DIR")
    if base is None:
        return None, None
    if not base.exists():
        raise RawDataError(  # not to be made: it may be mistyped, or its disk not mounted
            f"{named_by} {base}: no such folder",
            hint=f"name the folder that holds the raw files; to download into a new one: mkdir -p {base}",
        )
    return (base.parent.resolve(), base.name) if base.is_file() else (base.resolve(), None)


def _that_know(layouts: Sequence[type[RawDataset]], named: str) -> tuple[type[RawDataset], ...]:
    knowing = tuple(layout for layout in layouts if layout.knows(named))
    if not knowing:
        known = sorted({name for layout in layouts for names in layout.files.values() for name in names})
        raise RawDataError(
            f"{named}: no file of this data set, which are {', '.join(known) or 'archives'}",
            hint="name the folder that holds the raw files: --raw DIR",
        )
    return knowing


def _places(
    dataset: DatasetSpec, layout: type[RawDataset], base: Path | None, *, only: bool, first: bool
) -> Iterator[Path]:
    """Where a data set may lie, in order.

    Args:
        dataset: Which.
        layout: How.
        base: The folder that was named.
        only: Look nowhere else.
        first: Look there before the folders in it, and not where systems keep data sets.
    """
    names = dict.fromkeys((dataset.name, *layout.folders))
    if base is not None:
        own = [base / name for name in names if not Path(name).is_absolute() and not only]
        yield from [base, *own] if first else [*own, base]
    if not first and dataset.name in _LAYOUTS:  # where systems keep the published set, no other is to be found
        yield from (Path(name) for name in names if Path(name).is_absolute())
