"""Every list of choices of YAML files, the command line and the API; imports nothing of the project."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Recipe = Literal["paper", "authors", "fast"]
"""Set of choices: those of the paper's text (see :data:`ValueSource`), what the authors' code ran, or a short training
of the same networks. ``fast`` is ``paper`` where it states nothing else."""

RECIPES: tuple[Recipe, ...] = get_args(Recipe)

ValueSource = Literal["text", "authors", "choice"]
"""Source of a value of the recipe ``paper``: the paper's text, the authors' code where that is silent, or ours."""

Protocol = Literal["A", "B", "C"]
"""How the epoch of a run is chosen: by test accuracy (A), by accuracy on validation samples (B), or not at all, as the
last one of a training on all samples but the test samples (C)."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

TRAINING_VERBS: dict[Protocol, str] = {"A": "train", "B": "validate", "C": "refit"}
"""The subcommand that makes and resumes runs of a protocol."""


class ProtocolText(NamedTuple):
    """What the accuracy of a protocol is.

    Attributes:
        short: Beside a number, where the reader knows the protocols.
        long: As a sentence for other readers; in that of B, ``{tests}`` stands for how often the network was tested.
    """

    short: str
    long: str


PROTOCOL_ACCURACY: dict[Protocol, ProtocolText] = {
    "A": ProtocolText(
        "maximum over test epochs",
        "the network was tested after every epoch, and this is the maximum, which is optimistic",
    ),
    "B": ProtocolText(
        "test accuracy of the epoch that validation chose",
        "the epoch was chosen by validation samples, and tested {tests}",
    ),
    "C": ProtocolText(
        "test accuracy of the last epoch, trained on all but the test samples",
        "trained on all samples but the test samples; the last epoch was tested, once",
    ),
}
"""What the accuracy of each protocol is."""

EntryKind = Literal["experiment", "dataset", "network"]
"""Kinds of registry entries."""

# ---------------------------------------------------------------------------------------------- data sets and frames

OwnLayout = Literal["folders", "class-folders", "label-table"]
"""Layouts of a user's own recordings, of any known format: ``folders`` SPLIT/CLASS/FILE, ``class-folders`` CLASS/FILE,
``label-table`` recordings anywhere in a folder and a CSV file with the label of each."""

OWN_LAYOUTS: tuple[OwnLayout, ...] = get_args(OwnLayout)

PublishedLayout = Literal["mnist", "fashion-mnist", "cifar10", "nmnist", "cifar10dvs", "gesture", "synthetic-gesture"]
"""Layouts of the published data sets, in their own file names and formats, and of the embedded one."""

Layout = Literal[PublishedLayout, OwnLayout]
"""Layout of the raw files of a data set: their names and formats."""

EmbeddedDataset = Literal["synthetic-gesture", "synthetic-order"]
"""Data sets that plifctl simulates."""

DataKind = Literal["events", "images"]
"""Kind of the samples of a data set."""

Split = Literal["train", "validation", "test"]
"""Official split of a data set; few have samples for validation. Without a split, all samples are ``train``."""

SPLITS: tuple[Split, ...] = get_args(Split)
"""In the order of the rows of a cache."""

SPLIT_WORDS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}
"""The splits in messages: training samples, validation samples, test samples."""

Slicing = Literal["number", "number-remainder", "time", "duration", "duration-first"]
"""Rule by which the events of a sample are cut into frames."""

OutsideEvents = Literal["refuse", "drop"]
"""Events outside the sensor: an error, or left out and counted."""

InvalidEvents = Literal["drop", "keep"]
"""AEDAT 3.1 events whose valid bit is 0."""

TimeUnit = Literal["ns", "us", "ms", "s"]
"""Unit of the times in recordings that do not state it: arrays and text."""

Column = Literal["t", "x", "y", "p", "-"]
"""Column of a matrix of events, or of a line of text; ``-`` is not read."""

Axes = Literal["authors", "spikingjelly"]
"""Reading of CIFAR10-DVS addresses: that of the authors' code, or of SpikingJelly."""

TrainingSet = Literal["all", "first-78"]
"""Training recordings of DVS128 Gesture."""

TestSet = Literal["last-100", "first-100"]
"""Test files of each class of CIFAR10-DVS."""

# ------------------------------------------------------------------------------------------------ network and neuron

BatchNorm = Literal["per-step", "over-time"]
"""Batch-norm statistics: over N, H, W at each step, or over T, N, H, W."""

Pooling = Literal["max", "average"]
"""Kind of all pooling layers of a network."""

PoolTies = Literal["first", "random", "random-firing"]
"""Neuron of a window that receives the gradient of max pooling of spikes: the ``first`` of the maxima; a ``random`` one
of them; or, ``random-firing``, a random one of those that fire, and none where none fires (Figure 5)."""

NeuronKind = Literal["plif", "lif"]
"""Neurons with a learnable time constant, or with a fixed one."""

TauScope = Literal["layer", "channel", "neuron"]
"""Unit with its own learnable time constant."""

Reset = Literal["hard", "soft"]
"""Membrane potential after a spike: set to v_reset, or lowered by v_threshold."""

Surrogate = Literal["arctan", "sigmoid", "rectangular", "triangular"]
"""Function whose derivative replaces that of the step function in training."""

# ---------------------------------------------------------------------------------------------------------- training

Loss = Literal["mse-per-step", "mse-rate", "ce-rate", "tet"]
"""Loss functions."""

