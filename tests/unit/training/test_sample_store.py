"""Samples on their way to the device: equal for every placement, never overwritten, no thread left behind."""

import signal
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import pytest
import torch
from factories import build_cache, write_gestures
from tiny_training import CPU, ArraySamples

from plifctl.cache import Cache
from plifctl.config.choices import DataPlacement
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.source import RawSource
from plifctl.errors import CorruptCacheError, Interrupted, OutOfMemoryError, UsageError
from plifctl.training import sample_store as module
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.sample_store import BufferPool, choose_placement, free_memory, open_source

PLACEMENTS: tuple[DataPlacement, ...] = get_args(DataPlacement)  # "device" is the CPU here
T = 3
ROWS = np.arange(1, 31)
CUT_MIX = "train.event_augmentation=[{name: flip, p: 0.5}, {name: cut-mix, p: 0.7, alpha: 1.0}]"


def build(folder: Path, **options: Any) -> Cache:
    write_gestures(folder / "raw")
    found = load_registry().dataset("synthetic-gesture")
    raw = open_raw(found, RawSource(folder / "raw"))
    assert isinstance(raw, EventDataset)
    return build_cache(raw, T, folder / "cache", made_by="plifctl prepare synthetic-gesture --T 3", **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return build(tmp_path_factory.mktemp("samples"))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    yield
    assert readers() == []


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("plifctl-reader")]


def spec_of(experiment: str = "demo", *overrides: str) -> ExperimentSpec:
    settings = ["train.batch_size=4", f"T={T}", *overrides]
    return load_registry().experiment(experiment, overrides=settings).spec


def expected(cache: Cache, rows: np.ndarray) -> torch.Tensor:
    """Returns the samples as h5py reads them."""
    with h5py.File(cache.path, "r", locking=False) as file:
        return torch.from_numpy(file["frames"][:][rows].astype(np.float32))


