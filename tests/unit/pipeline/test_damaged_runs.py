"""A run with a damaged file is one line in a list, whatever is wrong with it; the other runs are shown as before."""

import os
from pathlib import Path

import pytest
from factories import make_run

from plifctl.errors import RunError
from plifctl.pipeline.page import PageSource
from plifctl.pipeline.run_files import find_removable, verify_runs
from plifctl.pipeline.runs import list_entries
from plifctl.runs import curve_of_run

pytestmark = pytest.mark.usefixtures("places")

NAMES = (
    "config.yaml",
    "run.json",
    "env.json",
    "split.json",
    "metrics.jsonl",
    "metrics.sha256",
    "result.json",
    "manifest.json",
    "progress.json",
)
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
"""441 bytes that a YAML reader with aliases makes gigabytes of."""

CONTENTS = {
    "nested": "[" * 100_000,
    "nested-mappings": '{"a":' * 100_000,
    "aliases": ALIASES,
    "binary": "\0\x01" * 500,
    "empty": "",
    "null": "null\n",
    "other-types": '{"epoch": "x", "part": 3, "step": null, "checksum": []}\n',
}


def damage(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(CONTENTS[kind])


@pytest.mark.parametrize("kind", [*CONTENTS, "pipe", "folder"])
@pytest.mark.slow
def test_list_entries_and_page_with_a_damaged_run_show_the_others(tmp_path: Path, kind: str) -> None:
    good = make_run(tmp_path / "runs")
    for name in NAMES:
        hurt = make_run(tmp_path / "runs")
        damage(hurt.path / name, kind)
        entries = {entry.run: entry.status for entry in list_entries()}
        read = name not in ("run.json", "env.json", "split.json", "manifest.json", "progress.json")
        finished = name != "result.json" or kind not in ("pipe", "folder")
        expected = ("damaged" if read else "finished") if finished else "killed"
        assert (entries[good.name], entries[hurt.name]) == ("finished", expected), name
        pages = {run["name"]: run["status"] for run in PageSource().data()["runs"]}
        assert pages[good.name] == "finished"
        assert hurt.progress() is None
        problems = dict(verify_runs())
        assert not problems[good.name]
        assert not finished or name == "progress.json" or problems.get(hurt.name), name
        hurt.path.rename(tmp_path / name)


def test_config_with_aliases_is_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    (run.path / "config.yaml").write_text(ALIASES)
    with pytest.raises(RunError, match=r"damaged: config\.yaml:1:4: anchors and aliases are not supported"):
        curve_of_run(run)


def test_list_entries_with_a_damaged_imported_run_has_a_line_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs/imported-a"
    folder.mkdir(parents=True)
    (folder / "imported.json").write_text('{"schema_version": 1, "name": ' + "[" * 100_000)
    assert [(entry.run, entry.status) for entry in list_entries()] == [("imported-a", "damaged")]
    assert list(find_removable(["imported-a"])) == [folder]  # it can still be removed
