"""Makes the artefacts of plifctl 0.1.0 that lie here, and what plifctl 0.1.0 reports of them.

    python make_artefacts.py CHECKOUT FOLDER

CHECKOUT is a checkout of commit 96ac10c, the last one before modules and words were renamed; it must be clean, because
artefacts name the version that wrote them. FOLDER is empty or new. What lies here was made once, with a checkout in
/opt/plifctl-0.1.0 and in the folder /srv/plif, and then copied; it is never made again with later code.

| folder or file | is |
|---|---|
| raw/ | tiny recordings and images |
| mine/ | a user's registry folder, in the words of 0.1.0 |
| data_cache/ | caches, as ``prepare`` left them |
| runs/ | runs, as ``train``, ``validate``, ``eval --record-spikes`` and ``runs import`` left them |
| logs/ | logs of other code, which two of the runs were imported from |
| exports/ | exported networks, and checkpoints that were copied out of their run |
| names.json | what each run is |
| expected/ | what 0.1.0 reports of all this, and the runs that it resumed, to their end |

Everything is written from FOLDER with relative paths, so that the artefacts can be copied elsewhere; ``imported.json``
alone names FOLDER, and ``config.yaml`` the checkout. The two runs that did not finish got their signal at a certain
step of a certain epoch. One thread only, in torch and in numba: with two, sums are added up in another order.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

USERS = 4
EVENTS = 60
"""Of a gesture."""

MINE = {
    "datasets/tiny-gesture.yaml": """\
# Eleven gestures on a sensor of 16 × 16 pixels, laid out as DVS128 Gesture.
name: tiny-gesture
title: tiny gestures
layout: gesture
kind: events
shape: [2, 16, 16]
classes: [a, b, c, d, e, f, g, h, i, j, k]
samples: {train: 33, test: 11}
recipes:
  paper:
    frames: {slicing: number, outside_events: refuse, invalid_events: drop, training_set: all}
  published:
    frames: {slicing: number-remainder, outside_events: refuse, invalid_events: keep, training_set: first-78}
""",
    "datasets/tiny-mnist.yaml": """\
# Four classes of images of 8 × 8 pixels, laid out as MNIST.
name: tiny-mnist
title: tiny images
layout: mnist
kind: images
shape: [1, 8, 8]
classes: [north, east, south, west]
samples: {train: 40, test: 12}
mean: [0.25]
std: [0.4]
""",
    "networks/tiny.yaml": """\
tiny-events:
  structure: "c4k3s1-BN-SN-MPk4s4-c6k3s1-BN-SN-MPk2s2-DP-FC22-SN-APk2s2"
  dropout: 0.25
  batch_norm: per-step
tiny-images:
  structure: "c4k3s1-BN-SN-MPk2s2-DP-FC12-SN-DP-FC8-SN-APk2s2"
  dropout: 0.25
  batch_norm: over-time
""",
    "experiments/tiny-gesture.yaml": """\
extends: _common
dataset: tiny-gesture
network: tiny-events
T: 4

neuron:
  v_threshold: 0.5

train:
  normalise: none
  lr: 2e-2
  batch_size: 4
  epochs: 5
  cosine_period: 5

recipes:
  paper:
    train: {loss: mse-per-step}
  published:
    train: {loss: mse-rate, drop_last: false}

variants:
  tiny-plif:
    title: "tiny gestures, PLIF, τ₀ = 2"
    neuron: {kind: plif, tau_0: 2.0}
    published: {accuracy_a: 90.91, accuracy_b: 81.82, source: "my notebook, page 3"}
  tiny-soft:
    title: "tiny gestures, a PLIF with a soft reset and a τ for each neuron"
    neuron: {kind: plif, tau_0: 2.0, tau_per: neuron, reset: soft, learn_threshold: true}
    recipes:
      published:
        neuron: {reset: hard}
""",
    "experiments/tiny-mnist.yaml": """\
extends: _common
dataset: tiny-mnist
network: tiny-images
T: 4

neuron:
  v_threshold: 0.5

train:
  normalise: per-set
  lr: 2e-2
  batch_size: 4
  epochs: 4
  cosine_period: 4

recipes:
  paper:
    train: {augmentation: none}
  published:
    train: {augmentation: affine}

variants:
  tiny-mnist-plif:
    title: "tiny images, PLIF, τ₀ = 2"
    neuron: {kind: plif, tau_0: 2.0}
    published: {accuracy_a: 75.0, source: my notebook}
""",
    "published/table-mine.yaml": """\
