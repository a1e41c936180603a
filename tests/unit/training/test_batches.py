"""Batches: order, normalisation, augmentation by sample, shards of ranks."""

import numpy as np
import pytest
import torch
from tiny_training import CPU, SPLIT_A, ArraySamples, ShadeSamples, tiny_spec

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.training.batches import Batch, BatchLoader, hash_sample_ids
from plifctl.training.distributed import Ranks


class TestBatches:
    def test_training_batches_drop_last_leaves_complete_batches(self) -> None:
        spec = tiny_spec()
        loader = BatchLoader(ShadeSamples(), spec, CPU)
        batches = list(loader.training_batches(SPLIT_A.train, 0))
        assert [len(b.labels) for b in batches] == [5, 5, 5]
        assert loader.steps(SPLIT_A.train) == 3
        assert loader.steps(np.arange(3)) == 1  # fewer samples than a batch
        keys = torch.cat([b.keys for b in batches])
        assert len(keys.unique()) == 15

    def test_training_batches_start_later_continue_the_order(self) -> None:
        loader = BatchLoader(ShadeSamples(), tiny_spec("train.augmentation=none"), CPU)
        first, second = (
            torch.cat([b.labels for b in loader.training_batches(SPLIT_A.train, epoch)]) for epoch in (0, 1)
        )
        assert not torch.equal(first, second)
        later = next(loader.training_batches(SPLIT_A.train, 0, start=2))
        assert torch.equal(later.x, list(loader.training_batches(SPLIT_A.train, 0))[2].x)

    def test_training_batches_of_other_size_give_the_same_samples(self) -> None:
        samples = ShadeSamples()
        small, large = (
            BatchLoader(samples, tiny_spec(f"train.batch_size={n}", "train.drop_last=false"), CPU) for n in (3, 16)
        )
        found = [torch.cat([b.x for b in loader.training_batches(SPLIT_A.train, 4)]) for loader in (small, large)]
        assert torch.equal(found[0], found[1])

    def test_evaluation_batches_normalise_per_set(self) -> None:
        loader = BatchLoader(ShadeSamples(), tiny_spec(), CPU)
        x = next(loader.evaluation_batches(np.array([3]))).x
        expected = (ShadeSamples().images[[3]].astype(np.float32) / 255 - 0.1307) / 0.3081
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


def event_spec(*overrides: str, experiment: str = "demo") -> ExperimentSpec:
    settings = ["train.batch_size=4", "T=2", "train.drop_last=false", *overrides]
    return load_registry().experiment(experiment, overrides=settings).spec


class OneOf(Ranks):
    """One of several ranks, without communication."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def events() -> ArraySamples:
    return ArraySamples(np.random.default_rng(1).integers(0, 9, (11, 2, 2, 8, 8), np.uint8))


EVERY = (
    "train.event_augmentation=[{name: flip, p: 0.5}, {name: roll, pixels: 2}, {name: rotate, degrees: 10}, "
    "{name: cut-mix, p: 0.7, alpha: 1.0}, {name: flip, p: 0.5}]"
)


def concatenated(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([getattr(b, key) for b in batches]) for key in ("x", "labels", "targets", "keys")}


class TestAugmentedBatches:
    def test_training_batches_of_reordered_cache_draw_the_same_per_sample(self) -> None:
        images = ArraySamples(np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8))
        order = np.random.default_rng(1).permutation(20)
        other = ArraySamples(images.content[order])
        other.sample_ids = [images.sample_ids[row] for row in order]
        spec = event_spec(experiment="cifar10-plif")
        one, two = (
            concatenated(list(BatchLoader(made, spec, CPU).training_batches(np.arange(20), 3)))
            for made in (images, other)
        )
        assert set(one["keys"].tolist()) == set(two["keys"].tolist())
        by_key = dict(zip(two["keys"].tolist(), two["x"], strict=True))
        assert all(torch.equal(by_key[key], x) for key, x in zip(one["keys"].tolist(), one["x"], strict=True))

    def test_hash_sample_ids_depend_on_the_id_alone(self) -> None:
        found = hash_sample_ids(["train/1", "a\udcff", ""])
        assert found.dtype == np.int64
        assert found.tolist() == hash_sample_ids(["x", "train/1", "a\udcff", ""])[1:].tolist()
        assert len(set(hash_sample_ids([str(i) for i in range(60_000)]).tolist())) == 60_000
        assert hash_sample_ids([]).shape == (0,)

    def test_hash_sample_ids_keep_their_values(self) -> None:
        """blake2b("train/1"), little endian: resumed runs draw the same numbers as before."""
        assert hash_sample_ids(["train/1"]).tolist() == [7566836123949646107]

    @pytest.mark.parametrize("overrides", [(), (EVERY,)])
    def test_training_batches_of_several_ranks_equal_those_of_one(self, overrides: tuple[str, ...]) -> None:
        spec, rows = event_spec(*overrides), np.arange(11)
        single = list(BatchLoader(events(), spec, CPU).training_batches(rows, 2))
        assert [len(b.x) for b in single] == [4, 4, 3]
        shards = [list(BatchLoader(events(), spec, CPU, ranks=OneOf(r, 3)).training_batches(rows, 2)) for r in range(3)]
        for step, batch in enumerate(single):
            together = concatenated([shard[step] for shard in shards])
            assert all(torch.equal(value, getattr(batch, key)) for key, value in together.items())
            assert batch.global_size == len(batch.x) == shards[0][step].global_size

    def test_targets_with_cut_mix_are_mixed(self) -> None:
        plain = list(BatchLoader(events(), event_spec(), CPU).training_batches(np.arange(11), 0))
        assert all(torch.equal(b.targets.argmax(1), b.labels) and (b.targets.max(1).values == 1).all() for b in plain)
        mixed = concatenated(list(BatchLoader(events(), event_spec(EVERY), CPU).training_batches(np.arange(11), 0)))
        torch.testing.assert_close(mixed["targets"].sum(1), torch.ones(11))
        assert ((mixed["targets"] > 0).sum(1) == 2).any()
        assert torch.equal(mixed["labels"], concatenated(plain)["labels"])

    def test_cut_mix_partner_of_the_last_sample_is_the_first(self) -> None:
        number = np.broadcast_to(np.arange(1, 5, dtype=np.uint8).reshape(4, 1, 1, 1, 1), (4, 2, 2, 8, 8)).copy()
        spec = event_spec("train.event_augmentation=[{name: cut-mix, p: 1, alpha: 1.0}]")
        for epoch in range(5):
            (batch,) = BatchLoader(ArraySamples(number), spec, CPU).training_batches(np.arange(4), epoch)
            own = (batch.labels + 1).tolist()
            for i, x in enumerate(batch.x):
                assert set(x.unique().tolist()) <= {own[i], own[(i + 1) % 4]}

    def test_evaluation_batches_are_not_augmented(self) -> None:
        loader, made = BatchLoader(events(), event_spec(EVERY), CPU), events()
        found = torch.cat([batch.x for batch in loader.evaluation_batches(np.arange(11))])
        np.testing.assert_array_equal(found.numpy(), made.content.astype(np.float32))

    def test_training_batches_other_epoch_or_seed_differ(self) -> None:
        def one(epoch: int, seed: int) -> torch.Tensor:
            loader = BatchLoader(events(), event_spec(EVERY, f"train.seed={seed}"), CPU)
            return next(loader.training_batches(np.array([3]), epoch)).x

        assert torch.equal(one(1, 1), one(1, 1))
        assert not torch.equal(one(1, 1), one(2, 1))
        assert not torch.equal(one(1, 1), one(1, 2))
