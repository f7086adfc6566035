"""The towers as they were before a slice, to which its replayed sequences can be held (distillation).

P pairs, S negatives, L length, D width.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headrace.model.towers import UserTower
from headrace.trainer.sequences import Pairs, Windows


class Teacher:
    """A frozen user tower over frozen vectors (N × D)."""

    def __init__(self, user: UserTower, vectors_ND: NDArray[np.float32]) -> None:
        self._user = copy.deepcopy(user).eval()
        self._vectors_ND = vectors_ND

    def log_shares(self, windows: Windows, pairs: Pairs, ordinals_S: NDArray[np.int64]) -> Tensor:
        """P × S log-softmax of what this teacher says of the items `ordinals_S` at each pair's state."""
        longest = max(int(pairs.states_P.max(initial=0)), 1)
        with torch.no_grad():
            seen_BLD = self._rows(windows.ordinals_BW[:, :longest].astype(np.int64))
            states = self._user(seen_BLD, *windows.codes(longest))
            chosen_PD = states[torch.from_numpy(pairs.rows_P), torch.from_numpy(pairs.states_P)]
            wants_PD = self._user.wants(chosen_PD, torch.from_numpy(pairs.waits_P))
            return torch.log_softmax(wants_PD @ self._rows(ordinals_S).T, dim=1)

    def _rows(self, ordinals: NDArray[np.int64]) -> Tensor:
        """Vectors as they were; items that were not there yet have none."""
        known = ordinals < len(self._vectors_ND)
        rows = self._vectors_ND[np.where(known, ordinals, 0)] * known[..., None]
        return torch.from_numpy(rows)


def divergence(teacher_log_PS: Tensor, student_scores_PS: Tensor) -> Tensor:
    """P: how far the student's softmax is from the teacher's (Kullback-Leibler)."""
    student_log_PS = torch.log_softmax(student_scores_PS, dim=1)
    return functional.kl_div(student_log_PS, teacher_log_PS, reduction="none", log_target=True).sum(dim=1)
