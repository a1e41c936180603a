"""Documents with checksums: those of today and of 0.1.0 are read, damage and older kinds are told apart."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import made_record, make_run

from plifctl.errors import RunError
from plifctl.paths import registry_dirs
from plifctl.runs.documents import add_checksum, load_document, verify_content
from plifctl.runs.records import read_record, record_text

CONTENT = {"experiment": "demo", "accuracy": 0.5, "tau": [2.0]}


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_load_document_when_written_today_gives_its_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    dump = json.dumps if suffix == ".json" else yaml.safe_dump
    path.write_text(dump(add_checksum(CONTENT)))
    assert load_document(path, ("experiment",)) == CONTENT


def test_load_document_of_0_1_0_gives_its_content_and_leaves_the_file(tmp_path: Path) -> None:
    tree = add_checksum(CONTENT)
    tree["seal"] = tree.pop("checksum")  # its name then
    path = tmp_path / "x.json"
    path.write_text(json.dumps(tree))
    before = path.read_bytes()
    assert load_document(path, ("experiment",)) == CONTENT
    assert path.read_bytes() == before


def test_read_record_of_the_registry_reads_those_of_0_1_0() -> None:
    paths = [path for path in (registry_dirs()[0] / "results").glob("*.json") if '"seal"' in path.read_text()]
    assert paths
    for path in paths:
        assert read_record(path).run == path.stem


def test_records_written_before_there_were_validation_curves_and_cpu_seconds_are_written_as_they_are() -> None:
    paths = [path for path in (registry_dirs()[0] / "results").glob("*.json") if '"checksum"' in path.read_text()]
    earlier = [path for path in paths if '"cpu_seconds"' not in path.read_text()]
    assert earlier
    for path in earlier:
        assert record_text(read_record(path)) == path.read_text(encoding="utf-8")


def test_record_without_validation_curve_and_cpu_seconds_is_written_as_before(tmp_path: Path) -> None:
    old = made_record("mnist-plif", (0.5, 0.75))
    text = record_text(old)
    assert "validation_curve" not in text
    assert "cpu_seconds" not in text
    (tmp_path / "old.json").write_text(text)
    assert read_record(tmp_path / "old.json") == old
    new = old.model_copy(update={"validation_curve": (0.25, 0.5), "cpu_seconds": (None, 2.5)})
    (tmp_path / "new.json").write_text(record_text(new))
    assert read_record(tmp_path / "new.json") == new


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_seconds": [1e308, 1e308]},  # their sum is no number
        {"cpu_seconds": [-1.0, 1.0]},
        {"epochs": 10**400},
        {"best_epoch": -1},
        {"data": {"verified": True, "complete": True, "train": 8, "validation": 0, "test": 10**400, "cache": "c"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_read_record_with_impossible_values_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    tree = made_record("mnist-plif", (0.5, 0.75)).model_dump(mode="json") | changes
    (tmp_path / "x.json").write_text(json.dumps(add_checksum(tree)))
    with pytest.raises(RunError, match="not a result record"):
        read_record(tmp_path / "x.json")


@pytest.mark.parametrize("change", [("accuracy", 0.6), ("tau", []), ("more", 1), ("checksum", "0" * 16)])
def test_load_document_when_modified_is_damaged(tmp_path: Path, change: tuple[str, object]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(add_checksum(CONTENT) | dict([change])))
    with pytest.raises(RunError, match=r"x\.json: damaged: checksum mismatch") as error:
        load_document(path, ("experiment",), hint="write it again")
    assert error.value.hint == "write it again"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"accuracy": 0.5}', "[" * 100_000])
def test_load_document_without_its_keys_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"x\.json: damaged: "):
        load_document(path, ("experiment", "accuracy"))


def test_load_document_when_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"x\.json: missing"):
        load_document(tmp_path / "x.json", ("experiment",))


def test_load_document_without_a_checksum_is_called_older(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(CONTENT))
    with pytest.raises(RunError, match=r"x\.json: made by an older plifctl: it has no checksum") as error:
        load_document(path, ("experiment", "accuracy"))
    assert "0.1.0" in error.value.hint


def test_run_made_by_an_older_plifctl_is_called_that_in_all_its_documents(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for name in ("run.json", "env.json", "split.json", "result.json"):
        tree = verify_content(json.loads((run.path / name).read_text()))
        (run.path / name).write_text(json.dumps(tree))
    config = verify_content(yaml.safe_load((run.path / "config.yaml").read_text()))
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    (run.path / "metrics.sha256").unlink()  # its rows had no checksums, either
    for read in (run.config, run.info, run.environment, run.split, run.record, run.metrics):
        with pytest.raises(RunError, match="made by an older plifctl"):
            read()
