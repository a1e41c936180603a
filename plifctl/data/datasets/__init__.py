"""The data sets in all their layouts: their files, samples, labels and official splits.

There is a module for each data set and a class for each layout. :func:`open_raw` finds the files and returns an object
of the class that fits.
"""

from __future__ import annotations

import gc
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from plifctl import files, paths
from plifctl.config.choices import OWN_LAYOUTS, Layout
from plifctl.config.dataset import DatasetSpec, Framing
from plifctl.data.datasets.base import EventDataset, ImageDataset, Progress, RawDataset, SampleHandler
from plifctl.data.datasets.cifar10 import Cifar10
from plifctl.data.datasets.cifar10dvs import Cifar10Dvs
from plifctl.data.datasets.folders import ClassFolders, Folders
from plifctl.data.datasets.gesture import Gesture, SpikingJellyGesture, SyntheticGesture, TonicGesture
from plifctl.data.datasets.idx import FashionMnist, Mnist
from plifctl.data.datasets.label_table import LabelledRecordings
from plifctl.data.datasets.nmnist import Nmnist, SpikingJellyNmnist
from plifctl.data.simulated import check_simulated, simulated_datasets
from plifctl.data.source import RawSource, RemoteFile
from plifctl.data.storage import Storage
from plifctl.errors import MissingRawDataError, RawDataError, list_names

_log = logging.getLogger(__name__)

_LAYOUTS: dict[Layout, tuple[type[RawDataset], ...]] = {
    "mnist": (Mnist,),
    "fashion-mnist": (FashionMnist,),
    "cifar10": (Cifar10,),
    "nmnist": (Nmnist, SpikingJellyNmnist),
    "cifar10dvs": (Cifar10Dvs,),
    "gesture": (Gesture, SpikingJellyGesture, TonicGesture),
    "synthetic-gesture": (SyntheticGesture,),
    "folders": (Folders,),
    "class-folders": (ClassFolders,),
    "label-table": (LabelledRecordings,),
}
"""The classes that read each layout, that of the original files first."""


def layout_formats(layout: Layout) -> list[str]:
    """Returns the formats that the files of a layout may have."""
    return sorted({name for kind in _LAYOUTS[layout] for name in kind.formats})


_CONVERTED = "events_np"
"""SpikingJelly's folder of converted recordings."""


def open_raw(
    framing: Framing,
    source: RawSource,
    *,
    progress: Progress = lambda done, total: None,
    make_handler: Callable[[], SampleHandler | None] = lambda: None,
) -> EventDataset | ImageDataset:
    """Finds and surveys the raw files of a data set; downloads nothing.

    Original files are preferred to those that other programs converted, and archives, which have checksums, to folders.

    Args:
        framing: The data set, and how it will be framed.
        source: Where to search, and how to read: in ``source.root``, else in ``raw`` of a user's own data set, else in
            PLIFCTL_RAW_DIR, the folders of the system and that of downloads.
        progress: Called with the bytes read so far, and all bytes.
        make_handler: Called once, after the files are found and before they are read; returns the function to call
            with each sample that is read, or None.

    Raises:
        MissingRawDataError: Some or all files are missing; names the folders searched and how to get the files.
        RawDataError: The files found are not those of the data set.
        ChecksumError: A checksum differs.
        DamagedFileError: A file cannot be read.
    """
    dataset = framing.dataset
    layouts = _LAYOUTS[dataset.layout]
    base, named = _folder_and_file(dataset, source.root)
    is_own_place = source.root is not None or dataset.raw is not None
    if named is not None:
        layouts = _layouts_accepting(layouts, named)
    downloads = source.download_dir(dataset.name) if not is_own_place and not dataset.is_own else None
    searched: list[Path] = []
    partial: MissingRawDataError | None = None
    for layout in layouts:
        places = list(_places(dataset, layout, base, only=named is not None, first=is_own_place))
        places += [downloads] if downloads is not None else []
        searched += places
        found = [(folder, layout.find_parts(folder, dataset, named)) for folder in _with_subfolders(layout, places)]
        if (complete := _complete(found)) is not None:
            folder, parts = complete
            _check_finished(folder)
            for path in (folder, *parts.values()):
                check_simulated(path, dataset)
            if source.read:
                _log.info("reading %s: %s …", dataset.title, folder if named is None else folder / named)
            with files.machine_errors(folder), _gc_relaxed():
                raw = layout(framing, folder, parts, source, progress, make_handler())
            assert isinstance(raw, EventDataset | ImageDataset)
            return raw
        incomplete = ((folder, parts) for folder, parts in found if any(parts.values()))
        if partial is None and (first := next(incomplete, None)):
            partial = _parts_missing(dataset, layout, *first)
    raise partial or _nothing_found(dataset, layouts[0], searched)


