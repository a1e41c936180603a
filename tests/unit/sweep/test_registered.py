"""Sweeps of the registry: found by name, checked, and refused where a name has two meanings."""

from pathlib import Path

import pytest

from plifctl import paths
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.config.sweep import SweepSpec
from plifctl.errors import RegistryError, UsageError
from plifctl.sweep.expansion import expand, sweep_name
from plifctl.sweep.registered import check_sweeps, load_sweeps, named_sweep


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of sweeps of a registry folder of the user's own, which is the working directory, too."""
    folder = tmp_path / "own" / "sweeps"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_shipped_sweeps_train_what_the_claims_compare() -> None:
    registry = Registry(paths.registry_dirs()[:1])
    assert check_sweeps(registry) == []
    sweeps = load_sweeps(registry)
    members = {name: expand(sweep) for name, sweep in sweeps.items()}
    assert {name: len(found) for name, found in members.items()} == {
        "pooling-fashion-mnist": 12,
        "tau-mnist": 6,
        "tau-nmnist": 20,
        "time-gestures": 6,
    }
    assert all(sweep.title for sweep in sweeps.values())
    assert {(m.spec.neuron.kind, m.spec.neuron.start_tau, m.spec.train.epochs) for m in members["tau-nmnist"]} == {
        (kind, tau, 30) for kind in ("plif", "lif") for tau in (2.0, 16.0)
    }
    assert {member.spec.train.subset for member in members["pooling-fashion-mnist"]} == {0.1}


def test_named_sweep_finds_those_of_the_users_own_folder(own: Path) -> None:
    (own / "mine.yaml").write_text("title: two seeds\nexperiments: [demo]\nseeds: [1, 2]\n")
    found = named_sweep("mine", load_registry())
    assert found is not None
    assert (found.sweep, found.title, found.seeds) == ("mine", "two seeds", (1, 2))
    assert named_sweep("demo", load_registry()) is None


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("demo", "experiments: [demo]\n", "demo is an experiment"),
        ("tau-nmnist", "experiments: [demo]\n", "defined already"),
        ("mine", "sweep: other\nexperiments: [demo]\n", "sweep: other"),
        ("mine", "experimets: [demo]\n", "did you mean experiments"),
        ("my sweep", "experiments: [demo]\n", "cannot be a name"),
    ],
)
def test_sweep_file_that_is_invalid_or_has_a_name_of_something_else_is_refused(
    own: Path, name: str, text: str, problem: str
) -> None:
    (own / f"{name}.yaml").write_text(text)
    problems = check_sweeps(load_registry())
    assert [problem in line and f"{name}.yaml" in line for line in problems] == [True] * len(problems) != []
    with pytest.raises(RegistryError, match=problem):
        load_sweeps(load_registry())


def test_check_sweeps_looks_up_experiments_and_values(own: Path) -> None:
    (own / "one.yaml").write_text("experiments: [dmo]\n")
    (own / "two.yaml").write_text("experiments: [demo]\nset: {neurn.tau_0: 2}\n")
    first, second = sorted(check_sweeps(load_registry()))
    assert ("one.yaml" in first, "dmo" in first) == (True, True)
    assert ("two.yaml" in second, "neurn" in second) == (True, True)


def test_named_sweep_that_the_working_directory_has_too_is_refused(own: Path) -> None:
    (own / "mine.yaml").write_text("experiments: [demo]\n")
    Path("mine.yaml").write_text("experiments: [demo]\n")
    with pytest.raises(UsageError, match=r"mine\.yaml in this folder"):
        named_sweep("mine", load_registry())


def test_title_changes_no_name_of_a_sweep() -> None:
    plain = SweepSpec(experiments=("demo",))
    assert sweep_name(plain) == sweep_name(plain.model_copy(update={"title": "what it is for"}))
