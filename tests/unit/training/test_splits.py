"""Protocols A and B: hand-computed sizes, the authors' sizes, and properties for any labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plifctl.errors import UsageError
from plifctl.training.splits import split_a, split_b

CLASSES = tuple("abcdefghijk")


def official(train: list[int], test: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels of so many training samples per class, then ``test`` of each for testing."""
    labels = np.concatenate([np.repeat(np.arange(len(train)), train), np.repeat(np.arange(len(train)), test)])
    return labels, np.arange(len(labels)) >= sum(train)


def b(train: list[int], rounding: str = "ceil-keep-one", fraction: float = 0.85, subset: float = 1.0):  # type: ignore[no-untyped-def]
    labels, is_test = official(train)
    names = CLASSES[: len(train)]
    return split_b(labels, is_test, train_fraction=fraction, rounding=rounding, subset=subset, classes=names)  # type: ignore[arg-type]


def test_split_a_is_the_official_split() -> None:
    labels, is_test = official([3, 2], test=2)
    split = split_a(labels, is_test, 1.0, CLASSES[:2])
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 1, 2, 3, 4], [], [5, 6, 7, 8])
    assert split.notes == ()


def test_split_a_subset_takes_the_first_of_each_class() -> None:
    labels, is_test = official([4, 10], test=4)
    split = split_a(labels, is_test, 0.25, CLASSES[:2])
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
    labels, is_test = official([5, 0, 5])
    assert split_a(labels, is_test, 1.0, CLASSES[:3]).notes == ("class b has no training sample",)
    assert b([5, 0, 5]).notes == ("class b has no training sample",)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=10), st.floats(0.05, 0.95))
def test_split_b_any_labels_parts_are_disjoint_and_complete(per_class: list[int], fraction: float) -> None:
    split = b(per_class, "ceil-keep-one", fraction)
    together = np.concatenate([split.train, split.validation])
    assert sorted(together) == list(range(sum(per_class)))
    labels, _ = official(per_class)
    for label, n in enumerate(per_class):
        assert 1 <= (labels[split.validation] == label).sum() < n


def test_split_digest_and_json_depend_on_rows() -> None:
    one, other = b([10, 10]), b([10, 10], fraction=0.8)
    assert one.digest == b([10, 10]).digest != other.digest
    ids = [f"s{row}" for row in range(22)]
    tree = one.to_json(ids)
    assert tree["validation"] == ["s9", "s19"]
    assert tree["digest"] == one.digest
