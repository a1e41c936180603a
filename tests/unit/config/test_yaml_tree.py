"""YAML without its surprises, read with the place of each value and written so that it reads back the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plifctl.config.yaml_tree import Branch, Leaf, Origin, YamlError, format_yaml, parse_value, read_tree
from plifctl.errors import RegistryError


def tree_of(tmp_path: Path, text: str | bytes) -> dict[str, object]:
    path = tmp_path / "f.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_tree(path).plain()


class TestYaml:
    def test_scalars_are_read_as_numbers_booleans_and_texts(self, tmp_path: Path) -> None:
        text = 'a: 1e-3\nb: no\nc: "1"\nd: true\ne: ~\nf: [1, 2.5, x]\ng: -7\nh: .5\ni: 010\nj: 1_000\nk: 12:30'
        assert tree_of(tmp_path, text) == {
            "a": 0.001, "b": "no", "c": "1", "d": True, "e": None, "f": [1, 2.5, "x"], "g": -7, "h": 0.5,
            "i": 10, "j": "1_000", "k": "12:30",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4:3: the key c is given twice"),
            ("a: &x 1\nb: *x\n", "anchors and aliases"),
            ("a: !!python/object:os.system ls\n", "tag .* is not supported"),
            ("a: [1\n", "not YAML"),
            ("a:\t1\n\tb: 2\n", "there is a tab, but YAML is indented with blanks"),
            ("a:\n\tb: 2\n", "there is a tab, but YAML is indented with blanks"),
            (
                "a:\n  structure: {c8k3s1-BN-SN}*5-DP-FC110-SN-APk10s10\n",
                "f.yaml:2:.*not YAML: .*put the structure of a netw",
            ),
            (
                "a: {structure: {c8k3s1-BN-SN}*5-DP, dropout: 0.5}\n",
                "f.yaml:1:.*not YAML: .*put the structure of a networ",
            ),
            ('structure: "{c8k3s1-SN}*2-DP"\na: [1\n', "not YAML: [^;]*$"),
            ("- 1\n- 2\n", "top level must be a mapping"),
            ("", "top level must be a mapping"),
            ("a:\n- {b: 1, b: 2}\n", "f.yaml:2:10: the key b is given twice"),
            ("a: [{b: &x 1}]\n", "anchors and aliases"),
            ("a: " + "[" * 30 + "]" * 30, "nested deeper"),
            (b"a: \xff\n", "byte 3 is not UTF-8"),
            ("a: " + "x" * 2**20, "larger than"),
        ],
    )
    def test_invalid_file_is_refused_with_its_place(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        with pytest.raises(RegistryError, match=message):
            tree_of(tmp_path, text)

    def test_list_of_mappings_keeps_the_origin_of_each_value(self, tmp_path: Path) -> None:
        path = tmp_path / "f.yaml"
        path.write_text("a:\n  - {b: 1, c: x}\n  - b: [2, {d: no}]\n  - 3\n")
        tree = read_tree(path)
        assert tree.plain() == {"a": [{"b": 1, "c": "x"}, {"b": [2, {"d": "no"}]}, 3]}
        places = [("a",), ("a", 0), ("a", 0, "c"), ("a", 1, "b", 1, "d"), ("a", 2), ("a", 3), ("a", 0, "z")]
        origins = [str(tree.origin_of(place)).removeprefix(f"{path}:") for place in places]
        assert origins == ["1:1", "2:5", "2:12", "3:13", "4:5", "1:1", "2:5"]
        assert list(tree.leaves()) == ["a"]

    def test_nested_aliases_are_refused_before_they_expand(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 lol"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
        with pytest.raises(RegistryError, match="aliases"):
            tree_of(tmp_path, "\n".join(lines))

    def test_parse_value_reads_scalars_lists_and_mappings(self) -> None:
        assert parse_value("1e-4", Origin("--set")) == Leaf(1e-4, Origin("--set"))
        assert parse_value("[1, 2]", Origin("--set")) == Leaf([1, 2], Origin("--set"))
        with pytest.raises(YamlError):
            parse_value("{a: 1}", Origin("--set"))
        found = parse_value("{a: 1, b: [2]}", Origin("--set"), mapping=True)
        assert isinstance(found, Branch)
        assert found.leaves("x.") == {"x.a": Leaf(1, Origin("--set")), "x.b": Leaf([2], Origin("--set"))}


def test_read_tree_again_gives_what_is_in_the_file_and_no_change_of_the_first_tree(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: {c: 2}\n")
    first = read_tree(path)
    first["a"] = first.branch("b")["c"]
    first.branch("b")["c"] = first.branch("b")
    assert read_tree(path).plain() == {"a": 1, "b": {"c": 2}}
    other = path.with_name("other.yaml")
    other.write_text(path.read_text())
    assert read_tree(other).branch("b").origin.source == str(other)
    path.write_text("a: 3\n")
    assert read_tree(path).plain() == {"a": 3}


class TestFormat:
    def test_values_are_written_in_blocks_with_comments(self) -> None:
        values = {"name": "x", "train.lr": 1e-05, "train.options.betas": [0.9, 1], "train.seed": 3, "neuron.tau": None}
        assert format_yaml(values, {"train.lr": "changed"}) == (
            "name: x\ntrain:\n  lr: 1.0e-05  # changed\n  options:\n    betas: [0.9, 1]\n  seed: 3\n"
            "neuron:\n  tau: null\n"
        )

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner),
            max_leaves=5,
        )
    )
    @pytest.mark.long
    def test_any_value_reads_back_the_same(self, value: Any) -> None:
        text = format_yaml({"a.b": value}, {})
        branch = parse_value(text, Origin("x"), mapping=True)
        assert isinstance(branch, Branch)
        assert branch.plain() == {"a": {"b": value}}

    def test_texts_like_numbers_are_quoted_for_every_reader(self) -> None:
        for text in ("1e3", "no", "null", "12:30", "1_000", "", "- x", "{a}", "a: b", "x #y", "τ₀ = 2"):
            written = format_yaml({"a": text}, {})
            assert yaml.safe_load(written) == {"a": text}
