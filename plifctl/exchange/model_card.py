"""The model card of an exported folder: what the network is, what it achieves and how that was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import yaml

from plifctl.config.base import flatten
from plifctl.config.choices import PROTOCOL_ACCURACY
from plifctl.config.network import NeuronSpec
from plifctl.evaluation.operations import PICOJOULES, Operations
from plifctl.exchange.model import TrainedModel
from plifctl.runs.predictions import Predictions
from plifctl.runs.records import ResultRecord
from plifctl.snn.networks import SpikingNetwork
from plifctl.units import markdown_table

_TESTS = {"once": "once", "every-epoch": "as all others were"}
"""When protocol B tests, by ``validation.test``."""

_MOST_CLASSES = 30

_COMPLETENESS = {True: "which is complete", False: "which lacks samples of the data set"}

_CITATION = """```bibtex
@inproceedings{fang2021incorporating,
  title     = {Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural Networks},
  author    = {Fang, Wei and Yu, Zhaofei and Chen, Yanqi and Masquelier, Timoth{\\'e}e and Huang, Tiejun and
               Tian, Yonghong},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  pages     = {2661--2671},
  year      = {2021}
}
```"""


@dataclass(frozen=True)
class MeasuredCache:
    """The cache that an exported network was tested on.

    Attributes:
        content: Digest of its content, hexadecimal.
        complete: It has the official numbers of samples.
    """

    content: str
    complete: bool


@dataclass(frozen=True)
class Evidence:
    """What is known about a network besides its weights.

    Attributes:
        record: Result of the run that trained it; None: not finished, or unknown.
        predictions: Predictions of the exported weights for the test samples; None: not known.
        operations: Operations per sample; None: not counted.
        half: The weights are stored in half precision, or were before.
        folded: Batch norms had been folded before the weights were read.
        changes: How the experiment of the run differs from that of its name
            (:meth:`plifctl.runs.RegisteredExperiments.changes`).
        measured: The cache of the predictions, if they were made for an export; None: not known, or they are the run's.
    """

    record: ResultRecord | None = None
    predictions: Predictions | None = None
    operations: Operations | None = None
    half: bool = False
    folded: bool = False
    changes: tuple[str, ...] = ()
    measured: MeasuredCache | None = None

    def with_predictions(self, predictions: Predictions, content: str, *, complete: bool) -> Evidence:
        """Returns it with predictions that were made now, on a cache of a content that is ``complete`` or not."""
        return replace(self, predictions=predictions, measured=MeasuredCache(content, complete))


def model_card(trained: TrainedModel, evidence: Evidence) -> str:
    """Returns the text of README.md, with the metadata that the Hugging Face hub reads."""
    spec = trained.spec
    made = "Weights from another file, converted by" if trained.converted else "Trained with"
    changed = " A program had the weights in memory since, and may have changed them." if trained.in_memory else ""
    sections = [
        f"# {spec.title}",
        f"A spiking network of {spec.neuron.kind.upper()} neurons that classifies {_inputs(trained)} into "
        f"{len(spec.dataset.classes)} classes. {made} plifctl, which carries the paper on learnable membrane "
        f"time constants (PLIF, ICCV 2021) from recordings to results.{changed}",
        _use(trained),
        "## Result",
        _result(trained, evidence),
        *_caveats(trained, evidence),
        "## Network",
        _network(trained),
        "## Data" if trained.origin else "## Data and training",
        _recipe(trained),
        "## Origin",
        _origin(trained, evidence),
        "## Citation",
        _CITATION,
    ]
    return _metadata(trained, evidence) + "\n\n".join(sections) + "\n"


def _inputs(trained: TrainedModel) -> str:
    size = "×".join(map(str, reversed(trained.network.input_shape[1:])))
    if trained.spec.dataset.kind == "images":
        return f"images of {size} pixels"
    return f"recordings of an event camera, framed to {size} pixels and {trained.spec.T} time steps,"


def _metadata(trained: TrainedModel, evidence: Evidence) -> str:
    spec, accuracy = trained.spec, _accuracy(trained, evidence)
    tree: dict[str, Any] = {
        "library_name": "plifctl",
        "tags": ["spiking-neural-network", "neuromorphic", spec.neuron.kind],
    }
    if spec.dataset.kind == "images":
        tree["pipeline_tag"] = "image-classification"
    if evidence.record is not None and accuracy is not None:
        measured = {"type": "accuracy", "value": round(accuracy, 6), "name": _measured(evidence.record)}
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": spec.dataset.title, "type": spec.dataset.name},
            "metrics": [measured],
        }
        tree |= {"metrics": ["accuracy"], "model-index": [{"name": spec.name, "results": [result]}]}
    return f"---\n{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)}---\n\n"


def _accuracy(trained: TrainedModel, evidence: Evidence) -> float | None:
    """Returns the accuracy of the exported weights; that of the run is of the weights as they were trained."""
    if evidence.predictions is not None:
        return evidence.predictions.accuracy
    changed = evidence.half or evidence.folded or trained.folded
    return None if evidence.record is None or changed else evidence.record.accuracy


def _measured(record: ResultRecord) -> str:
    return f"test accuracy, protocol {record.protocol}, epoch {record.best_epoch} of {record.epochs}"


def _use(trained: TrainedModel) -> str:
    kind = "an image" if trained.spec.dataset.kind == "images" else "a recording"
    return (
        f"With plifctl installed, FOLDER being the folder of these files, and FILE {kind}:\n\n"
        "```bash\n"
        "plifctl predict FOLDER FILE\n"
        "plifctl eval FOLDER          # with a cache of the data set: is the result below reproduced?\n"
        "```\n\n"
        "```python\n"
        "import plifctl\n\n"
        'model = plifctl.load("FOLDER")\n'
        'model.predict("FILE").name\n'
        "```\n\n"
        "Framing, time steps and normalisation of the input come with the model (`config.json`)."
    )


def _result(trained: TrainedModel, evidence: Evidence) -> str:
    rows = [*_measurements(trained, evidence), *_energy(evidence.operations)]
    if not rows:
        return "No result is stated: the training was not finished, or is not known."
    return _table(rows)


def _measurements(trained: TrainedModel, evidence: Evidence) -> Iterable[tuple[str, str]]:
    record, predictions = evidence.record, evidence.predictions
    if (accuracy := _accuracy(trained, evidence)) is not None:
        right = f" ({predictions.right:,} of {len(predictions):,} samples)" if predictions is not None else ""
        yield "test accuracy", f"**{100 * accuracy:.2f} %**{right}"
    if (measured := evidence.measured) is not None:
        yield "measured on", f"cache of content `{measured.content[:12]}`, {_COMPLETENESS[measured.complete]}"
    if record is None:
        return
    how = PROTOCOL_ACCURACY[record.protocol].long.format(tests=_TESTS[trained.spec.validation.test])
    yield "how", f"{how} (protocol {record.protocol})"
    yield "epochs", f"{record.epochs}; the network is that of epoch {record.best_epoch}"
    yield "seed", f"{record.seed}; one run, so no spread is known"
    if record.validation_accuracy is not None:
        yield "validation accuracy", f"{100 * record.validation_accuracy:.2f} %"
    if (data := record.data) is not None:
        yield "samples", f"{data.train:,} for training, {data.validation:,} for validation, {data.test:,} for testing"


def _energy(operations: Operations | None) -> Iterable[tuple[str, str]]:
    if operations is not None:
        yield (
            "energy per sample",
            f"{1e6 * operations.energy:.3g} µJ, estimated from the operations of {operations.samples} samples at "
            f"{PICOJOULES['MAC']} pJ per multiply-accumulate and {PICOJOULES['AC']} pJ per addition (Horowitz 2014); "
            "neurons and memory are not counted",
        )


def _caveats(trained: TrainedModel, evidence: Evidence) -> list[str]:
    """Returns what forbids to compare the result with others, as a section; nothing if there is nothing."""
    record, found = evidence.record, []
    if record is None and _accuracy(trained, evidence) is not None:
        found.append(
            "The accuracy was measured when these files were written. "
            f"{_unstated(trained)} Not comparable with results."
        )
    trained_on_all = record is None or record.data is None or record.data.complete
    if evidence.measured is not None and not evidence.measured.complete and trained_on_all:
        found.append("Tested on a part of the data set: not comparable with results on the whole.")
    if evidence.changes:
        found.append(f"Not the experiment of its name: {', '.join(map(_code, evidence.changes))}.")
    if record is not None and record.data is not None:
        if record.is_subset:
            found.append("Trained and tested on a part of the data set: not comparable with results on the whole.")
        if not record.data.verified:
            found.append("The raw files were not verified by the published checksums.")
    if record is not None and record.stopped_early:
        found.append("The training was stopped early, by its own rule.")
    if record is not None and record.protocol == "A":
        found.append("The epoch was chosen by test accuracy; a network chosen without it is usually less accurate.")
    if trained.folded or evidence.folded:
        found.append("Batch norms were folded into the convolutions before them.")
    if evidence.half and record is not None:
        found.append(
            f"The weights are stored in half precision. As they were trained, in float32, they reach "
            f"{100 * record.accuracy:.2f} % on the same samples."
        )
    return ["## Caveats", "\n".join(f"- {text}" for text in found)] if found else []


def _code(change: str) -> str:
    """Returns a change as Markdown: settings as code."""
    return f"`{change}`" if "=" in change else change


def _unstated(trained: TrainedModel) -> str:
    """Returns what is not known of the training of weights without a result."""
    if trained.unstated:
        return trained.unstated
    if trained.run is None:
        return (
            "The weights come from a file, which does not have the result of its run: by what they were chosen is not "
            "stated."
        )
    return (
        "The training had not ended, or these weights are not those of its result: by what the epoch was chosen is not "
        "stated."
    )


def _network(trained: TrainedModel) -> str:
    network, spec = trained.network, trained.spec
    classes = spec.dataset.classes
    named = ", ".join(classes[:_MOST_CLASSES]) + (" …" if len(classes) > _MOST_CLASSES else "")
    taus = ", ".join(f"{tau:.3f}" for tau in network.taus())
    means = "" if spec.neuron.tau_per == "layer" else f" (means, one τ per {spec.neuron.tau_per})"
    rows = [
        ("structure", f"`{network.network.structure}`"),
        ("parameters", f"{sum(weight.numel() for weight in network.parameters()):,}"),
        ("input", f"{list(network.input_shape)} per step, T = {spec.T}"),
        ("neurons", f"{spec.neuron.kind.upper()}; τ of the layers in time steps{means}: {taus}"),
        ("threshold", _thresholds(network)),
        ("reset", _reset(spec.neuron)),
        ("classes", named),
    ]
    return _table(rows)


def _thresholds(network: SpikingNetwork) -> str:
    """Returns the threshold of the neurons; of each layer if it was learnt."""
    learnt = [layer.v_threshold for layer in network.spiking_layers().values() if layer.v_threshold is not None]
    if not learnt:
        return f"{network.neuron.v_threshold:g}"
    return f"learnt, of the layers: {', '.join(f'{threshold.item():.3f}' for threshold in learnt)}"


def _reset(neuron: NeuronSpec) -> str:
    if neuron.reset == "hard":
        return f"hard to {neuron.v_reset:g}"
    return f"soft (subtracts the threshold); the potential at rest is {neuron.v_reset:g}"


def _recipe(trained: TrainedModel) -> str:
    spec = trained.spec
    shown = {"dataset": spec.dataset.title} | ({} if trained.origin else {"recipe": spec.recipe})
    tree = spec.model_dump(mode="json", exclude_defaults=True)
    keys = ("frames",) if trained.origin else ("frames", "train", "split")  # else the training is not known
    sections = {key: tree[key] for key in keys if tree.get(key)}
    values = {**shown, **flatten(sections)}
    return _table((key, f"{value}") for key, value in values.items() if value is not None)


def _origin(trained: TrainedModel, evidence: Evidence) -> str:
    record = evidence.record
    rows = [("experiment", f"{trained.spec.name}, digest `{trained.digest[:12]}`")]
    if trained.origin:
        rows.append(("weights", trained.origin))
    if trained.cache is not None:
        rows.append(("cache of the training", f"content `{trained.cache[:12]}`"))
    if record is not None:
        machine = record.environment
        versions = ", ".join(f"{name} {machine[name]}" for name in ("plifctl", "torch", "python") if name in machine)
        rows += [("run", f"`{record.run}`"), ("finished", record.finished), ("versions", versions)]
    return _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return markdown_table(("", ""), rows)
