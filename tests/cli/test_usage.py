"""What a user types: options of all commands, filters without a match, devices that are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import make_run

from plifctl.errors import UsageError
from plifctl.pipeline.device import find_device

Plifctl = Callable[..., Any]


@pytest.mark.parametrize("words", [("runs", "ls"), ("runs",), ("ls",), ("cache", "ls"), ("check",), ("show", "demo")])
@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_after_any_command_is_as_before_it(plifctl: Plifctl, words: tuple[str, ...], option: str) -> None:
    before, after = plifctl(option, *words), plifctl(*words, option)
    assert (after.code, after.out, after.err) == (before.code, before.out, before.err)
    assert after.err == ""


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_after_the_command_shows_where_an_error_was_raised(plifctl: Plifctl, option: str) -> None:
    assert "Traceback" in plifctl("train", "no-such-experiment", option).err
    assert "Traceback" not in plifctl("train", "no-such-experiment").err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            "show n-caltech101 --params",
            "hint: no experiment has it; write one: a YAML file with like: NAME, dataset: n-c",
        ),
        ("check reg", "hint: to use it as a registry folder: export PLIFCTL_REGISTRY=reg"),
        ("check recordings", "hint: if it contains recordings: plifctl data init recordings"),
        ("prepare nmnist --set T=10", "hint: --T 10"),
        ("prepare nmnist --T 10 --set train.lr=1", "hint: known: frames.slicing, frames.duration_us"),
        ("data inspect recordings --set tau=3", "hint: known: time_unit, columns"),
    ],
)
def test_hint_is_what_can_be_typed(plifctl: Plifctl, places: Path, words: str, hint: str) -> None:
    (places / "reg/experiments").mkdir(parents=True)
    (places / "recordings").mkdir()
    result = plifctl(*words.split())
    assert (result.code, hint in result.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "code", "lines"),
    [
        ("experiments: [demo]\nset: {train.lr: 0.1}\nseeds: [1, 2]", 0, ["sw.yaml: sweep sw, 2 runs: valid"]),
        (
            "experiments: [demo]\nset: {train.lr: fast}",
            3,
            ["sw.yaml: --set train.lr=fast: demo: train.lr: found 'fast'"],
        ),
        ("experiments: [demo]\nset: {neuron.tau0: 2}", 3, ["sw.yaml:2:7: sw: set: unknown key neuron.tau0"]),
        ("experiments: [dmo]", 3, ["sw.yaml: unknown experiment 'dmo'; did you mean demo?"]),
    ],
)
def test_check_of_a_sweep_file_checks_its_runs(
    plifctl: Plifctl, places: Path, text: str, code: int, lines: list[str]
) -> None:
    (places / "sw.yaml").write_text(text)
    result = plifctl("check", "sw.yaml")
    assert result.code == code
    for line, found in zip(lines, result.out.splitlines(), strict=True):
        assert found.startswith(line)


def test_options_after_two_dashes_are_arguments(plifctl: Plifctl) -> None:
    result = plifctl("show", "--", "-q")
    assert result.code == 2
    assert "'-q'" in result.err


@pytest.mark.parametrize("option", [("--status", "killed"), ("--experiment", "gesture-plif")])
def test_runs_ls_without_a_match_says_so(plifctl: Plifctl, places: Path, option: tuple[str, str]) -> None:
    make_run(places / "runs")
    result = plifctl("runs", "ls", *option)
    assert (result.code, result.out) == (0, "")
    assert f"no run matches {' '.join(option)}; 1 run in {places / 'runs'}: plifctl runs ls" in result.err


def test_runs_ls_of_an_empty_folder_says_how_to_make_one(plifctl: Plifctl) -> None:
    assert "; plifctl train demo makes one" in plifctl("runs", "ls", "--status", "finished").err


@pytest.mark.parametrize("device", ["mps", "cuda:99", "meta", "xla", "nonsense"])
def test_device_that_is_not_there_is_one_short_line(plifctl: Plifctl, device: str) -> None:
    result = plifctl("eval", "last", "--device", device)
    assert result.code == 2
    error, hint = result.err.splitlines()
    assert error.startswith(f"error: --device {device}: ")
    assert len(error) < 250
    assert hint == "hint: --device cpu works everywhere"


def test_device_of_the_environment_is_used_unless_an_option_names_one(
    plifctl: Plifctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLIFCTL_DEVICE", "cuda:99")
    assert plifctl("eval", "last").err.startswith("error: --device cuda:99: ")
    assert plifctl("eval", "last", "--device", "cpu").err.startswith("error: no run 'last'")
    with pytest.raises(UsageError, match="cuda:99"):  # as notebooks and sweeps call it
        find_device(None)
    assert find_device("cpu").type == "cpu"