def find_published(folder: Path) -> str | None:
    """Returns the published or embedded data set whose files a folder contains, all of them; None if there is none."""
    with files.machine_errors(folder):
        for name, layouts in _LAYOUTS.items():
            for layout in layouts if name not in OWN_LAYOUTS else ():
                parts = [layout.find_parts(place) for place in _with_subfolders(layout, [folder])]
                for found in parts:
                    if all(_has_member(layout, path) for path in found.values()):
                        simulated = [one for path in found.values() if path for one in simulated_datasets(path)]
                        return simulated[0] if simulated else name
    return None


def _has_member(layout: type[RawDataset], path: Path | None) -> bool:
    """Returns whether a part is there; a folder must contain a member: other data sets have folders named train."""
    if path is None or not path.is_dir():
        return path is not None
    with suppress(RawDataError):
        return any(True for _ in Storage(path, layout.pattern).members())
    return False


def _complete(found: Sequence[tuple[Path, dict[str, Path | None]]]) -> tuple[Path, dict[str, Path]] | None:
    """Returns the folder that contains every part, and the parts; among several, the folder with most archives."""
    complete = [(folder, parts) for folder, parts in found if all(parts.values())]
    if not complete:
        return None
    folder, parts = min(complete, key=lambda one: sum(path is None or not path.is_file() for path in one[1].values()))
    return folder, {part: path for part, path in parts.items() if path is not None}


def _nothing_found(dataset: DatasetSpec, original: type[RawDataset], searched: Sequence[Path]) -> MissingRawDataError:
    where = ", ".join(dict.fromkeys(map(str, searched))) or "no folder: PLIFCTL_RAW_DIR is not set"
    found = next((names for folder in searched if (names := _names_in(folder))), "")
    where_to_name = "folder: --raw DIR"
    if dataset.is_own:
        where_to_name = "folder or archive: --raw PATH, raw: PATH in the data set's YAML"
    return MissingRawDataError(
        f"no raw data of {dataset.title}: looked for {original.looked_for(dataset)} in {where}{found}",
        hint=_layout_that_fits(dataset, searched)
        or f"{original.how_to_get(dataset)}\nthen name the {where_to_name}, or export PLIFCTL_RAW_DIR=DIR",
        parts=original.part_files,
    )


def _layout_that_fits(dataset: DatasetSpec, searched: Sequence[Path]) -> str:
    """Returns the hint that a user's own recordings are in another layout; empty if they are not."""
    for other in OWN_LAYOUTS if dataset.is_own else ():
        for layout in _LAYOUTS[other] if other != dataset.layout else ():
            if any(all(layout.find_parts(folder, dataset, None).values()) for folder in searched):
                return f"the folders there are those of another layout; in the data set's YAML: layout: {other}"
    return ""


def _names_in(folder: Path) -> str:
    """Returns some names in a folder, for a message; empty if it does not exist or is empty."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.glob("[!.]*"))
    return f"; found there: {list_names(names, 4)}" if names else ""


@contextmanager
def _gc_relaxed() -> Iterator[None]:
    """Runs the garbage collector less often: repeated scans of 60,000 files would take a fifth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def published_files(dataset: DatasetSpec, parts: Iterable[str]) -> list[RemoteFile]:
    """Returns the published archives of some parts of a data set; empty for a user's own data set."""
    return _LAYOUTS[dataset.layout][0].remote_files(parts) if dataset.name == dataset.layout else []