@pytest.mark.parametrize("placement", PLACEMENTS)
class TestEveryPlacement:
    def test_training_batches_order_depends_on_seed_and_epoch(self, cache: Cache, placement: DataPlacement) -> None:
        loader = BatchLoader(cache, spec_of("demo", "train.seed=7"), CPU, data_in=placement)
        for epoch in (0, 5):
            order = np.random.default_rng([7, epoch, 1]).permutation(ROWS)  # as since the first version
            batches = list(loader.training_batches(ROWS, epoch))
            assert [len(batch.labels) for batch in batches] == [4] * 7
            for step, batch in enumerate(batches):
                chosen = order[4 * step : 4 * step + 4]
                assert torch.equal(batch.x, expected(cache, chosen))
                assert batch.labels.tolist() == cache.labels[chosen].tolist()
            assert torch.equal(torch.cat([b.x for b in loader.evaluation_batches(ROWS)]), expected(cache, ROWS))

    @pytest.mark.parametrize("settings", [(), (CUT_MIX,)], ids=["plain", "cut-mix"])
    @pytest.mark.parametrize("step", [0, 3, 6, 7])
    def test_training_batches_from_any_step_equal_the_rest(
        self, cache: Cache, placement: DataPlacement, step: int, settings: tuple[str, ...]
    ) -> None:
        spec = spec_of("demo", *settings)
        every = list(BatchLoader(cache, spec, CPU, data_in="disk").training_batches(ROWS, 2))
        rest = list(BatchLoader(cache, spec, CPU, data_in=placement).training_batches(ROWS, 2, start=step))
        assert len(rest) == 7 - step
        assert all(same(one, other) for one, other in zip(every[step:], rest, strict=True))
        mixed = [bool(((batch.targets > 0).sum(1) > 1).any()) for batch in every]
        assert any(mixed) == (settings == (CUT_MIX,))

    def test_training_batches_of_images_are_equal_for_every_placement(self, placement: DataPlacement) -> None:
        images = ArraySamples(np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8))
        spec = spec_of("cifar10-plif")
        assert (spec.train.augmentation, spec.train.normalise) == ("flip-crop", "per-set")
        before = images.content.copy()
        found, again = (
            list(BatchLoader(images, spec, CPU, data_in=where).training_batches(np.arange(20), 1))
            for where in (placement, "disk")
        )
        assert all(same(one, other) for one, other in zip(found, again, strict=True))
        np.testing.assert_array_equal(images.content, before)
        rows = np.array([3, 17])
        (batch,) = BatchLoader(images, spec, CPU, data_in=placement).evaluation_batches(rows)
        mean, std = (np.reshape(v, (3, 1, 1)) for v in (spec.dataset.mean, spec.dataset.std))
        np.testing.assert_allclose(batch.x.numpy(), (before[rows] / 255 - mean) / std, rtol=1e-5, atol=1e-5)

    def test_evaluation_batches_of_uint16_keep_values(self, placement: DataPlacement) -> None:
        content = np.random.default_rng(0).integers(0, 2**16, (9, T, 2, 128, 128), np.uint16)
        loader = BatchLoader(ArraySamples(content), spec_of(), CPU, data_in=placement)
        found = torch.cat([batch.x for batch in loader.evaluation_batches(np.arange(9)[::-1].copy())])
        np.testing.assert_array_equal(found.numpy(), content[::-1].astype(np.float32))

    def test_batch_in_use_is_never_overwritten(self, cache: Cache, placement: DataPlacement) -> None:
        loader = BatchLoader(cache, spec_of(), CPU, data_in=placement)
        batches = list(loader.evaluation_batches(ROWS))
        last_step = batches[0].x[1, -1].numpy()  # a view that outlives the batch
        kept = last_step.copy()
        assert torch.equal(torch.cat([batch.x for batch in batches]), expected(cache, ROWS))
        del batches
        for _ in range(3):
            for batch in loader.training_batches(ROWS, 0):
                batch.x.fill_(77)
        np.testing.assert_array_equal(last_step, kept)
        assert torch.equal(torch.cat([b.x for b in loader.evaluation_batches(ROWS)]), expected(cache, ROWS))

    def test_training_batches_reuse_memory(self, cache: Cache, placement: DataPlacement) -> None:
        loader = BatchLoader(cache, spec_of(), CPU, data_in=placement)
        assert len({batch.x.data_ptr() for epoch in range(3) for batch in loader.training_batches(ROWS, epoch)}) <= 2

    def test_two_streams_at_once_equal_each_alone(self, placement: DataPlacement) -> None:
        images = ArraySamples(np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), np.uint8))
        loader = BatchLoader(images, spec_of("mnist-plif"), CPU, data_in=placement)
        rows = np.arange(40)
        pairs = list(zip(loader.training_batches(rows, 0), loader.evaluation_batches(rows), strict=True))
        for found, alone in zip(
            zip(*pairs, strict=True), (loader.training_batches(rows, 0), loader.evaluation_batches(rows)), strict=True
        ):
            assert all(same(one, other) for one, other in zip(found, alone, strict=True))

    def test_batches_of_no_rows_are_empty(self, cache: Cache, placement: DataPlacement) -> None:
        loader = BatchLoader(cache, spec_of(), CPU, data_in=placement)
        assert list(loader.evaluation_batches(ROWS[:0])) == []
        assert list(loader.training_batches(ROWS[:0], 0)) == []


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


