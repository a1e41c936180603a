"""Augmentation: hand-computed on small images and frames; each sample by its own key, in any batch."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from plifctl.config.augmentation import CutMix, EventAugmentation, Flip, Roll, Rotate
from plifctl.snn.keyed_random import hash_keys
from plifctl.training import augmentation as module
from plifctl.training.augmentation import augment_events, augment_images, draw_cut_areas

N, T, H, W = 60, 3, 5, 7
KEYS = torch.arange(N)
FRAMES = torch.randint(0, 9, (N, T, 2, H, W), generator=torch.Generator().manual_seed(0)).float()
TARGETS = torch.eye(N)

FLIP, ROLL, ROTATE = Flip(name="flip", p=0.5), Roll(name="roll", pixels=2), Rotate(name="rotate", degrees=30.0)
MIX = CutMix(name="cut-mix", p=1.0, alpha=1.0)
AREAS = draw_cut_areas(KEYS, 1.0)


def augmented(
    *augmentations: EventAugmentation, frames: torch.Tensor = FRAMES, keys: torch.Tensor = KEYS
) -> torch.Tensor:
    return augment_events(frames, TARGETS[: len(frames)], keys, augmentations)[0]


class TestEvents:
    @pytest.mark.parametrize(("p", "expected"), [(0.0, FRAMES), (1.0, FRAMES.flip(-1))])
    def test_flip_certain_or_impossible_flips_all_or_none(self, p: float, expected: torch.Tensor) -> None:
        assert torch.equal(augmented(Flip(name="flip", p=p)), expected)

    def test_flip_probable_mirrors_x_of_some(self) -> None:
        found = augmented(FLIP)
        flipped = [torch.equal(one, frame.flip(-1)) for one, frame in zip(found, FRAMES, strict=True)]
        kept = [torch.equal(one, frame) for one, frame in zip(found, FRAMES, strict=True)]
        assert all(a != b for a, b in zip(flipped, kept, strict=True))
        assert 15 < sum(flipped) < 45
        line = torch.tensor([1.0, 2, 3]).view(1, 1, 1, 1, 3)
        by_hand, _ = augment_events(line, TARGETS[:1], KEYS[:1], [Flip(name="flip", p=1.0)])
        assert by_hand.flatten().tolist() == [3, 2, 1]

    def test_roll_every_shift_occurs(self) -> None:
        shifts = []
        for one, frame in zip(augmented(ROLL), FRAMES, strict=True):
            fitting = [
                (y, x) for y in range(-2, 3) for x in range(-2, 3) if torch.equal(one, frame.roll((y, x), (-2, -1)))
            ]
            assert len(fitting) == 1
            shifts += fitting
        assert {y for y, _ in shifts} == {x for _, x in shifts} == {-2, -1, 0, 1, 2}
        assert len(set(shifts)) > 15  # y and x are independent

    def test_flip_and_roll_keep_the_counts(self) -> None:
        for one in (FLIP, ROLL):
            assert torch.equal(augmented(one).sum((-1, -2)), FRAMES.sum((-1, -2)))

    def test_transform_quarter_turn_gives_hand_computed_frame(self) -> None:
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

    def test_rotate_angles_stay_within_degrees(self) -> None:
        size = 101
        ramp = torch.arange(1.0, size + 1)
        frames = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size)]).expand(N, 1, 2, size, size)
        found = augment_events(frames, TARGETS, KEYS, [ROTATE])[0][:, 0]
        right = found[:, :, 50, 90] - found[:, :, 50, 50]
        angle = torch.atan2(right[:, 1], right[:, 0]).rad2deg()
        assert -32 < angle.min() < -22
        assert 22 < angle.max() < 32
        assert torch.equal(found[:, :, 50, 50], torch.full((N, 2), 51.0))

    def test_augment_events_all_frames_alike(self) -> None:
        steady = FRAMES[:, :1].expand_as(FRAMES)
        found, _ = augment_events(steady, TARGETS, KEYS, [FLIP, ROLL, ROTATE, MIX], AREAS[:-1])
        assert torch.equal(found, found[:, :1].expand_as(found))

    @pytest.mark.parametrize("one", [FLIP, ROLL, ROTATE, MIX], ids=lambda one: one.name)
    def test_augment_events_by_key_does_not_depend_on_batch(self, one: EventAugmentation) -> None:
        whole, targets = augment_events(FRAMES, TARGETS, KEYS, [one], AREAS[:-1])
        pair, pair_targets = augment_events(FRAMES[7:9], TARGETS[7:9], KEYS[7:9], [one], AREAS[7:8])
        assert len(whole) == N - (one is MIX)
        assert torch.equal(pair, whole[7 : 7 + len(pair)])
        assert torch.equal(pair_targets, targets[7 : 7 + len(pair)])
        assert not torch.equal(augment_events(FRAMES, TARGETS, KEYS + 1000, [one], AREAS[:-1])[0], whole)

    def test_augment_events_twice_the_same_draws_anew(self) -> None:
        twice = augmented(FLIP, FLIP)
        assert not torch.equal(twice, FRAMES)

    def test_augment_events_order_matters(self) -> None:
        sure = Flip(name="flip", p=1.0)
        one, other = augmented(ROTATE, sure), augmented(sure, ROTATE)
        assert torch.equal(one, augmented(ROTATE).flip(-1))
        assert not torch.equal(one, other)

    @pytest.mark.long  # torch imports a second of modules for it
    def test_augment_on_meta_device_reads_no_value(self) -> None:
        """Tensors without content: reading a value, or mixing devices, fails."""
        frames, targets, keys, areas = (one.to("meta") for one in (FRAMES, TARGETS, KEYS, AREAS[:-1]))
        found, mixed = augment_events(frames, targets, keys, [FLIP, ROLL, ROTATE, MIX, FLIP], areas)
        assert found.device == mixed.device == frames.device
        assert found.shape == (N - 1, T, 2, H, W)
        assert hash_keys(3, keys, 4).device == keys.device
        for kind in ("flip", "flip-crop", "affine"):
            assert augment_images(frames[:, 0], keys, kind).shape == (N, 2, H, W)

    def test_augment_events_nothing_to_do_returns_input(self) -> None:
        frames, targets = augment_events(FRAMES, TARGETS, KEYS, [])
        assert frames is FRAMES
        assert targets is TARGETS
        for one in (FLIP, ROLL, ROTATE, MIX):
            empty, _ = augment_events(FRAMES[:0], TARGETS[:0], KEYS[:0], [one], AREAS[:0])
            assert empty.shape == (0, T, 2, H, W)


class TestCutMix:
    def test_cut_mix_replaces_a_rectangle_and_mixes_targets_by_area(self) -> None:
        number = torch.arange(1.0, N + 1).view(N, 1, 1, 1, 1).expand(N, T, 2, 16, 12)
        found, targets = augment_events(number, TARGETS, KEYS, [MIX], AREAS[:-1])
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

    def test_cut_mix_impossible_changes_nothing(self) -> None:
        never = CutMix(name="cut-mix", p=0.0, alpha=1.0)
        found, targets = augment_events(FRAMES, TARGETS, KEYS, [never], AREAS[:-1])
        assert torch.equal(found, FRAMES[:-1])
        assert torch.equal(targets, TARGETS[:-1])

    def test_cut_mix_box_equals_authors_code(self) -> None:
        """bbx1 = clip(cx − int(W·√(1 − λ)) // 2, 0, W), bbx2 = clip(cx + …), and so for y."""
        height, width = 20, 13
        number = torch.arange(1.0, N + 1).view(N, 1, 1, 1, 1).expand(N, 1, 1, height, width)
        areas = torch.full((N - 1,), 0.36, dtype=torch.float64)
        found, _ = augment_events(number, TARGETS, KEYS, [MIX], areas)
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
    @pytest.mark.long
    def test_cut_areas_have_the_moments_of_beta(self, alpha: float) -> None:
        found = draw_cut_areas(hash_keys(7, torch.arange(20_000)), alpha)
        assert found.dtype == torch.float64
        assert ((found >= 0) & (found <= 1)).all()
        variance = 1 / (4 * (2 * alpha + 1))
        kurtosis_term = 3 * (1 - 2 / (2 * alpha + 3)) * variance**2  # E[(x − 1/2)⁴] of Beta(α, α)
        assert found.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(variance / 20_000))
        assert found.var().item() == pytest.approx(variance, rel=0.05)
        assert (found - 0.5).pow(4).mean().item() == pytest.approx(kurtosis_term, rel=0.05)

    def test_cut_areas_uniform_for_alpha_1(self) -> None:
        found = draw_cut_areas(hash_keys(8, torch.arange(20_000)), 1.0).sort().values
        expected = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
        assert (found - expected).abs().max() < 1.63 / math.sqrt(20_000)  # Kolmogorov and Smirnov, 1 %

    def test_cut_areas_by_key_do_not_depend_on_batch(self) -> None:
        keys = hash_keys(9, torch.arange(50))
        found = draw_cut_areas(keys, 0.4)
        assert torch.equal(draw_cut_areas(keys[5:6], 0.4), found[5:6])
        assert torch.equal(draw_cut_areas(keys.flip(0), 0.4), found.flip(0))
        assert len(found.unique()) == 50
        assert draw_cut_areas(keys[:0], 0.4).shape == (0,)
        assert draw_cut_areas(keys, 1e-6).isfinite().all()


