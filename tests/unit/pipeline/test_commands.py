"""Commands in hints: what they name, so that typing them does what the message says."""

import shlex
from pathlib import Path

import pytest

from plifctl.config.lookup import load_experiment
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.new import write_experiment

pytestmark = pytest.mark.usefixtures("places")


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
