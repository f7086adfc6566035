"""Exact search on a GPU: rows in one tensor, a matrix product, a mask, a top-k.

No GPU index of Faiss can update or remove, and the published builds ignore ID selectors without a
word; a tensor that is written in place does both exactly. `device` may be any torch device.
"""

# N rows, D dimension, Q queries, K wanted, W fetched

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from headrace.index.device_queue import DeviceQueue
from headrace.index.row_table import RowTable, View
from headrace.index.rows import F32, I64, NO_ORDINALS, U8, U32, Change, Found, Mask, Rows
from headrace.index.segment import fill_by_writing
from headrace.index.ties import Fetched, best

# scores that are held at once: 512 MiB
_SCORES_LIMIT = 1 << 27


@dataclass(frozen=True)
class _Call:
    """Queries over one view; `selected_N` where a filter leaves fewer than the live rows."""

    queries_QD: F32
    k: int
    view: View
    vectors_ND: torch.Tensor
    selected_N: Mask | None

    @property
    def available(self) -> int:
        return self.view.count if self.selected_N is None else int(np.count_nonzero(self.selected_N))


class GpuOwner:
    """The thread that owns a torch device, shared by the segments that live there."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.queue: DeviceQueue[_Call, Found] = DeviceQueue(self._answers)

    def _answers(self, calls: Sequence[_Call]) -> list[Found]:
        found: dict[int, Found] = {}
        for places in _batches(calls):
            answers = self._batch([calls[place] for place in places])
            found.update(zip(places, answers, strict=True))
        return [found[place] for place in range(len(calls))]

    def _batch(self, calls: Sequence[_Call]) -> list[Found]:
        view, vectors_ND = calls[0].view, calls[0].vectors_ND
        queries_QD = torch.from_numpy(np.concatenate([call.queries_QD for call in calls])).to(self.device)
        scores_QN = queries_QD @ vectors_ND[: len(view.live_N)].T
        start = 0
        answers = []
        live_N = self._on_device(view.live_N)
        for call in calls:
            part_QN = scores_QN[start : start + len(call.queries_QD)]
            start += len(call.queries_QD)
            part_QN.masked_fill_(~(live_N if call.selected_N is None else self._on_device(call.selected_N)), -torch.inf)
            answers.append(_top(part_QN, call))
        return answers

    def _on_device(self, mask_N: Mask) -> torch.Tensor:
        return torch.from_numpy(mask_N).to(self.device)

    def close(self) -> None:
        self.queue.close()


def _batches(calls: Sequence[_Call]) -> list[list[int]]:
    """Places of calls that look at one view, split so that their scores fit."""
    batches: dict[int, list[list[int]]] = {}
    for place, call in enumerate(calls):
        same = batches.setdefault(id(call.view), [[]])
        queries = len(call.queries_QD) + sum(len(calls[other].queries_QD) for other in same[-1])
        if same[-1] and queries * len(call.view.live_N) > _SCORES_LIMIT:
            same.append([])
        same[-1].append(place)
    return [batch for same in batches.values() for batch in same]


def _top(scores_QN: torch.Tensor, call: _Call) -> Found:
    def fetch(width: int) -> Fetched:
        scores_QW, rows_QW = torch.topk(scores_QN, width, dim=1)
        return scores_QW.cpu().numpy(), rows_QW.cpu().numpy()

    view = call.view
    return best(fetch, view.ordinals_N, call.available, len(call.queries_QD), call.k, view.sequence)


@dataclass(frozen=True)
class _GpuView:
    view: View
    vectors_ND: torch.Tensor
    owner: GpuOwner

    @property
    def count(self) -> int:
        return self.view.count

    @property
    def sequence(self) -> int:
        return self.view.sequence

    @property
    def log_offset(self) -> int:
        return self.view.log_offset

    def chunks(self) -> Iterator[Rows]:
        for rows in self.view.chunks():
            yield self.view.read(rows, _read(self.owner, self.vectors_ND, rows))


class GpuSegment:
    """A `Segment` on the device of `owner`."""

    def __init__(self, dimension: int, owner: GpuOwner) -> None:
        self.kind = f"torch-{owner.device}"
        self.dimension = dimension
        self._owner = owner
        self._table = RowTable()
        self._vectors_ND = owner.queue.run(lambda: self._zeros(self._table.capacity))

    def __len__(self) -> int:
        return self._table.view.count

    @property
    def sequence(self) -> int:
        return self._table.view.sequence

    @property
    def log_offset(self) -> int:
        return self._table.view.log_offset

    def write(self, change: Change) -> None:
        rows = self._table.begin(change)
        self._owner.queue.run(lambda: self._store(rows, change.upserts.vectors_ND))
        self._table.show(change, rows)

    def fill(self, parts: Iterable[Rows], sequence: int, log_offset: int) -> None:
        fill_by_writing(self, parts, sequence, log_offset)

    def search(self, queries_QD: F32, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> Found:
        with self._table.pinned_with(deny) as (view, denied_rows):
            filtered = allow is not None or len(deny) > 0
            selected_N = view.selected_N(allow, denied_rows[denied_rows >= 0]) if filtered else None
            step = max(1, _SCORES_LIMIT // max(1, len(view.live_N)))
            vectors_ND = self._vectors_ND
            parts = [
                self._owner.queue.ask(_Call(queries_QD[start : start + step], k, view, vectors_ND, selected_N))
                for start in range(0, len(queries_QD), step)
            ]
        return _joined(parts)

    def get(self, ordinals: U32) -> Rows:
        with self._table.pinned_with(ordinals) as (view, rows):
            rows = rows[rows >= 0]
            return view.read(rows, _read(self._owner, self._vectors_ND, rows))

    def held(self) -> Mask:
        return self._table.held()

    @contextmanager
    def view(self) -> Iterator[_GpuView]:
        with self._table.pinned() as view:
            yield _GpuView(view, self._vectors_ND, self._owner)

    def memory_bytes(self) -> int:
        return self._vectors_ND.nbytes + self._table.memory_bytes()

    def _zeros(self, capacity: int) -> torch.Tensor:
        return torch.zeros((capacity, self.dimension), dtype=torch.float32, device=self._owner.device)

    def _store(self, rows: I64, vectors_ND: F32) -> None:
        if self._table.capacity > len(self._vectors_ND):
            # searches keep the smaller tensor until they are done with it
            bigger_ND = self._zeros(self._table.capacity)
            bigger_ND[: len(self._vectors_ND)] = self._vectors_ND
            self._vectors_ND = bigger_ND
        device = self._owner.device
        self._vectors_ND.index_copy_(0, torch.from_numpy(rows).to(device), torch.tensor(vectors_ND, device=device))


def _read(owner: GpuOwner, vectors_ND: torch.Tensor, rows: I64) -> F32:
    def read() -> F32:
        read_ND: F32 = vectors_ND[torch.from_numpy(rows).to(owner.device)].cpu().numpy()
        return read_ND

    return owner.queue.run(read)


def _joined(parts: Sequence[Found]) -> Found:
    if len(parts) == 1:
        return parts[0]
    return Found(
        np.concatenate([found.counts_Q for found in parts]),
        np.concatenate([found.ordinals_QK for found in parts]),
        np.concatenate([found.scores_QK for found in parts]),
        parts[0].sequence,
    )