class TestReadingAhead:
    def test_disk_source_reads_one_batch_ahead(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        first_rows: list[int] = []
        ahead = threading.Event()
        read = Cache.read

        def noted(self: Cache, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
            first_rows.append(int(rows[0]))
            assert threading.current_thread() in readers()
            if len(first_rows) == 2:
                ahead.set()
            return read(self, rows, out)

        monkeypatch.setattr(Cache, "read", noted)
        stream = BatchLoader(cache, spec_of(), CPU, data_in="disk").evaluation_batches(ROWS)
        next(stream)
        assert ahead.wait(10)
        assert first_rows == [1, 5]
        assert len(readers()) == 1

    @pytest.mark.parametrize("end", ["break", "error", "interrupted", "exhausted"])
    def test_disk_source_ended_in_any_way_leaves_no_thread(self, cache: Cache, end: str) -> None:
        loader = BatchLoader(cache, spec_of(), CPU, data_in="disk")
        errors = {"error": ValueError("mine"), "interrupted": Interrupted(signal.SIGINT, "stopped")}

        def use() -> None:
            for step, _ in enumerate(loader.training_batches(ROWS, 0)):
                assert len(readers()) == 1
                if step == 2 and end in errors:
                    raise errors[end]
                if step == 2 and end == "break":
                    break

        if end in errors:
            with pytest.raises(type(errors[end])):
                use()
        else:
            use()
        assert readers() == []
        assert len(list(loader.training_batches(ROWS, 0))) == 7  # and can be used again

    def test_disk_source_damaged_sample_is_named_with_its_batch(self, tmp_path: Path) -> None:
        damaged = build(tmp_path)
        with h5py.File(damaged.path, "r", locking=False) as file:
            chunk = file["frames"].id.get_chunk_info_by_coord((9, 0, 0, 0, 0))
        damaged.close()
        with damaged.path.open("r+b") as file:
            file.seek(chunk.byte_offset + chunk.size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 0x10]))
        stream = BatchLoader(damaged, spec_of(), CPU, data_in="disk").evaluation_batches(np.arange(20))
        assert [next(stream).labels.tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        with pytest.raises(CorruptCacheError, match=r"sample user01_lab/09 fails its checksum") as error:
            next(stream)
        assert "plifctl prepare synthetic-gesture" in error.value.hint
        placements: tuple[DataPlacement, ...] = ("memory", "device")
        for placement in placements:
            with pytest.raises(CorruptCacheError, match=r"sample user01_lab/09 fails"):
                BatchLoader(damaged, spec_of(), CPU, data_in=placement)

    def test_disk_source_error_in_the_thread_is_raised(self) -> None:
        class Failing(ArraySamples):
            def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
                raise Interrupted(15, "stopped")

        loader = BatchLoader(Failing(np.zeros((8, 1, 28, 28), np.uint8)), spec_of("mnist-plif"), CPU, data_in="disk")
        with pytest.raises(Interrupted):
            next(loader.evaluation_batches(np.arange(8)))


class TestBuffers:
    def test_buffer_in_use_is_not_reused(self) -> None:
        buffers, shape_and_type = BufferPool(), ((4, 5), np.dtype(np.uint8))
        first = buffers.take(*shape_and_type)
        view, where = first[2:].view(-1), first.data_ptr()
        del first
        assert buffers.take(*shape_and_type).data_ptr() != where
        del view
        assert where in {tensor.data_ptr() for tensor in [buffers.take(*shape_and_type) for _ in range(2)]}

    def test_buffer_saved_by_autograd_is_not_reused(self) -> None:
        buffers, weight = BufferPool(), torch.ones(3, requires_grad=True)
        x = buffers.take((3,), np.dtype(np.float32)).fill_(2)
        loss = (x * weight).sum()
        del x
        for _ in range(5):
            buffers.take((3,), np.dtype(np.float32)).fill_(9)
        loss.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        assert weight.grad.tolist() == [2, 2, 2]

    def test_buffer_of_other_size_is_reused_or_allocated(self) -> None:
        buffers = BufferPool()
        large = buffers.take((6, 2), np.dtype(np.uint16))
        where = large.data_ptr()
        assert where % 64 == 0
        del large
        small = buffers.take((3,), np.dtype(np.float32))
        assert (small.data_ptr(), small.dtype, tuple(small.shape)) == (where, torch.float32, (3,))
        del small
        assert tuple(buffers.take((100,), np.dtype(np.uint8)).shape) == (100,)
        assert buffers.take((0, 4), np.dtype(np.uint8)).numel() == 0


class TestChoosePlacement:
    @pytest.fixture(autouse=True)
    def free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "free_memory", lambda: 20 * 10**9)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 10**9, 9 * 10**9))

    @pytest.mark.parametrize(
        ("device", "gigabytes", "place", "why"),
        [
            ("cuda:0", 2, "device", "samples are held on cuda:0: 2.0 GB of 8.0 GB free"),
            ("cuda:0", 2.1, "memory", "samples are held in memory: 2.1 GB of 20.0 GB free"),
            (
                "cuda:0",
                10.1,
                "disk",
                "10.1 GB are more than 25% of 8.0 GB free on cuda:0, 50% of 20.0 GB free in memory",
            ),
            ("cpu", 0.002, "memory", "samples are held in memory: 2.0 MB of 20.0 GB free"),
            ("cpu", 11, "disk", "samples are read from disk: 11.0 GB are more than 50% of 20.0 GB free in memory"),
        ],
    )
    def test_choose_placement_by_size_explains_itself(
        self, device: str, gigabytes: float, place: DataPlacement, why: str
    ) -> None:
        found, reason = choose_placement(int(gigabytes * 10**9), torch.device(device))
        assert found == place
        assert why in reason

    @pytest.mark.parametrize(("wanted", "gigabytes"), [("memory", 19), ("device", 7), ("disk", 500)])
    def test_choose_placement_requested_is_used(self, wanted: DataPlacement, gigabytes: int) -> None:
        assert choose_placement(gigabytes * 10**9, torch.device("cuda:0"), wanted)[0] == wanted

    @pytest.mark.parametrize(
        ("wanted", "device", "message"),
        [
            ("memory", "cpu", "--data-in memory: the samples need 30.0 GB, in memory 20.0 GB are free"),
            ("device", "cuda:0", "--data-in device: the samples need 30.0 GB, on cuda:0 8.0 GB are free"),
            ("device", "cpu", "--data-in device: cpu has no memory of its own"),
        ],
    )
    def test_choose_placement_without_memory_is_refused(self, wanted: DataPlacement, device: str, message: str) -> None:
        with pytest.raises(UsageError, match=message) as error:
            choose_placement(30 * 10**9, torch.device(device), wanted)
        assert "--data-in" in error.value.hint

    def test_open_source_out_of_memory_is_reported(self) -> None:
        vast = ArraySamples(np.zeros((2, 1), np.uint8))
        vast.shape, vast.nbytes = (2**55, 1), 2**55
        with pytest.raises(OutOfMemoryError, match=r"not enough memory for 36,028,797.0 GB of samples"):
            open_source(vast, CPU, "memory")


