"""Small raw files for tests: recordings of every format, and data sets in the layouts that people keep."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from plifctl.config.choices import Recipe
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset, ImageDataset
from plifctl.data.events import EVENT, Events
from plifctl.data.source import RawSource

AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
AEDAT2_HEADER = b"#!AER-DAT2.0\r\n# made by hand\r\n"


def aedat3_word(x: int, y: int = 0, p: int = 1, valid: int = 1) -> int:
    """The first word of a polarity event of AEDAT 3.1."""
    return x << 17 | y << 2 | p << 1 | valid


def aedat3_packet(*words: tuple[int, int], kind: int = 1, overflow: int = 0, spare: bytes = b"") -> bytes:
    """A packet of events, each a word and a time; ``spare`` fills the capacity that they do not use."""
    n = len(words)
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, n + len(spare) // 8, n, n)
    return head + b"".join(struct.pack("<II", *word) for word in words) + spare


def encode_davis(*events: tuple[int, int, int, int], header: bytes = AEDAT2_HEADER, words: bytes = b"") -> bytes:
    """An AEDAT 2.0 file of a DAVIS: other words, then events (t, x, y, p)."""
    return header + words + b"".join(struct.pack(">II", y << 22 | x << 12 | p << 11, t) for t, x, y, p in events)


def encode_atis(events: np.ndarray) -> bytes:
    return b"".join(bytes((x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)) for t, x, y, p in events.tolist())


def encode_dat(*events: tuple[int, int, int, int], kind: int = 0) -> bytes:
    body = b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for t, x, y, p in events)
    return b"% Data file\n% Version 2\n" + bytes((kind, 8)) + body


def evt2_word(t: int, x: int, y: int, p: int) -> int:
    """An event of EVT 2.0; the high part of its time is a word of its own."""
    return p << 28 | (t & 63) << 22 | x << 11 | y


def encode_evt(events: np.ndarray, version: str, *, legacy: bool = False, header: bytes = b"") -> bytes:
    """An EVT file, version 2.0, 2.1 or 3.0, each event with its time; ``legacy``: the halves of EVT 2.1 are swapped."""
    words = []
    for t, x, y, p in events.tolist():
        if version == "3.0":
            words += [8 << 12 | t >> 12 & 4095, 6 << 12 | t & 4095, y, 2 << 12 | p << 11 | x]
        else:
            words += [8 << 28 | t >> 6 & 0xFFFFFFF, evt2_word(t, x, y, p)]
    if version == "2.1":  # the event is the first pixel of its vector
        halves = [(word, int(word < 8 << 28)) for word in words]
        words = [half for head, pixels in halves for half in ((head, pixels) if legacy else (pixels, head))]
    stated = ";endianness=legacy" * legacy
    name = {"2.0": "EVT2", "2.1": "EVT21", "3.0": "EVT3"}[version]
    header = header or f"% evt {version}\n% format {name};height=720;width=1280{stated}\n% end\n".encode()
    return header + np.array(words, "<u2" if version == "3.0" else "<u4").tobytes()


def metavision_index() -> bytes:
    """The index that Metavision writes beside a recording: its header and more fields, then places of times."""
    header = b"% evt 3.0\n% format EVT3;height=720;width=1280\n% bookmark_period_us 2000\n% index_version 2.0\n% end\n"
    return header + b"".join(struct.pack("<qQI", 2000 * k, 100 + 40 * k, 7) for k in range(50))


def encode_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def encode_npz(*, packed: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def encode_cifar_batch(**changes: object) -> bytes:
    """A batch of two images, with some entries replaced."""
    tree: dict[bytes, object] = {b"data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), b"labels": [3, 9]}
    tree |= {key.encode(): value for key, value in changes.items()}
    return pickle.dumps(tree, protocol=2)


def atis_recording(n: int) -> bytes:
    """An ATIS recording of n events, one each µs."""
    return b"".join(bytes((k % 34, k % 30, 0x80 * (k % 2), 0, k)) for k in range(n))


def save_npz(path: Path, events: np.ndarray | Events, **dtypes: str) -> None:
    """Saves events as SpikingJelly's converters do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name: events[name].astype(dtypes.get(name, EVENT[name])) for name in "txyp"})


def write_nmnist(root: Path) -> None:
    """Writes N-MNIST with six training and two test recordings."""
    for split, count in (("Train", 3), ("Test", 1)):
        for digit in range(2):
            for n in range(count):
                path = root / split / str(digit) / f"{n:05d}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(atis_recording(5 + digit + n))


def write_idx(root: Path, train: int = 30, test: int = 10, *, packed: bool = True) -> None:
    """Writes the four files of MNIST with random images."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", train), ("t10k", test)):
        files = {
            f"{name}-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, n, 28, 28) + rng.bytes(n * 784),
            f"{name}-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, n) + bytes(k % 10 for k in range(n)),
        }
        for file, data in files.items():
            if packed:
                (root / f"{file}.gz").write_bytes(gzip.compress(data))
            else:
                (root / file).write_bytes(data)


def pack_zip(folder: Path, target: Path) -> None:
    """Packs a folder, under its own name, with members in reverse order."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder.parent))


def pack_tar(folder: Path, target: Path) -> None:
    """Packs a folder under its own name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)


def open_dataset(
    name: str, root: Path | None, *changes: str, verify: bool = False, recipe: Recipe = "paper"
) -> EventDataset | ImageDataset:
    """Opens the raw files of a data set of the registry."""
    return open_raw(load_registry().dataset(name, recipe, changes), RawSource(root, verify=verify))


def open_events(name: str, root: Path | None, *changes: str, verify: bool = False) -> EventDataset:
    """Opens the raw files of an event data set of the registry."""
    raw = open_dataset(name, root, *changes, verify=verify)
    assert isinstance(raw, EventDataset)
    return raw


def events_by_id(raw: EventDataset) -> dict[str, list[tuple[int, ...]]]:
    """The events of every sample, by its id."""
    found = {
        raw.samples[sample.row].id: sample.events.tolist()
        for member in raw.recordings()
        for sample in raw.decode(member.name, member.load())
    }
    assert len(found) == len(raw.samples)
    return found
