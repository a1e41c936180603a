"""Writes identity.json: the digests of experiments and the keys of caches, as plifctl 0.1.0 computes them.

    python make_identity.py CHECKOUT > identity.json

CHECKOUT is a checkout of commit 96ac10c, the last one before modules and words were renamed. The file is never made
again with later code: it is what later code is held to.
"""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RECIPES = ("paper", "published")
RAW = "0" * 64
"""A digest of raw data that no raw data have."""

VARIATIONS = {
    "seed": ["train.seed=1"],
    "epochs": ["train.epochs=3"],
    "T": ["T=4"],
    "lr": ["train.lr=0.01"],
    "subset": ["train.subset=0.1"],
    "loss tet": ["train.loss=tet", "train.tet_weight=0.05"],
    "optimizer options": ["train.optimizer=sgd", "train.optimizer_options.momentum=0.9"],
    "schedule options": ["train.schedule=step", "train.schedule_options.step_size=2"],
    "accumulate": ["train.accumulate=2"],
    "clip_norm": ["train.clip_norm=1.0"],
    "precision": ["train.precision=bf16"],
    "early_stop": ["train.early_stop=5"],
    "event augmentation": ["train.event_augmentation=[{name: flip, p: 0.5}, {name: cut-mix, p: 0.5, alpha: 1.0}]"],
    "tau_per": ["neuron.tau_per=channel"],
    "threshold": ["neuron.learn_threshold=true", "neuron.v_threshold=0.7"],
    "soft reset": ["neuron.reset=soft"],
    "surrogate": ["neuron.surrogate=sigmoid", "neuron.surrogate_width=0.25", "neuron.learn_surrogate_width=true"],
    "lif": ["neuron.kind=lif", "neuron.tau_0=null", "neuron.tau=3.0"],
    "network": ["network=cifar10dvs", "network.structure=c8k3s1-BN-SN-MPk2s2-FC110-SN-APk10s10"],
    "dropout": ["network.dropout=0.25", "network.batch_norm=over-time"],
    "validation": ["validation.train_fraction=0.8", "validation.T=12"],
    "duration": ["frames.slicing=duration", "frames.duration_us=10000"],
    "transforms": ["frames.transforms=[{name: drop-events, p: 0.1}]", "frames.transform_seed=7"],
}
"""What is set beside an experiment; gesture-plif has all choices but those of images."""

ALL_TRANSFORMS = (
    "frames.transforms=[{name: denoise, filter_time_us: 10000}, {name: refractory, period_us: 500}, "
    "{name: drop-events, p: 0.1}, {name: drop-pixels, p: 0.05}, {name: hot-pixels, max_rate_hz: 2000.0}, "
    "{name: crop, height: 30, width: 30}, {name: random-crop, height: 28, width: 26}, "
    "{name: downsample, factor: 0.5}, {name: merge-polarities}, {name: time-jitter, std_us: 100.0}]"
)
FRAMINGS = {
    "time": ["frames.slicing=time"],
    "duration": ["frames.slicing=duration", "frames.duration_us=10000"],
    "drop": ["frames.outside_events=drop"],
    "denoise": ["frames.transforms=[{name: denoise, filter_time_us: 10000}]"],
    "all transforms": [ALL_TRANSFORMS, "frames.transform_seed=7"],
}
CHOICES = {
    "gesture": {"keep": ["frames.invalid_events=keep"], "first-78": ["frames.training_set=first-78"]},
    "cifar10dvs": {"spikingjelly": ["frames.axes=spikingjelly"], "first-100": ["frames.test_set=first-100"]},
}
"""Choices that some data sets have."""


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(checkout))
    import plifctl

    assert Path(plifctl.__file__).is_relative_to(checkout)
    from plifctl.registry import Registry

    from plifctl.cache.key import CacheKey, recipe_of

    registry = Registry([checkout / "registry"])

    def digest(name: str, recipe: str, protocol: str, overrides: list[str]) -> str:
        return str(registry.experiment(name, recipe=recipe, overrides=overrides).under(protocol).spec.digest)

    def key(name: str, recipe: str, T: int | None, overrides: list[str]) -> CacheKey:
        found = registry.dataset(name, recipe, overrides)
        return CacheKey({**recipe_of(found.dataset, T, found.frames), "raw": RAW})

    def digests(name: str, overrides: list[str]) -> dict[str, str]:
        return {
            f"{recipe} {protocol}": digest(name, recipe, protocol, overrides) for recipe in RECIPES for protocol in "AB"
        }

    experiments = {name: digests(name, []) for name in registry.experiments()}
    varied = {label: {"overrides": new, **digests("gesture-plif", new)} for label, new in VARIATIONS.items()}
    keys = []
    for name in registry.datasets():
        used = [
            registry.experiment(one, recipe=recipe).under(protocol).spec
            for one in registry.experiments()
            for recipe in RECIPES
            for protocol in "AB"
        ]
        times = sorted({spec.T for spec in used if spec.dataset.name == name})
        events = registry.dataset(name).dataset.kind == "events"
        labels: dict[str, list[str]] = {"": []} | ({**FRAMINGS, **CHOICES.get(name, {})} if events else {})
        for recipe in RECIPES:
            for label, changes in labels.items():
                for T in times if events else (None,):
                    if label and times[0] != T:
                        continue
                    one = key(name, recipe, T, changes)
                    asked = {"dataset": name, "recipe": recipe, "T": T, "overrides": changes}
                    fields = {"fields": dict(one.fields)} if not label or label == "all transforms" else {}
                    keys.append({**asked, "digest": one.digest, "file": one.path(Path()).name, **fields})
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    tree = {
        "about": "Digests of plifctl 0.1.0, made by make_identity.py; never to be made again with later code.",
        "commit": commit,
        "tonic": metadata.version("tonic"),
        "raw": RAW,
        "experiments": experiments,
        "gesture-plif with": varied,
        "science": {
            name: {recipe: registry.experiment(name, recipe=recipe).spec.science() for recipe in RECIPES}
            for name in ("cifar10dvs-plif", "mnist-plif-avgpool")
        },
        "keys": keys,
    }
    print(in_lines(tree))


def in_lines(tree: dict[str, Any]) -> str:
    """JSON with a line for each experiment and key, so that changes of one are seen."""
    parts = []
    for name, value in tree.items():
        if isinstance(value, dict):
            inner = [f"  {json.dumps(key)}: {json.dumps(part, ensure_ascii=False)}" for key, part in value.items()]
            text = "{\n" + ",\n".join(inner) + "\n }"
        elif isinstance(value, list):
            text = "[\n" + ",\n".join(f"  {json.dumps(part, ensure_ascii=False)}" for part in value) + "\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


if __name__ == "__main__":
    main()
