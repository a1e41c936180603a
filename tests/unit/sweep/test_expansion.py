"""The trainings of a sweep, and their names."""

from pathlib import Path
from typing import Any

import pytest

from plifctl.config.sweep import SweepSpec
from plifctl.errors import RegistryError, UsageError
from plifctl.sweep.expansion import Member, expand, sweep_name


def members(**fields: Any) -> list[Member]:
    return expand(SweepSpec.model_validate({"experiments": ("demo",), **fields}))


def test_expand_makes_every_combination_seed_by_seed() -> None:
    found = members(seeds=(1, 2), protocols=("A", "B"), grid={"neuron.tau_0": (4, 16), "T": (4, 8)})
    assert len(found) == len({member.name for member in found}) == 16
    assert [member.spec.train.seed for member in found] == [1] * 8 + [2] * 8
    assert {(m.protocol, m.spec.neuron.tau_0, m.spec.T) for m in found[:8]} == {
        (protocol, tau, T) for protocol in "AB" for tau in (4.0, 16.0) for T in (4, 8)
    }


def test_expand_with_folds_makes_one_training_for_each() -> None:
    found = members(folds=3)
    assert [(m.values["fold"], m.spec.split.fold, m.spec.split.folds) for m in found] == [
        (1, 1, 3),
        (2, 2, 3),
        (3, 3, 3),
    ]
    assert all(f"-fold={number}-" in member.name for number, member in enumerate(found, 1))


def test_expand_of_a_table_has_its_experiments_and_protocols() -> None:
    found = expand(SweepSpec(tables=("4",)))
    assert {"gesture-plif", "gesture-lif-tau16"} <= {member.spec.name for member in found}
    assert {member.protocol for member in expand(SweepSpec(tables=("S2",)))} == {"A", "B"}
    assert {member.protocol for member in expand(SweepSpec(tables=("S2",), protocols=("B",)))} == {"B"}


def test_expand_of_overlapping_tables_and_experiments_has_each_training_once() -> None:
    found = expand(SweepSpec(tables=("4", "5"), experiments=("gesture-plif",)))
    identities = [(m.spec.digest, m.spec.name, m.protocol) for m in found]
    assert len(set(identities)) == len(identities)


def test_name_of_a_run_says_what_is_changed_and_only_that() -> None:
    (plain,), (same,), (other,) = members(), members(set={"neuron.tau_0": 2}), members(set={"neuron.tau_0": 4})
    assert plain.name == same.name
    assert same.overrides == ()
    assert (plain.name.split("-s")[0], other.name.split("-s")[0]) == ("demo", "demo-tau_0=4")


def test_name_of_a_run_is_the_same_however_its_value_is_stated() -> None:
    assert len(members(grid={"neuron.tau_0": (4, 4.0, 2, 2.0)})) == 2
    (stated,) = members(set={"train": {"lr": 0.01}})
    (in_grid,) = members(grid={"train.lr": (0.01,)})
    assert stated.name == in_grid.name


def test_name_of_a_run_does_not_say_what_decides_no_number() -> None:
    (plain,) = members(experiments=("gesture-plif",))
    for value in ({"network.pooling": "max"}, {"network": "gesture"}):
        (stated,) = members(experiments=("gesture-plif",), set=value)
        assert (stated.name, stated.overrides) == (plain.name, ())
    (other,) = members(experiments=("gesture-plif",), set={"network.pooling": "average"})
    assert "pooling=average" in other.name


def test_value_that_only_the_other_protocol_has_anyway_is_kept(places: Path) -> None:
    (places / "mine.yaml").write_text("like: demo\nname: mine\nT: 4\nvalidation: {T: 8}\n")
    (stated,) = members(experiments=("mine",), protocols=("B",), set={"T": 4})
    (default,) = members(experiments=("mine",), protocols=("B",))
    assert (stated.spec.T, default.spec.T) == (4, 8)


def test_name_of_a_run_is_the_same_in_whichever_order_its_values_are_stated() -> None:
    (first,) = members(set={"neuron.tau_0": 4}, grid={"train.lr": (0.01,)})
    (second,) = members(set={"train.lr": 0.01}, grid={"neuron.tau_0": (4,)})
    assert first.name == second.name


