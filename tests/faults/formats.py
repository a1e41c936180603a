"""Every format that plifctl reads: a valid file, and a function that reads it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import torch
from factories import encode_aedat4, made_control, make_run, random_events, write_gestures
from raw_files import encode_davis, encode_evt

from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3
from plifctl.data.formats.aedat4 import decode_aedat4
from plifctl.data.formats.arrays import decode_npy, decode_npz
from plifctl.data.formats.atis import decode_atis
from plifctl.data.formats.cifar import decode_cifar_batch
from plifctl.data.formats.dat import decode_dat
from plifctl.data.formats.detect import decode_any
from plifctl.data.formats.idx import decode_idx
from plifctl.data.formats.variants import variants_of
from plifctl.errors import PlifctlError, RunError


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        valid: A valid file.
        read: Reads a file's content; raises one of :attr:`documented` if it is invalid.
        documented: The errors allowed.
    """

    valid: bytes
    read: Callable[[bytes], object]
    documented: tuple[type[Exception], ...] = (PlifctlError,)


def saved(write: Callable[[Any], None]) -> bytes:
    """Returns the content that a function writes to a file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def as_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Returns a function that reads a content as a file of some name, in its own folder."""
    folder = Path(tempfile.mkdtemp(prefix="plifctl-faults-"))

    def read_content(content: bytes) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return read_content


def recordings() -> dict[str, Format]:
    """Returns the formats of events and images."""
    events = random_events(np.random.default_rng(0), 60)
    columns = np.stack([events["x"], events["y"], events["p"], events["t"]], 1).astype(np.int64)
    pairs = [(127 - int(e["x"])) << 1 | int(e["y"]) << 8 | (1 - int(e["p"])) for e in events]
    aedat2 = b"#!AER-DAT2.0\r\n# a camera\r\n" + b"".join(
        struct.pack(">II", address, int(e["t"])) for address, e in zip(pairs, events, strict=True)
    )
    atis = b"".join(
        bytes([int(e["x"]), int(e["y"])]) + (int(e["p"]) << 23 | int(e["t"])).to_bytes(3, "big") for e in events
    )
    dat = (
        b"% Data file\n% Version 2\n"
        + bytes([0, 8])
        + b"".join(struct.pack("<II", int(e["t"]), int(e["x"]) | int(e["y"]) << 14 | int(e["p"]) << 28) for e in events)
    )
    archive = saved(lambda file: np.savez(file, **{name: events[name] for name in "txyp"}))
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
    idx = b"\0\0\x08\x03" + struct.pack(">III", 2, 5, 7) + bytes(70)
    old_dat = b"% Data file\n% Version 1\n\0\x08" + b"".join(
        struct.pack("<II", int(e["t"]), int(e["x"]) | int(e["y"]) << 9 | int(e["p"]) << 17) for e in events
    )
    reset = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<II", 1 << 1 | 1, 2**31 - 1)
    packet = encode_aedat3(events).partition(b"#!END-HEADER\r\n")[2]
    none, lz4, zstd = (encode_aedat4((0, "EVTS", events), packing=packing) for packing in ("none", "lz4", "zstd"))

    def any_format(data: bytes, **keys: object) -> object:
        reading = ReadingSpec.model_validate(keys)
        return decode_any(data, where="f", invalid="drop", reading=reading)

    found = {
        "aedat2": Format(aedat2, lambda data: decode_aedat2(data, where="f", axes="authors")),
        "aedat2-davis": Format(encode_davis(*events.tolist(), words=bytes.fromhex("8000000000000001")), any_format),
        "aedat3": Format(encode_aedat3(events), lambda data: decode_aedat3(data, where="f")),
        "aedat3-reset": Format(encode_aedat3(events) + reset + packet, lambda data: decode_aedat3(data, where="f")),
        "aedat4": Format(none, lambda data: decode_aedat4(data, where="f")),
        "aedat4-lz4": Format(lz4, lambda data: decode_aedat4(data, where="f")),
        "aedat4-zstd": Format(zstd, any_format),
        "atis": Format(atis, lambda data: decode_atis(data, where="f")),
        "dat": Format(dat, lambda data: decode_dat(data, where="f")),
        "dat-1": Format(old_dat, lambda data: decode_dat(data, where="f")),
        **{f"evt-{version}": Format(encode_evt(events, version), any_format) for version in ("2.0", "2.1", "3.0")},
        "npy-structured": Format(saved(lambda file: np.save(file, events)), lambda data: decode_npy(data, where="f")),
        "npy": Format(saved(lambda file: np.save(file, columns)), lambda data: decode_npy(data, where="f")),
        "npz": Format(archive, lambda data: decode_npz(data, where="f")),
        "npy-fields": Format(
            saved(lambda file: np.save(file, events.view([(f"{n}_", events.dtype[n]) for n in events.dtype.names]))),
            partial(any_format, fields={name: f"{name}_" for name in "txyp"}, time_unit="ns"),
        ),
        "npy-columns": Format(
            saved(lambda file: np.save(file, columns.astype("f8"))),
            partial(any_format, columns=["x", "y", "p", "t"], time_unit="s"),
        ),
        "text": Format(b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % one for one in events.tolist()), any_format),
        "text-rpg": Format(
            b"240 180\n" + b"".join(b"%.6f %d %d %d\n" % (one[0] / 1e6, *one[1:]) for one in events.tolist()),
            partial(any_format, columns=["t", "x", "y", "p"], time_unit="s"),
        ),
        "hdf5": Format(_hdf5(events), any_format),
        "hdf5-records": Format(_hdf5(events, "CD/events", compression="gzip", shuffle=True, chunks=(8,)), any_format),
        "hdf5-blosc": Format(_hdf5(events, "events", chunks=(8,), **hdf5plugin.Blosc(cname="zstd")), any_format),
        "idx": Format(idx, lambda data: decode_idx(data, where="f")),
        "cifar": Format(pickle.dumps(batch, 2), lambda data: decode_cifar_batch(data, where="f")),
    }

    def surveyed(read: Callable[[bytes], object], data: bytes) -> object:
        variants_of(data, without_header=True)  # as when raw data are surveyed
        return read(data)

    return {name: replace(one, read=partial(surveyed, one.read)) for name, one in found.items()}


