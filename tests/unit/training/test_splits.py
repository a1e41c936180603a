"""Splits: hand-computed sizes, the authors' sizes, groups that stay together, and properties for any labels."""

import unicodedata
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_experiment
from plifctl.config.split import SplitSpec
from plifctl.config.training import ValidationSpec
from plifctl.errors import UsageError
from plifctl.training.splits import Split, make_split

CLASSES = tuple("abcdefghijk")
DEMO = load_experiment("demo").spec


@dataclass
class Rows:
    """What a split is made from."""

    labels: np.ndarray
    is_test: np.ndarray
    is_validation: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    sample_ids: list[str] = field(default_factory=list)
    groups: list[str] | None = None

    def __post_init__(self) -> None:
        if not len(self.is_validation):
            self.is_validation = np.zeros(len(self.labels), bool)
        self.sample_ids = self.sample_ids or [f"s{row:04d}" for row in range(len(self.labels))]


def spec_of(classes: int, *, subset: float = 1.0, validation: Any = None, **split: Any) -> ExperimentSpec:
    """Returns an experiment with so many classes."""
    spec = DEMO
    own = {"method": "in-order", "train_fraction": 0.85, "rounding": "ceil-keep-one", "loader": "all", "test": "once"}
    return spec.model_copy(
        update={
            "dataset": spec.dataset.model_copy(update={"classes": CLASSES[:classes]}),
            "train": spec.train.model_copy(update={"subset": subset}),
            "validation": ValidationSpec.model_validate(own | (validation or {})),
            "split": SplitSpec(**split),
        }
    )


def official(train: list[int], test: int = 1) -> Rows:
    """Returns labels of so many training samples per class, then ``test`` of each for testing."""
    labels = np.concatenate([np.repeat(np.arange(len(train)), train), np.repeat(np.arange(len(train)), test)])
    return Rows(labels, np.arange(len(labels)) >= sum(train))


def b(train: list[int], rounding: str = "ceil-keep-one", fraction: float = 0.85, subset: float = 1.0) -> Split:
    """Returns the split of protocol B of so many training samples per class."""
    validation = {"train_fraction": fraction, "rounding": rounding}
    return make_split("B", spec_of(len(train), subset=subset, validation=validation), official(train))


def test_split_a_is_the_official_split() -> None:
    split = make_split("A", spec_of(2), official([3, 2], test=2))
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 1, 2, 3, 4], [], [5, 6, 7, 8])
    assert split.notes == ()


def test_split_a_subset_takes_the_first_of_each_class() -> None:
    split = make_split("A", spec_of(2, subset=0.25), official([4, 10], test=4))
    assert split.train.tolist() == [0, 4, 5, 6]
    assert split.test.tolist() == [14, 18]


@pytest.mark.parametrize(
    ("n", "rounding", "kept"),
    [
        (20, "ceil", 17),  # exactly 17; in binary floats 0.85 · 20 may come out above
        (4, "ceil-keep-one", 3),  # ⌈3.4⌉ = 4 would leave none for validation
        (7, "ceil", 6),
        (2, "ceil-keep-one", 1),
        (100, "ceil", 85),
        (1000, "ceil-keep-one", 850),
    ],
)
def test_split_b_by_rounding_has_hand_computed_sizes(n: int, rounding: str, kept: int) -> None:
    split = b([n], rounding)
    assert (len(split.train), len(split.validation)) == (kept, n - kept)
    assert split.train.tolist() == list(range(kept))


@pytest.mark.parametrize(
    ("per_class", "sizes"),
    [
        # MNIST and N-MNIST; Fashion-MNIST; CIFAR-10; CIFAR10-DVS: sizes of the authors' runs
        ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], (51005, 8995)),
        ([6000] * 10, (51000, 9000)),
        ([5000] * 10, (42500, 7500)),
        ([900] * 10, (7650, 1350)),
        ([78] * 10 + [156], (803, 133)),  # DVS128 Gesture, of the first 78 recordings
    ],
)
def test_split_b_of_authors_has_their_sizes(per_class: list[int], sizes: tuple[int, int]) -> None:
    split = b(per_class, "ceil")
    assert (len(split.train), len(split.validation)) == sizes


