"""Layers of the registry, its errors with their places, and what the shipped files say."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from plifctl.config.base import flatten
from plifctl.config.dataset import DatasetSpec
from plifctl.config.lookup import load_framing, load_registry
from plifctl.config.registry import Registry
from plifctl.errors import RegistryError, UsageError
from plifctl.paths import registry_dirs

SETS = ("mnist", "fashion-mnist", "cifar10", "nmnist", "cifar10dvs", "gesture")
VARIANTS = ("plif", "plif-tau16", "lif", "lif-tau16", "plif-avgpool")


class TestShipped:
    def test_check_of_shipped_files_finds_no_problem(self) -> None:
        assert load_registry().check() == []

    def test_experiments_are_five_variants_of_each_data_set(self) -> None:
        expected = {f"{name}-{variant}" for name in SETS for variant in VARIANTS} | {"demo", "order"}
        assert set(load_registry().experiments()) == expected

    def test_recipes_differ_where_text_and_code_do(self) -> None:
        registry = load_registry()

        def of(name: str, recipe: str) -> dict[str, object]:
            spec = registry.experiment(name, recipe=recipe).spec  # type: ignore[arg-type]
            t, v = spec.train, spec.validation
            frames = spec.frames.model_dump() if spec.frames else {}
            return {
                "loss": t.loss, "ties": t.ties, "augmentation": t.augmentation, "rounding": v.rounding,
                "loader": v.loader, "test": v.test, "T": v.T, "network": spec.network.structure, **frames,
            }  # fmt: skip

        def differences(name: str) -> dict[str, tuple[object, object]]:
            paper, authors = of(name, "paper"), of(name, "authors")
            return {key: (paper[key], authors[key]) for key in paper if paper[key] != authors[key]}

        everywhere = {
            "loss": ("mse-per-step", "mse-rate"),
            "ties": ("earliest", "latest"),
            "rounding": ("ceil-keep-one", "ceil"),
            "loader": ("all", "as-training"),
            "test": ("once", "every-epoch"),
        }
        events = {"slicing": ("number", "number-remainder")}
        assert differences("fashion-mnist-plif") == everywhere
        assert differences("mnist-plif") == everywhere | {"augmentation": ("flip-crop", "affine")}
        assert differences("nmnist-plif") == everywhere | events | {"T": (None, 20)}
        assert differences("gesture-plif") == everywhere | events | {
            "invalid_events": ("drop", "keep"),
            "training_set": ("all", "first-78"),
        }
        assert set(differences("cifar10-plif")) == {*everywhere, "network"}
        assert set(differences("cifar10dvs-plif-avgpool")) == {*everywhere, *events, "network"}
        assert "FC2048" in str(of("cifar10dvs-plif", "authors")["network"])
        assert "FC2048-SN-FC100" in str(of("cifar10-plif", "authors")["network"])
        assert (
            of("cifar10-plif", "paper")["augmentation"] == of("cifar10-plif", "authors")["augmentation"] == "flip-crop"
        )
        assert of("cifar10dvs-plif", "paper")["axes"] == of("cifar10dvs-plif", "authors")["axes"] == "authors"

    def test_fast_is_paper_with_another_training(self) -> None:
        registry = load_registry()
        for name in registry.experiments():
            paper, fast = (registry.experiment(name, recipe=recipe).spec for recipe in ("paper", "fast"))
            assert fast.model_copy(update={"recipe": "paper", "T": paper.T, "train": paper.train}) == paper
            assert fast.train.cosine_period == fast.train.epochs <= 64  # the learning rate ends at 0

    def test_fast_values_override_those_of_paper_in_the_same_layer(self, tmp_path: Path) -> None:
        (tmp_path / "experiments").mkdir()
        (tmp_path / "experiments/own.yaml").write_text(
            "{extends: _common, dataset: fashion-mnist, network: mnist, T: 8, train: {normalise: per-set},\n"
            "recipes: {paper: {train: {seed: 1, lr: 0.3}}, fast: {T: 2, train: {seed: 3}}},\n"
            "variants: {own: {title: x, neuron: {kind: plif, tau_0: 2.0}, recipes: {fast: {train: {seed: 4}}}}}}"
        )
        spec = Registry([*registry_dirs(), tmp_path]).experiment("own", recipe="fast").spec
        assert (spec.T, spec.train.seed, spec.train.lr, spec.train.loss) == (2, 4, 0.3, "mse-rate")

    @pytest.mark.parametrize(
        ("recipe", "overrides", "steps"),
        [("paper", [], (10, 10)), ("authors", [], (10, 20)), ("authors", ["T=4"], (4, 4))],
    )
    def test_for_protocol_uses_the_T_of_the_protocol_unless_T_is_set(
        self, recipe: str, overrides: list[str], steps: tuple[int, int]
    ) -> None:
        resolved = load_registry().experiment("nmnist-plif", recipe=recipe, overrides=overrides)  # type: ignore[arg-type]
        found = [resolved.for_protocol("A").spec.T, resolved.for_protocol("B").spec.T]
        assert found == list(steps)

    def test_for_protocol_of_a_saved_experiment_uses_the_T_that_was_set(self, tmp_path: Path) -> None:
        registry = load_registry()
        resolved = registry.experiment("nmnist-plif", recipe="authors", overrides=["T=12"])
        resolved.save(tmp_path / "same.yaml")
        resolved.renamed("mine").save(tmp_path / "mine.yaml")
        for name in ("same", "mine"):
            found = registry.read_experiment(tmp_path / f"{name}.yaml")
            assert [found.for_protocol("A").spec.T, found.for_protocol("B").spec.T] == [12, 12]
        both = registry.experiment("nmnist-plif", recipe="authors", overrides=["T=12", "validation.T=16"])
        assert [both.for_protocol("A").spec.T, both.for_protocol("B").spec.T] == [12, 16]

    @pytest.mark.parametrize(
        ("text", "steps"),
        [("", [10, 20]), ("T: 5\n", [5, 5]), ("T: 5\nvalidation: {T: 8}\n", [5, 8]), ("validation: {T: 8}\n", [10, 8])],
    )
    def test_T_of_an_own_file_holds_for_all_protocols_unless_it_states_both(
        self, tmp_path: Path, text: str, steps: list[int]
    ) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(f"name: mine\nlike: nmnist-plif\nrecipe: authors\n{text}")
        found = load_registry().read_experiment(path)
        assert steps == [found.for_protocol("A").spec.T, found.for_protocol("B").spec.T]

    def test_change_of_the_network_replaces_overrides_of_the_one_before(self) -> None:
        registry = load_registry()
        first = registry.experiment("fashion-mnist-plif", overrides=["network.dropout=0.2", "train.lr=0.1"])
        changed = registry.change_experiment(first, ["network=mnist"])
        assert changed.overrides == ("train.lr=0.1", "network=mnist")
        assert registry.experiment("fashion-mnist-plif", overrides=changed.overrides).spec == changed.spec

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("name: 2024\nlike: mnist-plif", ':1:1: name: expected a text, in quotes: name: "2024"'),
            ("name:\nlike: mnist-plif", ":1:1: name: expected a text"),
            ("name: true\nlike: mnist-plif", ':1:1: name: expected a text, in quotes: name: "true"'),
            ("name: mine\nlike: [mnist-plif]", ":2:1: like: expected a text"),
            ("like: mnist-plif\nrecipe: [fast]", ":2:1: recipe: expected a text"),
            ("name: mine\nlike: mnist-plif\ndataset: [mnist]", ":3:1: dataset: expected a name, or a mapping"),
        ],
    )
    def test_read_experiment_with_a_key_of_another_kind_names_it(self, tmp_path: Path, text: str, problem: str) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        with pytest.raises(RegistryError) as error:
            load_registry().read_experiment(path)
        assert f"{path}{problem}" in str(error.value)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("variants: [a, b]", "variants: expected a mapping"),
            ("recipes: {fast: oops}", "recipes: fast: expected a mapping"),
            ("recipes: oops", "recipes: expected a mapping"),
            ("extends: 3", "extends: expected a text"),
        ],
    )
    def test_check_names_keys_of_another_kind_in_a_folder(self, tmp_path: Path, text: str, problem: str) -> None:
        (tmp_path / "experiments").mkdir()
        (tmp_path / "experiments/own.yaml").write_text(text)
        assert any(problem in found for found in Registry([*registry_dirs(), tmp_path]).check())

    def test_experiments_share_neuron_and_training_of_supplement_f(self) -> None:
        registry = load_registry()
        for name in registry.experiments():
            spec = registry.experiment(name).spec
            assert (spec.neuron.v_threshold, spec.neuron.v_reset, spec.neuron.detach_reset) == (1.0, 0.0, True)
            if name not in ("demo", "order"):
                assert (spec.train.lr, spec.train.batch_size, spec.train.seed) == (1e-3, 16, 2020)
                assert (spec.train.epochs, spec.train.cosine_period) == (1024, 64)

    def test_header_of_an_experiments_file_states_reported_accuracies_and_command(self) -> None:
        folder = registry_dirs()[0] / "experiments"
        for name in SETS:
            head = (folder / f"{name}.yaml").read_text(encoding="utf-8").split("\nextends:")[0]
            reported = load_registry().experiment(f"{name}-plif").spec.reported
            assert reported is not None
            assert f"{reported.accuracy_a:.2f}" in head
            assert f"{reported.accuracy_b:.2f}" in head
            assert f"plifctl train {name}-plif" in head


class TestLayers:
    def test_origins_are_file_line_and_column_of_each_value(self) -> None:
        resolved = load_registry().experiment("gesture-plif", recipe="authors", overrides=["train.lr=0.01"])
        assert str(resolved.origins["train.lr"]) == "--set train.lr=0.01"
        for key, end in {
            "frames.slicing": "datasets/gesture.yaml",
            "network.structure": "networks/gesture.yaml",
            "train.loss": "experiments/_common.yaml",
            "T": "experiments/gesture.yaml",
        }.items():
            origin = resolved.origins[key]
            assert origin.source.endswith(end)
            line = Path(origin.source).read_text(encoding="utf-8").splitlines()[origin.line - 1]
            assert line[origin.column - 1 :].startswith(key.split(".")[-1])

    def test_overrides_of_seed_and_epochs_are_no_modification(self) -> None:
        registry = load_registry()
        resolved = registry.experiment(
            "gesture-plif", overrides=["train.epochs=3", "train.seed=1", "T=10", "train.lr=1"]
        )
        assert resolved.spec.train.lr == 1.0
        plain = registry.experiment("gesture-plif")
        assert registry.experiment("gesture-plif", overrides=["train.epochs=3"]).spec.digest == plain.spec.digest
        assert resolved.spec.digest != plain.spec.digest
        assert (
            registry.experiment("gesture-plif", overrides=["network=gesture-avgpool"]).spec.network.name
            == "gesture-avgpool"
        )

    @pytest.mark.parametrize(
        ("override", "message", "hint"),
        [
            ("train.lrr=1", "unknown key train.lrr", "train.lr"),
            ("train.lr", "expected key=value", "--set"),
            ("train.lr=fast", "train.lr: found 'fast'", ""),
            ("train.drop_last=no", "write true or false", ""),
            ("T=0", "T: found 0", ""),
            ("T=10001", "T: found 10001", ""),
            ("neuron.kind=lif", "kind lif takes tau", ""),
            ("network=mnist", "does not fit", ""),
            ("name=x", "unknown key name", ""),
            ("T={a: 1}", "a mapping", ""),
        ],
    )
    def test_wrong_override_is_a_usage_error_with_a_hint(self, override: str, message: str, hint: str) -> None:
        with pytest.raises(UsageError, match=message) as error:
            load_registry().experiment("gesture-plif", overrides=[override])
        assert hint in error.value.hint

    def test_value_that_does_not_fit_is_named_and_not_another_override(self) -> None:
        wrong = "network.structure=c4k3s1-BN-SN-MPk8s8-FC20-SN-APk10s10"
        with pytest.raises(UsageError, match=r"^--set network\.structure=\S+: gesture-plif: network gesture does"):
            load_registry().experiment("gesture-plif", overrides=[wrong, "train.batch_size=4"])
        crop = "frames.transforms=[{name: crop, height: 2, width: 2}]"
        with pytest.raises(UsageError, match=r"--set frames\.transforms=.* or --set train\.batch_size=4: "):
            load_registry().experiment("gesture-plif", overrides=[crop, "train.batch_size=4"])

    def test_options_as_mapping_and_dotted_keys_add_up(self) -> None:
        registry = load_registry()
        both = ["train.optimizer_options={betas: [0.9, 0.95]}", "train.optimizer_options.eps=1e-6"]
        resolved = registry.experiment("gesture-plif", overrides=both)
        assert resolved.spec.train.optimizer_options == {"betas": [0.9, 0.95], "eps": 1e-6}
        assert str(resolved.origins["train.optimizer_options.betas"]) == f"--set {both[0]}"
        plain = registry.experiment("gesture-plif").spec
        assert flatten(plain.model_dump())["train.optimizer_options"] == {}
        assert plain.digest == registry.experiment("gesture-plif", overrides=["train.optimizer_options={}"]).spec.digest

    @pytest.mark.parametrize("value", ["{a: {b: 1}}", "{a: ~}", "{a: [x]}"])
    def test_wrong_option_value_is_one_error(self, value: str) -> None:
        with pytest.raises(UsageError, match=r"train.optimizer_options.a: found .*, expected a number") as error:
            load_registry().experiment("gesture-plif", overrides=[f"train.optimizer_options={value}"])
        assert len(str(error.value).splitlines()) == 1

    def test_unknown_names_suggest_the_nearest(self) -> None:
        with pytest.raises(UsageError, match="unknown experiment") as error:
            load_registry().experiment("gestur-plif")
        assert error.value.hint == "did you mean gesture-plif?"
        with pytest.raises(UsageError, match="unknown data set"):
            load_registry().dataset("imagenet")


def own(tmp_path: Path, **files: str) -> Registry:
    for name, text in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Registry([*registry_dirs(), tmp_path])


MINE = """\
extends: _common
dataset: mnist
network: tiny
T: 4
train: {normalise: per-set}
variants:
  mine:
    title: mine
    neuron: {kind: plif, tau_0: 3.0}
