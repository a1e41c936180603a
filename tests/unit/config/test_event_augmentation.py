"""Event augmentations in experiments: errors, digests, files."""

from pathlib import Path

import pytest

from plifctl.config.augmentation import EVENT_AUGMENTATIONS, Flip, Roll
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.errors import RegistryError, UsageError

EVERY = (
    "train.event_augmentation=[{name: flip, p: 0.5}, {name: roll, pixels: 2}, {name: rotate, degrees: 10}, "
    "{name: cut-mix, p: 0.7, alpha: 1.0}, {name: flip, p: 0.5}]"
)


def demo(*overrides: str) -> ExperimentSpec:
    return load_registry().experiment("demo", overrides=overrides).spec


@pytest.mark.parametrize(
    ("experiment", "value", "message"),
    [
        ("demo", "[{name: flop}]", "train.event_augmentation[0]: unknown augmentation flop; did you mean flip?"),
        ("demo", "[{name: flip, q: 1}]", "unknown key train.event_augmentation[0].q"),
        (
            "demo",
            "[{name: flip, p: 1.5}]",
            "train.event_augmentation[0].p: found 1.5, should be less than or equal",
        ),
        ("demo", "[{name: flip}]", "train.event_augmentation[0].p is missing"),
        ("demo", "[{name: flip, p: 0}, {name: roll, pixels: 0}]", "train.event_augmentation[1].pixels: found 0"),
        ("demo", "[{name: rotate, degrees: 181}]", "degrees: found 181, should be less than or equal to 180"),
        ("demo", "[{name: cut-mix, p: 1, alpha: 0}]", "alpha: found 0, should be greater than 0"),
        ("demo", "[flip]", "found 'flip' (a text), expected an augmentation, e.g. {name: flip, p: 0.5}"),
        ("demo", "flip", "train.event_augmentation: found 'flip' (a text), should be a valid list"),
        ("demo", "[{name: cut-mix, p: 1, alpha: 1}, {name: cut-mix, p: 1, alpha: 1}]", "cut-mix twice"),
        ("mnist-plif", "[{name: flip, p: 0.5}]", "MNIST is an image data set; see train.augmentation"),
    ],
)
def test_augmentation_invalid_setting_is_refused(experiment: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_registry().experiment(experiment, overrides=[f"train.event_augmentation={value}"])
    assert message in str(error.value)


def test_augmentation_empty_list_keeps_the_digest() -> None:
    found = [load_registry().experiment("nmnist-plif", overrides=o) for o in ([], ["train.event_augmentation=[]"])]
    assert found[0].spec.digest == found[1].spec.digest
    assert found[0].spec.digest.startswith("a68e6c3311e1")
    assert demo(EVERY).digest != demo().digest


def test_augmentation_json_roundtrip_gives_equal_spec() -> None:
    one = demo(EVERY)
    assert {a.name for a in one.train.event_augmentation} == set(EVENT_AUGMENTATIONS)
    assert ExperimentSpec.model_validate_json(one.model_dump_json()) == one


def test_augmentation_in_a_file_is_read_and_errors_name_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    text = """\
extends: _common
dataset: gesture
network: gesture
T: 20
train:
  normalise: none
  event_augmentation:
    - {name: flip, p: 0.5}
    - name: roll
      pixels: 5
variants:
  mine:
    title: Mine
    neuron: {kind: plif, tau_0: 2.0}
"""
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path))
    path = tmp_path / "experiments" / "mine.yaml"
    path.write_text(text)
    expected = (Flip(name="flip", p=0.5), Roll(name="roll", pixels=5))
    assert load_registry().experiment("mine").spec.train.event_augmentation == expected
    path.write_text(text.replace("pixels: 5", "pixel: 5"))
    with pytest.raises(RegistryError, match=r"10:7: mine: unknown key train.event_augmentation\[1\].pixel; did you"):
        load_registry().experiment("mine")
