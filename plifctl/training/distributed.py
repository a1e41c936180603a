"""Data-parallel training: the processes that share each batch, how they meet, and how they end as one.

Every process (a *rank*) holds the whole network. It takes its share of each batch, gradients and statistics are summed,
and all ranks make the same step: numbers do not depend on how many there are. A rank that fails says why in a store
that all can read, and closes its connections; the others notice it at their next exchange and look there.
"""

from __future__ import annotations

import json
import os
import re
import signal
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

from plifctl.errors import Interrupted, PlifctlError, RankError, UsageError, join_problems

V = TypeVar("V")

_ASK_SECONDS = 0.05  # between two looks into the store
_NEWS_SECONDS = 2.0  # what survivors of a rank that died give each other to say that they live
_PARTING_SECONDS = 15.0  # what a rank that failed gives the first one to say it: torchrun kills after 30


class Ranks:
    """One process that trains alone: what it shares, sums and agrees on is its own."""

    rank = 0
    size = 1

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Returns this rank's part of a batch: neighbours, in order; shares differ by one at most."""
        return rows[len(rows) * self.rank // self.size : len(rows) * (self.rank + 1) // self.size]

    def weighted(self, loss: Callable[[Tensor, Tensor], Tensor], rates: Tensor, targets: Tensor, whole: int) -> Tensor:
        """Returns this rank's part of the mean loss of a batch: parts add up to it.

        Args:
            loss: Mean over samples.
            rates: ``[T, n, C]``; n may be 0.
            targets: ``[n, C]``.
            whole: Number of samples of all ranks.
        """
        return loss(rates, targets)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Returns each value summed over ranks."""
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums the gradients over ranks, in place."""

    def any_signal(self, signum: int | None) -> int | None:
        """Returns a signal that any rank received."""
        return signum

    def gather(self, own: V) -> list[V]:
        """Returns what every rank gave, by rank; plain values and tensors of the CPU."""
        return [own]

    def local_size(self) -> int:
        """Returns how many ranks this one shares its machine with, itself included."""
        return self.gather(socket.gethostname()).count(socket.gethostname())

    def broadcast_from_first(self, make: Callable[[], V]) -> V:
        """Returns what ``make`` gives on the first rank; the others do not call it."""
        return make()

    def broadcast_model(self, model: nn.Module) -> None:
        """Gives all ranks the first one's weights and buffers."""

    def barrier(self) -> None:
        """Waits until every rank is here."""

    @contextmanager
    def first_rank_first(self) -> Iterator[None]:
        """Runs the block on the first rank, then on the others, who wait as long as it takes."""
        yield

    @contextmanager
    def propagate_errors(self) -> Iterator[None]:
        """An error in the block, on any rank, ends it on all.

        Raises:
            RankError: Another rank failed, with what it said, or died.
        """
        yield


@dataclass(frozen=True)
class RankInfo:
    """Where a process stands among those it was started with.

    Attributes:
        rank: Its number.
        size: How many there are.
        local: Its number on its machine.
        host: Where the first one is to be met.
        port: The port there.
    """

    rank: int
    size: int
    local: int
    host: str
    port: int


def rank_info(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Returns the seat that torchrun or SLURM's srun gave this process; None: it is alone.

    Raises:
        UsageError: The environment is not what either would set.
    """
    get = environment.get
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:  # torchrun; inside a SLURM job it has the last word
            numbers = int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(get("LOCAL_RANK", "0"))
            host, port = get("MASTER_ADDR", "127.0.0.1"), int(get("MASTER_PORT", "29500"))
        elif "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment:  # a batch script has no step
            size = int(get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"])
            numbers = int(environment["SLURM_PROCID"]), size, int(get("SLURM_LOCALID", "0"))
            host = get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
            job, step = int(get("SLURM_JOB_ID", "0")), int(get("SLURM_STEP_ID", "0"))
            port = int(get("MASTER_PORT") or 20_000 + (job + 101 * step) % 30_000)  # jobs on one machine do not meet
        else:
            return None
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"the environment names a rank, but not wholly: {error}",
            hint="start with torchrun or srun, or unset RANK and WORLD_SIZE",
        ) from None
    return RankInfo(*numbers, host, port) if numbers[1] > 1 else None


def first_host(nodes: str) -> str:
    """Returns the first machine of a list as SLURM writes it.

    Example:
        >>> first_host("node[07-09,12],other3")
        'node07'
    """
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]


class Group(Ranks):
    """Several processes that train as one.

    Args:
        seat: This one's.
        store: What all of them read and write.
        timeout: Seconds after which a rank that does not answer counts as dead.

    Attributes:
        first_rank_reported: The first rank keeps and says nothing more; what made all of them end is said.
    """

    def __init__(self, seat: RankInfo, store: Store, timeout: float) -> None:
        self.rank, self.size = seat.rank, seat.size
        self._store, self._timeout = store, timeout
        self._turns = 0
        self.first_rank_reported = False

    def weighted(self, loss: Callable[[Tensor, Tensor], Tensor], rates: Tensor, targets: Tensor, whole: int) -> Tensor:
        if not len(targets):
            return rates.sum()  # 0, but backward goes through all layers, where the other ranks wait for this one
        return loss(rates, targets) * (len(targets) / whole)

    def sums(self, *values: float) -> tuple[float, ...]:
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

    def gather(self, own: V) -> list[V]:
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, own)
        return found

    def broadcast_from_first(self, make: Callable[[], V]) -> V:
        made: list[Any] = [make() if self.rank == 0 else None]
        distributed.broadcast_object_list(made)
        value: V = made[0]
        return value

    def broadcast_model(self, model: nn.Module) -> None:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)

    def barrier(self) -> None:
        self.sums(0.0)

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
            time.sleep(_ASK_SECONDS)
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
            self._tell(error)
            raise

    def shutdown_barrier(self, *, failed: bool) -> None:
        """Waits until the first rank is through with what it keeps and says, and notes whether it is.

        Args:
            failed: This rank ends with an error.
        """
        with suppress(RuntimeError):  # where the first rank itself holds the store, both end together
            if self.rank == 0:
                self._store.set("over", "yes")
                self._wait_for_all("left")
                return
            until = time.monotonic() + (_PARTING_SECONDS if failed else self._timeout)
            while time.monotonic() < until and not self.first_rank_reported:
                time.sleep(_ASK_SECONDS)
                self.first_rank_reported = self._store.check(["over"])
            self._store.set(f"left/{self.rank}", "yes")

    def _wait_for_all(self, what: str) -> list[int]:
        """Gives the other ranks a moment to say something in the store; returns those that did not."""
        until = time.monotonic() + _NEWS_SECONDS
        while True:
            silent = [rank for rank in range(self.size) if rank != self.rank]
            silent = [rank for rank in silent if not self._store.check([f"{what}/{rank}"])]
            if not silent or time.monotonic() > until or (what == "here" and self._store.check(["error"])):
                return silent
            time.sleep(_ASK_SECONDS)

    def _tell(self, error: BaseException) -> None:
        """Lets the others know why this rank fails; the first to fail has the word."""
        own = isinstance(error, PlifctlError | Interrupted)
        said = {
            "rank": self.rank,
            "message": str(error) if own else f"{type(error).__name__}: {error}",
            "hint": getattr(error, "hint", ""),
            "exit_code": error.exit_code if isinstance(error, PlifctlError | Interrupted) else PlifctlError.exit_code,
        }
        with suppress(RuntimeError):
            self._store.compare_set("error", "", json.dumps(said))
        _close()

    def _peer_error(self, silence: BaseException | None = None) -> RankError:
        """Returns what is known of the rank that does not answer any more."""
        with suppress(RuntimeError):
            self._store.set(f"here/{self.rank}", "yes")
            _close()  # so that the others notice as well
            silent = self._wait_for_all("here")
            if self._store.check(["error"]):
                said = json.loads(self._store.get("error"))
                error = RankError(f"rank {said['rank']}: {said['message']}", hint=said["hint"])
                error.exit_code = said["exit_code"]
                return error
            if silent and len(silent) < self.size:
                who = ", ".join(map(str, silent))
                return RankError(f"rank {who} of {self.size} died, or did not answer for {self._timeout:g} s")
        return RankError(f"a rank of {self.size} died: {(str(silence).splitlines() or ['no word from it'])[0]}")


@contextmanager
def process_group(seat: RankInfo, timeout: float) -> Iterator[Group]:
    """Meets the other processes and trains as one with them; on all of them the block ends the same way.

    Args:
        seat: Where this process stands.
        timeout: Seconds to wait for another.

    Raises:
        RankError: They do not come, or one of them fails or dies.
    """
    os.environ.update(MASTER_ADDR=seat.host, MASTER_PORT=str(seat.port))
    wait = timedelta(seconds=timeout)
    try:
        store, _, _ = next(iter(rendezvous("env://", seat.rank, seat.size, timeout=wait)))
        # control goes over the CPU always; what is on a GPU is summed there
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=seat.rank,
            world_size=seat.size,
            timeout=wait,
        )
    except (RuntimeError, OSError) as error:
        raise RankError(
            f"rank {seat.rank} of {seat.size} does not meet the others at {seat.host}:{seat.port} "
            f"within {timeout:g} s: {(str(error).splitlines() or [type(error).__name__])[0]}",
            hint="MASTER_ADDR and MASTER_PORT name a machine and a free port that all of them reach",
        ) from error
    group = Group(seat, PrefixStore("plifctl", store), timeout)
    try:
        with group.propagate_errors():
            yield group
    except (Exception, Interrupted):
        for signum in (signal.SIGINT, signal.SIGTERM):  # from torchrun, which ends the others when one has ended
            signal.signal(signum, signal.SIG_IGN)
        group.shutdown_barrier(failed=True)
        raise
    else:
        group.shutdown_barrier(failed=False)
    finally:
        _close()


def rank_device(seat: RankInfo | None, name: str | None) -> str | None:
    """Returns the name of the device that a rank works on, of the one that was asked for.

    Args:
        seat: The rank's; None: alone.
        name: ``--device``; of ``cuda`` each rank on a machine gets its own.

    Raises:
        UsageError: There are fewer GPUs than ranks.
    """
    if seat is None or name not in (None, "cuda") or not torch.cuda.is_available():
        return name
    here = torch.cuda.device_count()
    if here == 1 and "SLURM_PROCID" in os.environ:  # srun --gpus-per-task shows each task its own as the only one
        return "cuda:0"
    if seat.local >= here:
        raise UsageError(
            f"rank {seat.rank} is number {seat.local} of its machine, which has {here} GPUs",
            hint=f"torchrun --nproc-per-node {here}, or --device cpu",
        )
    return f"cuda:{seat.local}"


def compare_ranks(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Checks that all ranks were started with the same things.

    Args:
        ranks: All of them.
        facts: What must be equal, by name.

    Raises:
        UsageError: Something differs; raised on every rank.
    """
    found = ranks.gather(dict(facts))
    different = [
        f"{name}: rank 0 has {found[0][name]}, rank {rank} {other[name]}"
        for name in facts
        for rank, other in enumerate(found)
        if other[name] != found[0][name]
    ]
    if different:
        raise UsageError(
            join_problems(["ranks were started with different things:", *different]),
            hint="start all with the same command, code, registry and caches",
        )


def _is_comm_error(error: BaseException) -> bool:
    """Whether an exchange with other ranks failed: torch has no one type for it, so its words are looked at."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        isinstance(error, distributed.DistError)
        or any(name in text.lower() for name in ("gloo", "nccl", "process group", "connection closed by peer"))
    )


def _close() -> None:
    """Leaves the group, which the others notice; once."""
    if distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.destroy_process_group()
