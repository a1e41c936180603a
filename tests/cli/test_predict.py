"""plifctl predict: rows on the screen, CSV, JSON and pictures, and files that cannot be classified."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from factories import encode_aedat4
from PIL import Image
from raw_files import AEDAT3_HEADER, aedat3_packet, aedat3_word, metavision_index
from untrained import CLASSES, FIRES, SHAPE, event_spec, image_spec, make_model, write_untrained

import plifctl as library
from plifctl.config.lookup import load_experiment
from plifctl.data.events import EVENT
from plifctl.errors import Interrupted, OutOfMemoryError
from plifctl.pipeline.model_inputs import read_events
from plifctl.pipeline.predict import Model, load_model

Plifctl = Callable[..., Any]


def write_events(path: Path, n: int = 300, seed: int = 0, first_us: int = 0, span_us: int = 2_000_000) -> Path:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT)
    events["t"] = first_us + np.sort(rng.integers(0, span_us, n))
    for name, size in (("x", SHAPE[2]), ("y", SHAPE[1]), ("p", 2)):
        events[name] = rng.integers(0, size, n)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".aedat4":
        path.write_bytes(encode_aedat4((0, "EVTS", events)))
    else:
        np.save(path, events)
    return path


@pytest.fixture
def model(places: Path) -> Path:
    return write_untrained(places / "model.pt", event_spec(places))


@pytest.fixture
def silent(places: Path) -> Path:
    return write_untrained(places / "silent.pt", event_spec(places, "neuron.v_threshold=1000.0"))


@pytest.fixture
def digits(places: Path) -> Path:
    return write_untrained(places / "digits.pt", image_spec("mnist-plif"))


def rows(out: str) -> list[list[str]]:
    """The cells of a table, which are at least two blanks apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))