def _hdf5(events: np.ndarray, records: str = "", **options: Any) -> bytes:
    """Returns events as records at a path, or without one as columns, in an HDF5 file without checksums."""
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for path, column in {records: events}.items() if records else ((f"events/{n}", events[n]) for n in "txyp"):
            opened.create_dataset(path, data=column, **options)
    return file.getvalue()


def archives(place: Path) -> dict[str, Format]:
    """Returns raw data sets in archives, read as ``prepare`` reads them."""
    from plifctl.config.dataset import Framing
    from plifctl.config.lookup import load_registry
    from plifctl.data.datasets import open_raw
    from plifctl.data.datasets.base import EventDataset
    from plifctl.data.source import RawSource

    write_gestures(place / "DvsGesture", users=2, events=20)
    packed = saved(lambda file: _tar(file, place / "DvsGesture"))

    def digits(split: str) -> bytes:
        return saved(lambda file: _zip(file, {f"{split}/{n}/{n}.bin": bytes([3, 4, 128, 0, n]) * 5 for n in range(10)}))

    framed = load_registry().dataset("synthetic-gesture", "paper", [])
    numbers = load_registry().dataset("nmnist", "paper", [])

    def decoded(data: Framing, folder: Path) -> object:
        raw = open_raw(data, RawSource(folder, verify=False))
        assert isinstance(raw, EventDataset)
        return [raw.decode(file.name, file.load()) for file in raw.recordings()]

    def gestures(path: Path) -> object:
        return decoded(framed, path.parent)

    def nmnist(path: Path) -> object:
        path.with_name("Test.zip").write_bytes(digits("Test"))
        return decoded(numbers, path.parent)

    return {
        "tar.gz": Format(gzip.compress(packed, 1), as_file("DvsGesture.tar.gz", gestures)),
        "zip": Format(digits("Train"), as_file("Train.zip", nmnist)),
    }


def _tar(file: Any, folder: Path) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(folder, folder.name)


