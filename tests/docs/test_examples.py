"""Every example of the documentation works: commands are parsed, YAML is validated, Python is executed.

A block that cannot be run says why in a comment before it, ``<!-- not run: REASON -->``; NOT_RUN lists them all.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from factories import encode_aedat4, random_events
from pages import PAGES, ROOT, Block, blocks_of, page_text

import plifctl
from plifctl.cli.app import app
from plifctl.config.choices import FIGURES, OTHER_FIGURES, OTHER_TABLES, TABLES
from plifctl.config.dataset import ReadingSpec
from plifctl.config.lookup import load_experiment, load_framing, load_registry
from plifctl.config.registry import Registry
from plifctl.config.sweep import SweepSpec, is_sweep_file, read_sweep, split_overrides
from plifctl.config.training import TrainSpec
from plifctl.data.synthetic import write_synthetic
from plifctl.pipeline.new import write_experiment
from plifctl.sweep.expansion import expand
from plifctl.sweep.registered import named_sweep
from plifctl.training.optimizer import Optimizer

NOT_RUN = {
    ("docs/guide.md", "needs several GPUs or a cluster"),
    ("docs/guide.md", "needs a SLURM cluster"),
}

SHELL = ("", "bash", "sh", "shell", "console")
LANGUAGES = (*SHELL, "python", "yaml", "text", "bibtex", "mermaid")
OTHER_PROGRAMS = ("apt-get", "cp", "export", "find", "git", "make", "pip", "python", "ray", "ssh", "tensorboard")
"""Programs that examples may call beside plifctl; what they do is not checked."""

ACTING = {"-h", "--help", "--version", "--install-completion", "--show-completion"}
"""Options that act while they are parsed, so that commands with one are not."""

COMMAND = typer.main.get_command(app)


def commands_of(block: Block) -> Iterator[list[str]]:
    """Yields the words of each command in a shell block, without assignments and what starts it (srun, torchrun)."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if word not in (";", "&&", "||", "|", ">"):
                command.append(word)
            elif command:
                yield _without_launcher(command)
                command = []


def _without_launcher(words: list[str]) -> list[str]:
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[0] in ("srun", "torchrun"):
        words = words[words.index("plifctl") :]
    return words


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Parses a command as plifctl does, without running it.

    Returns:
        The name of the subcommand, and the values of its arguments and options.
    """
    if ACTING.intersection(words):
        return "", {}
    context = COMMAND.make_context("plifctl", words[1:])
    while hasattr(context.command, "commands"):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return context.command_path.removeprefix("plifctl "), context.params


def build_optimizer(train: TrainSpec) -> None:
    """Checks the options of the optimiser and of the schedule, their values too."""
    Optimizer(torch.nn.Linear(1, 1), train, torch.device("cpu"))


def write_yaml_blocks(page: str, folder: Path) -> None:
    """Writes the YAML blocks of a page that begin with ``# path`` to that path in a folder."""
    for block in blocks_of(page, "yaml"):
        if (name := re.match(r"# (\S+\.yaml)\n", block.text)) is not None:
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(block.text, encoding="utf-8")


