"""From a folder of recordings to a test accuracy, as a user types it: inspect, init, prepare, train."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from raw_files import AEDAT2_HEADER, encode_evt, encode_npy

import plifctl as library
from plifctl.cache import Cache
from plifctl.config.lookup import load_experiment
from plifctl.data.events import EVENT
from plifctl.data.source import RawSource
from plifctl.errors import RawDataError
from plifctl.pipeline.dataset import open_dataset
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.page import PageSource
from plifctl.pipeline.progress import silent
from plifctl.pipeline.train_options import TrainOptions
from plifctl.pipeline.train_setup import _cache_of_all_ranks
from plifctl.runs import find_run, list_runs
from plifctl.training.distributed import Ranks
from plifctl.training.splits import make_split

Plifctl = Callable[..., Any]

CLASSES = ("left", "right")
PEOPLE = ("anna", "ben", "carla")


def moving_edge(direction: str, size: int, seed: int) -> np.ndarray:
    """Returns the events of an edge that moves to the left or to the right, with noise."""
    rng, steps = np.random.default_rng(seed), 40
    rows = np.repeat(np.arange(steps), 8)
    x = rows * (size - 1) // steps
    events = np.zeros(len(rows), EVENT)
    events["t"] = 500 * rows + rng.integers(0, 400, len(rows))
    events["x"] = x if direction == "right" else size - 1 - x
    events["y"] = rng.integers(0, size, len(rows))
    events["p"] = rng.integers(0, 2, len(rows))
    return np.sort(events, order="t")


def encode_aedat2(events: np.ndarray) -> bytes:
    """A recording of a DVS128 as jAER writes it: rows counted from the bottom, columns from the right."""
    x, y = 127 - events["x"].astype(np.uint32), 127 - events["y"].astype(np.uint32)
    address = y << 8 | x << 1 | (1 - events["p"].astype(np.uint32))
    return AEDAT2_HEADER + np.stack([address, events["t"]], 1).astype(">u4").tobytes()


def takes() -> Iterator[tuple[str, str, int]]:
    """Yields class, person and number of each recording."""
    for label in CLASSES:
        for person in PEOPLE:
            yield from ((label, person, take) for take in range(3))


def write_dvs128(folder: Path) -> None:
    """Recordings of people: CLASS/PERSON_TAKE.aedat."""
    for seed, (label, person, take) in enumerate(takes()):
        path = folder / label / f"{person}_{take}.aedat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_aedat2(moving_edge(label, 128, seed)))


def write_evt3(folder: Path) -> None:
    """Recordings of a small sensor in one folder with blanks in its names, and a table of labels with groups."""
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("recording", "label", "subject"))
        for seed, (label, person, take) in enumerate(takes()):
            name = f"take {take} of {person}, {label}.raw"
            header = b"% evt 3.0\n% format EVT3;height=32;width=32\n% end\n"
            (folder / name).write_bytes(encode_evt(moving_edge(label, 32, seed), "3.0", header=header))
            table.writerow((name, label, person))


def write_arrays(folder: Path) -> None:
    """Structured arrays with fields in another order: CLASS/FILE.npy."""
    for seed, (label, person, take) in enumerate(takes()):
        events = moving_edge(label, 32, seed)
        path = folder / label / f"{person}{take}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.zeros(len(events), [("x", "<u2"), ("y", "<u2"), ("polarity", "?"), ("timestamp", "<i8")])
        for name, column in (("x", "x"), ("y", "y"), ("polarity", "p"), ("timestamp", "t")):
            array[name] = events[column]
        path.write_bytes(encode_npy(array))


SMALL = ("--set", "network.structure=c8k3s1-BN-SN-MPk4s4-FC20-SN-APk10s10", "--set", "train.batch_size=4")


@pytest.mark.long
@pytest.mark.parametrize(
    ("write", "layout", "shape"),
    [
        (write_dvs128, "class-folders", (2, 128, 128)),
        (write_evt3, "label-table", (2, 32, 32)),
        (write_arrays, "class-folders", (2, 32, 32)),
    ],
)
def test_four_commands_lead_from_a_folder_to_a_test_accuracy(
    plifctl: Plifctl, places: Path, write: Callable[[Path], None], layout: str, shape: tuple[int, int, int]
) -> None:
    write(places / "my recordings")
    inspected = plifctl("data", "inspect", "my recordings")
    assert (inspected.code, "18" in inspected.out) == (0, True)
    assert plifctl("data", "init", "my recordings", "--name", "hands").code == 0
    spec = load_experiment("hands").spec
    assert (spec.dataset.layout, spec.dataset.shape, spec.dataset.classes) == (layout, shape, CLASSES)
    assert plifctl("check", "hands.yaml").code == 0
    prepared = plifctl("prepare", "hands", "--T", "4")
    assert (prepared.code, "18" in prepared.out) == (0, True)
    trained = plifctl("train", "hands", "--epochs", "2", "--set", "T=4", *SMALL, "--device", "cpu")
    assert (trained.code, "accuracy A, maximum over test epochs" in trained.out) == (0, True)
    (places / "hands.yaml").unlink()
    resumed = plifctl("train", "--resume", "last", "--epochs", "3", "--device", "cpu")
    assert (resumed.code, "of 3)" in resumed.out) == (0, True)
    assert plifctl("runs", "show", "last").code == 0
    assert "hands" in plifctl("report", "--table", "runs").out


@pytest.mark.long
def test_recordings_of_jaer_are_the_right_way_up(plifctl: Plifctl, places: Path) -> None:
    write_dvs128(places / "recordings")
    assert plifctl("data", "init", "recordings", "--name", "hands").code == 0
    assert load_experiment("hands").spec.dataset.flip_y
    assert plifctl("prepare", "hands", "--T", "4").code == 0
    cache = open_dataset("hands", T=4).cache
    events = moving_edge("left", 128, 0)  # before the recording was turned upside down
    expected = np.zeros((2, 128, 128), int)
    np.add.at(expected, (events["p"], events["y"], events["x"]), 1)
    (frames,) = cache.read(np.array([cache.sample_ids.index("left/anna_0")]))
    np.testing.assert_array_equal(frames.sum(0), expected)


@pytest.mark.long
@pytest.mark.slow
def test_folds_by_person_test_each_person_once(plifctl: Plifctl, places: Path) -> None:
    write_arrays(places / "recordings")
    assert plifctl("data", "init", "recordings", "--name", "hands").code == 0
    assert plifctl("prepare", "hands", "--T", "4").code == 0
    people = ("split.method=leave-one-out", "split.groups=/([a-z]+)", "split.test=null", "validation.method=share")
    sets = [word for text in people for word in ("--set", text)]
    for fold in "123":
        arguments = ("--cv-fold", fold, "--epochs", "1", "--set", "T=4", *SMALL, *sets, "--device", "cpu")
        assert plifctl("validate", "hands", *arguments).code == 0
    table = plifctl("report", "--table", "runs").out
    assert "1, 2, 3" in table
    assert "±" in table


TINY = """\
name: hands
title: hands
like: gesture-plif
T: 4
dataset: {name: hands, title: hands, layout: class-folders, kind: events, shape: [2, 32, 32], classes: [left, right],
  raw: recordings}
