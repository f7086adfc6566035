"""Several processes that learn together by torch.distributed, as torchrun starts them.

Gloo carries what they say: the learner computes on CPUs. Its all-reduce adds each stretch up in one place and hands
the sum out, so that all processes get the same bits (`agree` holds every act to that).

R distinct items of a step, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from headrace.trainer.acts import KINDS, Act
from headrace.trainer.peers import Alone, PeerError

# a process that says nothing for so long is taken for lost; one that died is noticed at once
_TIMEOUT = timedelta(minutes=5)
_ACT_NUMBERS = 4


def joined(environment: Mapping[str, str]) -> Alone | Distributed:
    """The processes that torchrun started with this one, once all are there; `Alone` when it started no other.

    PeerError: they did not all come within five minutes.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1 or "RANK" not in environment:
        return Alone()
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
        # torchrun's store outlives a restart: without a name of its own, each start meets the addresses of the last.
        # Each torchrun counts its own restarts, so this holds for one machine, as the embedded event log does
        start = PrefixStore(f"start-{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("gloo", store=start, rank=rank, world_size=size, timeout=_TIMEOUT)
    except RuntimeError as error:
        raise PeerError(f"not all processes of the learner came: {error}") from error
    return Distributed()


class Distributed:
    """One of several processes that learn together; the process group must be there."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._is_lost = False

    def share(self, windows: int) -> NDArray[np.int64]:
        """Every n-th window: a step's windows stand by length, so all get about the same work.

        Whose windows they are does not matter, since every process knows everybody's; by user, one busy person
        would keep the others waiting.
        """
        return np.arange(self.rank, windows, self.size)

    def summed(
        self, parameters: Sequence[nn.Parameter], rows_RD: NDArray[np.float32], loss: float
    ) -> tuple[NDArray[np.float32], float]:
        """Everything in one message. A parameter without a gradient anywhere has none afterwards either."""
        has_gradient = [float(parameter.grad is not None) for parameter in parameters]
        parts = [_gradient(parameter).ravel() for parameter in parameters]
        parts += [torch.from_numpy(rows_RD).ravel(), torch.tensor([loss, *has_gradient])]
        total = torch.cat(parts)
        with self._together():
            dist.all_reduce(total)
        *gradients, rows, facts = torch.split(total, [len(part) for part in parts])
        for parameter, gradient, owners in zip(parameters, gradients, facts[1:], strict=True):
            parameter.grad = gradient.view_as(parameter) if owners else None
        return rows.view(rows_RD.shape).numpy(), float(facts[0])

    def tell(self, act: Act) -> None:
        if self.rank != 0:
            return
        kind, *numbers = astuple(act)
        with self._together():
            dist.broadcast(torch.tensor([KINDS.index(kind), *numbers]), src=0)

    def hear(self) -> Act:
        """What rank 0 does next, as soon as it says so."""
        said = torch.empty(_ACT_NUMBERS, dtype=torch.int64)
        with self._together():
            dist.broadcast(said, src=0)
        kind, *numbers = said.tolist()
        return Act(KINDS[kind], *numbers)

    def agree(self, finding: Callable[[], str]) -> None:
        mine = torch.frombuffer(bytearray(hashlib.sha256(finding().encode()).digest()), dtype=torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._together():
            dist.all_gather(found, mine)
        others = [rank for rank, theirs in enumerate(found) if not torch.equal(theirs, mine)]
        if others:
            self._is_lost = True
            raise PeerError(f"rank {self.rank} came out otherwise than ranks {others}")

    def leave(self) -> None:
        # nobody hangs up while another still listens
        with self._together():
            dist.barrier()
        dist.destroy_process_group()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What all processes do at once. PeerError: one is gone, and so the group is of no more use."""
        if self._is_lost:
            raise PeerError(f"rank {self.rank} has lost the others")
        try:
            yield
        except RuntimeError as error:  # gloo knows no narrower one
            self._is_lost = True
            raise PeerError(f"rank {self.rank} has lost another process of the learner: {error}") from error


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