@pytest.mark.parametrize(("n", "rounding"), [(1, "ceil-keep-one"), (1, "ceil"), (4, "ceil")])
def test_split_b_class_too_small_is_named(n: int, rounding: str) -> None:
    with pytest.raises(UsageError, match="class b has"):
        b([10, n], rounding)


def test_split_absent_class_is_noted() -> None:
    assert make_split("A", spec_of(3), official([5, 0, 5])).notes == ("class b has no training sample",)
    assert b([5, 0, 5]).notes == ("class b has no training sample",)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=10), st.floats(0.05, 0.95))
def test_split_b_any_labels_parts_are_disjoint_and_complete(per_class: list[int], fraction: float) -> None:
    split = b(per_class, "ceil-keep-one", fraction)
    together = np.concatenate([split.train, split.validation])
    assert sorted(together) == list(range(sum(per_class)))
    labels = official(per_class).labels
    for label, n in enumerate(per_class):
        assert 1 <= (labels[split.validation] == label).sum() < n


def test_split_digest_and_json_depend_on_rows() -> None:
    one, other = b([10, 10]), b([10, 10], fraction=0.8)
    assert one.digest == b([10, 10]).digest != other.digest
    ids = [f"s{row}" for row in range(22)]
    tree = one.to_json(ids)
    assert tree["validation"] == ["s9", "s19"]
    assert tree["digest"] == one.digest


def unsplit(per_class: list[int], groups: list[str] | None = None, ids: list[str] | None = None) -> Rows:
    """Returns samples without a test set."""
    labels = np.repeat(np.arange(len(per_class)), per_class)
    return Rows(labels, np.zeros(len(labels), bool), sample_ids=ids or [], groups=groups)


def test_split_without_test_samples_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="no test set") as error:
        make_split("A", spec_of(2), unsplit([5, 5]))
    assert "--set split.method=share --set split.test=0.2" in error.value.hint


def test_split_share_takes_the_share_of_every_class() -> None:
    rows = unsplit([10, 50, 5])
    split = make_split("A", spec_of(3, method="share", test=0.2), rows)
    assert np.bincount(rows.labels[split.test]).tolist() == [2, 10, 1]
    assert sorted([*split.train, *split.test]) == list(range(65))
    again = make_split("A", spec_of(3, method="share", test=0.2), rows)
    other = make_split("A", spec_of(3, method="share", test=0.2, seed=1), rows)
    assert split.digest == again.digest != other.digest


