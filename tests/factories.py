"""Makes small raw data for tests."""

import gzip
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import zstandard

from plifctl.cache import Cache, CacheBuilder
from plifctl.data.datasets.base import EventDataset, ImageDataset
from plifctl.data.events import EVENT
from plifctl.data.formats.aedat3 import encode_aedat3

_CLASSES = 11


def quick_cases(cases: Iterable[str], *quick: str) -> list[Any]:
    """Returns cases for ``parametrize``, of which all but the ``quick`` ones are slow tests."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def build_cache(raw: EventDataset | ImageDataset, T: int | None, cache_dir: Path, **options: Any) -> Cache:
    """The cache of raw data that were surveyed before."""
    raw.framing = raw.framing.with_T(T)
    with CacheBuilder(raw.framing, cache_dir, **options) as builder:
        return builder.finish(raw)


def random_events(rng: np.random.Generator, n: int, *, start: int = 0, size: int = 128) -> np.ndarray:
    """Events anywhere on a square sensor, sorted by time."""
    events = np.empty(n, EVENT)
    events["t"] = np.sort(start + rng.integers(0, 50_000, n))
    for name, end in (("x", size), ("y", size), ("p", 2)):
        events[name] = rng.integers(0, end, n)
    return events


def write_gestures(root: Path, users: int = 3, events: int = 400) -> dict[str, int]:
    """Writes recordings in the layout of DVS128 Gesture; class k has its events in column 10·k, so it can be learnt.

    Returns:
        The number of events of each sample.
    """
    root.mkdir(parents=True, exist_ok=True)
    counts = {}
    for user in range(1, users + 1):
        rng = np.random.default_rng(user)
        parts, rows = [], ["class,startTime_usec,endTime_usec"]
        for label in range(_CLASSES):
            part = random_events(rng, events, start=100_000 * label)
            part["x"] = 10 * label + part["x"] % 8
            parts.append(part)
            rows.append(f"{label + 1},{100_000 * label},{100_000 * label + 60_000}")
            counts[f"user{user:02}_lab/{label:02}"] = events
        (root / f"user{user:02}_lab.aedat").write_bytes(encode_aedat3(np.concatenate(parts)))
        (root / f"user{user:02}_lab_labels.csv").write_text("\n".join(rows) + "\n")
    names = [f"user{user:02}_lab.aedat" for user in range(1, users + 1)]
    (root / "trials_to_train.txt").write_text("\n".join(names[:-1]) + "\n")
    (root / "trials_to_test.txt").write_text(names[-1] + "\n")
    return counts


AEDAT4_PACKINGS = ("none", "lz4", "lz4-high", "zstd", "zstd-high")
_XML = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">{}</node></dv>"""
_STREAM = """<node name="{0}" path="/mainloop/Recorder/outInfo/{0}/"><attr key="compression" type="string">NONE</attr>
<attr key="originalModuleName" type="string">capture</attr><attr key="originalOutputName" type="string">events</attr>
<attr key="typeDescription" type="string">Array</attr><attr key="typeIdentifier" type="string">{1}</attr>
<node name="info" path="/mainloop/Recorder/outInfo/{0}/info/"><attr key="sizeX" type="int">128</attr>
<attr key="sizeY" type="int">128</attr><attr key="source" type="string">DVS</attr></node></node>"""


def encode_aedat4(
    *packets: tuple[int, str, np.ndarray],
    packing: str = "lz4",
    table: bool = True,
    streams: dict[int, str] | None = None,
) -> bytes:
    """Returns an AEDAT 4 file, its flatbuffers laid out by hand after the format's schema.

    Args:
        packets: Stream, kind (EVTS and others), and events (dtype EVENT) of each.
        packing: One of AEDAT4_PACKINGS.
        table: End the file with a table, as recorders do that are not killed.
        streams: Kind of each stream that the header states; those of the packets if None.
    """

    def packed(content: bytes) -> bytes:
        if packing == "none":
            return content
        return lz4.frame.compress(content) if packing.startswith("lz4") else zstandard.compress(content)

    def header(end: int) -> bytes:
        stated = {stream: kind for stream, kind, _ in packets} if streams is None else streams
        xml = _XML.format("".join(_STREAM.format(stream, kind) for stream, kind in stated.items())).encode()
        vtable = struct.pack("<HHHHHxx", 10, 20, 4, 8, 16)
        fields = struct.pack("<iiqI", 12, AEDAT4_PACKINGS.index(packing), end, 4)
        body = struct.pack("<I4s", 20, b"IOHE") + vtable + fields + struct.pack("<I", len(xml)) + xml + b"\0"
        return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(body)) + body

    body = b""
    for stream, kind, events in packets:
        elements = np.zeros(len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("", "V3")])
        for name in ("t", "x", "y", "p"):
            elements[name] = events[name]
        content = struct.pack("<I4sHHHxxiII", 16, kind.encode(), 6, 8, 4, 8, 4, len(events)) + elements.tobytes()
        content = packed(struct.pack("<I", len(content)) + content)
        body += struct.pack("<iI", stream, len(content)) + content
    end = len(header(0)) + len(body) if table else -1
    return header(end) + body + (packed(b"the table") if table else b"")


