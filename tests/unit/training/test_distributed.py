"""Data-parallel training: results equal those of one process; ranks from the environment."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_worker import TRAININGS, train

from plifctl.errors import RankError, RunError, UsageError
from plifctl.snn.layers import Linear
from plifctl.training import distributed
from plifctl.training.distributed import (
    Group,
    RankInfo,
    Ranks,
    compare_ranks,
    first_host,
    process_group,
    rank_device,
    rank_info,
)
from plifctl.training.gpus import Gpu

TESTS = Path(__file__).resolve().parents[2]


class Rank(Ranks):
    """One of several ranks, without communication."""

    def __init__(self, rank: int, size: int, others: Any = None) -> None:
        self.rank, self.size, self.others = rank, size, others

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.subprocess
def test_run_two_processes_equals_one(tmp_path: Path) -> None:
    """Shards of 2, 3 and no samples; augmentation, dropout, protocols, frozen layers, compact, both batch norms.

    In float64, so that no spike flips; also by the definition, whose gradients pass through the sums over ranks.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    result = subprocess.run(
        [*command, str(TESTS / "rank_worker.py"), str(tmp_path / "two.pt")],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.returncode == 0, result.stderr
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert two["stopped"] == [1, 1]
    assert two["cpu_seconds"] == [[18.0, 18.0]] * 2  # both ranks: 4 steps and 2 of testing, of 1 + 2 seconds
    for training, options in TRAININGS.items():
        one = train(Ranks(), *options)
        assert two[training]["predictions"] == one["predictions"]
        assert two[training]["labels"] == one["labels"]
        assert two[training]["accuracy"] == one["accuracy"]
        for row, other in zip(two[training]["metrics"], one["metrics"], strict=True):
            assert row.keys() == other.keys()
            for key, value in other.items():
                assert_close(row[key], value)
        for name, weight in one["model"].items():
            torch.testing.assert_close(two[training]["model"][name], weight, rtol=1e-7, atol=1e-9)


def assert_close(found: Any, expected: Any) -> None:
    """Compares numbers to 1e-9, in nested lists and dictionaries."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        for own, value in zip(found, expected, strict=True):
            assert_close(own, value)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9)
    else:
        assert found == expected


@pytest.mark.parametrize(("samples", "size"), [(16, 1), (16, 2), (5, 2), (7, 3), (1, 4), (0, 2)])
def test_shards_of_all_ranks_are_the_batch_in_order(samples: int, size: int) -> None:
    rows = np.arange(100, 100 + samples)
    shards = [Rank(rank, size).shard(rows) for rank in range(size)]
    assert np.concatenate(shards).tolist() == rows.tolist()
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


class TestRankInfo:
    def test_rank_info_single_process_is_none(self) -> None:
        assert rank_info({}) is None
        assert rank_info({"RANK": "0", "WORLD_SIZE": "1"}) is None
        batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}
        assert rank_info(batch_script) is None

    def test_rank_info_torchrun_takes_precedence(self) -> None:
        environment = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1234"}
        slurm = {"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}
        assert rank_info(environment | slurm) == RankInfo(3, 4, 1, "a", 1234)

    def test_rank_info_slurm_step_gives_rank(self) -> None:
        step = {
            "SLURM_PROCID": "5",
            "SLURM_NTASKS": "8",
            "SLURM_LOCALID": "1",
            "SLURM_JOB_ID": "123",
            "SLURM_STEP_ID": "2",
            "SLURM_STEP_NODELIST": "gpu[07-10],cpu1",
        }
        assert rank_info(step) == RankInfo(5, 8, 1, "gpu07", 20_325)
        assert rank_info({**step, "MASTER_ADDR": "b", "MASTER_PORT": "9"}) == RankInfo(5, 8, 1, "b", 9)

    def test_rank_info_incomplete_environment_is_refused(self) -> None:
        with pytest.raises(UsageError, match="incomplete"):
            rank_info({"RANK": "x", "WORLD_SIZE": "2"})

    @pytest.mark.parametrize(
        ("nodes", "first"),
        [("a", "a"), ("a,b", "a"), ("n[3]", "n3"), ("r[1-2]n[04,06]", "r1n04"), ("n[1-2]-x,b", "n1-x")],
    )
    def test_first_host_of_node_list(self, nodes: str, first: str) -> None:
        assert first_host(nodes) == first


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the number of GPUs of this machine, and the places of the other ranks."""
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(distributed, "known_gpu", lambda device: Gpu(device.index, f"GPU-{device.index}", "Test", ""))

    def has(count: int, others: Sequence[tuple[str, str]] = ()) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(distributed, "_gather", lambda value, size: [*others, value])

    return has


def test_rank_device_by_local_rank(gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    place = RankInfo(3, 4, 1, "a", 1)
    assert rank_device(None, "cuda:1") == "cuda:1"
    gpus(2)
    assert rank_device(place, "cpu") == "cpu"
    assert rank_device(place, None) == "cuda:1"
    assert rank_device(place, "cuda") == "cuda:1"
    gpus(1)
    with pytest.raises(UsageError, match="1 GPU"):
        rank_device(place, None)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert rank_device(place, None) == "cuda:0"


def test_rank_device_of_two_ranks_with_one_gpu_is_refused(
    gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, place = socket.gethostname(), RankInfo(1, 2, 1, "a", 1)
    monkeypatch.setenv("SLURM_PROCID", "1")
    for others in ([(here, "GPU-1")], [("elsewhere", "GPU-0")], [(here, "")]):
        gpus(1, others)
        assert rank_device(place, None) == "cuda:0"
    gpus(1, [(here, "GPU-0")])
    for name in (None, "cuda:0"):
        with pytest.raises(UsageError, match=f"ranks 0, 1 have the same GPU of {here}, GPU-0") as error:
            rank_device(place, name)
        assert "srun --gpus-per-task 1" in error.value.hint
    gpus(1, [(here, "")])
    monkeypatch.setattr(distributed, "known_gpu", lambda device: None)  # without nvidia-smi
    assert rank_device(place, None) == "cuda:0"


@pytest.mark.parametrize(
    ("alive", "message"),
    [
        ((0, 2), "the connection of the 3 ranks failed: NCCL error: invalid usage\n  Duplicate GPU detected"),
        ((0,), "rank 2 of 3 died, or did not answer"),
    ],
)
def test_propagate_errors_of_the_connection_says_who_did_not_answer(
    alive: Sequence[int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "_ALIVE_SECONDS", 0.0)
    store = torch.distributed.HashStore()
    for rank in alive:
        store.set(f"here/{rank}", "yes")
    group = Group(RankInfo(1, 3, 1, "", 0), store, 120.0)
    with pytest.raises(RankError) as error, group.propagate_errors():
        raise RuntimeError("NCCL error: invalid usage\nDuplicate GPU detected")
    assert str(error.value) == message


def test_compare_ranks_different_settings_are_refused() -> None:
    facts = {"cache": "a", "plifctl": "1"}
    compare_ranks(Rank(0, 2, [facts]), facts)
    with pytest.raises(UsageError, match=r"cache: rank 0 has a, rank 1 has b\n  plifctl: rank 0 has 1, rank 2 has 2"):
        compare_ranks(Rank(0, 3, [{**facts, "cache": "b"}, {**facts, "plifctl": "2"}]), facts)


def test_broadcast_model_sends_contiguous_tensors_and_keeps_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def broadcast(tensor: torch.Tensor, source: int) -> None:
        assert tensor.is_contiguous()  # NCCL refuses others
        tensor.copy_(torch.arange(6.0).view(2, 3) + source)

    model = Linear(3, 2)
    stride = model.weight.stride()
    assert not model.weight.is_contiguous()
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    Group(RankInfo(1, 2, 1, "", 0), torch.distributed.HashStore(), 1.0).broadcast_model(model)
    assert torch.equal(model.weight, torch.arange(6.0).view(2, 3))
    assert model.weight.stride() == stride


@pytest.mark.long
@pytest.mark.slow
def test_process_group_without_peers_times_out() -> None:
    with (
        pytest.raises(RankError, match="rank 1 of 2 cannot connect") as error,
        process_group(RankInfo(1, 2, 1, "127.0.0.1", 9), 1),
    ):
        pass
    assert isinstance(error.value, RunError)
    assert error.value.exit_code == 6
