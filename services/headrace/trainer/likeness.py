"""How like an item is to what a person has just seen: by what was learned, by words, and by what both are marked with.

P states, M items asked about for each, N items, H events looked back on, D and T widths, C marks of an item, U marks
that there are, J kinds of likeness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headrace.trainer.sequences import Pairs, Windows

# vectors and words: to the newest event, to all by age, to the one that is most like it; marks: the first two
KINDS = 8
_EVENTS = 10
_AGE_DECAY = 0.8


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What is known of the first N items when something is foreseen."""

    vectors_ND: NDArray[np.float32]  # learned, of length 1
    texts_NT: NDArray[np.float32]  # of length 1
    marks_NC: NDArray[np.int64]  # numbers of brand, categories and attributes; 0: none
    popularity_N: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.vectors_ND)


def likeness(facts: ItemFacts, windows: Windows, pairs: Pairs, ordinals_PM: NDArray[np.int64]) -> NDArray[np.float32]:
    """P × M × J, from −1 to 1; 0 throughout for a state that has seen nothing."""
    places_PH = pairs.states_P[:, None] - 1 - np.arange(_EVENTS)
    seen_PH = windows.ordinals_BW[pairs.rows_P[:, None], np.maximum(places_PH, 0)].astype(np.int64)
    # an item that came after these facts is like nothing
    are_known_PH = (places_PH >= 0) & (seen_PH < len(facts))
    seen_PH = np.where(are_known_PH, seen_PH, 0)
    weights_PH = are_known_PH * (_AGE_DECAY ** np.arange(_EVENTS)).astype(np.float32)
    weights_PH /= np.maximum(weights_PH.sum(axis=1, keepdims=True), 1e-9)
    learned, written = (
        _cosines(vectors, seen_PH, weights_PH, ordinals_PM) for vectors in (facts.vectors_ND, facts.texts_NT)
    )
    newest_PH = np.where(np.arange(_EVENTS) == 0, are_known_PH, 0).astype(np.float32)
    marked = [_shared_marks(facts.marks_NC, seen_PH, w_PH, ordinals_PM) for w_PH in (newest_PH, weights_PH)]
    return np.stack([*learned, *written, *marked], axis=-1).astype(np.float32)


def _cosines(
    vectors_ND: NDArray[np.float32],
    seen_PH: NDArray[np.int64],
    weights_PH: NDArray[np.float32],
    ordinals_PM: NDArray[np.int64],
) -> tuple[NDArray[np.float32], ...]:
    vectors, weights = torch.from_numpy(vectors_ND), torch.from_numpy(weights_PH)
    cosines_PMH: Tensor = _rows(vectors, ordinals_PM) @ _rows(vectors, seen_PH).transpose(1, 2)
    cosines_PMH = cosines_PMH * (weights > 0)[:, None, :]
    by_age_PM = (cosines_PMH @ weights[:, :, None]).squeeze(-1)
    return cosines_PMH[..., 0].numpy(), by_age_PM.numpy(), cosines_PMH.amax(dim=-1).numpy()


def _rows(vectors_ND: Tensor, ordinals: NDArray[np.int64]) -> Tensor:
    return functional.embedding(torch.from_numpy(ordinals), vectors_ND)


def _shared_marks(
    marks_NC: NDArray[np.int64],
    seen_PH: NDArray[np.int64],
    weights_PH: NDArray[np.float32],
    ordinals_PM: NDArray[np.int64],
) -> NDArray[np.floating[Any]]:
    """P × M: how much of what an item is marked with is on what was seen, too."""
    states, there_are = len(seen_PH), int(marks_NC.max(initial=0)) + 1
    keys_PHC = np.arange(states)[:, None, None] * there_are + marks_NC[seen_PH]
    weights_PHC = np.broadcast_to(weights_PH[:, :, None], keys_PHC.shape)
    shares_PU = np.bincount(keys_PHC.ravel(), weights_PHC.ravel(), minlength=states * there_are)
    # an item may bear a mark twice
    shares_PU = np.minimum(shares_PU, 1.0).reshape(states, there_are)
    shares_PU[:, 0] = 0.0
    marks_PMC = marks_NC[ordinals_PM]
    found_PM = shares_PU[np.arange(states)[:, None, None], marks_PMC].sum(axis=-1)
    return np.asarray(found_PM / np.maximum((marks_PMC > 0).sum(axis=-1), 1))