class TestRows:
    def test_row_has_class_share_and_steps(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        path = write_events(places / "my hand.npy")
        result = plifctl("predict", model, "my hand.npy")
        assert (result.code, result.err) == (0, "")
        wanted = load_model(model, device="cpu").predict(path)
        *_, head, row = rows(result.out)
        assert head == ["file", "class", "share %", "decided after"]
        assert row == ["my hand.npy", wanted.name, f"{100 * wanted.share:.1f}", f"{wanted.decided_after} of 4"]
        assert "own (paper recipe), T = 4, " in result.out

    def test_sample_without_votes_has_no_class(self, plifctl: Plifctl, silent: Path, places: Path) -> None:
        write_events(places / "a.npy")
        assert rows(plifctl("predict", silent, "a.npy").out)[-1] == ["a.npy", "none: no output neuron fired", "0.0"]
        (tree,) = json.loads(plifctl("predict", silent, "a.npy", "--json").out)["predictions"]
        assert [tree[name] for name in ("predicted", "predicted_class", "decided_after")] == [None] * 3
        assert tree["share"] == 0.0
        assert tree["votes"] == [0.0, 0.0, 0.0]

    def test_folder_is_searched_for_recordings(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        for name in ("b.npy", "deep/er/c c.aedat4", "a.npy", "deep/a.npy"):
            write_events(places / "all" / name)
        for name in ("README.md", "labels.csv", "deep/list.txt", "photo.png", ".hidden.npy", "weights.zip"):
            (places / "all" / name).write_bytes(b"name,label\na,1\n")
        (places / "all/deep/a.raw.tmp_index").write_bytes(metavision_index())
        (places / "all/deep/index.raw").write_bytes(metavision_index())
        result = plifctl("predict", model, "all")
        assert result.code == 0
        found = [row[0] for row in rows(result.out)[-4:]]
        assert found == ["all/a.npy", "all/b.npy", "all/deep/a.npy", "all/deep/er/c c.aedat4"]
        assert "7 files are not read (no recordings), for example all/README.md" in result.err

    def test_folder_of_texts_is_searched_for_tables_of_events(
        self, plifctl: Plifctl, model: Path, places: Path
    ) -> None:
        (places / "all").mkdir()
        (places / "all/a.csv").write_text("t,x,y,p\n" + "".join(f"{100 * i},{i % 9},{i % 7},1\n" for i in range(40)))
        (places / "all/labels.csv").write_text("file,label\na,left\n")
        result = plifctl("predict", model, "all")
        assert (result.code, rows(result.out)[-1][0]) == (0, "all/a.csv")

    @pytest.mark.parametrize("others", [[], ["notes.txt"]])
    def test_folder_without_recordings_is_an_error(
        self, plifctl: Plifctl, model: Path, places: Path, others: list[str]
    ) -> None:
        (places / "all").mkdir()
        for name in others:
            (places / "all" / name).write_text("hello\n")
        result = plifctl("predict", model, "all")
        assert (result.code, result.out) == (4, "")
        assert "error: all: no recording in this folder" in result.err
        assert ("its files are notes.txt" if others else "it is empty") in result.err

    def test_list_on_stdin_is_read(
        self, plifctl: Plifctl, model: Path, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a.npy", "b c.npy", "手.npy"):
            write_events(places / name)
        stdin(monkeypatch, "b c.npy\r\n\n手.npy\n")
        result = plifctl("predict", model, "-", "a.npy")
        assert [row[0] for row in rows(result.out)[-3:]] == ["b c.npy", "手.npy", "a.npy"]

    def test_empty_list_on_stdin_is_an_error(
        self, plifctl: Plifctl, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stdin(monkeypatch, "\n")
        result = plifctl("predict", model, "-")
        assert (result.code, result.out) == (2, "")
        assert "stdin lists no files" in result.err


class TestFailures:
    def test_file_that_cannot_be_read_does_not_stop_the_others(
        self, plifctl: Plifctl, model: Path, places: Path
    ) -> None:
        good = [write_events(places / name).name for name in ("a.npy", "z.npy")]
        (places / "cut.npy").write_bytes((places / "a.npy").read_bytes()[:1000])
        result = plifctl("predict", model, good[0], "cut.npy", "nowhere.npy", good[1])
        assert result.code == 4
        assert [row[0] for row in rows(result.out)[-2:]] == good
        assert "warning: not classified: cut.npy: " in result.err
        assert "warning: not classified: nowhere.npy: no such file" in result.err
        tree = json.loads(plifctl("predict", model, good[0], "cut.npy", "--json").out)
        assert [one["file"] for one in tree["predictions"]] == good[:1]
        assert [one["file"] for one in tree["failed"]] == ["cut.npy"]

    def test_only_file_that_cannot_be_read_is_the_error(self, plifctl: Plifctl, model: Path) -> None:
        result = plifctl("predict", model, "nowhere.npy", "--json")
        assert result.code == 4
        assert json.loads(result.out)["error"]["message"] == "nowhere.npy: no such file"
        result = plifctl("predict", model, "nowhere.npy", "--csv", "a.csv")
        assert (result.code, Path("a.csv").exists()) == (4, False)

    def test_all_of_several_files_that_cannot_be_read_are_reported(
        self, plifctl: Plifctl, model: Path, places: Path
    ) -> None:
        (places / "empty.npy").write_bytes(b"")
        result = plifctl("predict", model, "nowhere.npy", "empty.npy", "--out", "a.png")
        assert (result.code, result.out, Path("a.png").exists()) == (4, "", False)
        assert result.err.count("warning: not classified") == 2

    def test_name_that_the_system_refuses_does_not_stop_the_others(
        self, plifctl: Plifctl, model: Path, places: Path
    ) -> None:
        write_events(places / "a.npy")
        result = plifctl("predict", model, "n" * 300, "a.npy")
        assert (result.code, rows(result.out)[-1][0]) == (7, "a.npy")
        assert f"warning: not classified: {'n' * 300}: File name too long" in result.err

    def test_recording_of_another_sensor_hints_at_the_size(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        events = np.load(write_events(places / "a.npy"))
        events["x"] += 5
        np.save(places / "a.npy", events)
        result = plifctl("predict", model, "a.npy")
        assert result.code == 4
        assert "outside the sensor of 10×8" in result.err
        assert "hint: own recordings takes recordings of 10×8 pixels" in result.err

    def test_recording_outside_the_sensor_is_named_by_its_path_where_events_are_transformed(
        self, plifctl: Plifctl, places: Path
    ) -> None:
        transforms = [{"name": "denoise", "filter_time_us": 1000}]
        model = write_untrained(places / "m.pt", event_spec(places, frames={"transforms": transforms}))
        events = np.load(write_events(places / "a.npy"))
        events["x"][:2] = 10
        np.save(places / "a.npy", events)
        result = plifctl("predict", model, "a.npy")
        assert (result.code, "a.npy: event 0 of" in result.err) == (4, True)
        assert result.err.endswith("hint: own recordings takes recordings of 10×8 pixels\n")

    def test_hint_names_no_option_that_predict_does_not_take(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        data = AEDAT3_HEADER + aedat3_packet((aedat3_word(1, valid=0), 3), (aedat3_word(4, valid=0), 6))
        (places / "a.aedat").write_bytes(data)
        result = plifctl("predict", model, "a.aedat")
        assert (result.code, "--set" in result.err) == (4, False)
        assert "hint: own recordings was trained with frames.invalid_events=drop, and reads no others" in result.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--stride", "1s"), "--stride needs --window"),
            (("--window", "1"), "--window 1: expected a time of at least 1 µs with its unit"),
            (("--window", "0s"), "--window 0s: expected a time"),
            (("--window", "1s", "--stride", "1m"), "--stride 1m: expected a time"),
            (("--resize",), "--resize: own recordings classifies recordings of events"),
            (("--json", "--csv", "-"), "exclude each other: stdout has one document"),
            (("--out", "a.jpg"), "unknown format of figures"),
            (("--out", "there.png"), "there.png: exists already"),
            (("--csv", "there.png"), "there.png: exists already"),
            (("--csv", ""), "an empty path\nhint: is a variable of your shell empty?"),
            (("",), "an empty path\nhint: is a variable of your shell empty?"),
        ],
    )
    def test_options_that_do_not_fit_are_refused(
        self, plifctl: Plifctl, model: Path, places: Path, arguments: tuple[str, ...], message: str
    ) -> None:
        write_events(places / "a.npy")
        (places / "there.png").write_text("mine")
        result = plifctl("predict", model, "a.npy", *arguments)
        assert result.code == 2
        assert message in result.err
        assert (places / "there.png").read_text() == "mine"


class TestWindows:
    def test_windows_are_rows(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        events = np.load(write_events(places / "a.npy", 200, span_us=400_000))
        events["t"][100:] += 2_000_000
        np.save(places / "a.npy", events)
        result = plifctl("predict", model, "a.npy", "--window", "1s", "--stride", "500ms")
        assert result.code == 0
        first, *empty, last = rows(result.out)[-4:]
        assert first[:3] == ["a.npy", "0.000", "1.000"]
        assert empty == [["a.npy", "0.500", "1.500", "no events"], ["a.npy", "1.000", "2.000", "no events"]]
        assert last[:3] == ["a.npy", "1.500", f"{(events['t'][-1] - events['t'][0]) / 1e6:.3f}"]

    def test_short_windows_are_shown_to_the_microsecond(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        write_events(places / "a.npy", span_us=300)
        found = rows(plifctl("predict", model, "a.npy", "--window", "100us").out)
        assert found[-2][1:3] == ["0.000100", "0.000200"]

    def test_window_of_the_whole_file_equals_the_plain_prediction(
        self, plifctl: Plifctl, model: Path, places: Path
    ) -> None:
        write_events(places / "a.npy", first_us=5_000_000)
        plain, window = (
            json.loads(plifctl("predict", model, "a.npy", "--json", *more).out)["predictions"]
            for more in ((), ("--window", "10s"))
        )
        assert (plain[0].pop("start_s"), plain[0].pop("end_s")) == (None, None)
        assert window[0].pop("start_s") == 0.0
        assert 1.9 < window[0].pop("end_s") < 2.0
        assert window == plain

    def test_windows_of_a_real_recording_equal_those_of_its_events(
        self, plifctl: Plifctl, places: Path, shared: Path
    ) -> None:
        recording = sorted((shared / "data/DvsGesture").rglob("*.aedat"))[0]
        structure = "network.structure=APk8s8-FC110-SN-APk10s10"
        spec = load_experiment("gesture-plif", [structure, "T=4", *FIRES]).spec
        model = make_model(spec)
        write_untrained(places / "gesture.pt", spec)
        tree = json.loads(plifctl("predict", "gesture.pt", recording, "--window", "20s", "--json").out)
        assert tree["failed"] == []
        assert [one["start_s"] for one in tree["predictions"]] == [20.0 * n for n in range(len(tree["predictions"]))]
        found = [window.prediction for window in model.predict_windows(recording, 20.0)]
        for one, wanted in zip(tree["predictions"], found, strict=True):
            assert wanted is not None
            np.testing.assert_allclose(one["rates"], wanted.rates, atol=1e-6)


def test_real_recordings_of_a_folder_are_framed_without_loss(plifctl: Plifctl, places: Path, shared: Path) -> None:
    structure = "network.structure=APk40s40-FC40-SN-FC30-SN-APk10s10"
    spec = event_spec(places, structure, dataset={"shape": [2, 480, 640]})
    write_untrained(places / "large.pt", spec)
    model = make_model(spec)
    result = plifctl("predict", "large.pt", shared / "data/samples", "--json")
    tree = json.loads(result.out)
    files = [one["file"] for one in tree["predictions"]]
    assert {Path(file).suffix for file in files} == {".aedat4", ".bin", ".dat"}
    (empty,) = tree["failed"]
    assert empty["message"] == f"{shared}/data/samples/sample_aedat_header.aedat: no events to frame"
    for file in files:
        assert model.to_input(file).sum() == len(read_events(Path(file)))


class TestTable:
    def test_csv_has_a_row_for_each_prediction(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        path = write_events(places / "a, b.npy")
        result = plifctl("predict", model, "a, b.npy", "--csv", "answers.csv")
        assert result.out == "written: answers.csv, 1 row\n"
        (row,) = csv.DictReader((places / "answers.csv").open(encoding="utf-8", newline=""))
        wanted = load_model(model, device="cpu").predict(path)
        assert row["file"] == "a, b.npy"
        assert (row["start_s"], row["end_s"]) == ("", "")
        assert (int(row["predicted"]), row["predicted_class"]) == (wanted.label, wanted.name)
        assert float(row["share"]) == pytest.approx(wanted.share, abs=1e-6)
        assert [float(row[f"votes_{name}"]) for name in CLASSES] == pytest.approx(wanted.votes, abs=1e-6)
        assert plifctl("predict", model, "a, b.npy", "--csv", "-").out == (places / "answers.csv").read_text("utf-8")

    def test_csv_of_windows_has_empty_cells_where_there_are_no_events(
        self, plifctl: Plifctl, model: Path, places: Path
    ) -> None:
        events = np.load(write_events(places / "a.npy", 200, span_us=100_000))
        events["t"][100:] += 1_000_000
        np.save(places / "a.npy", events)
        result = plifctl("predict", model, "a.npy", "--window", "0.5s", "--csv", "-")
        found = list(csv.DictReader(io.StringIO(result.out)))
        assert [row["start_s"] for row in found] == ["0.0", "0.5", "1.0"]
        assert {value for name, value in found[1].items() if name not in ("file", "start_s", "end_s")} <= {"", None}

    def test_json_has_the_rates_over_time(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        path = write_events(places / "a.npy")
        tree = json.loads(plifctl("predict", model, "a.npy", "--json").out)
        assert (tree["classes"], tree["T"], tree["skipped"], tree["failed"]) == ([*CLASSES], 4, 0, [])
        (one,) = tree["predictions"]
        rates = load_model(model, device="cpu").predict(path).rates
        np.testing.assert_allclose(one["rates"], rates, atol=1e-6)
        np.testing.assert_allclose(one["votes"], rates.mean(0), atol=1e-5)


class TestPicture:
    @pytest.mark.parametrize("window", [(), ("--window", "0.3s")])
    def test_picture_is_drawn(self, plifctl: Plifctl, model: Path, places: Path, window: tuple[str, ...]) -> None:
        for place in range(5):
            write_events(places / f"all/$手 {place}.npy", seed=place)
        result = plifctl("predict", model, "all", "--out", "votes.png", *window)
        assert (result.code, result.err) == (0, "")
        assert result.out.endswith("written: votes.png\n")
        with Image.open(places / "votes.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 100

    def test_picture_of_too_many_files_is_refused(self, plifctl: Plifctl, model: Path, places: Path) -> None:
        write_events(places / "a.npy")
        result = plifctl("predict", model, *["a.npy"] * 25, "--out", "votes.png")
        assert (result.code, result.out) == (2, "")
        assert "25 files, at most 24 are drawn" in result.err


class TestImages:
    def test_images_are_classified(self, plifctl: Plifctl, digits: Path, places: Path) -> None:
        (places / "all").mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
        for name in ("a.png", "b.bmp", "c.webp"):
            Image.fromarray(pixels).save(places / "all" / name, **({"lossless": True} if "webp" in name else {}))
        Image.fromarray(pixels).resize((56, 56), Image.Resampling.NEAREST).save(places / "all/large.png")
        (places / "all/list.txt").write_text("a\n")
        result = plifctl("predict", digits, "all")
        assert result.code == 2
        assert "not classified: all/large.png: 56×56 pixels, the network takes 28×28" in result.err
        assert "hint: --resize" in result.err
        assert "1 file is not read (no images), for example all/list.txt" in result.err
        assert len({tuple(row[1:]) for row in rows(result.out)[-3:]}) == 1
        result = plifctl("predict", digits, "all", "--resize")
        assert result.code == 0
        assert result.err.count("images are scaled to 28×28 pixels (bilinear)") == 1
        assert rows(result.out)[-1][0] == "all/large.png"

    def test_windows_of_images_are_refused(self, plifctl: Plifctl, digits: Path) -> None:
        result = plifctl("predict", digits, "a.png", "--window", "1s")
        assert result.code == 2
        assert "classifies images, which have no windows" in result.err


@pytest.mark.subprocess
@pytest.mark.slow
def test_predict_imports_only_what_it_needs(model: Path, places: Path) -> None:
    write_events(places / "a.npy")
    code = (
        "import sys; sys.argv = ['plifctl', 'predict', 'model.pt', 'a.npy', '--device', 'cpu']\n"
        "from plifctl.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "others = {'PIL', 'matplotlib', 'h5py', 'tonic', 'tensorboard', 'plifctl.report', 'plifctl.cache'}\n"
        "print(sorted(others & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=places)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.long
def test_predict_of_a_run_needs_its_name_only(plifctl: Plifctl, gestures: Path) -> None:
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    tiny = ("--set", "train.batch_size=8", "--set", "T=4", "--epochs", 1)
    assert plifctl("train", "demo", *tiny).code == 0
    result = plifctl("predict", "last", gestures)
    assert result.code == 0
    assert len(rows(result.out)) == 3 + 3
    assert "checkpoints/best.pt" in result.out


@pytest.mark.parametrize(
    ("error", "code"),
    [(Interrupted(signal.SIGINT, "stopped by SIGINT"), 128 + signal.SIGINT), (ValueError("a bug"), 70)],
)
def test_rows_until_a_signal_or_an_error_are_kept(
    plifctl: Plifctl, model: Path, places: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    for name in "abc":
        write_events(places / f"{name}.npy")
    original = Model.to_input

    def stop(self: Model, file: Any, **options: Any) -> Any:
        if str(file).startswith("c"):
            raise error
        return original(self, file, **options)

    monkeypatch.setattr(Model, "to_input", stop)
    monkeypatch.setattr("plifctl.pipeline.predict.BATCH", 1)
    result = plifctl("predict", model, "a.npy", "b.npy", "c.npy", "--csv", "answers.csv")
    assert result.code == code
    assert "written: answers.partial.csv, the rows until then" in result.err
    assert [row["file"] for row in csv.DictReader((places / "answers.partial.csv").open())] == ["a.npy", "b.npy"]
    assert not (places / "answers.csv").exists()
    again = plifctl("predict", model, "a.npy", "c.npy", "--csv", "answers.csv")
    assert "written: answers.partial1.csv" in again.err
    assert len((places / "answers.partial.csv").read_text().splitlines()) == 3
    assert plifctl("predict", model, "c.npy", "--csv", "none.csv").code == code
    assert not list(places.glob("none*"))


def test_file_that_needs_too_much_memory_is_a_row_with_its_error(
    plifctl: Plifctl, model: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, n in (("a", 400), ("b", 7), ("c", 400)):
        write_events(places / f"{name}.npy", n)
    original = Model.forward

    def run_out(self: Model, x: Any) -> Any:
        if (x.flatten(1).sum(1) <= 7).any():
            raise RuntimeError("[enforce fail] can't allocate memory: 9 bytes")
        return original(self, x)

    monkeypatch.setattr(Model, "forward", run_out)
    result = plifctl("predict", model, "a.npy", "b.npy", "c.npy", "--csv", "answers.csv")
    assert (result.code, "not classified: b.npy: out of memory: [enforce fail]" in result.err) == (6, True), result.err
    assert [row["file"] for row in csv.DictReader((places / "answers.csv").open())] == ["a.npy", "c.npy"]
    of_windows = plifctl("predict", model, "b.npy", "a.npy", "--window", "1s", "--json")
    tree = json.loads(of_windows.out)
    assert [one["file"] for one in tree["failed"]] == ["b.npy"]
    assert {one["file"] for one in tree["predictions"]} == {"a.npy"}
    with pytest.raises(OutOfMemoryError, match=r"b\.npy: out of memory"):
        library.load(model).predict(["a.npy", "b.npy"])
