"""plifctl cache: intact, damaged, unfinished and unrelated files listed, verified, compared and removed."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from factories import write_gestures
from filelock import FileLock

from plifctl.cache import CacheKey
from plifctl.cache.locks import BuildPaths

Plifctl = Callable[..., Any]


def prepare_twice(plifctl: Plifctl, folder: Path) -> None:
    write_gestures(folder / "raw")
    for slicing in ("number", "time"):
        changes = ("--set", f"frames.slicing={slicing}")
        assert plifctl("prepare", "synthetic-gesture", "--T", 3, "--raw", "raw", *changes).code == 0


@pytest.fixture
def two(plifctl: Plifctl, made_once: Callable[..., None]) -> Plifctl:
    """The command line with two caches of the same recordings, sliced by number and by time."""
    made_once(prepare_twice)
    return plifctl


def files(places: Path) -> list[str]:
    return sorted(path.name for path in (places / "data_cache/synthetic-gesture").iterdir())


def test_ls_shows_state_shape_and_size(two: Plifctl, places: Path) -> None:
    entries = json.loads(two("cache", "ls", "--json").out)
    assert [entry["state"] for entry in entries] == ["ok", "ok"]
    assert [entry["shape"] for entry in entries] == [[33, 3, 2, 128, 128]] * 2
    assert all(Path(entry["path"]).stat().st_size == entry["bytes"] for entry in entries)
    result = two("cache", "ls").out
    assert result.count("33") >= 2
    assert "INCOMPLETE" in result
    assert "3×2×128×128" in result


def test_ls_and_verify_without_caches_succeed(plifctl: Plifctl) -> None:
    assert json.loads(plifctl("cache", "ls", "--json").out) == []
    assert "plifctl prepare builds one" in plifctl("cache", "ls").err
    assert plifctl("cache", "verify").code == 0


def test_show_has_key_and_statistics(two: Plifctl) -> None:
    tree = json.loads(two("cache", "show", "T3-time", "--json").out)
    assert tree["key"]["frames"]["slicing"] == "time"
    assert tree["statistics"]["events"]["framed"] == 33 * 400
    result = two("cache", "show", "T3-time")
    assert "events per sample" in result.out
    assert "frames.slicing" in result.out


def test_ambiguous_or_unknown_name_is_a_usage_error(two: Plifctl) -> None:
    result = two("cache", "show", "T3")
    assert result.code == 2
    assert "is ambiguous: 2 caches" in result.err
    assert two("cache", "rm", "").code == 2
    assert two("cache", "rm", "3-time").code == 2  # not a beginning of a name
    result = two("cache", "show", "T4-number")
    assert result.code == 2
    assert "no cache T4-number" in result.err


def test_show_out_writes_a_png(two: Plifctl, places: Path) -> None:
    assert two("cache", "show", "T3-time", "--out", "h.png").code == 0
    assert (places / "h.png").read_bytes().startswith(b"\x89PNG")
    assert two("cache", "show", "T3-time", "--out", "h.pdf").code == 2


@pytest.mark.slow
def test_verify_flipped_bit_anywhere_is_found(two: Plifctl, places: Path) -> None:
    assert two("cache", "verify").code == 0
    (path,) = (places / "data_cache/synthetic-gesture").glob("T3-time-*.h5")
    original = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(original), 40):
        path.write_bytes(original[:place] + bytes([original[place] ^ 0x10]) + original[place + 1 :])
        result = two("cache", "verify", "T3-time", "--json")
        assert result.code == 1, f"byte {place}"
        ((name, problems),) = json.loads(result.out).items()
        assert "T3-time" in name
        assert problems
    path.write_bytes(original)
    assert two("cache", "verify", "T3-time").code == 0


def test_verify_damaged_sample_is_named(two: Plifctl, places: Path) -> None:
    (path,) = (places / "data_cache/synthetic-gesture").glob("T3-time-*.h5")
    with h5py.File(path) as file:
        info = file["frames"].id.get_chunk_info(7)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + 20] ^= 1
    path.write_bytes(data)
    result = two("cache", "verify", "T3-time")
    assert result.code == 1
    assert "sample user01_lab/07 fails its checksum" in result.out
    assert "T3-number" not in result.out


def test_verify_renamed_cache_is_found(two: Plifctl, places: Path) -> None:
    folder = places / "data_cache/synthetic-gesture"
    (path,) = folder.glob("T3-time-*.h5")
    renamed = path.rename(path.with_name("T3-time-0123456789ab.h5"))
    path.with_name(f"{path.name}.sha256").rename(folder / f"{renamed.name}.sha256")
    assert "renamed: by its key its name is T3-time-" in two("cache", "verify", "T3-time").out
    (folder / f"{renamed.name}.sha256").unlink()
    assert "T3-time-0123456789ab.h5.sha256 is missing" in two("cache", "verify", "T3-time").err


def test_verify_with_changed_raw_data_is_found(two: Plifctl, gestures: Path) -> None:
    assert two("cache", "verify", "T3-time", "--raw", gestures).code == 0
    table = gestures / "user01_lab_labels.csv"
    before = table.stat()
    table.write_text(table.read_text().replace("60000", "59999"))
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = two("cache", "verify", "T3-time", "--raw", gestures)
    assert result.code == 1
    assert "OTHER RECORDINGS\n  " in result.out
    assert "gives another cache: raw is" in result.out
    assert "--force" not in result.err


def test_verify_with_the_same_raw_data_but_a_newer_decoder_is_outdated(
    two: Plifctl, gestures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.cache.key.raised_versions", lambda formats: {"aedat3": 99})
    result = two("cache", "verify", "T3-time", "--raw", gestures)
    assert (result.code, "OUTDATED\n  " in result.out, "OTHER RECORDINGS" in result.out) == (1, True, False)


def test_diff_shows_fields_and_samples(two: Plifctl) -> None:
    result = two("cache", "diff", "T3-number", "T3-time")
    assert result.code == 1
    assert "frames.slicing: number | time" in result.out
    sample = r"user\d\d_lab/\d\d"
    assert re.search(rf"^33 of 33 common samples differ: ({sample}, ){{4}}{sample} and 28 more$", result.out, re.M)
    result = two("cache", "diff", "T3-time", "T3-time", "--json")
    assert result.code == 0
    assert json.loads(result.out) == {
        "key": {}, "only_in_first": [], "only_in_second": [], "different": [], "same_content": True
    }  # fmt: skip


def test_diff_of_a_subset_names_the_missing_samples(two: Plifctl, gestures: Path, places: Path) -> None:
    (gestures / "trials_to_train.txt").write_text("user01_lab.aedat\n")
    assert two("prepare", "synthetic-gesture", "--T", 3, "--raw", gestures).code == 0
    names = [entry["name"] for entry in json.loads(two("cache", "ls", "--json").out) if "number" in entry["name"]]
    found = json.loads(two("cache", "diff", *sorted(names), "--json").out)
    assert sorted([found["only_in_first"], found["only_in_second"]])[1] == [f"user02_lab/{k:02d}" for k in range(11)]
    assert found["different"] == []
    assert list(found["key"]) == ["raw"]


def test_rm_removes_the_named_cache_only(two: Plifctl, places: Path) -> None:
    result = two("cache", "rm", "T3-time", "--dry-run")
    assert result.code == 0
    assert "would be removed" in result.out
    assert len([name for name in files(places) if "time" in name and "lock" not in name]) == 2
    assert two("cache", "rm", "T3-time").code == 0
    assert [name for name in files(places) if "time" in name and not name.endswith(".lock")] == []
    assert [name for name in files(places) if "T3-number" in name and name.endswith("h5")] != []


def test_rm_of_a_cache_being_built_is_refused(two: Plifctl, places: Path) -> None:
    entry = json.loads(two("cache", "ls", "--json").out)[0]
    with FileLock(BuildPaths.of(places / "data_cache", CacheKey(entry["key"]).raw_independent).lock):
        result = two("cache", "rm", entry["name"])
    assert result.code == 5
    assert "another process is building it" in result.err
    assert Path(entry["path"]).exists()


def test_prune_removes_unfinished_unreadable_and_old_ones(two: Plifctl, places: Path) -> None:
    folder = places / "data_cache/synthetic-gesture"
    (folder / "thesis.h5").write_bytes(b"unrelated")
    (folder / "T9-time-0123456789ab.h5").write_bytes(b"named like a cache")
    (folder / ".T9-number-0123456789ab-uint8.journal").write_bytes(b"half")
    (folder / "T4-10000us-overlap2000us-0123456789ab.h5").write_bytes(b"named like another cache")
    states = {entry["name"]: entry["state"] for entry in json.loads(two("cache", "ls", "--json").out)}
    assert sorted(states.values()) == ["ok", "ok", "unfinished", "unreadable", "unreadable", "unrelated"]
    result = two("cache", "prune", "--json")
    assert result.code == 0
    assert {entry["why"] for entry in json.loads(result.out)["removed"]} == {"unfinished", "unreadable"}
    assert len(list(folder.glob("T3-*.h5"))) == 2
    assert [path.name for path in folder.glob("*.h5") if not path.name.startswith("T3")] == ["thesis.h5"]
    assert not list(folder.glob(".*.journal"))


def test_prune_counts_the_days_since_a_cache_was_built(
    two: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 10 * 86_400
    monkeypatch.setattr("plifctl.cache.catalogue.time.time", lambda: later)
    for path in places.glob("data_cache/*/T3-*.h5"):
        os.utime(path, (later, later))  # copied since
    assert "0 removed" in two("cache", "prune", "--older-than", 11).out
    assert two("cache", "prune", "--older-than", 9).out.count("built 10 days ago") == 2
    assert not list(places.glob("data_cache/*/T3-*.h5"))


def test_cache_of_another_decoder_version_is_outdated(two: Plifctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("plifctl.cache.catalogue", fromlist=["x"])._VERSIONS, "decoder_version", 99)
    assert {entry["state"] for entry in json.loads(two("cache", "ls", "--json").out)} == {"outdated"}
    result = two("cache", "verify")
    assert result.code == 0
    assert result.err.count("outdated, skipped") == 2
    assert len(json.loads(two("cache", "prune", "--json").out)["removed"]) == 2


def test_compression_changes_the_file_not_the_content(plifctl: Plifctl, gestures: Path, places: Path) -> None:
    made = {}
    for how in ("zstd", "gzip", "none"):
        result = plifctl(
            "prepare", "synthetic-gesture", "--T", 3, "--raw", gestures, "--compression", how, "--force", "--json"
        )
        tree = json.loads(result.out)
        made[how] = (tree["bytes"], tree["content_digest"], tree["path"])
        assert plifctl("cache", "verify").code == 0
    assert len({content for _, content, _ in made.values()}) == 1
    assert len({path for *_, path in made.values()}) == 1
    assert made["zstd"][0] < made["gzip"][0] < made["none"][0]


def test_hostile_files_are_listed_as_unreadable(two: Plifctl, places: Path) -> None:
    folder = places / "data_cache/synthetic-gesture"
    (folder / "folder.h5").mkdir()
    (folder / "nowhere.h5").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe.h5")
    with h5py.File(folder / "T3-number-00000000aaaa.h5", "w") as file:
        file.attrs["complete"] = True
        file.attrs["format"] = 2
        file.attrs["key"] = json.dumps({"dataset": "../../elsewhere", "frames": 3, "T": [], "decoder_version": {}})
        file["frames"] = 1
    with h5py.File(folder / "T3-number-00000000bbbb.h5", "w") as file:
        for name in ("labels", "split", "sample_id", "digest"):
            file.create_dataset(name, (2**40,), "i8", chunks=True)
        file.attrs["complete"] = True
        file["frames"] = np.zeros((2, 3, 2, 4, 4), np.uint8)
    states = {entry["name"].partition("/")[2]: entry["state"] for entry in json.loads(two("cache", "ls", "--json").out)}
    assert list(states.values()).count("ok") == 2
    assert states["T3-number-00000000aaaa"] == states["T3-number-00000000bbbb"] == "unreadable"
    result = two("cache", "verify")
    assert result.code == 1
    assert result.out.count("DAMAGED") == 2
    assert two("cache", "show", "T3-number-00000000b").code == 5
    assert two("train", "demo", "--set", "T=3", "--dry-run").code == 0
    assert two("cache", "prune").code == 0
    assert not (places / "elsewhere").exists()
    assert len(list(folder.glob("T3-*.h5"))) == 2


def test_prune_removes_old_temporary_files_only(two: Plifctl, places: Path) -> None:
    left = places / "data_cache/synthetic-gesture/.T3-time-0123456789ab.h5.x1_abcde.partial"
    left.write_bytes(b"half")
    assert two("cache", "prune").out.startswith("0 removed")  # a build may still be writing it
    os.utime(left, (time.time() - 3600,) * 2)
    assert two("cache", "prune").code == 0
    assert not left.exists()


@pytest.mark.parametrize("name", [".", "", "..", "thesis", "linked", "elsewhere.h5"])
def test_rm_of_what_is_no_cache_of_plifctl_removes_nothing(
    plifctl: Plifctl, gestures: Path, places: Path, name: str
) -> None:
    plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures)
    (cache,) = (places / "data_cache").rglob("*.h5")
    folder = cache.parent
    (folder / "thesis.h5").write_bytes(b"mine")
    (folder / ".thesis-uint8.journal").write_bytes(b"mine")
    (places / "elsewhere.h5").write_bytes(cache.read_bytes())
    (folder / "linked.h5").symlink_to(places / "elsewhere.h5")
    result = plifctl("cache", "rm", name, "--yes")
    assert result.code == 2, result.out
    assert (places / "elsewhere.h5").exists()
    assert (folder / "linked.h5").is_symlink()
    assert (folder / "thesis.h5").read_bytes() == b"mine"
    assert cache.exists()
    assert plifctl("cache", "prune").code == 0
    assert (folder / ".thesis-uint8.journal").read_bytes() == b"mine"