Optimizer = Literal["adadelta", "adagrad", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd"]
"""Optimizers of torch."""

Schedule = Literal["cosine", "cosine-restarts", "constant", "exponential", "linear", "multi-step", "polynomial", "step"]
"""Learning-rate schedules."""

Augmentation = Literal["none", "flip", "flip-crop", "affine"]
"""Augmentation of training images."""

Normalise = Literal["per-set", "none"]
"""Normalisation of images by the mean and std of the data set."""

Ties = Literal["earliest", "latest"]
"""Which of several equally good epochs is reported."""

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Number format of convolutions and matrix products."""

HALF_PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16")
"""Those of 16 bits."""

Memory = Literal["full", "compact"]
"""Memory of a training step: keep the outputs of convolutions, or their inputs and compute the outputs again."""

Rounding = Literal["ceil-keep-one", "ceil"]
"""Training samples of a class of n in protocol B: min(n − 1, ⌈f·n⌉), or ⌈f·n⌉."""

SplitMethod = Literal["official", "share", "folds", "leave-one-out"]
"""Choice of the test samples: those of the data set; a share of each class, or of the groups, at random; one of k
parts; or one group."""

ValidationMethod = Literal["in-order", "share", "official"]
"""Choice of protocol B's validation samples: the last ones of each class (the paper's), some at random, or those of the
data set."""

ValidationLoader = Literal["all", "as-training"]
"""Validation samples: all as they are, or shuffled, augmented and cut to whole batches like training samples."""

TestSchedule = Literal["once", "every-epoch"]
"""When protocol B tests: once, with the chosen model, or after every epoch."""

# ----------------------------------------------------------------------------------------------- running and storing

Kernel = Literal["auto", "eager", "compiled", "fused", "triton"]
"""Implementation of the spiking layers: the definition, torch.compile of it, one pass on the CPU, Triton on a GPU."""

DataPlacement = Literal["device", "memory", "disk"]
"""Place of the samples during training: memory of the device, memory of the machine, or disk."""

CheckpointName = Literal["best", "last"]
"""The checkpoints of a run: that of the epoch reported, and that of the last step."""

ExportTarget = Literal["spikingjelly", "tonic", "npz"]
"""Tools that caches are exported for."""

NetworkFormat = Literal["pt", "npz", "nir", "onnx", "folder", "spikingjelly"]
"""Formats of exported networks: torch, numpy, NIR, ONNX, a folder as on the Hugging Face hub, SpikingJelly."""

Engine = Literal["local", "slurm", "ray"]
"""Engines of sweeps: processes of this machine, a SLURM cluster, a Ray cluster."""

RunStatus = Literal["running", "finished", "stopped", "failed", "killed", "unknown"]
"""Status of a run, derived from its files and its lock; ``unknown`` of a run that cannot be locked."""

RunFilter = Literal[RunStatus, "damaged", "imported", "added"]
"""Runs that can be listed."""

TimeControl = Literal["shuffled", "reversed", "scattered", "collapsed"]
"""Changed frames in an evaluation: in random order, backwards, in a random order for each pixel, or all their mean."""

TauControl = Literal["mean", "no-leak", "no-memory"]
"""Changed time constants in an evaluation: their mean in every layer, integration without leak, or no memory of the
steps before."""

RecordedLayers = Literal["first", "all"]
"""Spiking layers whose spikes are recorded."""

Compression = Literal["zstd", "gzip", "none"]
"""Compression of the samples of a cache."""

TABLES = ("1", "2", "3", "4", "5", "S1", "S2")
"""Tables of the paper; ``tables/table-NAME.yaml`` of a registry folder defines them and more."""

SELECTION_TABLE = "selection"
"""Table of the selection bias of each run; it has no file."""

RUNS_TABLE = "runs"
"""Table of the runs folder: every experiment with its seeds and folds; it has no file."""

SIGNIFICANCE_TABLE = "significance"
"""Table of the differences between PLIF and LIF, and between the kinds of pooling; it has no file."""

SPEED_TABLE = "speed"
"""Table of the epochs to the same accuracy; it has no file."""

CONVERGENCE_TABLE = "convergence"
"""Table of τ from two starts; it has no file."""

FAST_TABLE = "fast"
"""Table of the processor time that the recipe ``fast`` needs, beside the authors' training; it has no file."""

CLAIMS_TABLE = "claims"
"""Table of the claims of the paper with evidence and verdict; it has no file."""

OTHER_TABLES = (
    CLAIMS_TABLE,
    SELECTION_TABLE,
    SIGNIFICANCE_TABLE,
    SPEED_TABLE,
    CONVERGENCE_TABLE,
    FAST_TABLE,
    RUNS_TABLE,
    "early",
    "context",
    "demo",
)
"""Tables besides those of the paper."""

FIGURES = ("1b", "2", "5", "6", "7", "S1", "S2", "S3", "S4", "S5", "J")
"""Figures of the paper that can be drawn."""

OTHER_FIGURES = ("start", "fast")
"""Figures besides those of the paper: the first training step at several time constants, and the accuracy of the recipe
``fast`` over processor time."""

ResultOrigin = Literal["trained", "shipped", "authors", "imported", "added"]
"""Origin of a result: trained here, shipped with a registry folder, of the authors' logs that plifctl knows, imported
from other logs, or added, trained by somebody else."""

ResultSource = Literal["mine", "shipped", "authors", "imported", "added"]
"""Source of the results in tables: the user's own runs, records that come with plifctl, the authors' logs, other logs
that were imported (``runs import``), or runs of somebody else that were added (``runs add``)."""

TableFormat = Literal["table", "markdown", "csv", "latex"]
"""Formats of tables on the command line; ``table`` is for reading in a terminal."""
