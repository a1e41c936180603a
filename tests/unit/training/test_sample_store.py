"""Samples on their way to the device: the same from wherever they are held, never changed, no thread left behind."""

import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from factories import build_cache, write_gestures

from plifctl.cache import Cache
from plifctl.cache.chunks import COMPRESSIONS, decode, encode
from plifctl.cache.fletcher32 import fletcher32
from plifctl.config.choices import DataPlacement
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.registry import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.source import RawSource
from plifctl.errors import CorruptCacheError, Interrupted, OutOfMemoryError, UsageError
from plifctl.training import sample_store as module
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.sample_store import PLACES, Buffers, choose_placement, free_memory, open_source

CPU = torch.device("cpu")  # stands in for the GPU, too: "device" holds samples where batches go
T = 3
ROWS = np.arange(1, 31)


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


class Made:
    """Samples made up; refuses to be read by two at a time."""

    def __init__(self, content: np.ndarray) -> None:
        self.content, self.labels = content, np.arange(len(content)) % 10
        self.sample_ids = [str(row) for row in range(len(content))]
        self.shape, self.dtype, self.nbytes = content.shape, content.dtype, content.nbytes
        self._busy = threading.Lock()

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        assert self._busy.acquire(blocking=False), "two read at once"
        try:
            time.sleep(0.001)
            return np.take(self.content, rows, 0, out)
        finally:
            self._busy.release()


def expected(cache: Cache, rows: np.ndarray) -> torch.Tensor:
    """What h5py itself reads."""
    with h5py.File(cache.path, "r", locking=False) as file:
        return torch.from_numpy(file["frames"][:][rows].astype(np.float32))


@pytest.mark.parametrize("place", PLACES)
class TestWhereverTheyAre:
    def test_the_order_follows_from_seed_and_epoch(self, cache: Cache, place: DataPlacement) -> None:
        feeder = BatchLoader(cache, spec_of("demo", "train.seed=7"), CPU, data_in=place)
        for epoch in (0, 5):
            order = np.random.default_rng([7, epoch, 1]).permutation(ROWS)  # as it was from the first version on
            batches = list(feeder.training(ROWS, epoch))
            assert [len(batch.labels) for batch in batches] == [4] * 7
            for step, batch in enumerate(batches):
                chosen = order[4 * step : 4 * step + 4]
                assert torch.equal(batch.x, expected(cache, chosen))
                assert batch.labels.tolist() == cache.labels[chosen].tolist()
            assert torch.equal(torch.cat([b.x for b in feeder.plain(ROWS)]), expected(cache, ROWS))

    @pytest.mark.parametrize("step", [0, 3, 6, 7])
    def test_from_any_step_on(self, cache: Cache, place: DataPlacement, step: int) -> None:
        feeder = BatchLoader(cache, spec_of(), CPU, data_in=place)
        whole = list(feeder.training(ROWS, 2))
        rest = list(BatchLoader(cache, spec_of(), CPU, data_in=place).training(ROWS, 2, start=step))
        assert len(rest) == 7 - step
        assert all(same(one, other) for one, other in zip(whole[step:], rest, strict=True))

    def test_images_are_augmented_alike(self, place: DataPlacement) -> None:
        images = Made(np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8))
        spec = spec_of("cifar10-plif")
        assert (spec.train.augmentation, spec.train.normalise) == ("flip-crop", "per-set")
        before = images.content.copy()
        found, again = (
            list(BatchLoader(images, spec, CPU, data_in=p).training(np.arange(20), 1)) for p in (place, "disk")
        )
        assert all(same(one, other) for one, other in zip(found, again, strict=True))
        np.testing.assert_array_equal(images.content, before)
        rows = np.array([3, 17])
        (batch,) = BatchLoader(images, spec, CPU, data_in=place).plain(rows)
        mean, std = (np.reshape(v, (3, 1, 1)) for v in (spec.dataset.mean, spec.dataset.std))
        np.testing.assert_allclose(batch.x.numpy(), (before[rows] / 255 - mean) / std, rtol=1e-5, atol=1e-5)

    def test_16_bits(self, place: DataPlacement) -> None:
        content = np.random.default_rng(0).integers(0, 2**16, (9, T, 2, 128, 128), np.uint16)
        feeder = BatchLoader(Made(content), spec_of(), CPU, data_in=place)
        found = torch.cat([batch.x for batch in feeder.plain(np.arange(9)[::-1].copy())])
        np.testing.assert_array_equal(found.numpy(), content[::-1].astype(np.float32))

    def test_a_batch_never_changes_while_it_is_held(self, cache: Cache, place: DataPlacement) -> None:
        feeder = BatchLoader(cache, spec_of(), CPU, data_in=place)
        batches = list(feeder.plain(ROWS))
        last_step = batches[0].x[1, -1].numpy()  # a look into it, which survives it
        kept = last_step.copy()
        assert torch.equal(torch.cat([batch.x for batch in batches]), expected(cache, ROWS))
        del batches
        for _ in range(3):
            for batch in feeder.training(ROWS, 0):
                batch.x.fill_(77)
        np.testing.assert_array_equal(last_step, kept)
        assert torch.equal(torch.cat([b.x for b in feeder.plain(ROWS)]), expected(cache, ROWS))

    def test_memory_is_used_again(self, cache: Cache, place: DataPlacement) -> None:
        feeder = BatchLoader(cache, spec_of(), CPU, data_in=place)
        assert len({batch.x.data_ptr() for epoch in range(3) for batch in feeder.training(ROWS, epoch)}) <= 2

    def test_two_at_once(self, place: DataPlacement) -> None:
        images = Made(np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), np.uint8))
        feeder = BatchLoader(images, spec_of("mnist-plif"), CPU, data_in=place)
        rows = np.arange(40)
        pairs = list(zip(feeder.training(rows, 0), feeder.plain(rows), strict=True))
        for found, alone in zip(zip(*pairs, strict=True), (feeder.training(rows, 0), feeder.plain(rows)), strict=True):
            assert all(same(one, other) for one, other in zip(found, alone, strict=True))

    def test_nothing_to_do(self, cache: Cache, place: DataPlacement) -> None:
        feeder = BatchLoader(cache, spec_of(), CPU, data_in=place)
        assert list(feeder.plain(ROWS[:0])) == []
        assert list(feeder.training(ROWS[:0], 0)) == []


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("x", "labels", "keys"))


