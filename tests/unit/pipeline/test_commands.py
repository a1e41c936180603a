"""Commands in hints: what they name, so that typing them does what the message says."""

import json
import shlex
from pathlib import Path

import pytest

from plifctl.config.lookup import load_experiment, load_framing, load_registry
from plifctl.errors import UsageError
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.new import write_experiment

pytestmark = pytest.mark.usefixtures("places")


def test_prepare_command_names_an_experiment_of_the_registry_with_a_data_set_of_its_own(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_experiment("gesture-plif").spec.model_dump(mode="json", exclude={"name", "recipe"}, exclude_none=True)
    spec["dataset"] |= {"name": "claps", "classes": [f"clap {k}" for k in range(11)]}
    (places / "own/experiments").mkdir(parents=True)
    tree = {key: spec.pop(key) for key in ("dataset", "network")} | {"variants": {"own-a": spec}}
    (places / "own/experiments/mine.yaml").write_text(json.dumps(tree))
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
    registry = load_registry()
    found = load_experiment("own-a", ["frames.slicing=time"]).spec
    command = prepare_command_of(found)
    assert command == "plifctl prepare own-a --T 20 --set frames.slicing=time"
    assert load_framing("own-a", ["frames.slicing=time"], registry=registry) == found.framing


def test_name_of_an_experiment_gives_its_data_set_and_its_time_steps() -> None:
    assert (
        load_framing("gesture-plif", recipe="authors") == load_experiment("gesture-plif", recipe="authors").spec.framing
    )
    Path("demo.yaml").write_text("like: demo\nname: mine\n")
    with pytest.raises(UsageError, match=r"a name in the registry and the file demo\.yaml"):
        load_framing("demo")


def test_prepare_command_names_the_file_only_if_it_changed_the_data_set_of_the_registry() -> None:
    file = Path("mine.yaml")
    write_experiment(file, "gesture-plif", ("train.lr=0.5",))
    assert prepare_command_of(load_experiment(file).spec, file=file) == "plifctl prepare gesture --T 20"
    text = file.read_text(encoding="utf-8")
    first = load_experiment(file).spec.dataset.classes[0]
    assert first in text
    file.write_text(text.replace(first, "klatschen", 1), encoding="utf-8")
    spec = load_experiment(file).spec
    assert spec.dataset.classes[0] == "klatschen"
    for named in (file, None):
        words = shlex.split(prepare_command_of(spec, file=named))
        assert words[2] == "mine.yaml"
