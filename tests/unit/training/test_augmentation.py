"""Augmentation: by hand on small images and frames; each sample by its own key, whatever batch it is in."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from unit.test_samples import Made

from plifctl.config.augmentation import EVENT_AUGMENTATIONS, CutMix, EventAugmentation, Flip, Roll, Rotate
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.registry import load_registry
from plifctl.errors import RegistryError, UsageError
from plifctl.snn.functional import hash_keys
from plifctl.training import augmentation as module
from plifctl.training.augmentation import augment_events, augment_images
from plifctl.training.batches import Batch, BatchLoader, identities
from plifctl.training.distributed import Ranks

CPU = torch.device("cpu")
N, T, H, W = 60, 3, 5, 7
KEYS = torch.arange(N)
FRAMES = torch.randint(0, 9, (N, T, 2, H, W), generator=torch.Generator().manual_seed(0)).float()
TARGETS = torch.eye(N)

FLIP, ROLL, TURN = Flip(name="flip", p=0.5), Roll(name="roll", pixels=2), Rotate(name="rotate", degrees=30.0)
MIX = CutMix(name="cut-mix", p=1.0, alpha=1.0)


def done(*augmentations: EventAugmentation, frames: torch.Tensor = FRAMES, keys: torch.Tensor = KEYS) -> torch.Tensor:
    found, targets = augment_events(frames, TARGETS[: len(frames)], keys, augmentations)
    assert targets is not None
    return found


class TestEvents:
    @pytest.mark.parametrize(("p", "expected"), [(0.0, FRAMES), (1.0, FRAMES.flip(-1))])
    def test_flip_always_and_never(self, p: float, expected: torch.Tensor) -> None:
        assert torch.equal(done(Flip(name="flip", p=p)), expected)

    def test_flip_sometimes_mirrors_x(self) -> None:
        found = done(FLIP)
        flipped = [torch.equal(one, frame.flip(-1)) for one, frame in zip(found, FRAMES, strict=True)]
        kept = [torch.equal(one, frame) for one, frame in zip(found, FRAMES, strict=True)]
        assert all(a != b for a, b in zip(flipped, kept, strict=True))
        assert 15 < sum(flipped) < 45
        line = torch.tensor([1.0, 2, 3]).view(1, 1, 1, 1, 3)
        by_hand, _ = augment_events(line, TARGETS[:1], KEYS[:1], [Flip(name="flip", p=1.0)])
        assert by_hand.flatten().tolist() == [3, 2, 1]

    def test_roll_shifts_all_around(self) -> None:
        shifts = []
        for one, frame in zip(done(ROLL), FRAMES, strict=True):
            fitting = [
                (y, x) for y in range(-2, 3) for x in range(-2, 3) if torch.equal(one, frame.roll((y, x), (-2, -1)))
            ]
            assert len(fitting) == 1
            shifts += fitting
        assert {y for y, _ in shifts} == {x for _, x in shifts} == {-2, -1, 0, 1, 2}
        assert len(set(shifts)) > 15  # y and x apart from each other

    def test_counts_are_kept(self) -> None:
        for one in (FLIP, ROLL):
            assert torch.equal(done(one).sum((-1, -2)), FRAMES.sum((-1, -2)))

    def test_a_quarter_turn_by_hand(self) -> None:
        frame = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
        found = module._transform(
            frame.expand(3, 1, 1, 3, 3),
            torch.tensor([90.0, 180, -90], dtype=torch.float64).deg2rad(),
            torch.ones(3, dtype=torch.float64),
            torch.zeros(3, 2, dtype=torch.float64),
        )
        assert found[0, 0, 0].tolist() == [[7, 4, 1], [8, 5, 2], [9, 6, 3]]  # clockwise
        assert found[1, 0, 0].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
        assert found[2, 0, 0].tolist() == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]

    def test_rotation_stays_within_its_degrees(self) -> None:
        size = 101
        ramp = torch.arange(1.0, size + 1)
        frames = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size)]).expand(N, 1, 2, size, size)
        found = augment_events(frames, TARGETS, KEYS, [TURN])[0][:, 0]
        right = found[:, :, 50, 90] - found[:, :, 50, 50]
        angle = torch.atan2(right[:, 1], right[:, 0]).rad2deg()
        assert -32 < angle.min() < -22
        assert 22 < angle.max() < 32
        assert torch.equal(found[:, :, 50, 50], torch.full((N, 2), 51.0))

    def test_all_steps_of_a_sample_alike(self) -> None:
        steady = FRAMES[:, :1].expand_as(FRAMES)
        found, _ = augment_events(steady, TARGETS, KEYS, [FLIP, ROLL, TURN, MIX])
        assert torch.equal(found, found[:, :1].expand_as(found))

    @pytest.mark.parametrize("one", [FLIP, ROLL, TURN, MIX], ids=lambda one: one.name)
    def test_each_sample_by_its_own_key(self, one: EventAugmentation) -> None:
        whole, targets = augment_events(FRAMES, TARGETS, KEYS, [one])
        pair, pair_targets = augment_events(FRAMES[7:9], TARGETS[7:9], KEYS[7:9], [one])
        assert len(whole) == N - (one is MIX)
        assert torch.equal(pair, whole[7 : 7 + len(pair)])
        assert torch.equal(pair_targets, targets[7 : 7 + len(pair)])
        assert not torch.equal(augment_events(FRAMES, TARGETS, KEYS + 1000, [one])[0], whole)

    def test_the_place_in_the_list_is_part_of_the_key(self) -> None:
        twice = done(FLIP, FLIP)
        assert not torch.equal(twice, FRAMES)

    def test_in_the_order_of_the_list(self) -> None:
        sure = Flip(name="flip", p=1.0)
        one, other = done(TURN, sure), done(sure, TURN)
        assert torch.equal(one, done(TURN).flip(-1))
        assert not torch.equal(one, other)

    def test_all_is_done_on_the_device(self) -> None:
        """Tensors without content: whatever asks for a number, or for one on another device, fails."""
        frames, targets, keys = (one.to("meta") for one in (FRAMES, TARGETS, KEYS))
        found, mixed = augment_events(frames, targets, keys, [FLIP, ROLL, TURN, MIX, FLIP])
        assert found.device == mixed.device == frames.device
        assert found.shape == (N - 1, T, 2, H, W)
        assert hash_keys(3, keys, 4).device == keys.device
        for kind in ("flip-crop", "affine"):
            assert augment_images(frames[:, 0], keys, kind).shape == (N, 2, H, W)

    def test_nothing_to_do(self) -> None:
        frames, targets = augment_events(FRAMES, TARGETS, KEYS, [])
        assert frames is FRAMES
        assert targets is TARGETS
        for one in (FLIP, ROLL, TURN, MIX):
            assert augment_events(FRAMES[:0], TARGETS[:0], KEYS[:0], [one])[0].shape == (0, T, 2, H, W)


class TestCutMix:
    def test_a_rectangle_of_the_next_sample_and_targets_by_area(self) -> None:
        number = torch.arange(1.0, N + 1).view(N, 1, 1, 1, 1).expand(N, T, 2, 16, 12)
        found, targets = augment_events(number, TARGETS, KEYS, [MIX])
        assert len(found) == len(targets) == N - 1
        areas = []
        for i, (one, target) in enumerate(zip(found, targets, strict=True)):
            other = one == i + 2
            assert torch.equal(other, one != i + 1)
            assert torch.equal(other, other[:1, :1].expand_as(other))
            plane = other[0, 0]
            area = int(plane.any(1).sum() * plane.any(0).sum())
            assert int(plane.sum()) == area  # a rectangle
            expected = torch.zeros(N)
            expected[i], expected[i + 1] = 1 - area / 192, area / 192
            torch.testing.assert_close(target, expected)
            areas.append(area)
        assert min(areas) < 20
        assert max(areas) > 80

    def test_never(self) -> None:
        found, targets = augment_events(FRAMES, TARGETS, KEYS, [CutMix(name="cut-mix", p=0.0, alpha=1.0)])
        assert torch.equal(found, FRAMES[:-1])
        assert torch.equal(targets, TARGETS[:-1])

    def test_the_box_is_that_of_the_published_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """bbx1 = clip(cx − int(W·√(1 − λ)) // 2, 0, W), bbx2 = clip(cx + …), and so for y."""
        height, width = 20, 13
        monkeypatch.setattr(module, "_beta", lambda keys, alpha: torch.full((len(keys),), 0.64, dtype=torch.float64))
        number = torch.arange(1.0, N + 1).view(N, 1, 1, 1, 1).expand(N, 1, 1, height, width)
        found, _ = augment_events(number, TARGETS, KEYS, [MIX])
        half_y, half_x = int(height * 0.6) // 2, int(width * 0.6) // 2
        for i, one in enumerate(found[:, 0, 0]):
            plane = (one == i + 2).numpy()
            boxes = [
                (max(0, y - half_y), min(height, y + half_y), max(0, x - half_x), min(width, x + half_x))
                for y in range(height)
                for x in range(width)
            ]
            ys, xs = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
            assert (ys[0], ys[-1] + 1, xs[0], xs[-1] + 1) in boxes

    @pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
    def test_beta(self, alpha: float) -> None:
        keys = torch.arange(6_000)
        found = module._beta(keys, alpha)
        expected = np.random.default_rng(0).beta(alpha, alpha, 100_000)
        for at in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95):
            assert (found < at).double().mean().item() == pytest.approx((expected < at).mean(), abs=0.025)
        assert torch.equal(module._beta(keys[5:6], alpha), found[5:6])
        assert torch.isfinite(module._beta(keys, 1e-6)).all()


