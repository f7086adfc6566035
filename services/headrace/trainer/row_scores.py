"""What the towers say of the candidates of a training row: the features that only the trainer can fill.

G groups, R rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import fill_vector_features
from headrace.model.history import History
from headrace.model.towers import gap_buckets
from headrace.trainer.learner import Learner
from headrace.trainer.ranker_learner import Groups
from headrace.trainer.rows import RowPart
from headrace.trainer.sequences import Windows

_AT_ONCE = 256


def scored_groups(part: RowPart, learner: Learner) -> Groups:
    """The groups with the scores of the towers as they are now."""
    features = part.features_RF.copy()
    users_GD = _user_vectors(part, learner)
    distinct, at_R = np.unique(part.ordinals_R.astype(np.int64), return_inverse=True)
    items_RD = learner.item_vectors(distinct)[at_R]
    scores_R = np.einsum("rd,rd->r", items_RD, np.repeat(users_GD, part.sizes_G, axis=0))
    ends = np.cumsum(part.sizes_G)
    for start, end in zip(ends - part.sizes_G, ends, strict=True):
        fill_vector_features(features[start:end], scores_R[start:end])
    return Groups(features, part.labels_R, part.weights_R, part.sizes_G)


def _user_vectors(part: RowPart, learner: Learner) -> NDArray[np.float32]:
    parts = [np.zeros((0, learner.shape.dimension), np.float32)]
    for start in range(0, len(part.histories), _AT_ONCE):
        some = part.histories[start : start + _AT_ONCE]
        waits = [
            _wait(history, int(time_us))
            for history, time_us in zip(some, part.times_us_G[start : start + _AT_ONCE], strict=True)
        ]
        windows = windows_of_histories(some, learner.shape.max_length)
        parts.append(learner.user_vectors(windows, np.array(waits, np.int64)))
    return np.concatenate(parts)


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