def _zip(file: Any, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def documents(place: Path) -> dict[str, Format]:
    """Returns the files that plifctl and its users write."""
    from plifctl.config.registry import Registry
    from plifctl.config.yaml_tree import read_tree
    from plifctl.runs import (
        Predictions,
        Run,
        SpikeRecording,
        find_logs,
        keep_controls,
        load_checkpoint,
        load_spikes,
        read_controls,
        save_spikes,
        verify_run,
    )
    from plifctl.runs.records import read_record

    run = make_run(place / "runs")
    keep_controls(run, [made_control(), made_control(None, 2.0)])
    files = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    board = next(content for name, content in files.items() if name.startswith("events.out"))
    state = {"model": {"w": torch.arange(40.0)}, "spec": run.config().spec.model_dump_json(), "cache": "c"}
    spikes = SpikeRecording(
        ("a",), np.zeros(1, int), ("x",), np.zeros((1, 2, 2, 3, 3), np.uint8), np.zeros((1, 2, 1)),
        {"sn0": np.ones((1, 2, 4, 3, 3), bool)},
    )  # fmt: skip
    save_spikes(place / "spikes.npz", spikes)
    Predictions(("a", "b"), *2 * (np.arange(2, dtype=np.uint8),), epoch=3).save(place / "predictions.npz")
    logs = b"Wall time,Step,Value\n" + b"".join(f"{n}.5,{n},0.{n}\n".encode() for n in range(9))
    registry = Registry([Path(folder) for folder in _shipped()])
    experiments = registry.folders[0] / "experiments" / "demo.yaml"

    def of_a_run(name: str, read: Callable[[Run], object]) -> Callable[[bytes], object]:
        def read_content(content: bytes) -> object:
            path = run.path / name
            path.write_bytes(content)
            try:
                return read(Run(run.path))
            finally:
                path.write_bytes(files[name])

        return read_content

    def metrics_repacked(run: Run) -> object:
        """Reads rows with matching checksums."""
        lines = []
        for number, line in enumerate((run.path / "metrics.jsonl").read_bytes().split(b"\n")[:-1], 1):
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                number = int(json.loads(line)["epoch"])
            lines.append(f"{hashlib.sha256(line).hexdigest()}  epoch {number}\n")
        checksums = run.path / "metrics.sha256"
        checksums.write_text("".join(lines))
        try:
            return run.metrics()
        finally:
            checksums.write_bytes(files["metrics.sha256"])

    def verified(run: Run) -> None:
        if problems := verify_run(run):
            raise RunError("; ".join(problems))

    return {
        "checkpoint": Format(saved(lambda file: torch.save(state, file)), as_file("last.pt", load_checkpoint)),
        "spikes": Format((place / "spikes.npz").read_bytes(), as_file("spikes.npz", load_spikes)),
        "predictions": Format((place / "predictions.npz").read_bytes(), as_file("predictions.npz", Predictions.load)),
        "record": Format(files["result.json"], as_file("result.json", read_record)),
        "controls": Format(files["controls.json"], of_a_run("controls.json", lambda run: read_controls(run.path))),
        "config": Format(files["config.yaml"], of_a_run("config.yaml", Run.config)),
        "metrics": Format(files["metrics.jsonl"], of_a_run("metrics.jsonl", Run.metrics)),
        "metrics, repacked": Format(files["metrics.jsonl"], of_a_run("metrics.jsonl", metrics_repacked)),
        "checksums": Format(files["metrics.sha256"], of_a_run("metrics.sha256", Run.metrics)),
        "run": Format(files["run.json"], of_a_run("run.json", Run.info)),
        "manifest": Format(files["manifest.json"], of_a_run("manifest.json", verified)),
        "yaml": Format(experiments.read_bytes(), as_file("a.yaml", read_tree)),
        "csv": Format(logs, as_file("run-a-tag-test_acc.csv", lambda path: find_logs(path.parent))),
        "board": Format(board, as_file("events.out.tfevents.1.host", lambda path: find_logs(path.parent))),
    }


def _shipped() -> list[Path]:
    from plifctl.paths import registry_dirs

    return registry_dirs()


def caches(place: Path) -> dict[str, Format]:
    """Returns the format of caches; a cache is opened and read completely."""
    from factories import build_cache

    from plifctl.cache import Cache
    from plifctl.config.lookup import load_registry
    from plifctl.data.datasets import open_raw
    from plifctl.data.source import RawSource

    write_gestures(place / "raw", users=2, events=20)
    framed = load_registry().dataset("synthetic-gesture", "paper", [])
    raw = open_raw(framed, RawSource(place / "raw", verify=False))
    path = build_cache(raw, 2, place / "cache").path

    def read(path: Path) -> object:
        cache = Cache(path)
        try:
            return cache.read(np.arange(len(cache.labels)))
        finally:
            cache.close()

    return {"cache": Format(path.read_bytes(), as_file("c.h5", read))}


def all_formats(place: Path) -> dict[str, Format]:
    """Returns every format by name.

    Args:
        place: An empty folder for intermediate files.
    """
    return {**recordings(), **archives(place), **documents(place), **caches(place)}