caption: What I measured last year
source: my notebook
ours: columns
columns:
  Data set:
  without validation: accuracy A
  with validation: accuracy B
  time steps: T
  structure: structure
rows:
  tiny gestures:
    cells: ["90.91", "81.82", "4", "small"]
    of: {without validation: tiny-plif, with validation: tiny-plif, time steps: tiny-plif, structure: tiny-events}
  tiny images:
    cells: ["75.00", "", "4", ""]
    of: {without validation: tiny-mnist-plif, with validation: tiny-mnist-plif, time steps: tiny-mnist-plif}
""",
}

STARTER = """\
import os, platform, signal, socket, sys
platform.platform = lambda *_, **__: "Linux-x86_64"
socket.gethostname = lambda: "workstation"
strike, sys.argv = sys.argv[1], ["plifctl", *sys.argv[2:]]
if strike:
    from plifctl.runs import RunRecorder
    name, wanted_epoch, wanted_step = strike.split()
    on_step = RunRecorder.on_step
    def struck(self, epoch, step, *rest):
        on_step(self, epoch, step, *rest)
        if (epoch, step) == (int(wanted_epoch), int(wanted_step)) and rest[-1] == "train":
            os.kill(os.getpid(), getattr(signal, name))
    RunRecorder.on_step = struck
