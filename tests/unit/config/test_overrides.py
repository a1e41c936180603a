"""Overrides as texts and as mappings: read by the type of the key, unknown keys with a useful hint."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plifctl.config.base import flatten
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_experiment, load_registry, without_effect
from plifctl.config.overrides import (
    changed_values,
    is_modification,
    merge_overrides,
    override_texts,
    training_overrides,
)
from plifctl.errors import UsageError

SHARE = ("split.method=share", "split.test=0.2", "validation.method=share")


def gesture(*overrides: str) -> ExperimentSpec:
    return load_registry().experiment("gesture-plif", overrides=overrides).spec


class TestValues:
    @pytest.mark.parametrize(
        "structure",
        [
            "{c128k3s1-BN-SN-MPk2s2}*5-DP-FC512-SN-DP-FC110-SN-APk10s10",
            '"{c128k3s1-BN-SN-MPk2s2}*5-DP-FC512-SN-DP-FC110-SN-APk10s10"',
        ],
    )
    def test_structure_in_braces_is_a_text(self, structure: str) -> None:
        spec = gesture(f"network.structure={structure}")
        assert spec.network.structure == structure.strip('"')
        assert spec.digest == gesture().digest

    @pytest.mark.parametrize("groups", ["[^/]+", "[ab]", "user #1", r"user(\d+)", "{a: b}", "7", "null|a", "a: b"])
    def test_text_that_may_be_none_is_read_as_it_is(self, groups: str) -> None:
        spec = gesture(*SHARE, f"split.groups={groups}")
        assert spec.split.groups == groups
        for again in (override_texts({"split.groups": groups}), [f"split.groups={json.dumps(groups)}"]):
            assert gesture(*SHARE, *again).digest == spec.digest

    @pytest.mark.parametrize(("text", "groups"), [("null", None), ("~", None), ("", None), ("'null'", "null")])
    def test_text_that_may_be_none_reads_null_as_none(self, text: str, groups: str | None) -> None:
        assert gesture(*SHARE, "split.groups=a", f"split.groups={text}").split.groups == groups

    def test_changed_values_of_texts_are_the_whole_texts(self) -> None:
        found = [changed_values([f"split.groups={groups}"]) for groups in ("user #1", "'user #1'", "user #2")]
        assert found == [{"split.groups": "user #1"}, {"split.groups": "user #1"}, {"split.groups": "user #2"}]

    def test_list_of_mappings_is_read_as_yaml(self) -> None:
        spec = gesture("frames.transforms=[{name: denoise, filter_time_us: 10000}]")
        assert spec.frames is not None
        assert [transform.model_dump() for transform in spec.frames.transforms] == [
            {"name": "denoise", "filter_time_us": 10000}
        ]

    def test_options_are_read_as_a_mapping(self) -> None:
        spec = gesture("train.optimizer_options={betas: [0.9, 0.99]}", "train.optimizer_options.eps=1e-6")
        assert spec.train.optimizer_options == {"betas": [0.9, 0.99], "eps": 1e-6}
        for value in ({}, {"eps": 1e-7}):
            found = gesture("train.optimizer_options.weight_decay=0.1", f"train.optimizer_options={json.dumps(value)}")
            assert found.train.optimizer_options == value
        with pytest.raises(UsageError, match="expected finite numbers"):
            gesture("train.optimizer_options.eps=1e999")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("network.structure={c128k3s1", "--set network.structure={c128k3s1: .*position 10"),
            ("train.optimizer_options={betas: [0.9", r"--set train.optimizer_options=\{betas.*not YAML"),
            ("T=", "--set T=: gesture-plif: T: found nothing"),
            ("train.lr=[1, 2]", r"--set train.lr=\[1, 2\]: gesture-plif: train.lr: found \[1, 2\]"),
            ("frames.transforms=denoise", "--set frames.transforms=denoise: gesture-plif: frames.transforms: found"),
        ],
    )
    def test_wrong_value_names_the_override(self, text: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            gesture(text)


class TestValuesWithoutEffect:
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["split.seed=1"], "split.seed=1 has no effect: nothing is drawn"),
            (["network=demo", "network.dropout=0.5"], "no layer DP"),
            (["validation.method=share", "validation.rounding=ceil"], "rounding=ceil .*method is share"),
            (
                ["validation.method=official", "validation.train_fraction=0.5"],
                "fraction=0.5 .*is official",
            ),
        ],
    )
    def test_value_that_nothing_reads_is_named(self, overrides: list[str], message: str) -> None:
        (found,) = without_effect(load_experiment("gesture-plif", overrides).spec, overrides)
        assert re.search(message, found)

    @pytest.mark.parametrize(
        "overrides",
        [
            ["split.seed=0"],
            ["split.seed=1", "validation.method=share"],
            ["split.seed=1", "split.method=folds", "split.folds=3", "split.fold=1"],
            ["network=demo", "network.dropout=0.0"],
            ["validation.rounding=ceil", "validation.train_fraction=0.5"],
            ["validation.train_fraction=0.5", "validation.method=share"],
        ],
    )
    def test_value_with_an_effect_or_none_to_have_is_not_named(self, overrides: list[str]) -> None:
        assert without_effect(load_experiment("gesture-plif", overrides).spec, overrides) == []


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("key", "hint"),
        [
            ("lr", "did you mean train.lr?"),
            ("tau_0", "did you mean neuron.tau_0?"),
            ("slicing", "did you mean frames.slicing?"),
            ("structure", "did you mean network.structure?"),
            ("neuron.lr", "did you mean train.lr?"),
            ("train.lrr", "did you mean train.lr?"),
            ("epoch", "did you mean train.epochs?"),
            ("optimiser", "did you mean train.optimizer?"),
            ("batchsize", "did you mean train.batch_size?"),
            ("neuron", "set one value of neuron, such as neuron.kind"),
            ("zzz", "plifctl show EXPERIMENT lists the keys"),
        ],
    )
    def test_unknown_key_suggests_the_one_meant(self, key: str, hint: str) -> None:
        with pytest.raises(UsageError, match=f"--set {key}=1: unknown key {key}$") as error:
            gesture(f"{key}=1")
        assert error.value.hint == hint

    def test_framing_of_a_data_set_has_keys_of_frames_only(self) -> None:
        with pytest.raises(UsageError, match=r"unknown key train.lr"):
            load_registry().dataset("gesture", overrides=["train.lr=1"])
        found = load_registry().dataset("gesture", overrides={"frames.slicing": "time"})
        assert found.frames is not None
        assert found.frames.slicing == "time"


class TestMappings:
    @pytest.mark.parametrize(
        "overrides",
        [
            {"neuron.tau_0": 4.0},
            {"neuron": {"tau_0": 4.0}},
            {"neuron.tau_0": np.float64(4.0)},
            {"neuron.tau_0": np.float32(4.0)},
            ["neuron.tau_0=4.0"],
        ],
    )
    def test_mapping_gives_the_experiment_of_the_texts(self, overrides: Any) -> None:
        found = load_registry().experiment("gesture-plif", overrides=overrides)
        assert found.overrides == ("neuron.tau_0=4.0",)
        assert found.spec == gesture("neuron.tau_0=4.0")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("network.structure", "FC110-SN-APk10s10"),
            ("train.drop_last", False),
            ("train.clip_norm", None),
            ("train.lr", 1e-5),
            ("T", np.int64(7)),
            ("train.event_augmentation", ({"name": "flip", "p": 0.5},)),
            ("train.optimizer_options", {"betas": (0.9, 0.99)}),
        ],
    )
    def test_values_of_python_arrive_as_they_are(self, key: str, value: Any) -> None:
        spec = load_registry().experiment("gesture-plif", overrides={key: value}).spec
        found = flatten(spec.model_dump(mode="json"))
        expected = {"betas": [0.9, 0.99]} if isinstance(value, dict) else value
        section = found if key in found else {key: spec.train.optimizer_options}
        assert section[key] == (list(expected) if isinstance(expected, tuple) else expected)

    @pytest.mark.parametrize("text", ["true", "1", "~", "a: b", "[1]"])
    def test_text_like_another_value_stays_a_text(self, text: str) -> None:
        with pytest.raises(UsageError, match="a text"):
            load_registry().experiment("gesture-plif", overrides={"train.lr": text})

    @pytest.mark.parametrize("value", [Path("x"), float("nan"), {1, 2}, object()])
    def test_value_that_no_file_can_hold_is_refused(self, value: Any) -> None:
        with pytest.raises(UsageError, match=r"train.lr: found .*, expected a finite number"):
            override_texts({"train.lr": value})


def test_training_overrides_has_what_is_given_and_a_seed_of_zero() -> None:
    given = training_overrides(subset=np.float64(0.5), seed=0, freeze=("conv*", "bn1.bias"))
    assert given == ("train.subset=0.5", "train.seed=0", 'train.freeze=["conv*", "bn1.bias"]')
    assert training_overrides(freeze="conv*") == ('train.freeze=["conv*"]',)
    assert training_overrides() == training_overrides(freeze=()) == training_overrides(freeze="") == ()


def test_merge_overrides_replaces_keys_set_again() -> None:
    assert merge_overrides(["T=4", "train.lr=1"], ["train.lr = 2"]) == ("T=4", "train.lr = 2")


def test_seed_epochs_and_memory_are_no_modification() -> None:
    texts = ["train.seed=1", "train.epochs = 3", "train.memory=compact", "train.lr=1", "T=4"]
    assert [is_modification(text) for text in texts] == [False, False, False, True, True]
