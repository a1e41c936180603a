"""The public API: what a notebook types."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import prune
from torch.utils.data import DataLoader

import plifctl
from plifctl.data.synthetic import write_synthetic
from plifctl.errors import CacheError, RawDataError, ResumeError, UsageError
from plifctl.runs.documents import save_document


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api") / "raw"
    write_synthetic(root, train_users=2, test_users=1)
    return root


@pytest.fixture(scope="module")
def cache_dir(recordings: Path) -> Path:
    folder = recordings.parent / "data_cache"
    plifctl.prepare("synthetic-gesture", T=4, raw=recordings, cache_dir=folder)
    return folder


FIRING = {"T": 4, "neuron.v_threshold": 0.03}
"""With the threshold of the demo, a network of two epochs would not fire: all its answers would be equal."""


@pytest.fixture(scope="module")
def run(cache_dir: Path) -> Any:
    """A run of two epochs."""
    return plifctl.train(
        "demo", epochs=2, overrides=FIRING, cache_dir=cache_dir, runs_dir=cache_dir.parent / "runs", device="cpu"
    )


@pytest.fixture(scope="module")
def model(run: Any) -> Any:
    return plifctl.load(run, device="cpu")


@pytest.fixture
def here(cache_dir: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache directory is the module's."""
    monkeypatch.setenv("PLIFCTL_CACHE_DIR", str(cache_dir))
    monkeypatch.setenv("PLIFCTL_DEVICE", "cpu")
    return places