"""
TINY = 'tiny:\n  structure: "FC20-SN-APk2s2"\n  dropout: 0.0\n  batch_norm: per-step\n'


OWN_DATA = """\
dataset:
  {name: hands, title: hands, layout: class-folders, kind: events, shape: [2, 8, 8], classes: [a, b], raw: recordings}
frames: {slicing: number, outside_events: refuse, invalid_events: drop}
"""


class TestOwnFolder:
    def test_own_folder_adds_experiments(self, tmp_path: Path) -> None:
        registry = own(tmp_path, experiments__mine=MINE, networks__tiny=TINY)
        assert registry.check() == []
        assert registry.experiment("mine").spec.neuron.tau_0 == 3.0
        assert "gesture-plif" in registry.experiments()

    def test_network_that_is_named_replaces_the_one_below_whole(self, tmp_path: Path) -> None:
        values = TINY.removeprefix("tiny:\n").replace("\n  ", ", ").strip()
        base = MINE.replace("network: tiny", f"network: {{name: tiny, {values}, pooling: average}}")
        other = "  other:\n    title: other\n    network: mnist\n    neuron: {kind: plif, tau_0: 2.0}\n"
        more = "  more:\n    title: more\n    network: {dropout: 0.5}\n    neuron: {kind: plif, tau_0: 2.0}\n"
        registry = own(tmp_path, experiments__mine=base + other + more)
        assert registry.check() == []
        expected = registry.experiment("mnist-plif").spec.network
        assert registry.experiment("other").spec.network == expected
        assert registry.experiment("more").spec.network.name == "tiny"
        assert registry.experiment("more").spec.network.dropout == 0.5

    def test_name_defined_twice_is_an_error(self, tmp_path: Path) -> None:
        registry = own(tmp_path, networks__x=TINY.replace("tiny", "mnist"))
        with pytest.raises(RegistryError, match="mnist is defined already"):
            registry.network("mnist")

    def test_invalid_experiment_lists_all_problems_with_their_places(self, tmp_path: Path) -> None:
        text = MINE.replace("T: 4", "T: four").replace("normalise: per-set", "normalise: yes, lrr: 1")
        registry = own(tmp_path, experiments__mine=text, networks__tiny=TINY)
        with pytest.raises(RegistryError) as error:
            registry.experiment("mine")
        lines = str(error.value).splitlines()
        assert len(lines) == 3
        assert any("mine.yaml:4:1: mine: T: found 'four' (a text)" in line for line in lines)
        assert any("mine.yaml:5:25: mine: unknown key train.lrr; did you mean lr?" in line for line in lines)

    def test_values_that_contradict_each_other_are_named_in_the_file_that_set_them_last(self, tmp_path: Path) -> None:
        registry = own(tmp_path, experiments__mine=MINE.replace("tau_0: 3.0", "tau: 3.0"), networks__tiny=TINY)
        with pytest.raises(RegistryError, match=r"experiments/mine.yaml:9:5: mine: neuron: kind plif takes tau_0"):
            registry.experiment("mine")

    def test_check_lists_the_problems_of_all_files(self, tmp_path: Path) -> None:
        registry = own(
            tmp_path, experiments__mine=MINE.replace("T: 4", "T: 0"), networks__tiny=TINY.replace("FC20", "FC30")
        )
        problems = registry.check()
        assert any("T: found 0" in problem for problem in problems)
        broken = own(tmp_path, experiments__a="x: 1\n", networks__b="tiny2: 3\n")
        assert any("unknown key x" in problem for problem in broken.check())
        assert any("tiny2: not a mapping" in problem for problem in broken.check())

    def test_check_of_an_invalid_registry_does_not_make_it_valid(self, tmp_path: Path) -> None:
        broken = own(tmp_path, experiments__a="x: 1\n")
        assert broken.check() == broken.check() != []
        with pytest.raises(RegistryError, match="unknown key x"):
            broken.experiments()

    def test_missing_value_is_an_error_without_default(self, tmp_path: Path) -> None:
        registry = own(tmp_path, experiments__mine=MINE.replace("extends: _common\n", ""), networks__tiny=TINY)
        with pytest.raises(RegistryError, match=r"neuron.v_threshold is missing; it has no default"):
            registry.experiment("mine")

    def test_unknown_network_is_named_with_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match=r"mine.yaml:3:1: unknown network tiny"):
            own(tmp_path, experiments__mine=MINE).experiment("mine")

    def test_invalid_structure_is_named_with_its_position(self, tmp_path: Path) -> None:
        registry = own(tmp_path, networks__tiny=TINY.replace("FC20", "FX20"))
        with pytest.raises(RegistryError, match=r"structure: position 1: 'FX20"):
            registry.network("tiny")

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("train.batch_size=1000000000000000000000", "should be less than or equal to 2147483647"),
            ("network.structure=c99999k999s1-SN-FC110-SN-APk10s10", "199,598,203,998 weights"),
            ("network.structure=c1k1s1-FC999999-SN-FC110-SN-APk10s10", "16,383,983,616 weights"),
            ("network.structure=c1k1s1-c99999k2s1-c99999k1s1-SN-FC110-SN-APk10s10", "9,999,800,001 weights"),
        ],
    )
    def test_size_beyond_its_bound_is_an_error(self, override: str, problem: str) -> None:
        with pytest.raises((RegistryError, UsageError), match=problem):
            load_registry().experiment("demo", overrides=[override])

    @pytest.mark.parametrize(
        "text",
        [
            "extends: _common\nrecipes: {publishd: {T: 4}}\n",
            "variants: {x: {recipes: {papper: {T: 4}}}}\n",
            "variants: {x: {extends: _common}}\n",
        ],
    )
    def test_key_that_has_no_effect_is_a_problem(self, tmp_path: Path, text: str) -> None:
        (problem, *_) = own(tmp_path, **{"experiments/mine": text}).check()
        assert "mine.yaml:" in problem
        assert "unknown recipe" in problem or "is not allowed in a variant" in problem

    def test_unknown_recipe_of_a_data_set_is_a_problem(self, tmp_path: Path) -> None:
        text = MNIST_LIKE + "recipes: {papre: {frames: {slicing: number}}}\n"
        assert any("unknown recipe papre" in line for line in own(tmp_path, **{"datasets/mine": text}).check())

    def test_check_with_an_unreadable_file_lists_the_other_problems(self, tmp_path: Path) -> None:
        files = {"networks/a": "a: [\n", "networks/b": "b:\n  structure: FC10\n  dropout: 2\n"}
        files["networks/c"] = (
            'c:\n  structure: "FC10-SN-APk1s1"\n  dropuot: 0.5\n  dropout: 0.5\n  batch_norm: per-step\n'
        )
        problems = "\n".join(own(tmp_path, **files).check())
        assert "unknown key dropuot" in problems
        assert "a.yaml" in problems
        assert "b.yaml" in problems

    def test_check_lists_a_name_defined_twice_once(self, tmp_path: Path) -> None:
        twice = 'mnist:\n  structure: "FC10-SN-APk1s1"\n  dropout: 0.5\n  batch_norm: per-step\n'
        problems = own(tmp_path, **{"networks/a": twice}).check()
        assert len([line for line in problems if "mnist is defined already" in line]) == 1

    @pytest.mark.parametrize("name", ["Hands", "2024", "hands"])
    def test_file_extends_the_shared_file_of_its_own_folder_whatever_its_name(self, tmp_path: Path, name: str) -> None:
        shared = (registry_dirs()[0] / "experiments/_common.yaml").read_text(encoding="utf-8")
        shared = shared.replace("lr: ", "lr: 0.5  # ")
        files = {"experiments/_common": shared, f"experiments/{name}": MINE, "networks/tiny": TINY}
        registry = own(tmp_path, **files)
        assert registry.check() == []
        assert registry.experiment("mine").spec.train.lr == 0.5
        assert registry.experiment("mnist-plif").spec.train.lr != 0.5
        files = {f"experiments/{name}": MINE.replace("_common", "_mine"), "experiments/_mine": shared}
        assert own(tmp_path, **files).check() == []

    @pytest.mark.parametrize("text", ["extends: _common", "variants: {x: {title: x}}"])
    def test_shared_file_with_keys_that_have_no_effect_is_a_problem(self, tmp_path: Path, text: str) -> None:
        (problem,) = own(tmp_path, **{"experiments/_mine": text}).check()
        assert problem.endswith(f"_mine.yaml:1:1: {text.partition(':')[0]} is not allowed in a file that others extend")

    @pytest.mark.parametrize(
        ("file", "problem"),
        [
            ("networks/small.yml", "networks/small.yml: not read; rename it to small.yaml"),
            ("sweeps/Mine.YAML", "sweeps/Mine.YAML: not read; rename it to Mine.yaml"),
            ("experiment/mine.yaml", "experiment: not read; rename it to experiments"),
            ("Datasets/mine.yaml", "Datasets: not read; rename it to datasets"),
        ],
    )
    def test_check_names_what_lies_in_a_folder_and_is_not_read(self, tmp_path: Path, file: str, problem: str) -> None:
        registry = own(tmp_path, **{"experiments/mine" if "experiment" not in file else "datasets/x": ""})
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(TINY)
        assert f"{tmp_path}/{problem}" in registry.check()

    def test_check_of_a_folder_without_those_of_a_registry_is_a_problem(self, tmp_path: Path) -> None:
        own(tmp_path, experiments__mine="")
        problem = f"{tmp_path}/experiments: none of the folders of a registry is in it: datasets, networks, experiments"
        (found,) = Registry([*registry_dirs(), tmp_path / "experiments"]).check()
        assert found == f"{problem}, sweeps, tables; did you mean {tmp_path}?"
        (tmp_path / "empty/results").mkdir(parents=True)
        assert Registry([*registry_dirs(), tmp_path / "empty"]).check() == []

    @pytest.mark.parametrize("in_variant", [False, True])
    def test_data_set_in_an_experiments_file_is_read_beside_the_file(self, tmp_path: Path, in_variant: bool) -> None:
        dataset = OWN_DATA if not in_variant else "dataset: mnist\n"
        text = f"extends: _common\n{dataset}network: tiny\nT: 4\ntrain: {{normalise: none}}\nvariants:\n"
        text += "  own-a:\n    title: a\n    neuron: {kind: plif, tau_0: 3.0}\n"
        text += "".join(f"    {line}\n" for line in OWN_DATA.splitlines()) if in_variant else ""
        registry = own(tmp_path, experiments__mine=text, networks__tiny=TINY.replace("FC20", "FC4"))
        assert registry.check() == []
        spec = registry.experiment("own-a").spec
        assert spec.dataset.raw == str(tmp_path / "experiments/recordings")
        assert load_framing("own-a", {"frames.slicing": "time"}, registry=registry).T == 4
        with pytest.raises(UsageError, match=r"unknown key train\.lr"):
            load_framing("own-a", {"train.lr": 1}, registry=registry)

    def test_own_data_set_needs_a_known_layout(self, tmp_path: Path) -> None:
        registry = own(tmp_path, **{"datasets/mine": MNIST_LIKE})
        assert registry.check() == []
        assert registry.dataset("mine").dataset.layout == "mnist"
        wrong = own(tmp_path, **{"datasets/mine": MNIST_LIKE.replace("layout: mnist", "layout: mnits")})
        assert any("layout: found 'mnits'" in line for line in wrong.check())


MNIST_LIKE = """name: mine
title: mine
layout: mnist
kind: images
shape: [1, 28, 28]
classes: [a, b]
samples: {train: 10, test: 10}
mean: [0.5]
std: [0.5]
"""


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([3, 128, 128], "found 3 polarities, expected 2"),
        ([1, 128, 128], "found 1 polarities, expected 2"),
        ([2, 0, 128], r"found \[2, 0, 128\], expected numbers from 1 to 32768"),
        ([2, 128, 9_999_999], r"expected numbers from 1 to 32768"),
    ],
)
def test_shape_that_no_sensor_has_is_refused(shape: list[int], message: str) -> None:
    values = {**load_registry().dataset("gesture", "paper").dataset.model_dump(), "shape": shape}
    with pytest.raises(ValidationError, match=message):
        DatasetSpec(**values)


@pytest.mark.parametrize(
    ("dataset", "override", "message"),
    [
        ("nmnist", "frames.axes=authors", "has no such choice"),
        ("nmnist", "frames.invalid_events=keep", "has no such choice"),
        ("gesture", "frames.training_set=null", "needs this choice"),
        ("mnist", "frames.slicing=time", "not framed"),
        ("gesture", "frames.slicing=thyme", "slicing"),
    ],
)
def test_framing_choice_of_another_data_set_is_refused(dataset: str, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_registry().dataset(dataset, "paper", [override])


@pytest.mark.parametrize(
    ("experiment", "override", "message"),
    [
        ("gesture-plif", "train.normalise=per-set", "train.normalise: DVS128 Gesture is an event data set"),
        ("gesture-plif", "train.augmentation=flip-crop", "train.augmentation: DVS128 Gesture is an event data set"),
        ("mnist-plif", "train.lr=1e999", "train.lr: found inf, should be a finite number"),
        ("mnist-plif", "neuron.v_threshold=1e999", "neuron.v_threshold: found inf, should be a finite number"),
        ("mnist-plif", "dataset.name=cifar10", "unknown key dataset.name"),
        ("mnist-plif", "network.name=x", "unknown key network.name"),
    ],
)
def test_impossible_override_is_a_usage_error(experiment: str, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_registry().experiment(experiment, overrides=[override])


@pytest.mark.parametrize(
    "name", ["a/b", "../up", "a\\nb", "x\\0y", "l" * 81, " a", "a b", "<b>", "\\e[31m", "-a", ".", "", "ÿ" * 41]
)
@pytest.mark.parametrize("kind", ["datasets", "networks", "experiments"])
def test_name_that_cannot_be_part_of_a_file_name_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    """Names become parts of file names, and are shown."""
    text = {
        "datasets": f'name: "{name}"\n',
        "networks": f'"{name}": {{structure: "APk10s10", dropout: 0.5, batch_norm: per-step}}\n',
        "experiments": f'variants: {{"{name}": {{title: x}}}}\n',
    }[kind]
    (tmp_path / kind).mkdir()
    (tmp_path / kind / "f.yaml").write_text(text, encoding="utf-8")
    (problem, *_) = Registry([tmp_path]).check()
    assert "cannot be a name: letters, digits and" in problem
    assert problem.isprintable()


def test_name_with_letters_of_any_script_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/f.yaml").write_text("variants: {опыт-1.b_c+d: {title: x}}\n", encoding="utf-8")
    assert "cannot be a name" not in "".join(Registry([tmp_path]).check())
    assert Registry([tmp_path]).experiments() == ["опыт-1.b_c+d"]
