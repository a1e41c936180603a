"""Experiments as YAML files: saved, read back to the same digest, written by hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from factories import make_run
from untrained import event_spec, write_untrained

from plifctl.config.choices import RECIPES
from plifctl.config.lookup import is_file_name, load_experiment, load_framing, load_registry
from plifctl.config.registry import Registry
from plifctl.errors import RegistryError, UsageError
from plifctl.exchange.lookup import zoo_folders
from plifctl.pipeline.init_data import init_data
from plifctl.pipeline.inspect import InspectOptions
from plifctl.pipeline.new import write_experiment


def test_folder_is_refused_with_the_command_for_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my recordings", "gesture-plif", "hands"):
        Path(name).mkdir()
    Path("hands.yaml").write_text("like: gesture-plif\n")
    for source in ("my recordings", "./my recordings", tmp_path / "my recordings"):
        with pytest.raises(UsageError, match="a folder, expected a name or a YAML file") as error:
            load_framing(source)
        assert "plifctl data init" in error.value.hint
    assert load_experiment("gesture-plif").spec.name == "gesture-plif"  # the registry's
    assert load_experiment("hands").spec.name == "gesture-plif"


OWN_DATA_SET = """\
name: own
title: own
layout: class-folders
kind: events
shape: [2, 10, 10]
classes: [a, b]
raw: ../recordings
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