class TestImport:
    @pytest.mark.subprocess
    def test_import_loads_no_heavy_library(self) -> None:
        code = (
            "import sys, plifctl; assert 'prepare' in dir(plifctl)\n"
            "print(sorted({'torch', 'h5py', 'numpy', 'pydantic', 'yaml', 'numba', 'rich'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_public_classes_are_loaded_when_they_are_used(self) -> None:
        assert plifctl.Run.__module__.startswith("plifctl.runs")
        assert set(plifctl.__all__) <= set(dir(plifctl))
        with pytest.raises(AttributeError, match="has no attribute 'Runs'"):
            api.Runs  # noqa: B018

    def test_every_public_name_is_documented(self) -> None:
        for name in plifctl.__all__:
            assert (getattr(plifctl, name).__doc__ or "").strip(), name


class TestSilence:
    def test_train_changes_no_global_state_and_prints_nothing(
        self, here: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def state() -> tuple[Any, ...]:
            handlers = tuple(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
            seeds = torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()
            return handlers, seeds, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

        before = state()
        plifctl.evaluate(plifctl.train("demo", epochs=1, overrides={"T": 4}, device="cpu"), operations=1, device="cpu")
        assert state() == before
        assert capfd.readouterr() == ("", "")

    @pytest.mark.slow
    def test_a_forward_pass_leaves_the_number_of_threads_as_it_was(self) -> None:
        code = """
import torch
from plifctl.config.lookup import load_registry
from plifctl.training.trainer import build_model
spec = load_registry().experiment("demo").spec
build_model(spec, torch.device("cpu")).eval()(torch.zeros(1, spec.T, 2, 128, 128))
print(torch.get_num_threads())
"""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        for threads, others in (("1", "2"), ("2", "1")):  # numba has a number of its own, one for each core
            environment = {**os.environ, **dict.fromkeys(names, threads), "NUMBA_NUM_THREADS": others}
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
            assert (done.stdout, done.stderr) == (f"{threads}\n", "")


@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork, or can")
class TestFork:
    """A forked process has none of the threads that its parent computes with."""

    CODE = """
import multiprocessing
import torch
import plifctl
from plifctl.errors import RunError

torch.set_num_threads(2)
{setup}
run()

def in_child(_):
    try:
        return run()
    except RunError as error:
        return error.hint

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(pool.map_async(in_child, [0]).get(timeout=60)[0])
"""
    LOAD = "model = plifctl.load('zoo:demo')"

    @pytest.mark.parametrize(
        "setup",
        [
            "x = torch.rand(8, 2, 9)\nrun = lambda: plifctl.PLIF()(x)",
            f"{LOAD[:-1]}, kernel='eager')\nx = torch.zeros(2, 16, 2, 128, 128)\nrun = lambda: model(x)",
            pytest.param(
                f"{LOAD}\nx = torch.zeros(2, 16, 2, 128, 128)\nrun = lambda: model(x)", marks=pytest.mark.slow
            ),
            pytest.param(
                f"{LOAD}\nx = [torch.zeros(16, 2, 128, 128)] * 2\nrun = lambda: model.predict(x)",
                marks=pytest.mark.slow,
            ),
        ],
        ids=["neurons", "eager", "network", "predict"],
    )
    def test_network_in_a_forked_process_is_refused(self, setup: str) -> None:
        code = self.CODE.format(setup=setup)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
        assert done.stdout == 'start processes with multiprocessing.get_context("spawn")\n', done.stderr


class TestDataset:
    def test_dataset_gives_the_frames_of_the_cache(self, here: Path) -> None:
        data = plifctl.dataset("synthetic-gesture", T=4, split="test")
        frames, label = data[3]
        assert (len(data), frames.shape, frames.dtype) == (11, (4, 2, 128, 128), torch.uint8)
        assert label == data.labels[3]
        np.testing.assert_array_equal(frames, data.cache.read(data.rows[[3]])[0])

    @pytest.mark.parametrize(
        ("workers", "start"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
    )
    def test_dataset_in_a_data_loader_gives_the_same_batches(self, here: Path, workers: int, start: str | None) -> None:
        data = plifctl.dataset("synthetic-gesture", T=4)
        alone = [data[index] for index in range(len(data))]  # opens the file before workers are forked
        loader = DataLoader(data, batch_size=5, num_workers=workers, multiprocessing_context=start)
        found = [(frames, int(label)) for batch in loader for frames, label in zip(*batch, strict=True)]
        assert len(found) == len(alone) == 22
        for (frames, label), (other, other_label) in zip(found, alone, strict=True):
            assert torch.equal(frames, other)
            assert label == other_label

    def test_dataset_of_a_model_or_an_experiment_is_framed_as_in_its_training(
        self, here: Path, run: Any, model: Any
    ) -> None:
        wanted = plifctl.dataset("synthetic-gesture", T=4, split="test")
        for one in (plifctl.experiment("demo", FIRING), run.config().spec, model.spec, model.spec.framing):
            found = plifctl.dataset(one, split="test")
            assert found.cache.path == wanted.cache.path
        with pytest.raises(UsageError, match="T, recipe and overrides are those of the experiment"):
            plifctl.dataset(model.spec, T=8)
        own = model.spec.model_copy(update={"dataset": model.spec.dataset.model_copy(update={"name": "mine"})})
        with pytest.raises(CacheError) as missing:
            plifctl.dataset(own)
        assert missing.value.hint is not None
        assert ".yaml" in missing.value.hint  # no data set of the registry
        with pytest.raises(UsageError, match="expected the name of a data set") as refused:
            api.dataset(model)
        assert len(str(refused.value)) < 200

    def test_dataset_of_a_run_has_the_samples_that_it_trained_on(self, here: Path, run: Any, tmp_path: Path) -> None:
        copy = plifctl.Run(shutil.copytree(run.path, tmp_path / "copy"))
        ids = run.split()["train"]
        own = {"train": ids[5:], "validation": [], "test": ids[:3]}  # as split.method=share makes it
        save_document(copy.path / "split.json", own)
        for part in ("train", "test"):
            assert plifctl.dataset(copy, split=part).sample_ids == own[part]
        assert len(plifctl.dataset(copy, split="all")) == 33
        with pytest.raises(UsageError, match="no validation samples") as none:
            plifctl.dataset(copy, split="validation")
        assert none.value.hint == 'found split="test" and split="train"'
        save_document(copy.path / "split.json", {**own, "test": ["gone"]})
        with pytest.raises(CacheError, match="1 of the 18 samples of copy are missing: gone"):
            plifctl.dataset(copy)

    def test_dataset_of_a_spec_with_its_own_split_is_refused(self, here: Path) -> None:
        spec = plifctl.experiment("demo", {**FIRING, "split.method": "share", "split.test": 0.2})
        for part in ("train", "test"):
            with pytest.raises(UsageError, match=r"makes its split when a run begins \(split.method share\)") as error:
                plifctl.dataset(spec, split=part)
            assert error.value.hint is not None
            assert "plifctl.dataset(run" in error.value.hint
        assert len(plifctl.dataset(spec, split="all")) == 33

    def test_what_is_returned_is_found_from_another_working_directory(
        self, recordings: Path, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("data_cache", "runs"):
            (places / name).mkdir()
            monkeypatch.delenv(f"PLIFCTL_{'CACHE' if name == 'data_cache' else 'RUNS'}_DIR")
        cache = plifctl.prepare("synthetic-gesture", T=4, raw=recordings)
        data = plifctl.dataset("synthetic-gesture", T=4)
        run = plifctl.train("demo", epochs=1, overrides=FIRING, device="cpu")
        (places / "elsewhere").mkdir()
        monkeypatch.chdir(places / "elsewhere")
        assert data[0][1] == cache.labels[0] == data.labels[0]
        assert cache.read(np.arange(1)).any()
        assert run.status() == "finished"

    def test_dataset_without_a_cache_names_the_command(self, here: Path) -> None:
        with pytest.raises(CacheError) as error:
            plifctl.dataset("synthetic-gesture", T=5)
        assert error.value.hint == "plifctl prepare synthetic-gesture --T 5"

    def test_dataset_without_T_is_refused(self, here: Path) -> None:
        with pytest.raises(UsageError, match="need --T"):
            plifctl.dataset("synthetic-gesture")


class TestTrain:
    def test_on_epoch_sees_each_row(self, here: Path) -> None:
        rows: list[dict[str, Any]] = []
        run = plifctl.train("demo", epochs=2, overrides=["T=4"], on_epoch=rows.append, device="cpu")
        assert [row["epoch"] for row in rows] == [1, 2]
        assert rows == run.metrics()
        assert run.status() == "finished"

    def test_on_epoch_false_stops_the_training_which_resumes_bit_for_bit(self, here: Path, run: Any) -> None:
        stopped = plifctl.train("demo", epochs=2, overrides=FIRING, on_epoch=lambda row: False, device="cpu")
        assert (stopped.status(), len(stopped.metrics())) == ("stopped", 1)
        resumed = plifctl.train(resume=stopped, device="cpu")
        assert resumed.status() == "finished"
        assert _weights(resumed) == _weights(run)

    def test_on_epoch_finds_the_weights_of_its_epoch(self, here: Path) -> None:
        found: list[float] = []

        def evaluate(row: dict[str, Any]) -> None:
            result = plifctl.evaluate("watched", checkpoint="last", operations=0, layer_times=0, device="cpu")
            found.append(result.accuracy)

        run = plifctl.train("demo", epochs=2, overrides=FIRING, on_epoch=evaluate, name="watched", device="cpu")
        assert found == [pytest.approx(row["test_accuracy"]) for row in run.metrics()]

    def test_on_epoch_that_raises_keeps_the_epoch(self, here: Path, run: Any) -> None:
        def give_up(row: dict[str, Any]) -> None:
            raise ValueError("pruned")

        with pytest.raises(ValueError, match="pruned"):
            plifctl.train("demo", epochs=2, overrides=FIRING, on_epoch=give_up, name="pruned", device="cpu")
        resumed = plifctl.train(resume="pruned", device="cpu")
        assert [session["epoch"] for session in resumed.session_entries()] == [1, 2]
        assert _weights(resumed) == _weights(run)

    def test_on_epoch_false_of_numpy_stops_the_training(self, here: Path) -> None:
        stopped = plifctl.train(
            "demo", epochs=2, overrides=FIRING, on_epoch=lambda row: np.float64(row["loss"]) < 0, device="cpu"
        )
        assert (stopped.status(), len(stopped.metrics())) == ("stopped", 1)

    def test_two_trainings_in_threads_give_the_weights_of_one(self, here: Path, run: Any) -> None:
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda _: plifctl.train("demo", epochs=2, overrides=FIRING, device="cpu"), range(2)))
        assert [_weights(one) for one in runs] == [_weights(run)] * 2

    def test_resume_with_other_settings_is_refused(self, here: Path, run: Any) -> None:
        with pytest.raises(ResumeError, match=r"neuron\.tau_0"):
            plifctl.train(resume=run, overrides={"neuron.tau_0": 9.0}, device="cpu")

    def test_train_takes_a_saved_experiment(self, here: Path) -> None:
        experiment = plifctl.experiment("demo", {"T": 4, "neuron.tau_0": 4.0})
        experiment.save(here / "slow.yaml")
        run = plifctl.train(here / "slow.yaml", epochs=1, device="cpu")
        assert run.config().spec.neuron.tau_0 == 4.0
        assert run.config().spec.digest == experiment.spec.digest

    def test_validate_selects_by_validation(self, here: Path) -> None:
        run = plifctl.validate("demo", epochs=1, overrides={"T": 4}, device="cpu")
        assert run.record().protocol == "B"
        assert run.record().validation_accuracy is not None


class TestEvaluate:
    def test_evaluate_gives_plain_values(self, here: Path, run: Any) -> None:
        result = plifctl.evaluate(run, operations=2, device="cpu")
        assert (result.samples, len(result.classes), len(result.accuracy_after_steps)) == (11, 11, 4)
        assert result.accuracy == pytest.approx(run.record().accuracy)


def stored_arrays(path: Path) -> list[np.ndarray]:
    """Returns the weights of layers in an ONNX or NIR file."""
    if path.suffix == ".onnx":
        import onnx

        return [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    import nir

    return [np.asarray(node.weight) for node in nir.read(path).nodes.values() if hasattr(node, "weight")]


class TestExport:
    @pytest.mark.parametrize("ending", [".pt", ".npz", ".nir", ".onnx"])
    def test_export_of_a_model_writes_the_weights_that_it_has_now(
        self, here: Path, run: Any, tmp_path: Path, ending: str
    ) -> None:
        if ending in (".nir", ".onnx"):
            pytest.importorskip(ending[1:])
        model = plifctl.load(run, device="cpu")
        frames = plifctl.dataset(model.spec)[0][0][None]
        optimizer = torch.optim.SGD(model.train().parameters(), lr=1.0)
        (model(frames) - 1).square().mean().backward()
        optimizer.step()
        exported = plifctl.export(model.double(), tmp_path / f"tuned{ending}")
        assert model.training
        weight = model.network.layers["fc0"].weight.detach().float().numpy()
        if ending in (".nir", ".onnx"):
            alike = [array for array in stored_arrays(exported.path) if array.size == weight.size]
            assert any(np.array_equal(np.sort(array, None), np.sort(weight, None)) for array in alike)
        else:
            again = plifctl.load(exported.path, device="cpu")
            assert again.trained.run is None
            assert again.trained.origin == f"a model in memory that was loaded from {run.name}"
            assert not torch.equal(again(frames), plifctl.load(run, device="cpu")(frames))
            assert torch.equal(again(frames), model.float().eval()(frames))

    def test_export_of_a_model_to_a_folder_is_refused(self, model: Any, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="a folder states the result of a run"):
            plifctl.export(model, tmp_path / "folder")
        with pytest.raises(UsageError, match="checkpoint 'last' is of a run"):
            plifctl.export(model, tmp_path / "model.pt", checkpoint="last")

    def test_folder_of_a_model_in_memory_says_that_its_training_is_not_known(
        self, here: Path, run: Any, tmp_path: Path
    ) -> None:
        model = plifctl.load(run, device="cpu")
        with torch.no_grad():
            model.network.layers["fc0"].weight.mul_(1.5)
        plifctl.export(model, tmp_path / "mine.pt")
        plifctl.export(tmp_path / "mine.pt", tmp_path / "mine")
        card = (tmp_path / "mine/README.md").read_text(encoding="utf-8")
        content = plifctl.dataset(model.spec).cache.content_digest[:12]
        for expected in (
            "Trained with plifctl",
            "A program had the weights in memory",
            "is not stated. Not comparable with results.",
            f"| measured on | cache of content `{content}`, which lacks samples of the data set |",
            "Tested on a part of the data set",
        ):
            assert expected in card
        plifctl.export(tmp_path / "mine", tmp_path / "again")
        assert (tmp_path / "again/README.md").read_text(encoding="utf-8") == card

    def test_eval_of_weights_from_memory_says_that_their_training_is_not_known(
        self, here: Path, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = plifctl.export(model, tmp_path / "mine.pt").path
        with caplog.at_level("INFO", "plifctl"):
            plifctl.evaluate(file, operations=0, layer_times=0)
        assert f"{file}: A program had the weights in memory and may have changed them: on which samples" in caplog.text

    def test_export_of_a_pruned_model_is_refused(self, run: Any, tmp_path: Path) -> None:
        model = plifctl.load(run, device="cpu")
        prune.l1_unstructured(model.network.layers["conv0"], "weight", 0.5)
        with pytest.raises(UsageError, match=r"layers\.conv0\.weight, layers\.conv0\.weight_mask"):
            plifctl.export(model, tmp_path / "model.pt")


class TestPredict:
    def test_load_takes_run_path_last_and_exported_file(self, here: Path, run: Any, tmp_path: Path) -> None:
        plifctl.export(run, tmp_path / "model.pt")
        runs_dir = run.path.parent
        models = [plifctl.load(one, device="cpu", runs_dir=runs_dir) for one in (run, run.path, tmp_path / "model.pt")]
        assert plifctl.load("last", device="cpu", runs_dir=runs_dir).T == 4
        frames = torch.rand(2, 4, *models[0].input_shape)
        for model in models:
            assert not model.training
            assert torch.equal(model(frames), models[0](frames))

    def test_predict_of_frames_is_what_evaluation_counts(self, here: Path, run: Any, model: Any) -> None:
        data = plifctl.dataset("synthetic-gesture", T=4, split="test")
        answers = model.predict([frames for frames, _ in data])
        assert len({answer.label for answer in answers}) > 1
        correct = sum(answer.label == label for answer, (_, label) in zip(answers, data, strict=True))
        assert correct / len(data) == pytest.approx(run.record().accuracy)
        assert answers[0].name == model.classes[answers[0].label]
        assert answers[0].rates.shape == (4, 11)

    def test_predict_of_a_file_frames_it_as_the_cache_does(
        self, here: Path, recordings: Path, model: Any, tmp_path: Path
    ) -> None:
        from plifctl.data.formats.aedat3 import encode_aedat3

        lists = (recordings / "trials_to_test.txt").read_text().split()
        events = plifctl.read_events(recordings / lists[0], dataset="synthetic-gesture")
        rows = (recordings / lists[0].replace(".aedat", "_labels.csv")).read_text().split()[1:]
        data = plifctl.dataset("synthetic-gesture", T=4, split="test")
        by_id = {name: frames for name, (frames, _) in zip(data.sample_ids, data, strict=True)}
        for number, row in enumerate(rows):
            _, start, end = map(int, row.split(","))
            window = events[(events["t"] >= start) & (events["t"] < end)]
            path = tmp_path / f"{number}.aedat"
            path.write_bytes(encode_aedat3(window.structured()))
            wanted = model.predict(by_id[f"{Path(lists[0]).stem}/{number:02}"])
            for recording in (path, str(path), window, window.structured()):
                np.testing.assert_array_equal(model.predict(recording).rates, wanted.rates)

    def test_predict_of_nothing_to_frame_is_refused(self, model: Any, tmp_path: Path) -> None:
        from plifctl.data.events import EVENT

        with pytest.raises(RawDataError, match="no events to frame"):
            model.predict(np.empty(0, EVENT))
        with pytest.raises(RawDataError, match="no such file"):
            model.predict(tmp_path / "nowhere.aedat")
        with pytest.raises(UsageError, match="the network takes 2×128×128"):
            model.predict(np.zeros((4, 2, 34, 34), np.uint8))
        assert model.predict([]) == []

    def test_step_gives_what_forward_gives(self, model: Any) -> None:
        frames = torch.rand(3, 4, *model.input_shape)
        state, votes = None, []
        for t in range(4):
            rates, state = model.step(frames[:, t], state)
            votes.append(rates)
        torch.testing.assert_close(torch.stack(votes), model(frames))

    def test_predict_of_equal_votes_answers_the_lowest_class_as_evaluation_does(self, model: Any) -> None:
        rates = torch.zeros(3, 11)
        rates[:, 5] = torch.tensor([0.1, 0.1, 0.1])  # 0.1 + 0.1 + 0.1 > 0.3 in floating point
        rates[0, 2] = 0.3
        answer = model._prediction(rates)
        assert (answer.label, answer.over_time.tolist()) == (2, [2, 2, 2])

    def test_predict_takes_any_memory_layout_and_byte_order(self, here: Path, model: Any) -> None:
        frames = plifctl.dataset("synthetic-gesture", T=4, split="test")[0][0].numpy()
        wanted = model.predict(frames).rates
        assert wanted.any()
        for same in (frames.astype(">i4"), frames[:, :, ::-1][:, :, ::-1], np.broadcast_to(frames, frames.shape)):
            np.testing.assert_array_equal(model.predict(same).rates, wanted)

    def test_predict_of_unsorted_events_sorts_them(self, model: Any, recordings: Path) -> None:
        events = plifctl.read_events(sorted(recordings.glob("*.aedat"))[0])[:20_000]
        wanted = model.predict(events).rates
        assert wanted.any()
        np.testing.assert_array_equal(model.predict(events.structured()[::-1]).rates, wanted)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [("t", 0.5, "t is 0.5, expected whole µs"), ("p", -1, "p is -1"), ("x", 70_000, "x is 70000")],
    )
    def test_predict_of_events_that_are_no_whole_numbers_is_refused(
        self, model: Any, field: str, value: float, message: str
    ) -> None:
        events = np.zeros(3, [(name, "f8") for name in "txyp"])
        events[field][1] = value
        with pytest.raises(UsageError, match=f"event 1 of 3: {message}"):
            model.predict(events)

    @pytest.mark.parametrize(
        ("recording", "message"),
        [
            (None, "found NoneType"),
            (b"a.aedat", "found bytes"),
            (np.zeros((0, 2, 128, 128)), "no frames"),
            (np.full((4, 2, 128, 128), np.nan), "not finite"),
            (np.zeros((4, 2, 128, 128), complex), "ndarray of complex128"),
            (np.zeros(3, [("t", "i8"), ("x", "i2"), ("y", "i2")]), "missing: p"),
            (np.zeros((3, 1), [(name, "i2") for name in "txyp"]), r"shape \[3, 1\], expected \[N\]"),
        ],
    )
    def test_predict_of_what_is_no_recording_is_refused(self, model: Any, recording: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            model.predict(recording)

    def test_predict_with_slices_of_a_duration_takes_shorter_and_longer_recordings(
        self, here: Path, recordings: Path
    ) -> None:
        settings = {**FIRING, "T": 5, "frames.slicing": "duration", "frames.duration_us": 100_000}
        run = plifctl.train("demo", epochs=1, overrides=settings, build_cache=True, raw=recordings, device="cpu")
        model = plifctl.load(run, device="cpu")
        events = plifctl.read_events(sorted(recordings.glob("*.aedat"))[0])
        steps = (events["t"][-1] - events["t"][0]) // 100_000 + 1
        assert steps > 5
        assert [len(model.predict(some).rates) for some in (events[:100], events)] == [5, steps]
        sparse = events.structured()[:2]
        sparse["t"] = (0, 10**12)
        with pytest.raises(UsageError, match="slices of 100000 µs, expected at most"):
            model.predict(sparse)

    def test_predict_of_a_text_file_or_a_folder_is_refused(self, model: Any, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text("t,x,y,p\n0,1,2,1\n5,6\n")  # 20 bytes: four ATIS events by its size
        with pytest.raises(RawDataError, match="line 3: '5,6': 2 values, expected 4"):
            model.predict(tmp_path / "events.csv")
        with pytest.raises(RawDataError, match="a folder"):
            model.predict(tmp_path)

    def test_predict_of_another_sensor_hints_at_the_size(self, model: Any) -> None:
        events = np.zeros(1, [(name, "i2") for name in "txyp"])
        events["x"] = 300
        with pytest.raises(RawDataError, match="outside the sensor") as refused:
            model.predict(events)
        assert refused.value.hint.endswith("takes recordings of 128×128 pixels")


api: Any = plifctl
"""Called with values of wrong types."""


class TestArguments:
    @pytest.mark.parametrize("verb", [api.evaluate, api.load, lambda model: api.train("demo", weights=model)])
    def test_model_in_the_place_of_a_name_hints_at_export(self, model: Any, verb: Callable[[Any], Any]) -> None:
        with pytest.raises(UsageError, match="found Model, expected a run") as refused:
            verb(model)
        assert 'plifctl.export(model, "file.pt")' in refused.value.hint

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: api.load(None), "found NoneType, expected a run, its path or id, an exported file or folder"),
            (lambda: api.evaluate("last", operations=-1), "--operations -1"),
            (lambda: api.evaluate("last", layer_times=-1), "--layer-times -1"),
            (lambda: api.train("demo", kernel="quick"), "kernel: found 'quick'"),
            (lambda: api.train("demo", checkpoint_every=-1), "--checkpoint-every -1"),
            (lambda: api.train("demo", on_epoch=3), "on_epoch: found 3"),
            (lambda: api.train("demo", overrides={"T": 4}, data_in="tape"), "data_in: found 'tape'"),
            (lambda: api.train(3), "found 3, expected the name of an experiment"),
            (lambda: api.experiment("demo", recipe="quick"), "recipe: found 'quick', expected paper or authors"),
            (lambda: api.experiment("demo", "T=4"), "overrides: found 'T=4'"),
            (lambda: api.dataset("synthetic-gesture", 4, "Train"), "split: found 'Train'"),
            (lambda: api.dataset("synthetic-gesture", "4"), "--T .4.: expected a whole number from 1 to 10000"),
            (lambda: api.dataset(api.experiment("demo"), 4), "those of the experiment"),
            (lambda: api.prepare("synthetic-gesture", 4, compression="zip"), "compression: found 'zip'"),
            (lambda: api.prepare("synthetic-gesture", 4, workers=0), "workers: found 0, expected a number of threads"),
            (lambda: api.prepare("synthetic-gesture", 4, workers=-1), "workers: found -1"),
            (lambda: api.table("all"), "expected the name of one table"),
            (lambda: api.table("4", source="theirs"), "source: found 'theirs'"),
        ],
    )
    def test_call_with_an_unknown_choice_is_refused(self, here: Path, call: Callable[[], Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            call()

    def test_recipe_by_its_old_name_is_accepted(self, here: Path) -> None:
        old: Any = "published"
        experiment = plifctl.experiment("demo", recipe=old)
        assert plifctl.experiment(experiment, recipe=old).spec.recipe == "authors"
        with pytest.raises(CacheError) as missing:
            plifctl.dataset("synthetic-gesture", 4, recipe=old)
        assert "--recipe authors" in missing.value.hint


class TestTable:
    def test_table_is_an_object_with_rows(self, here: Path) -> None:
        table = plifctl.table("4")
        assert "PLIF" in table.to_markdown()


def _weights(run: Any) -> dict[str, bytes]:
    state = torch.load(run.checkpoint("last"), weights_only=True)["model"]
    return {name: weight.numpy().tobytes() for name, weight in state.items()}


def test_pid_of_a_dataset_is_not_pickled(cache_dir: Path) -> None:
    import pickle

    data = plifctl.dataset("synthetic-gesture", T=4, cache_dir=cache_dir)
    again = pickle.loads(pickle.dumps(data))
    assert again[0][1] == data[0][1]
    assert again._pid == os.getpid()
