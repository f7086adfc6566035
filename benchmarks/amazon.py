"""The leave-one-out protocol of S3-Rec, TIGER and eSASRec on Amazon's reviews of 2014.

Of each user's sequence the last item is the test, the one before it the validation, the rest is trained on. The
input to a test is everything before it, the validation item too; all items are ranked but those of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.model.events import EventCode
from headrace.model.towers import gap_buckets
from headrace.trainer.records import Events, Product, Slice
from headrace.trainer.sequences import Grown, Pairs, Windows, windows_of

LENGTH = 50
_START_US = 1_356_998_400_000_000
# the files hold no times: purchases are a day apart, each a visit of its own
_APART_US = 86_400_000_000
_WEB = 1


@dataclass(frozen=True)
class Amazon:
    """Sequences of ordinals (from 0), one a user, and what is known of each item."""

    name: str
    sequences: list[NDArray[np.uint32]]
    products: tuple[Product, ...]

    @classmethod
    def read(cls, name: str, folder: Path) -> Amazon:
        """`name` is beauty or sports."""
        rows = pl.read_parquet(folder / f"{name}_interactions.parquet").sort("user", "pos")
        items, users = rows["item"].to_numpy().astype(np.int64), rows["user"].to_numpy()
        first = int(items.min())
        bounds = np.flatnonzero(np.diff(users)) + 1
        described = pl.read_parquet(folder / f"{name}_items.parquet").sort("item")
        products = tuple(
            Product(
                at, at, text, "", "", 0.0, deleted=False, attributes=tuple(f"attribute={number}" for number in numbers)
            )
            for at, text, numbers in zip(
                (described["item"].to_numpy().astype(np.int64) - first).tolist(),
                described["text"],
                described["attributes"],
                strict=True,
            )
        )
        return cls(name, np.split((items - first).astype(np.uint32), bounds), products)

    @property
    def items(self) -> int:
        return len(self.products)

    def training(self) -> Slice:
        """Everything but each user's last two, all first purchases first."""
        kept = [sequence[:-2] for sequence in self.sequences]
        users = np.repeat(np.arange(len(kept)), [len(part) for part in kept])
        places = np.concatenate([np.arange(len(part)) for part in kept])
        order = np.lexsort((users, places))
        size = len(order)
        events = Events(
            users[order],
            np.concatenate(kept)[order],
            np.full(size, EventCode.PURCHASE, np.uint8),
            _START_US + places[order] * _APART_US,
            np.full(size, _WEB, np.uint8),
            tuple(f"u:{user}" for user in range(len(kept))),
            ("",) * size,
        )
        return Slice(0, size, events)

    def asked(self, back: int) -> tuple[Windows, Pairs]:
        """The last item (`back` 1: test) or the one before it (2: validation) of each user, to be foreseen."""
        ends = [sequence[: len(sequence) - back + 1] for sequence in self.sequences]
        windows = windows_of([_asked(sequence) for sequence in ends], LENGTH)
        states = windows.lengths_B.astype(np.int64) - 1
        rows = np.arange(len(windows))
        targets = windows.ordinals_BW[rows, states].astype(np.int64)
        waits = np.repeat(gap_buckets(np.array([_APART_US])), len(rows))
        return windows, Pairs(rows, states, targets, waits, np.ones(len(rows), np.bool_))

    def trained_counts(self) -> NDArray[np.int64]:
        """How often each item is in the training part."""
        return np.bincount(np.concatenate([sequence[:-2] for sequence in self.sequences]), minlength=self.items)


def _asked(sequence: NDArray[np.uint32]) -> Grown:
    size = len(sequence)
    times_us = _START_US + np.arange(size, dtype=np.int64) * _APART_US
    bought, web = np.full(size, EventCode.PURCHASE, np.uint8), np.full(size, _WEB, np.uint8)
    return Grown(size - 1, sequence, bought, times_us, web)