def test_name_of_a_run_is_a_short_file_name_whatever_the_value() -> None:
    odd = "{c8k3s1-BN-SN-MPk2s2}*3-DP-FC512-SN-DP-FC110-SN-APk10s10"
    (found,) = members(set={"network.structure": odd, "train.batch_size": 7, "train.lr": 1e-5})
    assert len(found.name.encode()) < 200
    assert found.name.isascii()
    assert not {"/", " ", "{", "*"} & set(found.name)
    assert found.spec.network.structure == odd


def test_experiment_file_stays_a_file_by_its_absolute_path(places: Path) -> None:
    (places / "mine.yaml").write_text("like: demo\nname: mine\nneuron: {tau_0: 8}\n")
    (found,) = members(experiments=("mine.yaml",))
    assert (found.spec.name, found.file, found.spec.neuron.tau_0) == ("mine", places / "mine.yaml", 8)
    (by_name,) = members(experiments=("mine",))
    assert by_name.name == found.name
    (changed,) = members(experiments=("mine",), grid={"neuron.tau_0": (4,)})
    assert changed.name.startswith("mine-tau_0=4-s")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"experiments": ("dmo",)}, "dmo"),
        ({"experiments": ("absent.yaml",)}, "absent.yaml"),
        ({"tables": ("99",)}, "99"),
        ({"set": {"neuron.tau": 2}}, "neuron.tau"),
        ({"grid": {"": (1, 2)}}, "unknown key"),
        ({"grid": {"train.lr": (0.1, "fast")}}, "train.lr"),
        ({"grid": {"T": tuple(range(1, 200)), "train.batch_size": tuple(range(1, 200))}}, "39,601 runs"),
        (
            {"experiments": (), "tables": ("4",), "protocols": ("B",)},
            "B: the cells of table 4 are of protocol A",
        ),
        ({"experiments": (), "tables": ("1",)}, "no experiment fills it"),
    ],
)
def test_sweep_that_cannot_be_is_refused(places: Path, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises((UsageError, RegistryError), match=problem):
        members(**fields)


def test_sweep_name_is_the_given_one_or_the_same_for_the_same_lists() -> None:
    spec = SweepSpec(experiments=("demo", "./x/my file.yaml"), tables=("4",))
    assert sweep_name(spec) == sweep_name(spec.model_copy())
    assert sweep_name(spec).startswith("table-4+demo+my_file-")
    assert sweep_name(spec) != sweep_name(spec.model_copy(update={"seeds": (1,)}))
    assert sweep_name(SweepSpec(experiments=("数据.yaml",))).startswith("sweep-")
    assert sweep_name(spec.model_copy(update={"sweep": "my sweep"})) == "my sweep"
    many = SweepSpec(experiments=tuple(f"experiment-{number}" for number in range(100)))
    assert len(sweep_name(many)) < 80


@pytest.mark.parametrize(("raw", "classes"), [("recB", "[a, b]"), ("recA", "[x, y]")])
def test_two_files_of_one_name_and_other_data_are_refused(tmp_path: Path, raw: str, classes: str) -> None:
    places = []
    for file, folder, names in (("h1", "recA", "[a, b]"), ("h3", raw, classes)):
        data = f"{{name: hands, title: hands, layout: class-folders, kind: events, shape: [2, 8, 8], classes: {names}, "
        places.append(tmp_path / f"{file}.yaml")
        places[-1].write_text(
            f"name: hands\ntitle: hands\nlike: demo\nT: 4\ndataset: {data}raw: {folder}}}\n"
            "frames: {slicing: number, outside_events: refuse, invalid_events: drop}\n"
            "network: {name: n, structure: FC4-SN-APk2s2, dropout: 0.0, batch_norm: per-step}\n"
            "split: {method: share, test: 0.2}\nvalidation: {method: share}\n"
        )
    assert [member.file for member in members(experiments=(str(places[1]),))] == [places[1]]
    with pytest.raises(
        UsageError, match=r"h1\.yaml and .*h3\.yaml: two experiments called hands, with other .*"
    ) as error:
        members(experiments=tuple(map(str, places)))
    assert error.value.hint == "change name: in one of the files"
