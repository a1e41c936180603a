"""What a sweep can be asked for, on the command line and in a file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from plifctl.config.sweep import SweepSpec, is_sweep_file, read_sweep, split_overrides
from plifctl.errors import RegistryError, UsageError

SWEEP = """\
sweep: bad-tau
experiments: [nmnist-plif, ./mine.yaml]
seeds: [1, 2]
set: {train.epochs: 10}
grid:
  neuron.tau_0: [2, 16]
"""


@pytest.mark.parametrize(
    ("texts", "one", "several"),
    [
        (["train.epochs=10"], {"train.epochs": 10}, {}),
        (["neuron.tau_0=2, 16"], {}, {"neuron.tau_0": (2, 16)}),
        (["train.lr=1e-3,0.01"], {}, {"train.lr": (0.001, 0.01)}),
        (["o.milestones=[4, 8]"], {"o.milestones": [4, 8]}, {}),
        (["o.milestones=[4, 8],[2]"], {}, {"o.milestones": ([4, 8], [2])}),
        (["network.structure={c8k3s1-SN}*2-FC10"], {"network.structure": "{c8k3s1-SN}*2-FC10"}, {}),
        (["name='a,b','c d'"], {}, {"name": ("a,b", "c d")}),
        (["train.freeze=null"], {"train.freeze": None}, {}),
        (["T=4", "T=2,8"], {}, {"T": (2, 8)}),
        (["T=2,8", " T = 4 "], {"T": 4}, {}),
        (["o.options={betas: [0.9, 0.95]}"], {"o.options": {"betas": [0.9, 0.95]}}, {}),
        (["o={a: 1},{a: 2}"], {}, {"o": ({"a": 1}, {"a": 2})}),
    ],
)
def test_split_overrides_separates_one_value_from_several(texts: list[str], one: Any, several: Any) -> None:
    assert split_overrides(texts) == (one, several)


def test_keys_of_a_sweep_file_that_no_experiment_has_are_named_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("experiments: [demo]\nset:\n  neuron: {tau0: 2}\n  train.epochs: 3\ngrid: {train.lrr: [1, 2]}\n")
    with pytest.raises(RegistryError) as error:
        read_sweep(file)
    first, second = error.value.problems
    assert first.startswith(f"{file}:3:12: s: set: unknown key neuron.tau0; did you mean neuron.tau_0")
    assert second == f"{file}:5:8: s: grid: unknown key train.lrr; did you mean train.lr?"
    options = "{train.optimizer_options: {betas: [0.9, 0.99]}, train: {schedule_options: {gamma: 0.1}}, network: demo}"
    file.write_text(f"experiments: [demo]\nset: {options}\n")
    assert read_sweep(file).experiments == ("demo",)


@pytest.mark.parametrize("text", ["T", "T=", "T=1,", "T=,1", "T=1,,2", "T= ,"])
def test_split_overrides_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=text) as refused:
        split_overrides([text])
    assert "neuron.tau_0=2,16" in refused.value.hint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"experiments": ()}, "needs experiments or tables"),
        ({"set": {"T": 4}, "grid": {"T": (4, 8)}}, "T: in set and in grid"),
        ({"set": {"train": {"lr": 0.1}}, "grid": {"train.lr": (0.1,)}}, "train.lr: in set and in grid"),
        ({"grid": {"train.seed": (1, 2)}}, "train.seed: state it as seeds"),
        ({"set": {"train": {"seed": 1}}}, "train.seed: state it as seeds"),
        ({"folds": 5, "grid": {"split.fold": (1, 2)}}, "split.fold: state it as folds"),
        ({"seeds": (1, 1)}, "seeds: a value is given twice"),
        ({"experiments": ("demo", "demo")}, "experiments: a value is given twice"),
        ({"grid": {"T": (4, 4)}}, "grid: T: a value is given twice"),
        ({"grid": {"T": ()}}, "at least 1 item"),
        ({"seeds": (-1,)}, "greater than or equal to 0"),
        ({"folds": 1}, "greater than or equal to 2"),
        ({"protocols": ("D",)}, "'A', 'B' or 'C'"),
        ({"experiment": ("demo",)}, "not permitted"),
    ],
)
def test_sweep_that_contradicts_itself_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SweepSpec.model_validate({"experiments": ("demo",), **changes})


def test_read_sweep_finds_experiment_files_beside_its_own(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    found = read_sweep(tmp_path / "s.yaml")
    assert found.experiments == ("nmnist-plif", str(tmp_path / "mine.yaml"))
    assert (found.sweep, found.seeds, found.set, found.grid) == (
        "bad-tau",
        (1, 2),
        {"train.epochs": 10},
        {"neuron.tau_0": (2, 16)},
    )


def test_read_sweep_without_a_name_takes_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "my taus.yaml").write_text("experiments: [demo]\n")
    assert read_sweep(tmp_path / "my taus.yaml").sweep == "my taus"


def test_read_sweep_names_file_line_and_column_of_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("sweep: x\nexperimets: [demo]\nexperiments: [demo]\nseeds: [one]\n")
    with pytest.raises(RegistryError) as refused:
        read_sweep(path)
    assert len(refused.value.problems) == 2
    assert f"{path}:2:1" in str(refused.value)
    assert "did you mean experiments" in str(refused.value)
    assert f"{path}:4:9" in str(refused.value)


@pytest.mark.parametrize("text", ["sweep: [", "sweep: x\n\tgrid: 1\n", "- a\n", "5\n", "sweep: &a x\n"])
def test_read_sweep_that_is_no_mapping_is_refused_by_its_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(RegistryError, match=r"s\.yaml:"):
        read_sweep(tmp_path / "s.yaml")


def test_read_sweep_of_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_sweep(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("text", "is_sweep"),
    [
        (SWEEP, True),
        ("tables: ['4']\n", True),
        ("experiments: [demo]\n", True),
        ("like: demo\nname: mine\n", False),
        ("sweep: [\n", False),
    ],
)
def test_is_sweep_file_knows_a_sweep_from_an_experiment(tmp_path: Path, text: str, is_sweep: bool) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert is_sweep_file(tmp_path / "x.yaml") is is_sweep
    assert not is_sweep_file(tmp_path / "absent.yaml")
    assert not is_sweep_file(tmp_path)
