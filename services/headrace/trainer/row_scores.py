"""What the towers said of the candidates of a training row: the features that only the trainer can fill.

G groups, R rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import fill_vector_features
from headrace.model.history import History
from headrace.model.towers import gap_buckets
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.past_towers import PastTowers, TowerHistory
from headrace.trainer.ranker_learner import Groups
from headrace.trainer.rows import RowPart
from headrace.trainer.sequences import Windows

_AT_ONCE = 256


def scored_groups(part: RowPart, towers: TowerHistory, max_length: int, privacy: Privacy = UNKEYED) -> Groups:
    """The groups, each with the scores of towers that had learned nothing since it began; zeros without such.

    Zeros too for a person without history: there the vector says only what popularity says better.
    """
    features = part.features_RF.copy()
    ends = np.cumsum(part.sizes_G)
    for past, groups in _by_towers(part, towers):
        users_GD = _user_vectors(part, groups, past, max_length)
        for group, user_D in zip(groups, users_GD, strict=True):
            rows = slice(ends[group] - part.sizes_G[group], ends[group])
            items_RD = past.item_vectors(part.ordinals_R[rows].astype(np.int64))
            fill_vector_features(features[rows], items_RD @ user_D)
    owners_G = np.array([privacy.owner(user_key) for user_key in part.user_keys], np.int64)
    return Groups(features, part.labels_R, part.weights_R, part.sizes_G, owners_G)


def _by_towers(part: RowPart, towers: TowerHistory) -> Iterator[tuple[PastTowers, Sequence[int]]]:
    by_time: dict[int, tuple[PastTowers, list[int]]] = {}
    for group, time_us in enumerate(part.times_us_G.tolist()):
        past = towers.before(time_us) if len(part.histories[group]) else None
        if past is not None:
            by_time.setdefault(past.time_us, (past, []))[1].append(group)
    for past, groups in by_time.values():
        for start in range(0, len(groups), _AT_ONCE):
            yield past, groups[start : start + _AT_ONCE]


def _user_vectors(part: RowPart, groups: Sequence[int], past: PastTowers, max_length: int) -> NDArray[np.float32]:
    histories = [part.histories[group] for group in groups]
    waits = [_wait(part.histories[group], int(part.times_us_G[group])) for group in groups]
    return past.user_vectors(windows_of_histories(histories, max_length), np.array(waits, np.int64))


def _wait(history: History, time_us: int) -> int:
    return int(gap_buckets(np.array([time_us - history.times_us[-1]]))[0]) if len(history) else 0


def windows_of_histories(histories: Sequence[History], length: int) -> Windows:
    """The newest `length` events of each history, none of them to be predicted."""
    windows = Windows.empty(len(histories), length + 1)
    for row, history in enumerate(histories):
        last = history.last(length)
        windows.ordinals_BW[row, : len(last)] = last.ordinals
        windows.event_types_BW[row, : len(last)] = last.event_types
        windows.times_us_BW[row, : len(last)] = last.times_us
        windows.channels_BW[row, : len(last)] = last.channels
        windows.lengths_B[row] = len(last)
    return windows