def _with_subfolders(layout: type[RawDataset], places: Sequence[Path]) -> Iterator[Path]:
    """Yields the subfolders of each place that may contain the files; for a place that is one of them, only itself."""
    for place in places:
        yield from [place] if place.name in layout.subfolders else [place / name for name in layout.subfolders]


def _parts_missing(
    dataset: DatasetSpec, layout: type[RawDataset], folder: Path, parts: Mapping[str, Path | None]
) -> MissingRawDataError:
    missing = [part for part, path in parts.items() if path is None]
    names = ", ".join(layout.part_files[part][0] for part in missing)
    return MissingRawDataError(
        f"{folder}: {names} missing (packed or extracted); found the other files of {dataset.title}",
        hint=layout.how_to_get(dataset),
        parts=missing,
        folder=folder,
    )


def _check_finished(folder: Path) -> None:
    marker = folder.with_name(f"{folder.name}.building")
    if folder.name == _CONVERTED and marker.exists():
        raise RawDataError(
            f"{folder}: SpikingJelly has not finished converting it: {marker} exists",
            hint="remove both and convert again, or name the folder of the original files: --raw DIR",
        )


def named_place(dataset: DatasetSpec, root: Path | None) -> tuple[Path | None, str]:
    """Returns the place of raw files that the user, the data set or the environment names, and by what it is named.

    Args:
        dataset: The data set.
        root: What the user names.
    """
    if root is not None:
        return root, "--raw"
    if dataset.raw is not None:
        return Path(dataset.raw), f"raw: of {dataset.title}:"
    return paths.raw_dir(), "PLIFCTL_RAW_DIR"


def _folder_and_file(dataset: DatasetSpec, root: Path | None) -> tuple[Path | None, str | None]:
    """Returns the folder of :func:`named_place`, and the name of the file in it if a file is named."""
    base, named_by = named_place(dataset, root)
    if base is None:
        return None, None
    if not base.exists():
        new = "" if dataset.is_own else f"; to download into a new one: mkdir -p {shlex.quote(str(base))}"
        raise RawDataError(  # not created: it may be mistyped, or its disk not mounted
            f"{named_by} {base}: no such folder", hint=f"name the folder of the raw files{new}"
        )
    return (base.parent.resolve(), base.name) if base.is_file() else (base.resolve(), None)


def _layouts_accepting(layouts: Sequence[type[RawDataset]], named: str) -> tuple[type[RawDataset], ...]:
    accepting = tuple(layout for layout in layouts if layout.accepts_file(named))
    if not accepting:
        known = sorted({name for layout in layouts for names in layout.part_files.values() for name in names})
        expected = ", ".join(known) or "an archive (.zip, .tar.gz, .tgz or .tar)"
        raise RawDataError(
            f"{named}: not a file of this data set, expected {expected}",
            hint="name the folder of the raw files: --raw DIR",
        )
    return accepting


def _places(
    dataset: DatasetSpec, layout: type[RawDataset], base: Path | None, *, only: bool, first: bool
) -> Iterator[Path]:
    """Yields the folders in which a data set is searched, in order.

    Args:
        dataset: The data set.
        layout: Its layout.
        base: The folder that the user or the environment names.
        only: Look in ``base`` alone.
        first: Look in ``base`` before the folders in it, and not in system folders.
    """
    usual = layout.folder_names if dataset.name == dataset.layout else ()  # those of the published data set
    names = dict.fromkeys((dataset.name, *usual))
    if base is not None:
        own = [base / name for name in names if not Path(name).is_absolute() and not only]
        yield from [base, *own] if first else [*own, base]
    if not first:  # system folders contain published data sets only
        yield from (Path(name) for name in names if Path(name).is_absolute())