frames: {slicing: number, outside_events: refuse, invalid_events: drop}
network: {name: hands, structure: c4k3s1-BN-SN-MPk8s8-FC20-SN-APk10s10, dropout: 0.5, batch_norm: per-step}
train: {epochs: 1, batch_size: 4}
split: {method: share, test: 0.2}
"""


@pytest.fixture
def hands(places: Path) -> Path:
    """A folder of recordings, and hands.yaml beside it."""
    write_arrays(places / "recordings")
    (places / "hands.yaml").write_text(TINY)
    return places


def chosen_cache(plifctl: Plifctl, *options: str) -> tuple[str, str]:
    """Returns the content of the cache that a training would use, and its messages."""
    shown = plifctl("show-sample", "hands", "--json", *options)
    planned = plifctl("train", "hands", "--dry-run", "--json", "--device", "cpu")
    assert (shown.code, planned.code) == (0, 0)
    path = json.loads(planned.out)["cache"]
    assert json.loads(shown.out)["cache"] == path
    assert ("not known to be" in shown.err) == ("not known to be" in planned.err)
    return path, planned.err


def move_label(folder: Path, file: str = "anna0.npy") -> None:
    (folder / "recordings/left" / file).rename(folder / "recordings/right" / f"moved-{file}")


@pytest.mark.long
@pytest.mark.slow
def test_train_takes_the_cache_of_the_recordings_as_they_are(plifctl: Plifctl, hands: Path) -> None:
    first = json.loads(plifctl("prepare", "hands", "--json").out)["path"]
    move_label(hands)
    path, messages = chosen_cache(plifctl)
    assert (path, "changed since they were read" in messages) == (first, True)
    assert "plifctl prepare hands.yaml" in messages
    second = json.loads(plifctl("prepare", "hands", "--json").out)["path"]
    path, messages = chosen_cache(plifctl)
    assert (path, second != first, "not known to be" in messages) == (second, True, False)
    (hands / "recordings/right/moved-anna0.npy").rename(hands / "recordings/left/anna0.npy")
    assert json.loads(plifctl("prepare", "hands", "--json").out)["path"] == first
    path, messages = chosen_cache(plifctl)  # the older of two caches
    assert (path, "not known to be" in messages) == (first, False)


def test_train_with_a_cache_of_another_folder_of_the_same_name_warns(
    plifctl: Plifctl, hands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(plifctl("prepare", "hands", "--json").out)["path"]
    other = hands / "other"
    shutil.copytree(hands / "recordings", other / "recordings")
    (other / "recordings/left/anna0.npy").unlink()
    shutil.copy(hands / "hands.yaml", other)
    monkeypatch.chdir(other)
    path, messages = chosen_cache(plifctl)
    assert (path, f"the recordings in {other}/recordings" in messages) == (first, True)
    plifctl("prepare", "hands", "--T", "5")  # read now, and known to be others
    path, messages = chosen_cache(plifctl)
    assert (path, "which are others now" in messages) == (first, True)
    built = experiment_cache(load_experiment("hands").spec, build_from=RawSource())  # train --prepare
    assert (str(built.path) != first, len(built.labels)) == (True, 17)


def test_recordings_that_cannot_be_prepared_are_no_reason_to_use_an_older_cache(plifctl: Plifctl, hands: Path) -> None:
    first = json.loads(plifctl("prepare", "hands", "--json").out)["path"]
    (hands / "recordings/thumb").mkdir()  # a class that hands.yaml does not have
    shutil.copy(hands / "recordings/left/anna0.npy", hands / "recordings/thumb/1.npy")
    assert plifctl("prepare", "hands").code == 4
    path, messages = chosen_cache(plifctl)
    assert (path, "not known to be" in messages) == (first, True)
    for _ in range(2):  # the second time, the recordings are known
        with pytest.raises(RawDataError, match="thumb"):
            experiment_cache(load_experiment("hands").spec, build_from=RawSource())


def test_recordings_that_are_named_are_those_of_the_cache(plifctl: Plifctl, hands: Path) -> None:
    assert plifctl("prepare", "hands").code == 0
    shutil.copytree(hands / "recordings", hands / "other")
    (hands / "other/left/anna0.npy").unlink()
    spec = load_experiment("hands").spec
    for _ in range(2):
        assert len(experiment_cache(spec, build_from=RawSource(hands / "other")).labels) == 17
    assert len(experiment_cache(spec, build_from=RawSource()).labels) == 18


def test_recordings_that_the_environment_names_are_those_of_the_cache(
    plifctl: Plifctl, hands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hands / "hands.yaml").write_text(TINY.replace(",\n  raw: recordings}", "}"))
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(hands / "recordings"))
    assert plifctl("prepare", "hands").code == 0
    move_label(hands)
    _, messages = chosen_cache(plifctl)
    assert f"the recordings in {hands / 'recordings'}, which changed since they were read" in messages
    built = experiment_cache(load_experiment("hands").spec, build_from=RawSource())  # train --prepare
    assert sorted(built.labels).count(0) == 8


def test_train_without_its_recordings_uses_the_cache(plifctl: Plifctl, hands: Path) -> None:
    first = json.loads(plifctl("prepare", "hands", "--json").out)["path"]
    shutil.rmtree(hands / "recordings")
    path, messages = chosen_cache(plifctl)
    assert (path, "not known to be" in messages) == (first, False)


@pytest.mark.long
def test_folds_of_an_experiment_that_states_them_are_modified_nowhere(plifctl: Plifctl, hands: Path) -> None:
    path = hands / "hands.yaml"
    path.write_text(
        path.read_text().replace("split: {method: share, test: 0.2}", "split: {method: folds, folds: 3, fold: 1}")
    )
    assert plifctl("prepare", "hands").code == 0
    for fold in "12":
        training = ("train", "hands", "--device", "cpu", "--cv-fold", fold)
        assert json.loads(plifctl(*training, "--dry-run", "--json").out)["modified"] == []
        result = plifctl(*training, "--name", f"f{fold}")
        assert (result.code, "modified" in result.err) == (0, False)
    (runs,) = json.loads(plifctl("report", "--table", "runs", "--json").out)
    assert "MODIFIED" not in str(runs)
    assert "changed" not in plifctl("report", "--statement").out
    (figure,) = json.loads(plifctl("report", "--figure", "6", "--run", "f1", "--run", "f2", "--json").out)
    assert ("fold 1: hands" in figure["caption"], "modified" in figure["caption"]) == (True, False)
    shown = {run["name"]: (run["fold"], run["changes"]) for run in PageSource().data()["runs"]}
    assert (shown["f1"], shown["f2"]) == (("fold 1", []), ("fold 2", []))
    assert "changes" not in json.loads(plifctl("runs", "compare", "f1", "f2", "--json").out)["settings"]


@pytest.mark.long
def test_eval_on_changed_recordings_tests_on_no_sample_that_was_trained_on(plifctl: Plifctl, hands: Path) -> None:
    assert plifctl("prepare", "hands").code == 0
    assert plifctl("train", "hands", "--device", "cpu", "--cv-fold", "1/3").code == 0
    (split_file,) = hands.glob("runs/*/split.json")
    tested = json.loads(split_file.read_text())["test"]
    for k in range(20):  # a third of each class are others now
        shutil.copy(hands / "recordings/left/anna0.npy", hands / f"recordings/left/new{k}.npy")
    assert plifctl("prepare", "hands", "--T", "3").code == 0
    chosen = open_dataset("hands", T=3)
    spec = load_experiment("hands", {"split": {"method": "folds", "folds": 3, "fold": 1, "test": None}}).spec
    drawn = {chosen.sample_ids[row] for row in make_split("A", spec, chosen.cache).test}
    assert drawn & set(json.loads(split_file.read_text())["train"])
    result = plifctl("eval", "last", "--T", "3", "--json", "--operations", "0", "--layer-times", "0")
    labels = [0 if name.startswith("left") else 1 for name in tested]
    assert [one["samples"] for one in json.loads(result.out)["classes"]] == [labels.count(0), labels.count(1)]
    (hands / "recordings" / f"{tested[0]}.npy").unlink()
    assert plifctl("prepare", "hands", "--T", "2").code == 0
    result = plifctl("eval", "last", "--T", "2")
    assert (result.code, f"are missing: {tested[0]}" in result.err) == (5, True)


@pytest.mark.long
def test_exported_files_test_on_the_samples_of_their_run(plifctl: Plifctl, hands: Path) -> None:
    assert plifctl("prepare", "hands").code == 0
    assert plifctl("train", "hands", "--device", "cpu", "--cv-fold", "1/3").code == 0
    (split_file,) = hands.glob("runs/*/split.json")
    tested = sorted(json.loads(split_file.read_text())["test"])
    for name in ("net.pt", "net.npz"):
        assert plifctl("export", "last", name).code == 0
    library.export(library.load("last"), "tuned.pt")
    assert plifctl("export", "tuned.pt", "again.npz").code == 0
    state = torch.load("net.pt", weights_only=True)
    del state["test_samples"]  # as files of older versions
    torch.save(state, "older.pt")
    shutil.rmtree(hands / "runs")
    assert plifctl("eval", "older.pt", "--operations", "0", "--layer-times", "0").code == 0
    for k in range(20):  # a third of each class are others now
        shutil.copy(hands / "recordings/left/anna0.npy", hands / f"recordings/left/new{k}.npy")
    assert plifctl("prepare", "hands", "--T", "3").code == 0
    for name in ("net.pt", "net.npz", "tuned.pt", "again.npz"):
        result = plifctl("eval", name, "--T", "3", "--operations", "0", "--layer-times", "0", "--csv", f"{name}.csv")
        assert result.code == 0, result.err
        rows = Path(f"{name}.csv").read_text().splitlines()[1:]
        assert sorted(row.partition(",")[0] for row in rows) == tested
    result = plifctl("eval", "older.pt", "--T", "3")
    assert (result.code, "which samples it was tested on is unknown" in result.err) == (5, True)
    assert "hint: name the run in its place, or export the run again" in result.err


@pytest.mark.long
@pytest.mark.parametrize("times", ["", "start: from, "])
def test_eval_after_the_label_table_was_edited_tests_on_the_samples_of_the_run(
    plifctl: Plifctl, hands: Path, times: str
) -> None:
    labels = f"labels: {{file: labels.csv, recording: file, label: label, split: split, {times}time_unit: us}}"
    text = TINY.replace("class-folders", "label-table").replace("raw: recordings", f"raw: recordings, {labels}")
    (hands / "hands.yaml").write_text(text.replace("split: {method: share, test: 0.2}\n", ""))
    names = sorted(path.relative_to(hands / "recordings").as_posix() for path in hands.rglob("*.npy"))

    def write_table(first_test: int) -> None:
        parts = ["train" if k % 9 < first_test else "test" for k in range(len(names))]
        lines = [f"{name},{name[: name.index('/')]},{part},0" for name, part in zip(names, parts, strict=True)]
        (hands / "recordings/labels.csv").write_text("\n".join(["file,label,split,from", *lines]))
        assert plifctl("prepare", "hands").code == 0

    write_table(6)
    assert plifctl("train", "hands", "--device", "cpu").code == 0
    split = list_runs(hands / "runs")[0].split()
    assert plifctl("export", "last", "net.pt").code == 0
    for cache in hands.glob("**/*.h5"):
        cache.unlink()
    write_table(3)
    for name in ("last", "net.pt"):
        result = plifctl("eval", name, "--operations", "0", "--layer-times", "0", "--csv", f"{name}.csv")
        assert result.code == 0, result.err
        rows = Path(f"{name}.csv").read_text().splitlines()[1:]
        assert [row.partition(",")[0] for row in rows] == split["test"]
        moved = "was trained on, or selected by, 6 samples that are test samples now" in result.err
        assert moved == (name == "last")
        assert ("named by the places of their lines in labels.csv" in result.err) == bool(times)


@pytest.mark.parametrize("file", ["hands.yaml", "sub/hands.yaml", "other name.yaml"])
def test_train_without_a_cache_hints_at_the_file_that_was_named(plifctl: Plifctl, hands: Path, file: str) -> None:
    text = (hands / "hands.yaml").read_text().replace("raw: recordings", f"raw: {hands}/recordings")
    (hands / file).parent.mkdir(exist_ok=True)
    (hands / file).write_text(text)
    result = plifctl("train", file, "--dry-run", "--device", "cpu")
    command = next(line for line in result.err.splitlines() if "plifctl prepare" in line).partition("plifctl ")[2]
    assert shlex.split(command)[1] == file
    assert plifctl(*shlex.split(command)).code == 0
    assert plifctl("train", file, "--dry-run", "--device", "cpu").code == 0


def test_ranks_other_than_the_first_need_no_recordings(plifctl: Plifctl, hands: Path) -> None:
    assert plifctl("prepare", "hands").code == 0
    spec = load_experiment("hands").spec
    built = experiment_cache(spec)

    class SecondRank(Ranks):
        rank, size = 1, 2

        def broadcast_from_first(self, make: Callable[[], Any]) -> Any:
            return built.content_digest

    options = TrainOptions("hands", source=RawSource(hands / "on the first machine"), build_cache=True)
    assert _cache_of_all_ranks(options, spec, None, silent, SecondRank()).path == built.path


def test_published_recordings_that_are_gone_need_not_be_there(plifctl: Plifctl, gestures: Path, places: Path) -> None:
    assert plifctl("prepare", "synthetic-gesture", "--T", 8, "--raw", gestures).code == 0
    spec = load_experiment("demo").spec
    assert len(experiment_cache(spec, build_from=RawSource(places / "gone")).labels) > 0


def test_run_finds_its_cache_from_anywhere(
    plifctl: Plifctl, hands: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path_factory.mktemp("local")
    assert plifctl("prepare", "hands", "--cache-dir", "c").code == 0
    trained = plifctl("train", "hands", "--cache-dir", "c", "--copy-cache", local, "--device", "cpu")
    assert trained.code == 0, trained.err
    (run,) = list_runs(hands / "runs")
    monkeypatch.chdir(local)
    assert run.cache_dir == hands / "c"
    for name in ("c", "runs"):  # both are moved
        shutil.move(hands / name, local / name)
    (moved,) = list_runs(local / "runs")
    assert moved.cache_dir is not None
    assert moved.cache_dir.resolve() == (local / "c").resolve()


def test_cache_of_a_run_is_used_where_it_is_although_another_one_here_fits(plifctl: Plifctl, hands: Path) -> None:
    trained_on = json.loads(plifctl("prepare", "hands", "--cache-dir", "c", "--json").out)["path"]
    move_label(hands)
    here = json.loads(plifctl("prepare", "hands", "--json").out)["path"]
    spec, content = load_experiment("hands").spec, Cache(Path(trained_on)).content_digest
    run: Any = SimpleNamespace(cache_dir=Path("c"))
    for build_from in (None, RawSource()):
        assert str(experiment_cache(spec, content=content, run=run, build_from=build_from).path) == trained_on
        assert str(experiment_cache(spec, content="f" * 64, run=run, build_from=build_from).path) == here


def test_changes_to_an_experiment_of_ones_own_are_in_its_runs(plifctl: Plifctl, hands: Path) -> None:
    assert plifctl("prepare", "hands").code == 0
    for tau_0 in (2, 16):
        changed = ("--set", f"neuron.tau_0={tau_0}.0", "--device", "cpu", "--name", f"tau{tau_0}")
        assert plifctl("train", "hands", *changed).code == 0
    assert find_run("tau16", hands / "runs").record().overrides == ("neuron.tau_0=16.0",)
    assert "changed settings: neuron.tau_0=16.0" in plifctl("runs", "show", "tau16").out
    table = plifctl("report", "--table", "runs").out
    assert ("tau_0=2.0" in table, "tau_0=16.0" in table) == (True, True)
    resumed = plifctl("train", "hands", "--resume", "tau16", "--epochs", "2", "--device", "cpu")
    assert (resumed.code, "of 2)" in resumed.out) == (0, True)


def test_init_names_a_table_that_cannot_be_read(plifctl: Plifctl, places: Path) -> None:
    write_arrays(places / "recordings")
    (places / "recordings/labels.csv").write_text('file,label,remark\nanna0.npy,left,"good\n')
    result = plifctl("data", "init", "recordings", "--name", "hands")
    assert result.code == 0
    assert "labels.csv, line 2: " in result.err
    assert "its labels are not used" in result.err


def test_folders_of_people_are_named_before_anything_is_written(plifctl: Plifctl, places: Path) -> None:
    write_arrays(places / "recordings")
    for label in CLASSES:
        for person in (1, 2):
            (places / f"people/user0{person}").mkdir(parents=True, exist_ok=True)
            shutil.copytree(places / "recordings" / label, places / f"people/user0{person}/{label}")
    inspected = plifctl("data", "inspect", "people")
    assert "look like people, and left, right in them like the classes" in inspected.out
    result = plifctl("data", "init", "people", "--name", "hands")
    assert (result.code, "user01, user02 look like people" in result.err) == (4, True)
    assert not (places / "hands.yaml").exists()