from plifctl.cli import main
main()
"""
"""The command line, on a machine of no name; a first argument ``SIGINT 2 3`` is sent in epoch 2 after step 3."""


class Plifctl:
    """The command line of a checkout, in a folder."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PLIFCTL_")},
            "PYTHONPATH": str(checkout),
            "PLIFCTL_REGISTRY": "mine",
            "PLIFCTL_CACHE_DIR": "data_cache",
            "PLIFCTL_RUNS_DIR": "runs",
            "PLIFCTL_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def __call__(self, *arguments: object, strike: str = "", code: int = 0) -> str:
        """Returns what a command writes to stdout; it must end with ``code``."""
        command = [sys.executable, "-c", STARTER, strike, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        print(f"plifctl {' '.join(map(str, arguments))}{f'  ({strike})' if strike else ''}: {done.returncode}")
        assert done.returncode == code, done.stderr
        return done.stdout

    def json(self, *arguments: object, code: int = 0) -> Any:
        """Returns the document that a command prints."""
        return json.loads(self(*arguments, "--json", code=code))

    def run(self, *arguments: object, **options: Any) -> str:
        """Returns the name of the run that a command makes."""
        before = self._runs()
        self(*arguments, **options)
        (name,) = self._runs() - before
        return name

    def _runs(self) -> set[str]:
        return {path.name for path in (self.folder / "runs").glob("*") if (path / "config.yaml").is_file()}


def write_registry(folder: Path) -> None:
    """Writes the user's registry folder."""
    for name, text in MINE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_raw_gestures(folder: Path) -> None:
    """Writes recordings in the layout of DVS128 Gesture; class k has most of its events in column k."""
    from plifctl.events.formats import EVENT
    from plifctl.events.formats.aedat3 import encode_aedat3

    folder.mkdir(parents=True)
    for user in range(1, USERS + 1):
        rng = np.random.default_rng(user)
        parts, rows = [], ["class,startTime_usec,endTime_usec"]
        for label in range(11):
            part = np.empty(EVENTS, EVENT)
            part["t"] = np.sort(100_000 * label + rng.integers(0, 50_000, EVENTS))
            part["x"] = np.where(rng.random(EVENTS) < 0.8, label, rng.integers(0, 16, EVENTS))
            part["y"] = rng.integers(0, 16, EVENTS)
            part["p"] = rng.integers(0, 2, EVENTS)
            parts.append(part)
            rows.append(f"{label + 1},{100_000 * label},{100_000 * label + 60_000}")
        (folder / f"user{user:02}_lab.aedat").write_bytes(encode_aedat3(np.concatenate(parts)))
        (folder / f"user{user:02}_lab_labels.csv").write_text("\n".join(rows) + "\n")
    names = [f"user{user:02}_lab.aedat" for user in range(1, USERS + 1)]
    (folder / "trials_to_train.txt").write_text("\n".join(names[:-1]) + "\n")
    (folder / "trials_to_test.txt").write_text(names[-1] + "\n")


def write_raw_images(folder: Path) -> None:
    """Writes IDX files of MNIST's names: one side of an image is brighter, its label says which."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, n in (("train", 40), ("t10k", 12)):
        labels = np.arange(n) % 4
        images = rng.integers(0, 120, (n, 8, 8))
        for image, label in zip(images, labels, strict=True):
            np.rot90(image, -int(label))[:3] += 130
        head = struct.pack(">HBBIII", 0, 8, 3, n, 8, 8)
        packed = {"images-idx3": head + images.astype(np.uint8).tobytes()}
        packed["labels-idx1"] = struct.pack(">HBBI", 0, 8, 1, n) + labels.astype(np.uint8).tobytes()
        for what, content in packed.items():
            (folder / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))


def write_logs(folder: Path) -> None:
    """Writes logs of other code: one of the authors' exports, and TensorBoard's events of somebody else."""
    from torch.utils.tensorboard import SummaryWriter

    (folder / "authors").mkdir(parents=True)
    authors = "run-FashionMNIST_init_tau_2.0_use_plif_True_use_max_pool_True_T_8_detach_reset_True-tag-"
    socket.gethostname = lambda: "workstation"  # part of the name of TensorBoard's files
    exported = {
        "test_accuracy": [0.9438 - abs(n - 70) / 1000 for n in range(100)],
        "w0": [-0.3 * n / 100 for n in range(100)],
        "w2": [0.5 * n / 100 for n in range(100)],
    }
    for tag, values in exported.items():
        rows = ["Wall time,Step,Value", *(f"{1.6e9 + n},{n},{value}" for n, value in enumerate(values))]
        (folder / "authors" / f"{authors}{tag}.csv").write_text("\n".join(rows) + "\n")
    with SummaryWriter(str(folder / "resnet")) as writer:
        for epoch in range(5):
            for tag, value in (("top1", 40.0 + epoch), ("train_loss", 1 / (epoch + 1)), ("tau/sn0", 2.0 + epoch / 10)):
                writer.add_scalar(tag, value, epoch, walltime=1.6e9 + epoch)


def make_artefacts(plifctl: Plifctl) -> dict[str, str]:
    """Runs the commands of a user, and returns what each run is."""
    folder = plifctl.folder
    write_registry(folder / "mine")
    write_raw_gestures(folder / "raw/gesture")
    write_raw_images(folder / "raw/mnist")
    write_logs(folder / "logs")
    gestures = ("prepare", "tiny-gesture", "--raw", "raw/gesture", "--no-checksum")
    plifctl(*gestures, "--T", 4)
    plifctl(*gestures, "--T", 4, "--recipe", "published")
    plifctl(*gestures, "--set", "frames.slicing=duration", "--set", "frames.duration_us=20000")
    plifctl("prepare", "tiny-mnist", "--raw", "raw/mnist", "--no-checksum")

    def run(*arguments: object, **options: Any) -> str:
        return plifctl.run(*arguments, "--deterministic", **options)

    published = ("--recipe", "published")
    names = {
        "A": run("train", "tiny-plif"),
        "B": run("validate", "tiny-plif"),
        "set": run("train", "tiny-plif", "--set", "train.lr=0.003", "--set", "train.seed=7"),
        "published": run("train", "tiny-plif", *published),
        "soft": run("train", "tiny-soft", *published, "--set", "train.early_stop=9", "--epochs", 2),
        "images": run("train", "tiny-mnist-plif"),
        # stopped in the middle of an epoch, its state saved first
        "stopped": run("train", "tiny-plif", "--set", "train.clip_norm=1.0", strike="SIGINT 2 3", code=130),
        # killed in the middle of an epoch, its state saved two steps before, of protocol B
        "killed": run(
            *("validate", "tiny-mnist-plif", *published, "--checkpoint-every", 2), strike="SIGKILL 2 7", code=-9
        ),
    }
    plifctl("eval", names["A"], "--record-spikes", 2)
    plifctl("runs", "import", "logs/authors")
    plifctl("runs", "import", "logs/resnet", "--tag", "test_accuracy=top1", "--name", "resnet")
    (folder / "mine/results").mkdir()
    shutil.copy(folder / "runs" / names["B"] / "result.json", folder / "mine/results" / f"{names['B']}.json")
    exports = folder / "exports"
    exports.mkdir()
    for ending in ("pt", "npz"):
        plifctl("export", names["A"], f"exports/A.{ending}")
        plifctl("export", names["A"], f"exports/A-folded.{ending}", "--fold-bn")
    plifctl("export", names["images"], "exports/images.pt")
    plifctl("export", names["set"], "exports/set-last.pt", "--checkpoint", "last")
    for which in ("best", "last"):
        shutil.copy(folder / "runs" / names["A"] / f"checkpoints/{which}.pt", exports / f"checkpoint-{which}.pt")
    return names


def write_expected(plifctl: Plifctl, names: dict[str, str]) -> None:
    """Writes what this version reports of the artefacts."""
    expected = plifctl.folder / "expected"
    finished = [kind for kind in names if kind not in ("stopped", "killed")]
    files = sorted(path.name for path in (plifctl.folder / "exports").glob("*.pt"))
    found = {
        "ls": plifctl.json("ls"),
        "show": {name: plifctl.json("show", name) for name in ("tiny-plif", "tiny-soft", "tiny-mnist-plif")},
        "show-published": {
            name: plifctl.json("show", name, "--recipe", "published")
            for name in ("tiny-plif", "tiny-soft", "tiny-mnist-plif", "tiny-gesture")
        },
        "cache-ls": plifctl.json("cache", "ls"),
        "cache-verify": plifctl.json("cache", "verify"),
        "runs-ls": plifctl.json("runs", "ls"),
        "runs-show": {name: plifctl.json("runs", "show", name) for name in [*names.values(), *IMPORTED]},
        "runs-verify": plifctl.json("runs", "verify"),
        "runs-compare": plifctl.json("runs", "compare", names["A"], names["B"], names["set"], IMPORTED[0]),
        "eval": {
            **{names[kind]: plifctl.json("eval", names[kind]) for kind in finished},
            **{f"exports/{name}": plifctl.json("eval", f"exports/{name}") for name in files},
        },
        "eval-last": plifctl.json("eval", names["A"], "--checkpoint", "last"),
        "eval-folded": plifctl.json("eval", names["A"], "--fold-bn"),
        "report": plifctl.json("report", "--table", "mine"),
        "report-modified": plifctl.json("report", "--table", "mine", "--include-modified"),
        "report-logs": plifctl.json("report", "--table", "4", "--source", "published"),
        "machine": machine(),
    }
    expected.mkdir()
    for name, tree in found.items():
        (expected / f"{name}.json").write_text(in_lines(tree), encoding="utf-8")


def in_lines(tree: Any) -> str:
    """Returns JSON with a line for each entry of a list or mapping, so that it is short and can be compared."""
    if isinstance(tree, dict):
        lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in tree.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"
    return "[\n" + ",\n".join(f" {json.dumps(value, ensure_ascii=False)}" for value in tree) + "\n]\n"


IMPORTED = ("published-fashion-mnist-plif", "resnet")


def resume_copies(plifctl: Plifctl, names: dict[str, str], checkout: Path) -> None:
    """Resumes copies of the runs that did not finish, and keeps their rows, records and final weights."""
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        there = Path(scratch) / "copy"
        shutil.copytree(plifctl.folder, there)
        elsewhere = Plifctl(checkout, there)
        for kind, verb in (("stopped", "train"), ("killed", "validate")):
            result = elsewhere.json(verb, "--resume", names[kind], "--deterministic")
            run = there / "runs" / names[kind]
            into = plifctl.folder / "expected/resumed" / kind
            into.mkdir(parents=True)
            shutil.copy(run / "metrics.jsonl", into / "metrics.jsonl")
            (into / "result.json").write_text(json.dumps(result, indent=1) + "\n")
            for which in ("last", "best"):
                weights = torch.load(run / f"checkpoints/{which}.pt", weights_only=True)["model"]
                np.savez(into / f"{which}.npz", **{name: weight.numpy() for name, weight in weights.items()})


def machine() -> dict[str, Any]:
    """Returns what the last bits of a training may depend on."""
    import torch

    known = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    found = {name.strip(): value.strip() for name, value in known.items()}
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "vendor": found.get("vendor_id", ""),
        "cpu": found.get("model name", ""),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": 1,
    }


def main() -> None:
    """Makes everything."""
    checkout = Path(sys.argv[1]).resolve()
    folder = Path(sys.argv[2]).resolve()
    sys.path.insert(0, str(checkout))
    import plifctl as package

    assert Path(package.__file__).is_relative_to(checkout)
    plifctl = Plifctl(checkout, folder)
    names = make_artefacts(plifctl)
    (folder / "names.json").write_text(json.dumps(names, indent=1) + "\n")
    for lock in folder.rglob("*.lock"):
        lock.unlink()
    write_expected(plifctl, names)
    resume_copies(plifctl, names, checkout)


if __name__ == "__main__":
    main()