class TestImages:
    IMAGES = torch.rand(200, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    KEYS = torch.arange(200)

    def test_affine_is_the_published_one(self) -> None:
        """torchvision's RandomAffine of a PIL image, its matrix written out; Pillow rounds to 2⁻¹⁶ pixel."""
        height, width, n = 28, 40, 50
        rng = np.random.default_rng(0)
        images = rng.integers(1, 256, (n, height, width), np.uint8)
        u = module._draw(torch.arange(n), 5)
        found = module._affine(torch.from_numpy(images)[:, None], u)[:, 0].numpy()
        equal = []
        for image, one, (turn, down, right, size, _) in zip(images, found, u.tolist(), strict=True):
            angle, scale = math.radians(-30 + 60 * turn), 0.85 + 0.26 * size
            t_y, t_x = round((2 * down - 1) * 0.15 * height), round((2 * right - 1) * 0.15 * width)
            assert abs(t_y) <= 4
            assert abs(t_x) <= 6
            c, s, c_x, c_y = math.cos(angle) / scale, math.sin(angle) / scale, width * 0.5, height * 0.5
            matrix = [c, s, c_x - c * (c_x + t_x) - s * (c_y + t_y), -s, c, c_y + s * (c_x + t_x) - c * (c_y + t_y)]
            expected = Image.fromarray(image).transform((width, height), Image.Transform.AFFINE, matrix, fillcolor=0)
            equal.append((np.asarray(expected) == one).mean())
        assert np.mean(equal) > 0.999

    def test_affine_moves_by_whole_pixels(self) -> None:
        still = torch.tensor([0.5, 0.0, 1 - 2**-24, (1 - 0.85) / 0.26, 0], dtype=torch.float64)[None]
        image = torch.arange(1.0, 28 * 20 + 1).view(1, 1, 28, 20)
        found = module._affine(image, still)
        assert torch.equal(found[0, 0, :-4, 3:], image[0, 0, 4:, :-3])  # 4.2 up, 3 to the right
        assert not found[0, 0, -4:].any()
        assert not found[0, 0, :, :3].any()

    def test_flip_crop_is_a_shifted_window(self) -> None:
        found = augment_images(self.IMAGES, self.KEYS, "flip-crop")
        padded = torch.nn.functional.pad(self.IMAGES, (4,) * 4)
        mirrored = torch.nn.functional.pad(self.IMAGES.flip(-1), (4,) * 4)
        flips = 0
        for sample in range(200):
            windows = {
                (flip, top, left): torch.equal(found[sample], source[sample, :, top : top + 8, left : left + 9])
                for flip, source in enumerate((padded, mirrored))
                for top in range(9)
                for left in range(9)
            }
            assert any(windows.values())
            flips += next(flip for (flip, _, _), fits in windows.items() if fits)
        assert 70 < flips < 130

    @pytest.mark.parametrize("kind", ["flip-crop", "affine"])
    def test_each_sample_by_its_own_key(self, kind: str) -> None:
        whole = augment_images(self.IMAGES, self.KEYS, kind)
        assert torch.equal(augment_images(self.IMAGES[7:9], self.KEYS[7:9], kind), whole[7:9])
        assert not torch.equal(augment_images(self.IMAGES, self.KEYS + 1000, kind), whole)

    def test_none_and_nothing(self) -> None:
        assert augment_images(self.IMAGES, self.KEYS, "none") is self.IMAGES
        assert augment_images(self.IMAGES[:0], self.KEYS[:0], "affine").shape == (0, 3, 8, 9)


def test_affine_stays_within_its_bounds() -> None:
    """The map is read off an image of columns and one of rows, along two arms of its middle."""
    size, n, arm = 129, 300, 25
    span = torch.arange(1.0, size + 1)  # 0 is what comes from outside
    images = torch.stack([span.expand(size, size), span[:, None].expand(size, size)]).expand(n, 2, size, size)
    found = augment_images(images, torch.arange(n), "affine")
    middle = size // 2
    at = found[:, :, middle, middle]
    right, down = found[:, :, middle, middle + arm] - at, found[:, :, middle + arm, middle] - at
    inside = (torch.stack([at, right + at, down + at]) > 0).all(2).all(0)
    assert inside.sum() > 0.9 * n
    angle = torch.atan2(right[:, 1], right[:, 0])[inside].rad2deg()
    scale = arm / torch.hypot(right[:, 0], right[:, 1])[inside]
    assert -33 < angle.min() < -27
    assert 27 < angle.max() < 33
    assert 0.81 < scale.min() < 0.89
    assert 1.08 < scale.max() < 1.15
    assert torch.allclose(right[inside].norm(dim=1), down[inside].norm(dim=1), atol=2.0)
    shift = (at[inside] - (middle + 1)).norm(dim=1).max().item() / size
    assert 0.12 < shift < 0.15 * math.sqrt(2) / 0.85


def test_flip_crop_crops_everywhere() -> None:
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(400, 1, 8, 8)
    found = augment_images(images, torch.arange(400), "flip-crop")
    tops = {int((image[0].sum(1) == 0).nonzero()[0, 0].item()) for image in found if (image[0].sum(1) == 0).any()}
    assert len(tops) > 3
    whole = sum(bool((image > 0).all()) for image in found)
    assert whole < 40  # 1 of 81 stays in place, mirrored or not


def spec_of(*overrides: str, experiment: str = "demo") -> ExperimentSpec:
    settings = ["train.batch_size=4", "T=2", "train.drop_last=false", *overrides]
    return load_registry().experiment(experiment, overrides=settings).spec


class Share(Ranks):
    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def events() -> Made:
    return Made(np.random.default_rng(1).integers(0, 9, (11, 2, 2, 8, 8), np.uint8))


ALL = (
    "train.event_augmentation=[{name: flip, p: 0.5}, {name: roll, pixels: 2}, {name: rotate, degrees: 10}, "
    "{name: cut-mix, p: 0.7, alpha: 1.0}, {name: flip, p: 0.5}]"
)


def joined(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([getattr(b, key) for b in batches]) for key in ("x", "labels", "targets", "keys")}


class TestFeeder:
    def test_draws_follow_the_sample_wherever_it_lies(self) -> None:
        """Another order of the cache: the same mask and the same augmentation for the same sample."""
        images = Made(np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8))
        order = np.random.default_rng(1).permutation(20)
        other = Made(images.content[order])
        other.sample_ids = [images.sample_ids[row] for row in order]
        spec = spec_of(experiment="cifar10-plif")
        one, two = (joined(list(BatchLoader(made, spec, CPU).training(np.arange(20), 3))) for made in (images, other))
        assert set(one["keys"].tolist()) == set(two["keys"].tolist())
        by_key = dict(zip(two["keys"].tolist(), two["x"], strict=True))
        assert all(torch.equal(by_key[key], x) for key, x in zip(one["keys"].tolist(), one["x"], strict=True))

    def test_identities(self) -> None:
        found = identities(["train/1", "a\udcff", ""])
        assert found.dtype == np.int64
        assert found.tolist() == identities(["x", "train/1", "a\udcff", ""])[1:].tolist()
        assert len(set(identities([str(i) for i in range(60_000)]).tolist())) == 60_000
        assert identities([]).shape == (0,)

    def test_identities_stay_what_they_are(self) -> None:
        """blake2b("train/1"), little endian: resumed runs draw what they drew."""
        assert identities(["train/1"]).tolist() == [7566836123949646107]

    @pytest.mark.parametrize("overrides", [(), (ALL,)])
    def test_several_ranks_make_the_batches_of_one(self, overrides: tuple[str, ...]) -> None:
        spec, rows = spec_of(*overrides), np.arange(11)
        whole = list(BatchLoader(events(), spec, CPU).training(rows, 2))
        assert [len(b.x) for b in whole] == [4, 4, 3]
        shares = [list(BatchLoader(events(), spec, CPU, ranks=Share(r, 3)).training(rows, 2)) for r in range(3)]
        for step, batch in enumerate(whole):
            together = joined([share[step] for share in shares])
            assert all(torch.equal(value, getattr(batch, key)) for key, value in together.items())
            assert batch.whole == len(batch.x) == shares[0][step].whole

    def test_targets(self) -> None:
        plain = list(BatchLoader(events(), spec_of(), CPU).training(np.arange(11), 0))
        assert all(torch.equal(b.targets.argmax(1), b.labels) and (b.targets.max(1).values == 1).all() for b in plain)
        mixed = joined(list(BatchLoader(events(), spec_of(ALL), CPU).training(np.arange(11), 0)))
        torch.testing.assert_close(mixed["targets"].sum(1), torch.ones(11))
        assert ((mixed["targets"] > 0).sum(1) == 2).any()
        assert torch.equal(mixed["labels"], joined(plain)["labels"])

    def test_the_last_partner_is_the_first(self) -> None:
        number = np.broadcast_to(np.arange(1, 5, dtype=np.uint8).reshape(4, 1, 1, 1, 1), (4, 2, 2, 8, 8)).copy()
        spec = spec_of("train.event_augmentation=[{name: cut-mix, p: 1, alpha: 1.0}]")
        for epoch in range(5):
            (batch,) = BatchLoader(Made(number), spec, CPU).training(np.arange(4), epoch)
            own = (batch.labels + 1).tolist()
            for i, x in enumerate(batch.x):
                assert set(x.unique().tolist()) <= {own[i], own[(i + 1) % 4]}

    def test_only_training_batches(self) -> None:
        feeder, made = BatchLoader(events(), spec_of(ALL), CPU), events()
        found = torch.cat([batch.x for batch in feeder.plain(np.arange(11))])
        np.testing.assert_array_equal(found.numpy(), made.content.astype(np.float32))

    def test_epochs_and_seeds_differ(self) -> None:
        def one(epoch: int, seed: int) -> torch.Tensor:
            feeder = BatchLoader(events(), spec_of(ALL, f"train.seed={seed}"), CPU)
            return next(feeder.training(np.array([3]), epoch)).x

        assert torch.equal(one(1, 1), one(1, 1))
        assert not torch.equal(one(1, 1), one(2, 1))
        assert not torch.equal(one(1, 1), one(1, 2))