class TestReadingAhead:
    def test_one_batch_is_read_meanwhile(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        ahead = threading.Event()
        read = Cache.read

        def noted(self: Cache, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
            asked.append(int(rows[0]))
            assert threading.current_thread() in readers()
            if len(asked) == 2:
                ahead.set()
            return read(self, rows, out)

        monkeypatch.setattr(Cache, "read", noted)
        stream = BatchLoader(cache, spec_of(), CPU, data_in="disk").plain(ROWS)
        next(stream)
        assert ahead.wait(10)
        assert asked == [1, 5]
        assert len(readers()) == 1

    @pytest.mark.parametrize("end", ["break", "error", "interrupted", "exhausted"])
    def test_no_thread_outlives_its_reader(self, cache: Cache, end: str) -> None:
        feeder = BatchLoader(cache, spec_of(), CPU, data_in="disk")
        errors = {"error": ValueError("mine"), "interrupted": Interrupted(signal.SIGINT, "stopped")}

        def use() -> None:
            for step, _ in enumerate(feeder.training(ROWS, 0)):
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
        assert len(list(feeder.training(ROWS, 0))) == 7  # and all can begin again

    def test_a_damaged_sample_is_named_when_its_batch_is_due(self, tmp_path: Path) -> None:
        damaged = build(tmp_path)
        with h5py.File(damaged.path, "r", locking=False) as file:
            chunk = file["frames"].id.get_chunk_info_by_coord((9, 0, 0, 0, 0))
        damaged.close()
        with damaged.path.open("r+b") as file:
            file.seek(chunk.byte_offset + chunk.size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 0x10]))
        stream = BatchLoader(damaged, spec_of(), CPU, data_in="disk").plain(np.arange(20))
        assert [next(stream).labels.tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        with pytest.raises(CorruptCacheError, match=r"sample user01_lab/09 fails its checksum") as error:
            next(stream)
        assert "plifctl prepare synthetic-gesture" in error.value.hint
        for place in ("memory", "device"):
            with pytest.raises(CorruptCacheError, match=r"sample user01_lab/09 fails"):
                BatchLoader(damaged, spec_of(), CPU, data_in=place)  # type: ignore[arg-type]

    def test_whatever_is_raised_arrives(self) -> None:
        class Failing(Made):
            def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
                raise Interrupted(15, "no error, but the end")

        feeder = BatchLoader(Failing(np.zeros((8, 1, 28, 28), np.uint8)), spec_of("mnist-plif"), CPU, data_in="disk")
        with pytest.raises(Interrupted):
            next(feeder.plain(np.arange(8)))


class TestBuffers:
    def test_only_what_nobody_has_is_taken_again(self) -> None:
        buffers, of = Buffers(), ((4, 5), np.dtype(np.uint8))
        first = buffers.take(*of)
        view, where = first[2:].view(-1), first.data_ptr()
        del first
        assert buffers.take(*of).data_ptr() != where
        del view
        assert where in {tensor.data_ptr() for tensor in [buffers.take(*of) for _ in range(2)]}

    def test_a_graph_of_autograd_has_it_too(self) -> None:
        buffers, weight = Buffers(), torch.ones(3, requires_grad=True)
        x = buffers.take((3,), np.dtype(np.float32)).fill_(2)
        loss = (x * weight).sum()
        del x
        for _ in range(5):
            buffers.take((3,), np.dtype(np.float32)).fill_(9)
        loss.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        assert weight.grad.tolist() == [2, 2, 2]

    def test_smaller_and_larger(self) -> None:
        buffers = Buffers()
        large = buffers.take((6, 2), np.dtype(np.uint16))
        where = large.data_ptr()
        assert where % 64 == 0
        del large
        small = buffers.take((3,), np.dtype(np.float32))
        assert (small.data_ptr(), small.dtype, tuple(small.shape)) == (where, torch.float32, (3,))
        del small
        assert tuple(buffers.take((100,), np.dtype(np.uint8)).shape) == (100,)
        assert buffers.take((0, 4), np.dtype(np.uint8)).numel() == 0


class TestTheChoice:
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
    def test_by_size(self, device: str, gigabytes: float, place: DataPlacement, why: str) -> None:
        found, said = choose_placement(int(gigabytes * 10**9), torch.device(device))
        assert found == place
        assert why in said

    @pytest.mark.parametrize(("wanted", "gigabytes"), [("memory", 19), ("device", 7), ("disk", 500)])
    def test_as_asked(self, wanted: DataPlacement, gigabytes: int) -> None:
        assert choose_placement(gigabytes * 10**9, torch.device("cuda:0"), wanted)[0] == wanted

    @pytest.mark.parametrize(
        ("wanted", "device", "message"),
        [
            ("memory", "cpu", "--data-in memory: the samples need 30.0 GB, in memory 20.0 GB are free"),
            ("device", "cuda:0", "--data-in device: the samples need 30.0 GB, on cuda:0 8.0 GB are free"),
            ("device", "cpu", "--data-in device: cpu has no memory of its own"),
        ],
    )
    def test_no_room(self, wanted: DataPlacement, device: str, message: str) -> None:
        with pytest.raises(UsageError, match=message) as error:
            choose_placement(30 * 10**9, torch.device(device), wanted)
        assert "--data-in" in error.value.hint

    def test_the_allocator_has_the_last_word(self) -> None:
        vast = Made(np.zeros((2, 1), np.uint8))
        vast.shape, vast.nbytes = (2**55, 1), 2**55
        with pytest.raises(OutOfMemoryError, match=r"no room for 36,028,797.0 GB of samples"):
            open_source(vast, CPU, "memory")


class TestFreeMemory:
    def machine(self, root: Path, groups: str, files: dict[str, str]) -> int:
        for name, text in {
            "proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\n",
            "proc/self/cgroup": groups,
            **files,
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return free_memory(root)

    def test_of_the_machine(self, tmp_path: Path) -> None:
        assert self.machine(tmp_path, "0::/\n", {}) == 8000 * 1024

    @pytest.mark.parametrize("inner", ["max", "9000000"])
    def test_a_group_and_those_around_it(self, tmp_path: Path, inner: str) -> None:
        outer, own = "sys/fs/cgroup/jobs", "sys/fs/cgroup/jobs/mine"
        files = {
            f"{outer}/memory.max": "5000000",
            f"{outer}/memory.current": "3000000",
            f"{outer}/memory.stat": "anon 2900000\ninactive_file 100000\n",
            f"{own}/memory.max": inner,
            f"{own}/memory.current": "1000000",
            f"{own}/memory.stat": "inactive_file 0\n",
        }
        assert self.machine(tmp_path, "0::/jobs/mine\n", files) == 2_100_000

    def test_groups_of_version_1(self, tmp_path: Path) -> None:
        own = "sys/fs/cgroup/memory/mine"
        files = {
            f"{own}/memory.limit_in_bytes": "5000000",
            f"{own}/memory.usage_in_bytes": "6000000",
            f"{own}/memory.stat": "inactive_file 400000\n",
        }
        assert self.machine(tmp_path, "3:cpuset:/\n2:memory:/mine\n0::/\n", files) == 0

    def test_elsewhere_than_on_linux(self, tmp_path: Path) -> None:
        assert free_memory(tmp_path) > 2**26


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cache_reads_into_what_is_there(tmp_path: Path, compression: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, rows = build(tmp_path, compression=compression), np.array([30, 2, 2, 17])
    out = np.full((4, *cache.shape[1:]), 99, cache.dtype)
    if compression == "zstd":  # without HDF5's filters, which take memory for each chunk
        monkeypatch.setattr(h5py.Dataset, "read_direct", None)
    assert cache.read(rows, out=out) is out
    monkeypatch.undo()
    np.testing.assert_array_equal(out, expected(cache, rows).numpy())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).read(rows), out)


class TestChunks:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("most", [1, 3, 200])
    def test_what_was_packed(self, dtype: type, most: int) -> None:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            sample = (rng.integers(0, most + 1, (5, 2, 17, 13)) * (rng.random((5, 2, 17, 13)) < 0.1)).astype(dtype)
            out = np.full_like(sample, 9)
            assert decode(encode(sample, "zstd"), out)
            np.testing.assert_array_equal(out, sample)

    def test_one_bit_is_enough(self) -> None:
        sample = np.random.default_rng(1).integers(0, 3, (2, 16, 16)).astype(np.uint8)
        chunk = encode(sample, "zstd")
        for bit in range(8 * len(chunk)):
            damaged = bytearray(chunk)
            damaged[bit // 8] ^= 1 << bit % 8
            assert not decode(bytes(damaged), np.empty_like(sample))
        for end in range(len(chunk)):
            assert not decode(chunk[:end], np.empty_like(sample))

    def test_another_size_is_none(self) -> None:
        chunk = encode(np.zeros((2, 8, 8), np.uint8), "zstd")
        assert not decode(chunk, np.empty((2, 8, 9), np.uint8))

    def test_the_sums_are_those_that_are_written(self) -> None:
        rng = np.random.default_rng(0)
        for length in (*range(1, 40), 719, 720, 721, 65_537):
            for data in (rng.integers(0, 256, length, np.uint8), np.full(length, 255, np.uint8)):
                whole = int(fletcher32(data))
                words = np.append(data, np.zeros(length % 2, np.uint8)).view(">u2").astype(object)
                first, second = (
                    sum(words),
                    sum(word * n for word, n in zip(words, range(len(words), 0, -1), strict=True)),
                )
                assert ((whole & 0xFFFF) % 0xFFFF, (whole >> 16) % 0xFFFF) == (first % 0xFFFF, second % 0xFFFF)
