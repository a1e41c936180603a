"""Documents that follow from the code are what the code says."""

import re
import runpy
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from plifctl.config.registry import Registry, load_registry
from plifctl.paths import registry_dirs
from plifctl.report import build_table, render
from plifctl.runs import load_records
from plifctl.training.optimizer import Optimizer

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_up_to_date() -> None:
    reference = runpy.run_path(str(ROOT / "docs/make_reference.py"))["reference"]
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == reference(), "make reference writes it"


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/concepts.md", "docs/results.md", "registry/README.md"],
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize(
    ("page", "name"), [("README.md", "S2"), ("docs/results.md", "early"), ("docs/results.md", "4")]
)
def test_tables_are_those_that_report_prints(page: str, name: str, tmp_path: Path) -> None:
    registry = load_registry()
    records = load_records(tmp_path, registry.folders)
    table = build_table(name, records, registry)
    command = f"plifctl report --table {name} --format markdown"
    assert render([table], "markdown") in (ROOT / page).read_text(encoding="utf-8"), f"{command} prints another"


@pytest.mark.parametrize(
    ("page", "expected"),
    [("docs/guide.md", {"nmnist-sgd", "mine"}), ("registry/README.md", {"fashion-small"})],
)
def test_examples_of_the_registry_are_valid_and_can_be_trained(page: str, expected: set[str], tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, block in re.findall(r"```yaml\n# mine/(\S+)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    registry = Registry([*registry_dirs(), tmp_path])
    assert registry.check() == []
    examples = set(registry.experiments()) - set(load_registry().experiments())
    assert examples == expected
    for name in examples:
        Optimizer(torch.nn.Linear(1, 1), registry.experiment(name).spec.train, torch.device("cpu"))


def test_examples_of_settings_are_valid() -> None:
    text = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("plifctl train ")]
    seen = 0
    for _, _, name, *options in commands:
        overrides = [value for key, value in pairwise(options) if key == "--set"]
        if overrides:
            spec = load_registry().experiment(name, overrides=overrides).spec
            Optimizer(torch.nn.Linear(1, 1), spec.train, torch.device("cpu"))
            seen += 1
    assert seen >= 4
