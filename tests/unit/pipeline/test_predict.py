"""Predictions: how recordings, windows and images become inputs, and networks that run step by step."""

import copy
import math
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CPU, ArraySamples
from torch._subclasses.fake_tensor import FakeTensorMode
from untrained import SHAPE, event_spec, image_spec, make_model

from plifctl.data.events import EVENT, Events
from plifctl.errors import RawDataError, UsageError
from plifctl.pipeline import model_inputs
from plifctl.pipeline import predict as predict_module
from plifctl.pipeline.device import use_remembered_kernel
from plifctl.pipeline.predict import Model
from plifctl.snn.bn_folding import fold_batch_norm
from plifctl.snn.kernels import spiking_stage
from plifctl.training.batches import BatchLoader
from plifctl.training.kernel_selection import Selection

_, HEIGHT, WIDTH = SHAPE


def draw_events(n: int = 400, *, span_us: int = 3_000_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT)
    events["t"] = 7_000_000 + np.sort(rng.integers(0, span_us, n))
    for name, size in (("x", WIDTH), ("y", HEIGHT), ("p", 2)):
        events[name] = rng.integers(0, size, n)
    return events


def count(events: np.ndarray, T: int = 4) -> np.ndarray:
    """Frames of equal numbers of events, counted one by one."""
    frames = np.zeros((T, *SHAPE), np.float32)
    edges = [len(events) * j // T for j in range(T + 1)]
    for j in range(T):
        for _, x, y, p in events[edges[j] : edges[j + 1]].tolist():
            frames[j, p, y, x] += 1
    return frames


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return make_model(event_spec(tmp_path))


class TestFraming:
    """The choices of the data set that a model was trained on hold for every recording."""

    @pytest.mark.parametrize(
        ("flips", "expected"),
        [
            ({"flip_y": True}, lambda frames: frames[:, :, ::-1]),
            ({"flip_x": True}, lambda frames: frames[:, :, :, ::-1]),
            ({"flip_x": True, "flip_y": True}, lambda frames: frames[:, :, ::-1, ::-1]),
        ],
        ids=["y", "x", "both"],
    )
    def test_flips_of_the_data_set_are_applied(self, tmp_path: Path, flips: dict[str, bool], expected: Any) -> None:
        events = draw_events()
        np.save(tmp_path / "a.npy", events)
        found = make_model(event_spec(tmp_path, dataset=flips)).to_input(tmp_path / "a.npy")
        np.testing.assert_array_equal(found, expected(count(events)))

    def test_transpose_of_the_data_set_is_applied(self, tmp_path: Path) -> None:
        events = draw_events()
        swapped = events.copy()
        swapped["x"], swapped["y"] = events["y"], events["x"]
        np.save(tmp_path / "a.npy", swapped)
        found = make_model(event_spec(tmp_path, dataset={"transpose": True})).to_input(tmp_path / "a.npy")
        np.testing.assert_array_equal(found, count(events))

    def test_time_unit_of_the_data_set_is_applied_to_a_structured_array(self, tmp_path: Path) -> None:
        events = draw_events()
        seconds = np.zeros(len(events), [("t", "f8"), ("x", "i2"), ("y", "i2"), ("p", "u1")])
        for name in "xyp":
            seconds[name] = events[name]
        seconds["t"] = events["t"] / 1e6
        np.save(tmp_path / "a.npy", seconds)
        spec = event_spec(tmp_path, dataset={"time_unit": "s"}, frames={"slicing": "time"})
        found = make_model(spec).to_input(tmp_path / "a.npy")
        assert torch.equal(found, make_model(spec).to_input(events))
        assert (found.sum((1, 2, 3)) > 50).all()

    def test_columns_of_the_data_set_are_applied_to_a_text(self, tmp_path: Path) -> None:
        events = draw_events()
        lines = [f"{p} {y} {x} 9 {t}" for t, x, y, p in events.tolist()]
        (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
        spec = event_spec(tmp_path, dataset={"columns": ["p", "y", "x", "-", "t"], "time_unit": "us"})
        np.testing.assert_array_equal(make_model(spec).to_input(tmp_path / "a.txt"), count(events))

    def test_downsampling_of_the_framing_is_applied(self, tmp_path: Path) -> None:
        frames = {"transforms": [{"name": "downsample", "factor": 0.5}]}
        model = make_model(event_spec(tmp_path, frames=frames))
        events = draw_events()
        assert model.input_shape == (2, HEIGHT // 2, WIDTH // 2)
        found = model.to_input(events)
        halves = count(events).reshape(4, 2, HEIGHT // 2, 2, WIDTH // 2, 2).sum((3, 5))
        np.testing.assert_array_equal(found, halves)


class TestPrediction:
    def test_votes_are_the_means_of_the_rates(self, model: Model) -> None:
        found = model.predict(draw_events())
        np.testing.assert_allclose(found.votes, found.rates.mean(0), rtol=1e-6)
        assert found.share == pytest.approx(found.votes[found.label] / found.votes.sum())
        assert not found.silent

    def test_events_that_are_left_out_are_told_if_they_are_many(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = make_model(event_spec(tmp_path, frames={"outside_events": "drop"}))
        for share, expected in ((0.05, 0), (0.6, 1)):
            events = draw_events()
            events["x"][: int(share * len(events))] += WIDTH
            np.save(tmp_path / "recording.npy", events)
            for recording in (tmp_path / "recording.npy", events, Events.of(events)):
                for use in (model.predict, lambda given: list(model.predict_windows(given, 60.0))):
                    caplog.clear()
                    use(recording)
                    assert caplog.text.count("more than a tenth left out: 240 events, up to 60 %") == expected

    def test_input_of_another_shape_is_refused(self, model: Model) -> None:
        x = model.to_input(draw_events())
        assert model(x[None]).shape[1] == 1
        for wrong in (x, x[None, :, :1]):
            with pytest.raises(UsageError, match=r"expected \[N, T, "):
                model(wrong)

    def test_counts_of_any_type_give_the_votes_of_float_ones(self, model: Model) -> None:
        frames = torch.from_numpy(count(draw_events()))[None]
        expected = model(frames)
        assert expected.any()
        for dtype in (torch.uint8, torch.int32, torch.float64):
            assert torch.equal(model(frames.to(dtype)), expected)

    def test_model_in_float64_takes_what_one_in_float32_takes(self, model: Model) -> None:
        events = draw_events()
        expected = model.predict(events).rates
        frames = torch.from_numpy(count(events))[None]
        state = None
        model.double()
        np.testing.assert_allclose(model.predict(events).rates, expected)
        for t, rates in enumerate(expected):
            votes, state = model.step(frames[:, t], state)
            np.testing.assert_allclose(votes[0].detach(), rates)

    @pytest.mark.parametrize("dtype", ["u1", "i8", "f4"])
    def test_polarity_other_than_0_and_1_is_refused(self, model: Model, dtype: str) -> None:
        events = draw_events().astype([("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", dtype)])
        events["p"][7] = 2
        columns = Events(*(events[name] for name in "txyp"))
        for given in (events, columns):
            with pytest.raises(UsageError, match=r"event 7 of 400: p is 2(\.0)?, expected 0 or 1"):
                model.predict(given)

    def test_module_has_the_precision_of_the_training(self, tmp_path: Path) -> None:
        model = make_model(event_spec(tmp_path, "train.precision=bf16"))
        several = [draw_events(seed=seed) for seed in range(20)]
        frames = torch.stack([model.to_input(events) for events in several])
        expected = torch.stack([torch.from_numpy(one.rates) for one in model.predict(several)], 1)
        single = model.network(frames)
        assert not torch.equal(single, expected)
        votes, state, steps = model(frames), None, []
        for frame in frames.unbind(1):
            rates, state = model.step(frame, state)
            steps.append(rates)
        assert votes.dtype == torch.float32
        assert torch.equal(votes, expected)
        assert torch.equal(torch.stack(steps), expected)
        with torch.autocast("cpu", torch.float16):  # as its user asks for
            assert torch.equal(model(frames), model.network(frames))
        model.double()
        assert torch.equal(model(frames), model.network(frames.double()))

    def test_precision_that_the_user_asks_for_is_left_alone(self, model: Model) -> None:
        frames = torch.stack([model.to_input(draw_events(seed=seed)) for seed in range(20)])
        exact = model(frames)
        with torch.autocast("cpu", torch.bfloat16):
            votes = model(frames)
            assert torch.equal(votes, model.network(frames))
            assert torch.equal(model.step(frames[:, 0])[0], votes[0])
        assert not torch.equal(votes, exact)

    def test_input_is_moved_to_the_device_of_the_weights(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Model, "_precision", lambda *_: nullcontext())  # the device meta has no autocast
        frames = torch.from_numpy(count(draw_events()))[None]
        _, on_cpu = model.step(frames[:, 0])
        model.to("meta")
        assert model(frames).device.type == "meta"
        votes, state = model.step(frames[:, 0])
        assert votes.device.type == state["sn0"].device.type == "meta"
        with pytest.raises(UsageError, match=r"state of sn0 is float32 \[1, 40\] on cpu, expected .* on meta"):
            model.step(frames[:, 1], on_cpu)

    def test_model_in_half_precision_on_a_cpu_is_refused(self, model: Model) -> None:
        for dtype in (torch.float16, torch.bfloat16):
            with pytest.raises(UsageError, match=rf"weights of {str(dtype)[6:]}, expected float32 or float64 on a CPU"):
                model.to(dtype).predict(draw_events())

    def test_predict_in_training_mode_is_refused(self, model: Model) -> None:
        with pytest.raises(UsageError, match="in training mode") as refused:
            model.train().predict(draw_events())
        assert refused.value.hint == "model.eval()"
        model(torch.zeros(2, 4, *SHAPE)).sum().backward()

    def test_predict_takes_any_sequence(self, model: Model) -> None:
        events = draw_events()
        found = model.predict(deque([events, events[:100]]))
        assert [one.source for one in found] == ["ndarray"] * 2

    def test_prediction_without_votes_is_silent(self, tmp_path: Path) -> None:
        model = make_model(event_spec(tmp_path, "neuron.v_threshold=1000.0"))
        found = model.predict(draw_events())
        assert (found.silent, found.share, found.label) == (True, 0.0, 0)

    def test_predict_keeps_the_order_of_more_samples_than_a_batch(self, model: Model) -> None:
        several: list[Any] = [draw_events(seed=seed) for seed in range(predict_module.BATCH + 3)]
        found = model.predict(several)
        assert len({one.rates.tobytes() for one in found}) == len(several)
        for one, events in zip(found, several, strict=True):
            np.testing.assert_array_equal(one.rates, model.predict(events).rates)

    def test_predict_of_a_picture_by_a_network_of_events_is_refused(self, model: Model, tmp_path: Path) -> None:
        Image.new("L", (28, 28)).save(tmp_path / "a.png")
        with pytest.raises(RawDataError, match=r"a PNG picture, expected a recording"):
            model.predict(tmp_path / "a.png")


class TestWindows:
    def test_window_of_the_whole_recording_equals_the_plain_prediction(self, tmp_path: Path) -> None:
        frames = {"transforms": [{"name": "drop-events", "p": 0.3}], "transform_seed": 1, "slicing": "time"}
        model = make_model(event_spec(tmp_path, frames=frames))
        np.save(tmp_path / "a.npy", draw_events())
        (window,) = model.predict_windows(tmp_path / "a.npy", 60.0)
        assert window.prediction is not None
        plain = model.predict(tmp_path / "a.npy")
        np.testing.assert_array_equal(window.prediction.rates, plain.rates)
        assert window.prediction.source == plain.source == str(tmp_path / "a.npy")

    @pytest.mark.parametrize(("window", "stride"), [(1.0, None), (1.0, 0.4), (0.5, 0.7)])
    def test_each_window_is_a_sample_of_its_own(self, model: Model, window: float, stride: float | None) -> None:
        events = draw_events()
        t = (events["t"] - events["t"][0]) / 1e6
        found = list(model.predict_windows(events, window, stride))
        step = window if stride is None else stride
        assert [one.start for one in found] == pytest.approx([step * place for place in range(len(found))])
        for one in found:
            inside = events[(t >= one.start - 1e-9) & (t < one.start + window - 1e-9)]
            assert one.end == pytest.approx(min(one.start + window, t[-1]))
            assert one.prediction is not None
            np.testing.assert_array_equal(one.prediction.rates, model.predict(inside).rates)
        ends = [one.start + window > t[-1] for one in found]
        assert ends.index(True) == len(found) - 1 or found[-1].start + step > t[-1]

    def test_last_window_is_the_first_with_the_last_event(self, model: Model) -> None:
        events = draw_events(2)
        for last, expected in ((999_999, [(0.0, 0.999999)]), (1_000_000, [(0.0, 1.0), (0.5, 1.0)])):
            events["t"] = (5, 5 + last)
            assert [(one.start, one.end) for one in model.predict_windows(events, 1.0, 0.5)] == expected

    def test_window_without_events_has_no_prediction(self, model: Model) -> None:
        events = draw_events(100, span_us=1000)
        events["t"][50:] += 2_000_000
        found = list(model.predict_windows(events, 1.0))
        assert [one.prediction is None for one in found] == [False, True, False]

    def test_time_that_is_wrong_is_named_where_it_makes_windows_without_end(self, model: Model) -> None:
        events = draw_events()
        events["t"][0] = 0
        events["t"][1:] += 1_700_000_000_000_000
        wrong = r"windows of 400 events: in order of time, 1,700,000,0\d\d s lie between event 0 and event 1 \(from 0\)"
        with pytest.raises(UsageError, match=wrong):
            next(model.predict_windows(events, 1.0))
        many = draw_events(400, span_us=2_000_000)
        with pytest.raises(UsageError, match=r"windows of 400 events in [\d.]+ s") as error:
            next(model.predict_windows(many, 1e-6))
        assert "longer windows" in error.value.hint
        short = draw_events(2)
        short["t"] = (0, 5_000_000)
        assert len(list(model.predict_windows(short, 60.0, 1e-6))) == 1  # a window that has all of it

    @pytest.mark.parametrize(
        ("window", "stride", "last"), [(10, 10, 99), (50, 10, 139), (10, 30, 299)], ids=["joined", "overlap", "gaps"]
    )
    def test_windows_are_counted_as_they_are_yielded(
        self, model: Model, monkeypatch: pytest.MonkeyPatch, window: int, stride: int, last: int
    ) -> None:
        monkeypatch.setattr(model_inputs, "MAX_EMPTY_WINDOWS", 10)
        events = draw_events(2)
        events["t"] = (0, last)
        assert len(list(model.window_inputs(events, window, stride))) == 10
        events["t"] = (0, last + 1)
        with pytest.raises(UsageError, match="11 windows of 2 events"):
            list(model.window_inputs(events, window, stride))

    def test_windows_are_decoded_once_and_framed_as_they_are_taken(
        self, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np.save(tmp_path / "a.npy", draw_events(4000))
        calls = {"decode": 0, "frame": 0}
        decode, frame = model_inputs.decode_recording, model_inputs.count_frames

        def counted(name: str, function: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                calls[name] += 1
                return function(*arguments, **options)

            return call

        monkeypatch.setattr(model_inputs, "decode_recording", counted("decode", decode))
        monkeypatch.setattr(model_inputs, "count_frames", counted("frame", frame))
        windows = model.predict_windows(tmp_path / "a.npy", 0.01)
        next(windows)
        assert calls == {"decode": 1, "frame": predict_module.BATCH}
        assert len(list(windows)) == 299
        assert calls == {"decode": 1, "frame": 300}

    @pytest.mark.parametrize(("window", "stride"), [(0.0, None), (1.0, 0.0), (-1.0, 1.0)])
    def test_length_of_nothing_is_refused(self, model: Model, window: float, stride: float | None) -> None:
        with pytest.raises(UsageError, match="at least 1 µs"):
            next(model.predict_windows(draw_events(), window, stride))

    def test_error_in_a_window_names_it(self, model: Model) -> None:
        events = draw_events()
        events["x"][-1] = WIDTH
        with pytest.raises(RawDataError, match=r"window from 2 s: event \d+ of \d+ is at x=10"):
            list(model.predict_windows(events, 1.0))

    def test_windows_of_frames_and_of_images_are_refused(self, model: Model) -> None:
        with pytest.raises(UsageError, match="expected a file or events"):
            next(model.predict_windows(count(draw_events()), 1.0))
        with pytest.raises(UsageError, match="classifies images"):
            next(make_model(image_spec("mnist-plif")).predict_windows("a.npy", 1.0))


class TestImages:
    @pytest.mark.parametrize("experiment", ["mnist-plif", "cifar10-plif"])
    def test_image_is_normalised_as_in_training(self, tmp_path: Path, experiment: str) -> None:
        model = make_model(image_spec(experiment))
        pixels = np.random.default_rng(0).integers(0, 256, model.input_shape, np.uint8)
        (batch,) = BatchLoader(ArraySamples(pixels[None]), model.spec, CPU).evaluation_batches(np.array([0]))
        Image.fromarray(pixels.transpose(1, 2, 0).squeeze()).save(tmp_path / "a.png")
        for image in (pixels, (pixels / 255).astype(np.float32), tmp_path / "a.png"):
            torch.testing.assert_close(model.to_input(image), batch.x[0], rtol=1e-5, atol=1e-6)

    def test_image_file_equals_its_array(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "digit.png")
        model = make_model(image_spec("mnist-plif"))
        found = model.predict(str(tmp_path / "digit.png"))
        np.testing.assert_array_equal(found.rates, model.predict(pixels[None]).rates)
        assert found.source.endswith("digit.png")
        assert found.rates.any()

    def test_image_of_another_size_is_refused_or_scaled(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40), dtype=np.uint8))
        image.save(tmp_path / "a.png")
        model = make_model(image_spec("mnist-plif"))
        with pytest.raises(UsageError, match=r"a\.png: 40×50 pixels, the network takes 28×28") as refused:
            model.predict(tmp_path / "a.png")
        assert refused.value.hint.startswith("--resize")
        scaled = np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR))
        with caplog.at_level("INFO", "plifctl"):
            found = model.predict([tmp_path / "a.png", tmp_path / "a.png"], resize=True)
        np.testing.assert_array_equal(found[1].rates, model.predict(scaled[None]).rates)
        assert [record.getMessage() for record in caplog.records] == [
            f"images are scaled to 28×28 pixels (bilinear); {tmp_path / 'a.png'} has 40×50"
        ]

    def test_images_of_whole_numbers_are_refused_as_they_are_not_normalised(self) -> None:
        model = make_model(image_spec("mnist-plif"))
        with pytest.raises(UsageError, match="found images of uint8, expected normalised ones") as refused:
            model(torch.zeros(1, *model.input_shape, dtype=torch.uint8))
        assert "model.to_input(image)" in refused.value.hint

    def test_recording_is_no_image(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", draw_events())
        model = make_model(image_spec("mnist-plif"))
        with pytest.raises(RawDataError, match=r"a\.npy: a file of format numpy, expected an image"):
            model.predict(tmp_path / "a.npy")
        with pytest.raises(RawDataError, match="no such file"):
            model.predict(tmp_path / "b.png")
        with pytest.raises(UsageError, match="classifies images, not events"):
            model.predict(draw_events())


class TestStep:
    def test_steps_equal_predict(self, model: Model) -> None:
        events = draw_events()
        state, rates = None, []
        for frame in model.to_input(events):
            votes, state = model.step(frame[None], state)
            rates.append(votes[0].detach().numpy())
        np.testing.assert_array_equal(np.array(rates), model.predict(events).rates)

    def test_step_with_the_state_of_another_batch_is_refused(self, model: Model) -> None:
        _, state = model.step(torch.zeros(3, *SHAPE))
        with pytest.raises(
            UsageError, match=r"state of sn0 is float32 \[3, 40\] on cpu, expected float32 \[2, 40\] on cpu"
        ):
            model.step(torch.zeros(2, *SHAPE), state)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda v: v[:, :1], r"float32 \[2, 1\] on cpu"),
            (lambda v: v[:, None], r"float32 \[2, 1, 40\] on cpu"),
            (lambda v: v.double(), r"float64 \[2, 40\] on cpu"),
            (lambda v: v.numpy(), "ndarray"),
        ],
        ids=["channels", "dimensions", "type", "array"],
    )
    def test_step_with_a_state_of_other_neurons_is_refused(self, model: Model, change: Any, found: str) -> None:
        with torch.no_grad():
            _, state = model.step(torch.zeros(2, *SHAPE))
        state["sn0"] = change(state["sn0"])
        with pytest.raises(UsageError, match=f"state of sn0 is {found}, expected float32") as refused:
            model.step(torch.zeros(2, *SHAPE), state)
        assert refused.value.hint.startswith("rates, state = model.step")

    def test_step_in_training_mode_is_refused(self, model: Model) -> None:
        with pytest.raises(UsageError, match="step: the network is in training mode") as refused:
            model.train().step(torch.zeros(1, *SHAPE))
        assert refused.value.hint == "model.eval()"

    @pytest.mark.parametrize("number", [math.nan, math.inf])
    def test_step_of_numbers_that_are_not_finite_is_refused(self, model: Model, number: float) -> None:
        frame = torch.zeros(1, *SHAPE)
        frame[0, 1, 2, 3] = number
        with pytest.raises(UsageError, match="step: found numbers that are not finite"):
            model.step(frame)

    def test_step_with_another_state_is_refused(self, model: Model) -> None:
        returned: Any = model.step(torch.zeros(1, *SHAPE))
        with pytest.raises(UsageError, match="found the state tuple, expected that of sn0, sn1") as refused:
            model.step(torch.zeros(1, *SHAPE), returned)
        assert refused.value.hint.startswith("rates, state = model.step")
        with pytest.raises(UsageError, match="found the state that of sn0, expected that of sn0, sn1"):
            model.step(torch.zeros(1, *SHAPE), {"sn0": returned[1]["sn0"]})

    def test_step_of_a_numpy_array_is_refused(self, model: Model) -> None:
        frame: Any = np.zeros((1, *SHAPE), np.float32)
        with pytest.raises(UsageError, match="found ndarray, expected a tensor"):
            model.step(frame)

    @pytest.mark.parametrize("lengths", [(math.nan,), (math.inf,), (1, math.nan)])
    def test_windows_of_no_finite_length_are_refused(self, model: Model, lengths: tuple[float, ...]) -> None:
        with pytest.raises(UsageError, match="expected finite lengths"):
            next(model.predict_windows(draw_events(), *lengths))

    @pytest.mark.parametrize(
        ("frame", "found"),
        [
            (torch.zeros(SHAPE), r"float32 \[2, 8, 10\]"),
            (torch.zeros(1, *SHAPE, dtype=torch.uint8), r"uint8 \[1, 2, 8, 10\]"),
            (torch.zeros(1, 4, *SHAPE), r"float32 \[1, 4, 2, 8, 10\]"),
        ],
    )
    def test_step_of_no_such_frame_is_refused(self, model: Model, frame: torch.Tensor, found: str) -> None:
        with pytest.raises(UsageError, match=rf"found a frame {found}, expected float \[N, 2, 8, 10\]"):
            model.step(frame)


def test_model_loaded_on_a_gpu_keeps_auto_so_that_it_can_move_to_the_cpu(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    chosen = Selection("triton", graph=True, by="remembered")
    monkeypatch.setattr("plifctl.pipeline.device.select_kernel", lambda *_, **__: chosen)
    network = model.network
    use_remembered_kernel(network, model.spec, gpu)
    kernels: list[str] = []

    def stage(x: torch.Tensor, T: int, *arguments: Any) -> Any:
        kernels.append(arguments[3])
        return spiking_stage(x, T, *arguments)

    monkeypatch.setattr("plifctl.snn.networks.spiking_stage", stage)
    model(torch.rand(2, 4, *SHAPE))
    assert set(kernels) == {"auto"}
    for one in (network, copy.deepcopy(network), fold_batch_norm(network)):
        with FakeTensorMode():
            assert one._kernel_for(torch.empty(1, device=gpu)) == "triton"
    network.kernel = "eager"  # the user's choice
    with FakeTensorMode():
        assert network._kernel_for(torch.empty(1, device=gpu)) == "eager"