class TestFreeMemory:
    def free_on(self, root: Path, groups: str, files: dict[str, str]) -> int:
        for name, text in {
            "proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\n",
            "proc/self/cgroup": groups,
            **files,
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return free_memory(root)

    def test_free_memory_without_limit_is_the_machines(self, tmp_path: Path) -> None:
        assert self.free_on(tmp_path, "0::/\n", {}) == 8000 * 1024

    @pytest.mark.parametrize("inner", ["max", "9000000"])
    def test_free_memory_of_nested_groups_is_the_smallest(self, tmp_path: Path, inner: str) -> None:
        outer, own = "sys/fs/cgroup/jobs", "sys/fs/cgroup/jobs/mine"
        files = {
            f"{outer}/memory.max": "5000000",
            f"{outer}/memory.current": "3000000",
            f"{outer}/memory.stat": "anon 2900000\ninactive_file 100000\n",
            f"{own}/memory.max": inner,
            f"{own}/memory.current": "1000000",
            f"{own}/memory.stat": "inactive_file 0\n",
        }
        assert self.free_on(tmp_path, "0::/jobs/mine\n", files) == 2_100_000

    def test_free_memory_of_version_1_groups_counts_page_cache(self, tmp_path: Path) -> None:
        own = "sys/fs/cgroup/memory/mine"
        files = {
            f"{own}/memory.limit_in_bytes": "5000000",
            f"{own}/memory.usage_in_bytes": "6000000",
            f"{own}/memory.stat": "inactive_file 400000\n",
        }
        assert self.free_on(tmp_path, "3:cpuset:/\n2:memory:/mine\n0::/\n", files) == 0

    def test_free_memory_without_proc_is_half_of_installed(self, tmp_path: Path) -> None:
        assert free_memory(tmp_path) > 2**26

    def test_free_memory_without_sysconf_is_unknown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr("os.sysconf")
        assert free_memory(tmp_path) == 0
