"""Training groups laid end to end, one column a fact: how they are kept in files and sent."""

# G groups, C candidate rows of all groups, L history events of all groups, F features

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.feature_store.histories import EVENT
from headrace.feature_store.training_rows import ClosedGroup
from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.runtime.errors import CorruptDataError


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Groups in the order in which they were closed."""

    group_offsets: NDArray[np.int64]  # G
    group_times_us: NDArray[np.int64]  # G
    group_sizes: NDArray[np.uint32]  # G
    user_keys: list[str]  # G
    ordinals: NDArray[np.uint32]  # C
    features: NDArray[np.float32]  # C × F
    labels: NDArray[np.uint8]  # C
    weights: NDArray[np.float32]  # C
    histories: list[bytes]  # G, as `histories` holds them

    @classmethod
    def of(cls, groups: Sequence[ClosedGroup]) -> RowColumns:
        width = len(CANDIDATE_FEATURES)
        return cls(
            np.array([group.offset for group in groups], np.int64),
            np.array([group.time_us for group in groups], np.int64),
            np.array([len(group.ordinals) for group in groups], np.uint32),
            [group.user_key for group in groups],
            np.concatenate([np.empty(0, np.uint32), *(group.ordinals for group in groups)]),
            np.concatenate([np.empty((0, width), np.float32), *(group.features for group in groups)]),
            np.concatenate([np.empty(0, np.uint8), *(group.labels for group in groups)]),
            np.concatenate([np.empty(0, np.float32), *(group.weights for group in groups)]),
            [group.history for group in groups],
        )

    def __len__(self) -> int:
        return len(self.group_offsets)

    def between(self, after: int, until: int) -> RowColumns:
        """The groups closed at after < offset ≤ until."""
        start, end = np.searchsorted(self.group_offsets, [after, until], side="right").tolist()
        return self._slice(start, end)

    def _slice(self, start: int, end: int) -> RowColumns:
        if (start, end) == (0, len(self)):
            return self
        ends = np.concatenate([[0], np.cumsum(self.group_sizes.astype(np.int64))])
        groups, rows = slice(start, end), slice(int(ends[start]), int(ends[end]))
        return RowColumns(
            self.group_offsets[groups],
            self.group_times_us[groups],
            self.group_sizes[groups],
            self.user_keys[groups],
            self.ordinals[rows],
            self.features[rows],
            self.labels[rows],
            self.weights[rows],
            self.histories[groups],
        )

    def without(self, groups: Collection[int]) -> RowColumns:
        """All groups but some, by their places."""
        is_kept = np.ones(len(self), np.bool_)
        is_kept[list(groups)] = False
        rows = np.repeat(is_kept, self.group_sizes.astype(np.int64))
        kept = np.flatnonzero(is_kept).tolist()
        return RowColumns(
            self.group_offsets[is_kept],
            self.group_times_us[is_kept],
            self.group_sizes[is_kept],
            [self.user_keys[at] for at in kept],
            self.ordinals[rows],
            self.features[rows],
            self.labels[rows],
            self.weights[rows],
            [self.histories[at] for at in kept],
        )

    def parts(self, limit_bytes: int) -> Iterator[RowColumns]:
        """The same groups in pieces of at most about `limit_bytes`, a group at least."""
        row_bytes = 4 * len(CANDIDATE_FEATURES) + 9
        sizes = self.group_sizes.astype(np.int64) * row_bytes + [len(history) for history in self.histories]
        start, held = 0, 0
        for place, size in enumerate(sizes.tolist()):
            if held and held + size > limit_bytes:
                yield self._slice(start, place)
                start, held = place, 0
            held += size
        if held:
            yield self._slice(start, len(self))

    def history_lengths(self) -> NDArray[np.uint32]:
        return np.array([len(history) // EVENT.itemsize for history in self.histories], np.uint32)

    def columns(self) -> Columns:
        return {
            "group_offsets": self.group_offsets,
            "group_times_us": self.group_times_us,
            "group_sizes": self.group_sizes,
            **packed("user_keys", [key.encode() for key in self.user_keys]),
            "ordinals": self.ordinals,
            "features": self.features,
            "labels": self.labels,
            "weights": self.weights,
            **packed("histories", self.histories),
        }

    @classmethod
    def restored(cls, columns: Columns) -> RowColumns:
        """The rows of their `columns()`. CorruptDataError: they are none, or of another build's form."""
        try:
            found = cls._of_columns(columns)
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptDataError(f"no training rows: {error!r}") from error
        if not found._is_whole():
            raise CorruptDataError("training rows whose columns are of different lengths")
        return found

    def _is_whole(self) -> bool:
        if any(column.ndim != 1 for column in (self.group_offsets, self.group_times_us, self.group_sizes)):
            return False
        groups, rows = len(self), int(self.group_sizes.sum())
        by_group = (self.group_times_us, self.group_sizes, self.user_keys, self.histories)
        by_row = (self.ordinals, self.labels, self.weights)
        return (
            all(len(column) == groups for column in by_group)
            and all(column.shape == (rows,) for column in by_row)
            and self.features.shape == (rows, len(CANDIDATE_FEATURES))
            and all(len(history) % EVENT.itemsize == 0 for history in self.histories)
        )

    @classmethod
    def _of_columns(cls, columns: Columns) -> RowColumns:
        return cls(
            columns["group_offsets"].astype(np.int64),
            columns["group_times_us"].astype(np.int64),
            columns["group_sizes"].astype(np.uint32),
            [key.decode() for key in unpacked("user_keys", columns)],
            columns["ordinals"].astype(np.uint32),
            columns["features"].astype(np.float32),
            columns["labels"].astype(np.uint8),
            columns["weights"].astype(np.float32),
            unpacked("histories", columns),
        )