@pytest.fixture
def page_folder(page: str, places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the page tells to write; ``mine/`` is the user's registry."""
    write_yaml_blocks(page, places)
    if (places / "mine").is_dir():
        monkeypatch.setenv("PLIFCTL_REGISTRY", "mine")
    return places


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what examples read: a cache, a run of one epoch, its exports, a recording."""
    folder = tmp_path_factory.mktemp("trained")
    cache_dir, runs_dir = folder / "data_cache", folder / "runs"
    write_synthetic(folder / "raw", train_users=1, test_users=1)
    plifctl.prepare("synthetic-gesture", T=8, raw=folder / "raw", cache_dir=cache_dir)
    run = plifctl.train("demo", epochs=1, cache_dir=cache_dir, runs_dir=runs_dir)
    for name in ("model.pt", "model.npz", "model.onnx", "model.nir"):
        plifctl.export(run, folder / name)
    events = random_events(np.random.default_rng(0), 2000)
    (folder / "recording.aedat4").write_bytes(encode_aedat4((0, "EVTS", events)))
    return folder


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        ("plifctl train demo --epoch 2", "No such option"),
        ("plifctl train demo demo", "unexpected extra argument"),
        ("plifctl report --context", "--context was replaced"),
        ("plifctl train dmeo", "unknown experiment"),
        ("plifctl train demo --set lr=0.1", "unknown key lr"),
        ("plifctl report --table 6", "unknown table"),
        ("plfctl ls", "unknown program"),
    ],
)
def test_command_with_an_error_is_found(example: str, problem: str) -> None:
    block = Block("page.md", 1, "bash", example)
    with pytest.raises(Exception, match=problem):
        check_commands(block)


def test_blocks_that_are_not_run_are_those_known() -> None:
    assert {(page, block.not_run) for page in PAGES for block in blocks_of(page) if block.not_run} == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_have_a_language_that_is_checked(page: str) -> None:
    assert {block.language for block in blocks_of(page)} <= set(LANGUAGES)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_valid(page: str, page_folder: Path) -> None:
    for block in blocks_of(page, *SHELL):
        check_commands(block)


def check_commands(block: Block) -> None:
    """Checks each command of a shell block."""
    for words in commands_of(block):
        if words[0] == "plifctl":
            _check_command(words)
        elif words[0] == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:]), words
        else:
            assert Path(words[0]).name in OTHER_PROGRAMS, f"{block.place}: unknown program: {words}"


def _check_command(words: list[str]) -> None:
    """Parses a command; then looks up the names in it, and builds the optimiser of a training."""
    verb, given = parse(words)
    registry = load_registry()
    changes = {"recipe": given.get("recipe"), "overrides": given.get("overrides") or ()}
    if verb in ("train", "validate") and given["experiment"] is not None:
        experiment = load_experiment(given["experiment"], **changes)
        build_optimizer(experiment.spec.train)
    elif verb in ("prepare", "show-sample"):
        load_framing(given["dataset"], **changes)
    elif verb == "new" and given["like"] != "last" and not given["file"].exists():
        write_experiment(given["file"], given["like"], tuple(changes["overrides"]))
    elif verb == "data init":  # recordings that the reader has
        file = Path(f"{given['name'] or given['folder'].name}.yaml")
        if not file.exists():
            write_experiment(file, "demo")
    elif verb == "show" and given["kind"] is None and given["name"] not in registry.datasets():
        load_experiment(given["name"], **changes)
    elif verb == "sweep run":
        files = [Path(name) for name in given["experiments"] or () if name.endswith(".yaml")]
        one, several = split_overrides(given["overrides"] or ())
        names = {"experiments": given["experiments"] or (), "tables": given["table"] or ()}
        sweeps = [read_sweep(file) for file in files if is_sweep_file(file)]
        sweeps += [found for name in names["experiments"] if (found := named_sweep(name, registry)) is not None]
        assert expand(sweeps[0] if sweeps else SweepSpec(**names, set=one, grid=several))
    elif verb == "report":
        assert {*(given["table"] or ())} <= {*TABLES, *OTHER_TABLES, "all"}, "unknown table"
        assert {*(given["figure"] or ())} <= {*FIGURES, *OTHER_FIGURES, "all"}, "unknown figure"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/reference.md"])
def test_commands_within_sentences_of_a_page_are_parsed(page: str) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", page_text(page), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`(plifctl [^`…]+)`", prose):
        try:
            parse(shlex.split(code))
        except Exception as error:
            if "Missing parameter" not in str(error):  # a sentence may name a command without its arguments
                raise


def help_examples(command: Any, path: str = "plifctl") -> Iterator[tuple[str, str]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from help_examples(inner, f"{path} {name}")
    for example in re.findall(r"Example: (.+?)(?:\n\n|\Z)", command.help or "", re.DOTALL):
        yield path, " ".join(example.split())


def test_examples_in_help_texts_are_valid(places: Path) -> None:
    found = list(help_examples(COMMAND))
    assert len(found) > 15
    for path, example in found:
        check_commands(Block(path, 0, "bash", example))


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_of(page, "yaml"))])
def test_yaml_of_a_page_is_valid(page: str, page_folder: Path) -> None:
    registry = load_registry()
    assert registry.check() == []
    own = set(registry.experiments()) - set(Registry([ROOT / "registry"]).experiments())
    sources = [*own, *page_folder.glob("*.yaml")]
    for block in blocks_of(page, "yaml"):
        if not block.text.startswith("# "):  # a part of a data set or an experiment
            part = page_folder / f"line-{block.line}.yaml"
            part.write_text(f"like: gesture-plif\n{block.text}", encoding="utf-8")
            sources.append(part)
        elif block.text.startswith("# in a data set\n"):
            ReadingSpec.model_validate(yaml.safe_load(block.text))
    for source in sources:
        if isinstance(source, Path) and is_sweep_file(source):
            assert expand(read_sweep(source))
        elif isinstance(source, Path) and "layout" in yaml.safe_load(source.read_text(encoding="utf-8")):
            load_framing(source)
        else:
            build_optimizer(load_experiment(source).spec.train)


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_of(page, "python"))])
def test_python_of_a_page_runs(page: str, places: Path, trained: Path) -> None:
    shutil.copytree(trained, places, dirs_exist_ok=True)
    names: dict[str, Any] = {}
    for block in blocks_of(page, "python"):
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec")
        if not block.not_run:
            exec(code, names)