class TestSave:
    @pytest.mark.parametrize("recipe", RECIPES)
    def test_every_experiment_reads_back_the_same(self, tmp_path: Path, recipe: Any) -> None:
        registry = load_registry()
        for name in registry.experiments():
            experiment, path = registry.experiment(name, recipe=recipe), tmp_path / f"{name}.yaml"
            experiment.save(path)
            found = load_experiment(path, registry=registry)
            assert found.spec == experiment.spec
            assert found.overrides == ()

    @pytest.mark.parametrize(
        ("name", "overrides"),
        [
            ("gesture-plif", {"neuron.tau_0": 4.0, "train.epochs": 3}),
            ("gesture-plif", {"neuron.kind": "lif", "neuron.tau_0": None, "neuron.tau": 3.0}),
            ("gesture-plif", {"network": "gesture-avgpool", "network.dropout": 0.1}),
            ("gesture-plif", {"train.optimizer_options": {"betas": [0.9, 0.99], "eps": 1e-6}}),
            ("gesture-plif", {"frames.transforms": [{"name": "drop-events", "p": 0.1}], "frames.transform_seed": 7}),
            ("gesture-plif", {"frames.slicing": "duration", "frames.duration_us": 10000}),
            ("cifar10dvs-plif", {"train.event_augmentation": [{"name": "flip", "p": 0.5}], "T": 3}),
            ("mnist-plif", {"train.augmentation": "none", "train.clip_norm": 1.0}),
        ],
    )
    def test_changed_experiment_reads_back_with_its_changes(
        self, file: Path, name: str, overrides: dict[str, Any]
    ) -> None:
        experiment = load_experiment(name, overrides)
        experiment.save(file)
        found = load_experiment(file)
        assert found.spec == experiment.spec
        assert found.spec.digest == experiment.spec.digest
        assert sorted(found.overrides) == sorted(experiment.overrides)

    def test_changed_values_are_marked(self, file: Path) -> None:
        load_experiment("gesture-plif", {"neuron.tau_0": 4.0}).save(file)
        lines = file.read_text(encoding="utf-8").splitlines()
        assert [line.strip() for line in lines if line.endswith("# changed")] == ["tau_0: 4.0  # changed"]
        assert "#   plifctl train mine.yaml" in lines

    def test_existing_file_is_not_replaced(self, file: Path) -> None:
        file.write_text("x: 1\n")
        with pytest.raises(UsageError, match=r"mine.yaml: exists already"):
            load_experiment("demo").save(file)
        assert file.read_text() == "x: 1\n"

    def test_link_to_a_missing_file_is_not_replaced(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file.symlink_to("elsewhere/mine.yaml")
        with pytest.raises(UsageError, match=r"mine.yaml: exists already"):
            load_experiment("demo").save(file)
        with pytest.raises(UsageError, match=r"mine.yaml: exists already") as refused:
            write_experiment(file, like="demo")
        assert refused.value.hint == "choose another name, or remove it"
        monkeypatch.chdir(file.parent)
        with pytest.raises(UsageError, match=r"mine.yaml: exists already"):
            init_data(InspectOptions(Path()), name="mine")
        assert file.is_symlink()

    def test_file_outlives_a_change_of_the_registry(self, file: Path) -> None:
        experiment = load_experiment("gesture-plif")
        experiment.save(file)
        text = file.read_text(encoding="utf-8").replace("lr: 0.001", "lr: 0.002")
        file.write_text(text, encoding="utf-8")  # as if the registry had lowered it to what it is
        assert load_experiment(file).overrides == ("train.lr=0.002",)


class TestByHand:
    def test_like_takes_every_other_value_from_the_registry(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nrecipe: authors\nneuron:\n  tau_0: 4.0\n")
        found = load_experiment(file)
        assert found.spec == load_experiment("gesture-plif", {"neuron.tau_0": 4.0}, recipe="authors").spec
        assert found.overrides == ("neuron.tau_0=4.0",)
        assert str(found.origins["neuron.tau_0"]) == f"{file}:4:3"
        assert found.origins["train.lr"].source.endswith("_common.yaml")

    def test_name_of_its_own_is_another_experiment(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nname: mine\ntitle: my gestures\nneuron: {tau_0: 4.0}\n")
        found = load_experiment(file)
        assert (found.spec.name, found.spec.title, found.overrides) == ("mine", "my gestures", ())
        assert found.spec.digest != load_experiment("gesture-plif", {"neuron.tau_0": 4.0}).spec.digest
        found.save(file.with_name("again.yaml"))
        assert load_experiment(file.with_name("again.yaml")).spec == found.spec

    def test_changes_to_a_file_with_a_name_of_its_own_are_kept(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nname: mine\nneuron: {tau_0: 4.0}\n")
        found = load_experiment(file, {"neuron.tau_0": 16.0, "train.seed": 3})
        assert found.overrides == ("neuron.tau_0=16.0", "train.seed=3")
        again = load_experiment(found, {"neuron.tau_0": 8.0})
        assert (again.spec.neuron.tau_0, again.overrides) == (8.0, ("train.seed=3", "neuron.tau_0=8.0"))
        assert load_experiment(file, again.overrides).spec == again.spec

    def test_network_of_its_own_needs_a_name_of_its_own(self, file: Path) -> None:
        network = "network: {name: tiny, structure: FC110-SN-APk10s10, dropout: 0.0, batch_norm: per-step}\n"
        file.write_text("like: gesture-plif\nname: mine\n" + network)
        assert load_experiment(file).spec.network.name == "tiny"
        file.write_text("like: gesture-plif\n" + network)
        with pytest.raises(RegistryError, match="by more than --set can change") as error:
            load_experiment(file)
        assert "name: NAME" in error.value.hint

    def test_like_under_another_name_has_a_title_of_its_own(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nname: mine\n")
        found, digest = load_experiment(file), load_experiment(file).spec.digest
        assert (found.spec.title, str(found.origins["title"])) == ("mine", f"{file}:2:1")
        file.write_text("like: gesture-plif\nname: mine\ntitle: my gestures\n")
        assert (load_experiment(file).spec.title, load_experiment(file).spec.digest) == ("my gestures", digest)
        file.write_text("like: gesture-plif\nneuron: {tau_0: 4.0}\n")
        assert load_experiment(file).spec.title == load_experiment("gesture-plif").spec.title

    @pytest.mark.parametrize("name", ["rec", "rec.yaml"])
    def test_file_of_a_data_set_in_place_of_its_name_has_a_hint(self, file: Path, name: str) -> None:
        file.write_text(f"like: gesture-plif\nname: mine\ndataset: {name}\n")
        with pytest.raises(RegistryError, match=f"unknown dataset {name}") as error:
            load_experiment(file)
        assert "its values as a mapping, dataset: {name: …, layout: …, …}; or its file in FOLDER/" in error.value.hint

    def test_like_under_another_name_has_no_reported_accuracy(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nneuron: {tau_0: 4.0}\n")
        assert load_experiment(file).spec.reported is not None
        file.write_text("like: gesture-plif\nname: mine\n")
        assert load_experiment(file).spec.reported is None

    def test_network_by_name_replaces_that_of_like(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nnetwork: gesture-avgpool\n")
        found = load_experiment(file)
        assert found.overrides == ("network=gesture-avgpool",)
        assert load_experiment(file, {"network": "gesture"}).spec == load_experiment("gesture-plif").spec

    def test_overrides_change_the_file(self, file: Path) -> None:
        file.write_text("like: gesture-plif\nneuron: {tau_0: 4.0}\n")
        found = load_experiment(file, ["train.lr=0.1", "neuron.tau_0=5.0"])
        assert (found.spec.neuron.tau_0, found.spec.train.lr) == (5.0, 0.1)
        assert set(found.overrides) == {"neuron.tau_0=5.0", "train.lr=0.1"}
        assert str(found.origins["train.lr"]) == "--set train.lr=0.1"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "like: gesture-plif\nneuron: {tau0: 4.0}\n",
                r"mine.yaml:2:10: gesture-plif: unknown key neuron.tau0; did",
            ),
            ("like: gesture-plif\nneurons: {tau_0: 4.0}\n", r"mine.yaml:2:1: gesture-plif: unknown key neurons; did"),
            ("like: gestur-plif\n", r"mine.yaml:1:1: unknown experiment gestur-plif; did you mean gesture-plif"),
            ("like: gesture-plif\nrecipe: fats\n", r"mine.yaml:2:1: unknown recipe fats"),
            ("like: gesture-plif\ndataset: gestur\n", r"mine.yaml:2:1: unknown dataset gestur"),
            ("like: gesture-plif\nnetwork: gestur\n", r"mine.yaml:2:1: unknown network gestur"),
            ("T: 4\n", "name is missing"),
            ("name: mine\nT: 4\n", "mine.yaml:1:1: dataset is missing: name one, or state like: NAME"),
            ("name: mine\ndataset: gesture\n", "mine.yaml:1:1: network is missing: name one, or state like: NAME"),
            ("like: gesture-plif\ndataset: {name: x}\n", r"mine.yaml:2:1: gesture-plif: dataset.title is missing"),
            ("name: x\ntitle: x\nlayout: folders\n", "a data set, expected an experiment"),
            ("variants: {}\n", r"mine.yaml:1:1: variants: for registry folders only"),
            ("a: [\n", "not YAML"),
            ("name: a/b\nlike: gesture-plif\n", "cannot be a name"),
        ],
    )
    def test_invalid_file_is_named_with_its_place(self, file: Path, text: str, message: str) -> None:
        file.write_text(text)
        with pytest.raises(RegistryError, match=message):
            load_experiment(file)

    @pytest.mark.parametrize(
        ("line", "place", "message"),
        [
            (
                "frames: {transforms: [{name: crop, height: 400, width: 4}]}",
                "3:23",
                "frames.transforms[0]: 400×4 pixels",
            ),
            ("frames: {slicing: duration}", "3:10", "frames.duration_us is missing"),
            ("frames: {axes: authors}", "3:10", "frames.axes: DVS128 Gesture has no such choice"),
            ("train: {augmentation: flip}", "3:9", "train.augmentation: DVS128 Gesture is an event data set"),
            ("split: {method: share, test: 0.2, groups: table}", "3:35", "split.groups: DVS128 Gesture has no table"),
        ],
    )
    def test_values_that_do_not_fit_the_data_set_are_named_in_the_file(
        self, file: Path, line: str, place: str, message: str
    ) -> None:
        file.write_text(f"name: mine\nlike: gesture-plif\n{line}\n")
        with pytest.raises(RegistryError) as error:
            load_experiment(file)
        assert str(error.value).startswith(f"{file}:{place}: mine: {message}")

    def test_data_set_without_frames_is_an_error_with_an_example(self, file: Path) -> None:
        file.write_text(OWN_DATA_SET)
        with pytest.raises(RegistryError, match=rf"^{file}:3:1: own: frames is missing: events need it") as error:
            load_framing(file)
        example = str(error.value).partition("e.g. ")[2]
        assert example == "frames: {slicing: number, outside_events: refuse, invalid_events: drop}"
        file.write_text(f"{OWN_DATA_SET}{example}\n")
        assert load_framing(file).frames is not None
        file.write_text(f"{OWN_DATA_SET}recipes:\n  paper: {{{example}}}\n")
        with pytest.raises(RegistryError, match=r"frames is missing: .* drop} \(recipe authors\)$"):
            load_registry().describe_file(file)
        (file.parent / "datasets").mkdir()
        file.rename(file.parent / "datasets/own.yaml")
        (problem,) = Registry([file.parent]).check()
        assert problem.endswith("drop} (recipe authors)")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (
                "train:\n  # lr: 0.1",
                "train: found nothing, expected a mapping, e.g. train: {loss: …}; remove the key if",
            ),
            ("neuron: lif", "neuron: found 'lif' (a text), expected a mapping, e.g. neuron: {kind: lif}"),
            ("split: share", "split: found 'share' (a text), expected a mapping, e.g. split: {method: share}"),
            ("train: {optimizer_options: x}", "train.optimizer_options: found 'x' (a text), expected a mapping"),
            ("title: 3", 'title: found 3, expected a text, in quotes: "3"'),
            ("title: [x]", "title: found ['x'], expected a text"),
            ("train: {drop_last: True}", "train.drop_last: found 'True' (a text: write true or false)"),
            ("T:", "T: found nothing, should be a valid integer"),
            ("lr: 0.1", "unknown key lr; did you mean train.lr?"),
            ("tau0: 3", "unknown key tau0; did you mean neuron.tau_0?"),
            ("train: {tau_0: 3}", "unknown key train.tau_0; did you mean neuron.tau_0?"),
            ("nonsense: 3", "unknown key nonsense; known: T, dataset"),
            ("train.lr: 0.1", "unknown key train.lr; write train: {lr: …}"),
            ("frames:", "frames is missing: events need it"),
        ],
    )
    def test_value_of_another_kind_is_named_with_what_is_expected(self, file: Path, line: str, message: str) -> None:
        file.write_text(f"like: gesture-plif\nname: mine\n{line}\n")
        with pytest.raises(RegistryError) as error:
            load_experiment(file)
        (problem,) = error.value.problems
        assert problem.startswith(f"{file}:3:")
        assert f"mine: {message}" in problem

    @pytest.mark.parametrize(
        ("was", "now", "messages"),
        [
            ("[a, b]", "[0, true]", ['classes[0]: found 0, expected a text, in quotes: "0"', 'in quotes: "true"']),
            ("[a, b]", "[a]", ["classes: found ['a'], expected at least 2 values"]),
            ("[2, 10, 10]", "[2, 10, 10, 1]", ["shape: found [2, 10, 10, 1], expected at most 3 values"]),
            (
                "raw:",
                "labels: labels.csv\nraw:",
                ["labels: found 'labels.csv' (a text), expected a mapping, e.g. labels: {f"],
            ),
            ("raw:", "slicing: time\nraw:", ["unknown key dataset.slicing; did you mean frames.slicing?"]),
        ],
    )
    def test_value_of_another_kind_in_a_data_set_is_one_problem(
        self, file: Path, was: str, now: str, messages: list[str]
    ) -> None:
        frames = "frames: {slicing: number, outside_events: refuse, invalid_events: drop}\n"
        file.write_text(OWN_DATA_SET.replace(was, now) + frames)
        with pytest.raises(RegistryError) as error:
            load_framing(file)
        for problem, message in zip(error.value.problems, messages, strict=True):
            assert message in problem

    def test_structure_in_place_of_a_network_is_named_as_one(self, file: Path) -> None:
        file.write_text('like: gesture-plif\nname: mine\nnetwork: "{c8k3s1-BN-SN-MPk8s8}*2-FC110-SN-APk10s10"\n')
        with pytest.raises(RegistryError, match="unknown network") as error:
            load_experiment(file)
        shown = error.value.hint.partition(": ")[2]
        file.write_text(f"like: gesture-plif\nname: mine\n{shown}\n")
        assert load_experiment(file).spec.network.name == "NAME"
        with pytest.raises(UsageError) as usage:
            load_experiment("gesture-plif", {"network": "c8k3s1-SN-FC110-SN-APk10s10"})
        assert "structure" in usage.value.hint

    def test_incomplete_file_lists_every_missing_value(self, file: Path) -> None:
        load_experiment("demo").save(file)
        lines = [
            line for line in file.read_text(encoding="utf-8").splitlines() if "lr:" not in line and "kind:" not in line
        ]
        file.write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(RegistryError) as error:
            load_experiment(file)
        assert len(error.value.problems) == 3  # two are called kind

    def test_missing_file_is_a_usage_error(self, file: Path) -> None:
        with pytest.raises(UsageError, match=r"mine.yaml: No such file"):
            load_experiment(file)

    def test_recipe_that_contradicts_the_file_is_refused(self, file: Path) -> None:
        load_experiment("demo").save(file)
        with pytest.raises(UsageError, match=r"--recipe authors: .*mine.yaml is of the recipe paper"):
            load_experiment(file, recipe="authors")


class TestChange:
    def test_changed_experiment_is_that_of_all_overrides(self) -> None:
        first = load_experiment("gesture-plif", {"neuron.tau_0": 4.0, "T": 5})
        found = load_experiment(first, {"train.lr": 0.1, "T": 6})
        assert found.spec == load_experiment("gesture-plif", {"neuron.tau_0": 4.0, "T": 6, "train.lr": 0.1}).spec
        assert found.overrides == ("neuron.tau_0=4.0", "train.lr=0.1", "T=6")
        assert str(found.origins["neuron.tau_0"]) == "--set neuron.tau_0=4.0"

    def test_changed_experiment_needs_no_registry_that_knows_it(self) -> None:
        first = load_experiment("gesture-plif", {"T": 5})
        found = load_experiment(first, {"train.epochs": 3}, registry=Registry([]))
        assert found.spec == load_experiment("gesture-plif", {"T": 5, "train.epochs": 3}).spec
        with pytest.raises(UsageError, match="--set network=mnist: unknown network mnist"):
            load_experiment(first, {"network": "mnist"}, registry=Registry([]))

    def test_experiment_without_changes_is_returned_as_it_is(self) -> None:
        first = load_experiment("demo")
        assert load_experiment(first) is first

    def test_another_recipe_is_refused(self) -> None:
        with pytest.raises(UsageError, match="recipe authors: demo is of the recipe paper"):
            load_experiment(load_experiment("demo"), recipe="authors")

    def test_wrong_change_names_the_override(self) -> None:
        with pytest.raises(UsageError, match=r"--set train.lr=fast: demo: train.lr: found 'fast'"):
            load_experiment(load_experiment("demo"), {"train.lr": "fast"})


@pytest.mark.parametrize(
    ("source", "is_file"),
    [
        ("gesture-plif", False),
        ("mine.yaml", True),
        ("a/b", True),
        ("x.yml", True),
        (Path("demo"), True),
        ("v1.0", False),
    ],
)
def test_experiment_file_is_told_from_a_name(source: Any, is_file: bool) -> None:
    assert is_file_name(source) == is_file


class TestInline:
    """Data set and network in the file itself."""

    def test_data_set_and_experiment_in_one_file_give_the_framing(self, file: Path) -> None:
        load_experiment("gesture-plif").renamed("mine").save(file)
        framing = load_framing(file)
        assert framing == load_experiment("gesture-plif").spec.framing
        assert framing.T == 20
        assert load_framing(file, {"frames.slicing": "time"}).frames.slicing == "time"  # type: ignore[union-attr]

    def test_name_is_looked_up_beside_the_user(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        load_experiment("demo").renamed("mine").save(file)
        assert load_experiment("mine").spec == load_experiment(file).spec
        assert load_framing("mine").T == 8
        file.rename(tmp_path / "demo.yaml")
        with pytest.raises(UsageError, match=r"a name in the registry and the file demo\.yaml") as error:
            load_experiment("demo")
        assert "./demo.yaml" in error.value.hint
        assert load_experiment("./demo.yaml").spec.name == "mine"

    def test_folder_of_recordings_is_relative_to_the_file(self, tmp_path: Path) -> None:
        dataset = f"{OWN_DATA_SET}frames: {{slicing: number, outside_events: refuse, invalid_events: drop}}\n"
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf/own.yaml").write_text(dataset)
        framing = load_framing(tmp_path / "conf/own.yaml")
        assert Path(str(framing.dataset.raw)).resolve() == (tmp_path / "recordings").resolve()
        assert framing.dataset.samples is None

    def test_pooling_is_that_of_the_network_with_average_pooling(self, file: Path) -> None:
        average = load_experiment("gesture-plif", {"network": "gesture-avgpool"}).spec
        found = load_experiment("gesture-plif", {"network.pooling": "average"}).spec
        assert (found.network.name, found.network.structure) == (average.network.name, average.network.structure)
        assert found.digest == average.digest
        file.write_text("like: gesture-plif-avgpool\nname: mine\nnetwork: {pooling: max}\n")
        assert load_experiment(file).spec.network.structure == load_experiment("gesture-plif").spec.network.structure


class TestNew:
    """An experiment of one's own as one file."""

    def test_file_states_everything_and_is_another_experiment(self, file: Path) -> None:
        write_experiment(file, "gesture-plif", ("neuron.tau_0=4.0",))
        found = load_experiment(file)
        assert (found.spec.name, found.spec.reported, found.overrides) == ("mine", None, ())
        assert found.spec.neuron.tau_0 == 4.0
        assert all(str(found.origins[key]).startswith(str(file)) for key in found.origins)
        assert "slicing: number  # number | " in file.read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("name", "like", "message"),
        [
            ("a b.yaml", "demo", "cannot be a name"),
            ("demo.yaml", "demo", "would mean two"),
            ("x.yaml", "nix", "no run"),
        ],
    )
    def test_what_cannot_be_is_refused(self, tmp_path: Path, name: str, like: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            write_experiment(tmp_path / name, like, runs_dir=tmp_path)
        assert not (tmp_path / name).exists()

    def test_path_of_a_run_or_an_exported_network_gives_its_experiment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run = make_run(Path("runs"), "train.lr=0.5")
        network = write_untrained(Path("runs/net.pt"), event_spec(tmp_path))
        added = shutil.copytree(zoo_folders()["demo"], "runs/added")
        for number, like in enumerate((run.path, network, added)):
            write_experiment(Path(f"mine{number}.yaml"), f"./{like}")
        assert load_experiment("mine0").spec.train.lr == 0.5
        assert load_experiment("mine1").spec.dataset.name == "own"
        assert load_experiment("mine2").spec.dataset.name == "synthetic-gesture"
