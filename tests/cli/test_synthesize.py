"""plifctl synthesize: the embedded data set of a name, and what is typed next."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plifctl.data import synthetic

Plifctl = Callable[..., Any]


def test_synthesize_writes_the_data_set_that_is_named(
    plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(synthetic.USERS, "synthetic-order", (1, 1))
    result = plifctl("prepare", "synthetic-order", "--T", 6)
    assert (result.code, "hint: create it: plifctl synthesize DIR --dataset synthetic-order" in result.err) == (4, True)
    folder = places / "data_cache/raw/synthetic-order"
    result = plifctl("synthesize", folder, "--dataset", "synthetic-order", "--seed", 7, "--json")
    assert json.loads(result.out) == {"folder": str(folder), "dataset": "synthetic-order", "seed": 7}
    result = plifctl("prepare", "synthetic-gesture", "--T", 6)  # has the same layout, and its own folder
    assert (result.code, "hint: create it: plifctl synthesize DIR\n" in result.err) == (4, True)
    assert plifctl("prepare", "synthetic-order", "--T", 6).code == 0
    assert plifctl("train", "order", "--epochs", 1).code == 0
    tree = json.loads(plifctl("eval", "last", "--operations", 0, "--layer-times", 0, "--json").out)
    assert [entry["samples"] for entry in tree["classes"]] == [1] * 6