class TestImages:
    IMAGES = torch.rand(200, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    KEYS = torch.arange(200)

    def test_affine_equals_pillow(self) -> None:
        """torchvision's RandomAffine of a PIL image, with its matrix written out; Pillow rounds to 2⁻¹⁶ pixel."""
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

    def test_affine_shift_is_rounded_to_pixels(self) -> None:
        still = torch.tensor([0.5, 0.0, 1 - 2**-24, (1 - 0.85) / 0.26, 0], dtype=torch.float64)[None]
        image = torch.arange(1.0, 28 * 20 + 1).view(1, 1, 28, 20)
        found = module._affine(image, still)
        assert torch.equal(found[0, 0, :-4, 3:], image[0, 0, 4:, :-3])  # 4.2 up, 3 to the right
        assert not found[0, 0, -4:].any()
        assert not found[0, 0, :, :3].any()

    def test_flip_crop_gives_a_window_of_the_padded_image(self) -> None:
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

    def test_flip_mirrors_half_of_the_images(self) -> None:
        found = augment_images(self.IMAGES, self.KEYS, "flip")
        mirrored = [torch.equal(one, image.flip(-1)) for one, image in zip(found, self.IMAGES, strict=True)]
        kept = [torch.equal(one, image) for one, image in zip(found, self.IMAGES, strict=True)]
        assert [not flip for flip in mirrored] == kept
        assert 70 < sum(mirrored) < 130

    @pytest.mark.parametrize("kind", ["flip", "flip-crop", "affine"])
    def test_augment_images_by_key_does_not_depend_on_batch(self, kind: str) -> None:
        whole = augment_images(self.IMAGES, self.KEYS, kind)
        assert torch.equal(augment_images(self.IMAGES[7:9], self.KEYS[7:9], kind), whole[7:9])
        assert not torch.equal(augment_images(self.IMAGES, self.KEYS + 1000, kind), whole)

    def test_augment_images_nothing_to_do_returns_input(self) -> None:
        assert augment_images(self.IMAGES, self.KEYS, "none") is self.IMAGES
        assert augment_images(self.IMAGES[:0], self.KEYS[:0], "affine").shape == (0, 3, 8, 9)


def test_affine_parameters_stay_within_bounds() -> None:
    """The map is read from an image of columns and one of rows, along two lines from the centre."""
    size, n, arm = 129, 300, 25
    span = torch.arange(1.0, size + 1)  # 0 is outside
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


def test_flip_crop_windows_vary() -> None:
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(400, 1, 8, 8)
    found = augment_images(images, torch.arange(400), "flip-crop")
    tops = {int((image[0].sum(1) == 0).nonzero()[0, 0].item()) for image in found if (image[0].sum(1) == 0).any()}
    assert len(tops) > 3
    whole = sum(bool((image > 0).all()) for image in found)
    assert whole < 40  # 1 of 81 is not shifted