class TestSpecs:
    @pytest.mark.parametrize(
        ("experiment", "value", "message"),
        [
            ("demo", "[{name: flop}]", "train.event_augmentation[0]: unknown augmentation flop; did you mean flip?"),
            ("demo", "[{name: flip, q: 1}]", "unknown key train.event_augmentation[0].q"),
            (
                "demo",
                "[{name: flip, p: 1.5}]",
                "train.event_augmentation[0].p: found 1.5, should be less than or equal",
            ),
            ("demo", "[{name: flip}]", "train.event_augmentation[0].p is missing"),
            ("demo", "[{name: flip, p: 0}, {name: roll, pixels: 0}]", "train.event_augmentation[1].pixels: found 0"),
            ("demo", "[{name: rotate, degrees: 181}]", "degrees: found 181, should be less than or equal to 180"),
            ("demo", "[{name: cut-mix, p: 1, alpha: 0}]", "alpha: found 0, should be greater than 0"),
            ("demo", "[flip]", "found 'flip' (a text), expected an augmentation, e.g. {name: flip, p: 0.5}"),
            ("demo", "flip", "train.event_augmentation: found 'flip' (a text), should be a valid list"),
            ("demo", "[{name: cut-mix, p: 1, alpha: 1}, {name: cut-mix, p: 1, alpha: 1}]", "cut-mix twice"),
            ("mnist-plif", "[{name: flip, p: 0.5}]", "MNIST is a set of images; see train.augmentation"),
        ],
    )
    def test_errors(self, experiment: str, value: str, message: str) -> None:
        with pytest.raises(UsageError) as error:
            load_registry().experiment(experiment, overrides=[f"train.event_augmentation={value}"])
        assert message in str(error.value)

    def test_without_any_nothing_is_another(self) -> None:
        found = [load_registry().experiment("nmnist-plif", overrides=o) for o in ([], ["train.event_augmentation=[]"])]
        assert found[0].spec.digest == found[1].spec.digest
        assert found[0].spec.digest.startswith("a68e6c3311e1")
        assert spec_of(ALL).digest != spec_of().digest

    def test_a_spec_comes_back_from_json(self) -> None:
        one = spec_of(ALL)
        assert {a.name for a in one.train.event_augmentation} == set(EVENT_AUGMENTATIONS)
        assert ExperimentSpec.model_validate_json(one.model_dump_json()) == one

    def test_in_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "experiments").mkdir()
        text = """\
extends: _common
dataset: gesture
network: gesture
T: 20
train:
  normalise: none
  event_augmentation:
    - {name: flip, p: 0.5}
    - name: roll
      pixels: 5
variants:
  mine:
    title: Mine
    neuron: {kind: plif, tau_0: 2.0}
"""
        monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path))
        path = tmp_path / "experiments" / "mine.yaml"
        path.write_text(text)
        expected = (Flip(name="flip", p=0.5), Roll(name="roll", pixels=5))
        assert load_registry().experiment("mine").spec.train.event_augmentation == expected
        path.write_text(text.replace("pixels: 5", "pixel: 5"))
        with pytest.raises(
            RegistryError, match=r"10:7: mine: unknown key train.event_augmentation\[1\].pixel; did you"
        ):
            load_registry().experiment("mine")
