"""Data-parallel training: ranks that share each batch, their connection, and errors that end all of them.

Every process (a *rank*) holds the complete network. It computes its shard of each batch, gradients and statistics are
summed, and all ranks make the same step: results do not depend on the number of ranks. A rank that fails writes its
error to a store that all can read, and closes its connections; the others notice at their next collective operation and
read the error there.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from plifctl.errors import Interrupted, PlifctlError, RankError, UsageError, first_line, join_problems
from plifctl.training.gpus import known_gpu
from plifctl.training.process import ignore_stop_signals

V = TypeVar("V")

_POLL_SECONDS = 0.05  # between two reads of the store
_ALIVE_SECONDS = 2.0  # in which the survivors of a dead rank report that they are alive
_REPORT_SECONDS = 15.0  # in which a failed rank waits for the first one to report: torchrun kills after 30


class Ranks:
    """A single process: all collective operations return its own values. :class:`Group` has several."""

    rank = 0
    size = 1

    def shard(self, rows: np.ndarray) -> np.ndarray:
        """Returns this rank's shard of a batch: contiguous, in order; sizes differ by at most one."""
        return rows[len(rows) * self.rank // self.size : len(rows) * (self.rank + 1) // self.size]

    def weighted_loss(
        self, loss: Callable[[Tensor, Tensor], Tensor], rates: Tensor, targets: Tensor, global_size: int
    ) -> Tensor:
        """Returns this rank's part of the mean loss of a batch; the parts of all ranks sum to it.

        Args:
            loss: Mean over samples.
            rates: ``[T, n, C]``; n may be 0.
            targets: ``[n, C]``.
            global_size: Number of samples of all ranks.
        """
        return loss(rates, targets)

    def sum_values(self, *values: float) -> tuple[float, ...]:
        """Returns each value summed over ranks."""
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums the gradients over ranks, in place."""

    def any_signal(self, signum: int | None) -> int | None:
        """Returns a signal that any rank received, or None."""
        return signum

    def any_true(self, value: bool) -> bool:
        """Returns whether the value is true on any rank."""
        return value

    def gather(self, value: V) -> list[V]:
        """Returns the values of all ranks, by rank; plain values and CPU tensors."""
        return [value]

    def local_size(self) -> int:
        """Returns the number of ranks on this machine."""
        return self.gather(socket.gethostname()).count(socket.gethostname())

    def broadcast_from_first(self, make: Callable[[], V]) -> V:
        """Returns the result of ``make`` on the first rank; the other ranks do not call it."""
        return make()

    def broadcast_model(self, model: nn.Module) -> None:
        """Copies the first rank's weights and buffers to all ranks."""

    def barrier(self) -> None:
        """Waits until every rank has reached this point."""

    @contextmanager
    def first_rank_first(self) -> Iterator[None]:
        """Runs the block on the first rank, then on the others, which wait without a timeout."""
        yield

    @contextmanager
    def propagate_errors(self) -> Iterator[None]:
        """An error in the block, on any rank, ends the block on all ranks.

        Raises:
            RankError: Another rank failed, with its message, or died.
        """
        yield


@dataclass(frozen=True)
class RankInfo:
    """Rank of a process in its process group.

    Attributes:
        rank: Number of this rank, from 0.
        size: Number of ranks.
        local: Number of this rank on its machine, from 0.
        host: Address of the first process.
        port: Port of the first process.
    """

    rank: int
    size: int
    local: int
    host: str
    port: int


def rank_info(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Returns the rank that torchrun or SLURM's srun assigned to this process; None for a single process.

    Raises:
        UsageError: The environment is incomplete.
    """
    get = environment.get
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:  # torchrun; inside a SLURM job it takes precedence
            numbers = int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(get("LOCAL_RANK", "0"))
            host, port = get("MASTER_ADDR", "127.0.0.1"), int(get("MASTER_PORT", "29500"))
        elif "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment:  # a batch script has no step
            size = int(get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"])
            numbers = int(environment["SLURM_PROCID"]), size, int(get("SLURM_LOCALID", "0"))
            host = get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
            job, step = int(get("SLURM_JOB_ID", "0")), int(get("SLURM_STEP_ID", "0"))
            port = int(get("MASTER_PORT") or 20_000 + (job + 101 * step) % 30_000)  # differs between jobs of a machine
        else:
            return None
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"the environment variables of the rank are incomplete or invalid: {error}",
            hint="start with torchrun or srun, or unset RANK and WORLD_SIZE",
        ) from None
    return RankInfo(*numbers, host, port) if numbers[1] > 1 else None


def first_host(nodes: str) -> str:
    """Returns the first machine of a SLURM node list.

    Example:
        >>> first_host("node[07-09,12],other3")
        'node07'
    """
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]


class Group(Ranks):
    """Several processes that train together.

    Args:
        info: Rank of this process.
        store: Key-value store of all ranks.
        timeout: Seconds after which a rank that does not answer counts as dead.

    Attributes:
        first_rank_reported: The first rank has written and printed everything, also the error that ended all ranks.
    """

    def __init__(self, info: RankInfo, store: Store, timeout: float) -> None:
        self.rank, self.size = info.rank, info.size
        self._store, self._timeout = store, timeout
        self._turns = 0
        self.first_rank_reported = False

    def weighted_loss(
        self, loss: Callable[[Tensor, Tensor], Tensor], rates: Tensor, targets: Tensor, global_size: int
    ) -> Tensor:
        if not len(targets):
            return rates.sum()  # 0, but backward runs through all layers, where the other ranks wait for this one
        return loss(rates, targets) * (len(targets) / global_size)

    def sum_values(self, *values: float) -> tuple[float, ...]:
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return tuple(total.tolist())

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def any_signal(self, signum: int | None) -> int | None:
        highest = torch.tensor(signum or 0)
        distributed.all_reduce(highest, distributed.ReduceOp.MAX)
        return int(highest) or None

    def any_true(self, value: bool) -> bool:
        return self.sum_values(float(value))[0] > 0

    def gather(self, value: V) -> list[V]:
        return _gather(value, self.size)

    def broadcast_from_first(self, make: Callable[[], V]) -> V:
        values: list[Any] = [make() if self.rank == 0 else None]
        distributed.broadcast_object_list(values)
        value: V = values[0]
        return value

    def broadcast_model(self, model: nn.Module) -> None:
        for tensor in model.state_dict().values():
            whole = tensor.contiguous()  # NCCL takes no others; fully connected layers are stored input-major
            distributed.broadcast(whole, 0)
            tensor.copy_(whole)

    def barrier(self) -> None:
        self.sum_values(0.0)

    @contextmanager
    def first_rank_first(self) -> Iterator[None]:
        self._turns += 1
        if self.rank == 0:
            yield
            self._store.set(f"turn/{self._turns}", "done")
            return
        while not self._store.check([f"turn/{self._turns}"]):
            if self._store.check(["error"]):
                raise self._peer_error()
            time.sleep(_POLL_SECONDS)
        yield

    @contextmanager
    def propagate_errors(self) -> Iterator[None]:
        try:
            yield
        except RankError:
            raise
        except (Exception, Interrupted) as error:
            if _is_comm_error(error):
                raise self._peer_error(error) from error
            self._publish_error(error)
            raise

    def shutdown_barrier(self, *, failed: bool) -> None:
        """Waits until the first rank has written and reported everything.

        Args:
            failed: This rank ends with an error.
        """
        with suppress(RuntimeError):  # where the first rank itself holds the store, both end together
            if self.rank == 0:
                self._store.set("over", "yes")
                self._wait_for_peers("left")
                return
            until = time.monotonic() + (_REPORT_SECONDS if failed else self._timeout)
            while time.monotonic() < until and not self.first_rank_reported:
                time.sleep(_POLL_SECONDS)
                self.first_rank_reported = self._store.check(["over"])
            self._store.set(f"left/{self.rank}", "yes")

    def _wait_for_peers(self, key: str) -> list[int]:
        """Waits a moment for the other ranks to set a key in the store; returns those that did not."""
        until = time.monotonic() + _ALIVE_SECONDS
        while True:
            missing = [rank for rank in range(self.size) if rank != self.rank]
            missing = [rank for rank in missing if not self._store.check([f"{key}/{rank}"])]
            if not missing or time.monotonic() > until or (key == "here" and self._store.check(["error"])):
                return missing
            time.sleep(_POLL_SECONDS)

    def _publish_error(self, error: BaseException) -> None:
        """Writes the error of this rank to the store; the first rank to fail determines the error of all."""
        known = isinstance(error, PlifctlError | Interrupted)
        document = {
            "rank": self.rank,
            "message": str(error) if known else f"{type(error).__name__}: {error}",
            "hint": getattr(error, "hint", ""),
            "exit_code": error.exit_code if isinstance(error, PlifctlError | Interrupted) else PlifctlError.exit_code,
        }
        with suppress(RuntimeError):
            self._store.compare_set("error", "", json.dumps(document))
        _close()

    def _peer_error(self, cause: BaseException | None = None) -> RankError:
        """Returns the error of the rank that does not answer, as far as it is known."""
        with suppress(RuntimeError):
            self._store.set(f"here/{self.rank}", "yes")
            _close()  # so that the others notice as well
            missing = self._wait_for_peers("here")
            if self._store.check(["error"]):
                document = json.loads(self._store.get("error"))
                error = RankError(f"rank {document['rank']}: {document['message']}", hint=document["hint"])
                error.exit_code = document["exit_code"]
                return error
            if missing:
                ranks = ", ".join(map(str, missing))
                hint = f"one that is silent for {self._timeout:g} s counts as dead: --rank-timeout SECONDS"
                return RankError(f"rank {ranks} of {self.size} died, or did not answer", hint=hint)
        lines = str(cause or "rank 0 does not answer").splitlines()
        return RankError(f"the connection of the {self.size} ranks failed: {join_problems(lines)}")


@contextmanager
def process_group(info: RankInfo, timeout: float) -> Iterator[Group]:
    """Connects to the other processes and trains with them; the block ends the same way on all of them.

    It sets MASTER_ADDR and MASTER_PORT; a rank that fails ignores SIGINT, SIGTERM and SIGHUP from then on: torchrun
    sends them to the others when one has ended.

    Args:
        info: Rank of this process.
        timeout: Seconds to wait for another rank.

    Raises:
        RankError: The others cannot be reached, or one of them fails or dies.
    """
    os.environ.update(MASTER_ADDR=info.host, MASTER_PORT=str(info.port))
    wait = timedelta(seconds=timeout)
    try:
        store, _, _ = next(iter(rendezvous("env://", info.rank, info.size, timeout=wait)))
        # control messages always use the CPU; tensors on a GPU are reduced there
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=info.rank,
            world_size=info.size,
            timeout=wait,
        )
    except (RuntimeError, OSError) as error:
        raise RankError(
            f"rank {info.rank} of {info.size} cannot connect to the others at {info.host}:{info.port} "
            f"within {timeout:g} s: {first_line(error)}",
            hint="MASTER_ADDR and MASTER_PORT must name a machine and a free port that all ranks reach",
        ) from error
    group = Group(info, PrefixStore("plifctl", store), timeout)
    try:
        with group.propagate_errors():
            yield group
    except (Exception, Interrupted):
        ignore_stop_signals()
        group.shutdown_barrier(failed=True)
        raise
    else:
        group.shutdown_barrier(failed=False)
    finally:
        _close()


def rank_device(info: RankInfo | None, name: str | None) -> str | None:
    """Returns the name of the device of a rank; all ranks call it.

    Args:
        info: The rank; None for a single process.
        name: ``--device``; of ``cuda`` each rank on a machine gets its own GPU.

    Raises:
        UsageError: There are fewer GPUs than ranks, or ranks have the same one; the latter is raised on every rank.
    """
    if info is None:
        return name
    device = _own_device(info, name)
    uses_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    gpu = known_gpu(torch.device(device)) if device and uses_nccl and re.fullmatch(r"cuda:\d\d?", device) else None
    places = _gather((socket.gethostname(), "" if gpu is None else gpu.uuid), info.size)
    for host, uuid in places:
        ranks = [str(rank) for rank, place in enumerate(places) if place == (host, uuid)]
        if uuid and len(ranks) > 1:
            raise UsageError(
                f"ranks {', '.join(ranks)} have the same GPU of {host}, {uuid}; each rank needs its own",
                hint="srun --gpus-per-task 1, or fewer ranks; --device cuda, without a number, gives each rank its own",
            )
    return device


def _own_device(info: RankInfo, name: str | None) -> str | None:
    """Returns the device of a rank by its number on its machine."""
    if name not in (None, "cuda") or not torch.cuda.is_available():
        return name
    gpus = torch.cuda.device_count()
    if gpus == 1 and "SLURM_PROCID" in os.environ:  # with srun --gpus-per-task each task sees only its own GPU
        return "cuda:0"
    if info.local >= gpus:
        raise UsageError(
            f"rank {info.rank} has local rank {info.local}, but its machine has {gpus} GPUs",
            hint=f"torchrun --nproc-per-node {gpus}, or --device cpu",
        )
    return f"cuda:{info.local}"


def compare_ranks(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Checks that all ranks were started with the same settings.

    Args:
        ranks: All of them.
        facts: Values that must be equal, by name.

    Raises:
        UsageError: A value differs; raised on every rank.
    """
    found = ranks.gather(dict(facts))
    different = [
        f"{name}: rank 0 has {found[0][name]}, rank {rank} has {other[name]}"
        for name in facts
        for rank, other in enumerate(found)
        if other[name] != found[0][name]
    ]
    if different:
        raise UsageError(
            join_problems(["the ranks were started with different settings:", *different]),
            hint="start all with the same command, code, registry and caches",
        )


def _gather(value: V, size: int) -> list[V]:
    """Returns the values of all ranks, by rank."""
    values: list[Any] = [None] * size
    distributed.all_gather_object(values, value)
    return values


def _is_comm_error(error: BaseException) -> bool:
    """Returns whether a collective operation failed; torch has no single type for it, so the text is searched."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        isinstance(error, distributed.DistError)
        or any(name in text.lower() for name in ("gloo", "nccl", "process group", "connection closed by peer"))
    )


def _close() -> None:
    """Leaves the process group, once; the others notice it."""
    if distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.destroy_process_group()