def test_split_share_depends_on_ids_not_on_their_order() -> None:
    ids = [f"s{row:04d}" for row in range(20)]
    forward, backward = unsplit([20], ids=ids), unsplit([20], ids=ids[::-1])
    spec = spec_of(1, method="share", test=0.25)
    chosen = [{rows.sample_ids[row] for row in make_split("A", spec, rows).test} for rows in (forward, backward)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 5


@pytest.mark.parametrize("test", [0.2, 0.5, 0.9])
def test_split_share_class_of_one_sample_is_trained_on_and_noted(test: float) -> None:
    split = make_split("A", spec_of(4, method="share", test=test), unsplit([1, 4, 1, 1]))
    assert {0, 5, 6} <= set(split.train.tolist())
    assert len(split.test) == min(3, max(1, round(4 * test)))
    assert split.notes == tuple(f"class {name} has no test sample" for name in "acd")


def test_split_b_share_is_exactly_what_training_leaves() -> None:
    # 1 − 0.9 is less than 0.1 in binary: 1.5 of 15 samples would become 1
    rows = official([15, 5])
    split = make_split("B", spec_of(2, validation={"method": "share", "train_fraction": 0.9}), rows)
    assert np.bincount(rows.labels[split.validation]).tolist() == [2, 1]
    split = make_split("B", spec_of(2, validation={"method": "share", "train_fraction": 0.5}), rows)
    assert np.bincount(rows.labels[split.validation]).tolist() == [8, 3]


def test_split_folds_test_every_sample_once() -> None:
    rows = unsplit([7, 11, 3])
    tests = [make_split("A", spec_of(3, method="folds", folds=4, fold=fold), rows) for fold in (1, 2, 3, 4)]
    assert sorted(np.concatenate([split.test for split in tests])) == list(range(21))
    assert sorted(len(split.test) for split in tests) == [5, 5, 5, 6]
    for split in tests:
        assert sorted([*split.train, *split.test]) == list(range(21))
        counts = np.bincount(rows.labels[split.test], minlength=3)
        assert (np.abs(counts - np.array([7, 11, 3]) / 4) < 1).all()


GROUPS = ["anna ben carl dora eva finn gina hans".split()[row % 8] for row in range(80)]  # noqa: SIM905


@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize("method", [{"method": "share", "test": 0.25}, {"method": "folds", "folds": 4, "fold": 2}])
def test_split_by_group_divides_no_group(protocol: Any, method: dict[str, Any]) -> None:
    rows = unsplit([40, 40], groups=GROUPS)
    spec = spec_of(2, groups="table", validation={"method": "share", "train_fraction": 0.7}, **method)
    split = make_split(protocol, spec, rows)
    parts = [{GROUPS[row] for row in part} for part in (split.train, split.validation, split.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert len(split.test) == 20
    assert set().union(*parts) == set(GROUPS)
    assert split.groups["test"] == sorted(parts[2])
    assert split.to_json(rows.sample_ids)["groups"] == split.groups


def test_split_groups_by_a_pattern_of_the_ids() -> None:
    ids = [f"wave/{name}_{take}" for name in ("anna", "ben", "carl") for take in range(4)]
    spec = spec_of(1, method="leave-one-out", fold=2, groups="/([a-z]+)_", validation={"method": "share"})
    split = make_split("A", spec, unsplit([12], ids=ids))
    assert split.groups == {"train": ["anna", "carl"], "test": ["ben"]}
    assert split.test.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("split", "groups", "message"),
    [
        ({"method": "leave-one-out", "fold": 3, "groups": "table"}, ["a", "a", "b", "b"], "there are 2 groups: a, b"),
        ({"method": "folds", "folds": 3, "fold": 1, "groups": "table"}, ["a", "a", "b", "b"], "2 groups cannot be"),
        ({"method": "share", "test": 0.5, "groups": "table"}, None, "names no group$"),
        ({"method": "share", "test": 0.5, "groups": "subject"}, None, "is not in 4 of 4 ids"),
    ],
)
def test_split_impossible_groups_are_named(split: dict[str, Any], groups: list[str] | None, message: str) -> None:
    spec = spec_of(1, validation={"method": "share"}, **split)
    with pytest.raises(UsageError, match=message):
        make_split("A", spec, unsplit([4], groups=groups))


def test_split_few_groups_leave_no_part_empty() -> None:
    spec = spec_of(1, method="share", test=0.2, groups="table", validation={"method": "share"})
    split = make_split("A", spec, unsplit([10], groups=["a"] * 5 + ["b"] * 5))
    assert (len(split.train), len(split.test)) == (5, 5)


def test_split_official_validates_on_the_samples_of_the_data_set() -> None:
    rows = official([4, 4], test=2)
    rows.is_validation[[3, 7]] = True
    split = make_split("B", spec_of(2, validation={"method": "official"}), rows)
    assert (split.train.tolist(), split.validation.tolist()) == ([0, 1, 2, 4, 5, 6], [3, 7])
    assert make_split("A", spec_of(2), rows).train.tolist() == [0, 1, 2, 4, 5, 6]
    for method in ("official", "in-order", "share"):
        of_c = make_split("C", spec_of(2, validation={"method": method}), rows)
        assert (of_c.train.tolist(), of_c.validation.tolist()) == ([0, 1, 2, 3, 4, 5, 6, 7], [])
        assert (of_c.test.tolist(), of_c.notes) == (split.test.tolist(), ())
    folds = make_split("C", spec_of(2, method="folds", folds=2, fold=1, validation={"method": "official"}), rows)
    assert sorted([*folds.train, *folds.test]) == list(range(len(rows.labels)))
    in_order = make_split("B", spec_of(2), rows)
    assert len(in_order.notes) == 1
    assert "2 validation samples of the data set are not used" in in_order.notes[0]
    with pytest.raises(UsageError, match="has no validation samples: the recordings have none"):
        make_split("B", spec_of(2, validation={"method": "official"}), official([4, 4]))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(2, 5), st.integers(0, 99))
def test_split_folds_any_labels_are_disjoint_and_complete(per_class: list[int], folds: int, seed: int) -> None:
    assume(sum(per_class) >= folds)
    rows = unsplit(per_class)
    tests = [
        make_split("A", spec_of(len(per_class), method="folds", folds=folds, fold=fold + 1, seed=seed), rows).test
        for fold in range(folds)
    ]
    assert sorted(np.concatenate(tests)) == list(range(sum(per_class)))
    assert max(map(len, tests)) - min(map(len, tests)) <= 1


@pytest.mark.parametrize("protocol", ["A", "B", "C"])
def test_split_that_leaves_no_sample_for_a_part_is_refused(protocol: Any) -> None:
    one_each = Rows(np.arange(3), np.zeros(3, bool))
    with pytest.raises(UsageError, match=r"no sample .* for (test|validation) ") as error:
        make_split(protocol, spec_of(3, method="share", test=0.2, validation={"method": "share"}), one_each)
    assert "--cv-fold 1/5" in error.value.hint


def test_split_group_is_one_in_either_form_of_its_accents() -> None:
    groups = [unicodedata.normalize(form, name) for name in ("José", "Ana") for form in ("NFC", "NFD")] * 2
    rows = Rows(np.array([0, 1] * 4), np.zeros(8, bool), groups=groups)
    split = make_split("A", spec_of(2, method="share", test=0.5, groups="table"), rows)
    assert sorted(map(len, split.groups.values())) == [1, 1]
    ids = [f"train/{'ab'[row % 2]}/{group}/{row}" for row, group in enumerate(groups)]
    rows = Rows(np.array([0, 1] * 4), np.zeros(8, bool), sample_ids=ids)
    split = make_split("A", spec_of(2, method="leave-one-out", fold=2, groups=r"/(\w+)/\d"), rows)
    assert split.groups == {"train": ["Ana"], "test": ["José"]}


def test_split_official_group_in_either_form_of_its_accents_is_noted() -> None:
    rows = official([2, 2], test=1)
    rows.groups = ["ana", "ben", unicodedata.normalize("NFD", "josé"), "ben", "carla", "josé"]
    (note,) = make_split("A", spec_of(2), rows).notes
    assert note.startswith("samples of the same group are trained on and tested on: josé")


def test_split_groups_that_differ_in_capitals_are_noted() -> None:
    rows = Rows(np.array([0, 1] * 4), np.zeros(8, bool), groups=["Anna", "Anna", "anna", "anna", "b", "b", "c", "c"])
    split = make_split("A", spec_of(2, method="share", test=0.25, groups="table"), rows)
    assert split.notes[-1] == "Anna and anna are different groups, though only capitals or blanks differ"


@pytest.mark.parametrize(
    ("split", "remedy"),
    [({}, "; with split.groups=table and validation.method=share, groups stay together"), ({"groups": "table"}, "")],
)
def test_split_that_divides_groups_of_the_table_is_noted(split: dict[str, Any], remedy: str) -> None:
    rows = official([3, 3], test=1)
    rows.groups = ["anna", "ben", "ben", "anna", "carla", "carla", "carla", "dora"]
    notes = make_split("A", spec_of(2, **split), rows).notes
    assert notes == (f"samples of the same group are trained on and tested on: carla{remedy}",)


def test_split_groups_without_a_name_are_listed() -> None:
    rows = Rows(np.array([0, 1, 0, 1]), np.zeros(4, bool), groups=["a", "a", "b", ""])
    with pytest.raises(UsageError, match=r"names no group of s0003$"):
        make_split("A", spec_of(2, method="share", test=0.5, groups="table"), rows)