def make_run(
    runs_dir: Path,
    *overrides: str,
    epochs: int = 3,
    finished: bool = True,
    protocol: Any = "A",
    name: str | None = None,
    accuracies: Iterable[tuple[float | None, float | None]] | None = None,
) -> Any:
    """A run of the demo, without its training: each epoch is a little better than the one before.

    Args:
        runs_dir: Runs directory.
        overrides: Changes to the demo.
        epochs: Epochs trained, which are all that were planned.
        finished: Whether it has its result.
        protocol: A, B or C.
        name: Its name.
        accuracies: Validation and test accuracy of each epoch; None: those of an improving run, which the result has.
    """
    from plifctl.config.lookup import load_registry
    from plifctl.runs import RunData, RunRecorder, create_run
    from plifctl.training.progress import EpochRow, Outcome

    changes = [f"train.epochs={epochs}", *overrides]
    resolved = load_registry().experiment("demo", overrides=changes).for_protocol(protocol)
    split = {"digest": "d", "notes": [], "train": ["a", "b"], "validation": [], "test": ["c"]}
    used = {"path": "x.h5", "content_digest": "c" * 64}
    run = create_run(runs_dir, resolved, protocol, cache=used, split=split, environment={"torch": "2"}, name=name)
    recorder = RunRecorder(run, resolved.spec)
    with recorder.live():
        recorder.begin(resolved, 0)
        rows = []
        improving = [epoch / (epochs + 1) for epoch in range(1, epochs + 1)]
        accuracies = accuracies or [(None, one) if protocol == "A" else (one, None) for one in improving]
        for epoch, (validation, test) in enumerate(accuracies, 1):
            more: dict[str, Any] = {"layers": ["sn0"], "a": [0.0], "gradient_norm": {"fc0": 0.5, "sn0": 0.1}}
            more["cpu_seconds"] = 2.0 * epoch
            rows.append(EpochRow(epoch, 0.1, 0.5, validation, test, 1e-3, [2.0 + epoch], [0.1], 1.0, 9.0, **more))
            recorder.on_epoch(rows[-1])
            recorder.save("best", {"model": {}})
        recorder.on_step(epochs, 1, 2, 0.5, "train")
        if finished:
            data = RunData(verified=True, complete=True, train=2, validation=0, test=1, cache="c" * 64)
            recorder.finish(Outcome(improving[-1], validation, epochs, rows, False), resolved, data, {"torch": "2"})
    return run


def made_control(time: Any = "shuffled", tau: Any = None, **changes: Any) -> Any:
    """A test under a control of a run by :func:`make_run`: its one test sample is no longer classified correctly."""
    from plifctl.runs import ControlResult

    counts: dict[str, Any] = {"accuracy": 0.0, "lost": 1, "gained": 0, "samples": 1}
    tested = {"epoch": 3, "cache": "c" * 64, "plifctl": "0.2.0"}
    return ControlResult(time=time, tau=tau, **(counts | tested | changes))


def idx_files() -> dict[str, bytes]:
    """Tiny files of MNIST's names: 30 images for training, 10 for testing."""
    rng, found = random.Random(0), {}
    for name, n in (("train", 30), ("t10k", 10)):
        images = struct.pack(">HBBIII", 0, 8, 3, n, 28, 28) + rng.randbytes(n * 784)
        labels = struct.pack(">HBBI", 0, 8, 1, n) + bytes(k % 10 for k in range(n))
        found[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(images, mtime=0)
        found[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(labels, mtime=0)
    return found


def made_record(experiment: str, tests: tuple[float, ...], seed: int = 1, **changes: Any) -> Any:
    """A result record of protocol A of an experiment of the registry, with its test accuracies by epoch."""
    from plifctl.config.lookup import load_registry
    from plifctl.runs import ResultRecord, RunData

    spec = load_registry().experiment(experiment, overrides=changes.get("overrides", ())).spec
    samples = spec.dataset.samples
    train, test = (samples.train, samples.test) if samples is not None else (8, 2)
    values: dict[str, Any] = {
        "schema_version": 1,
        "run": f"run-{experiment.partition('-')[2]}-{seed}",
        "experiment": experiment,
        "recipe": "paper",
        "protocol": "A",
        "dataset": spec.dataset.name,
        "T": spec.T,
        "seed": seed,
        "epochs": len(tests),
        "digest": spec.digest,
        "overrides": (),
        "data": RunData(verified=True, complete=True, train=train, validation=0, test=test, cache="c"),
        "accuracy": max(tests),
        "best_epoch": tests.index(max(tests)) + 1,
        "validation_accuracy": None,
        "test_accuracy": tests,
        "tau": tuple(() for _ in tests),
        "environment": {},
        "finished": "2026-01-01T00:00:00Z",
    }
    return ResultRecord(**(values | changes))
