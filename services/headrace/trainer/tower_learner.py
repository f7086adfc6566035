"""One step of the item and user towers: what was seen, what followed, and what did not.

B windows, L length, P pairs, D width, R distinct items of a step, S negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headrace.model.losses import sampled_softmax
from headrace.model.towers import Towers, UserTower
from headrace.trainer.admission import Admission
from headrace.trainer.anchor import Anchor
from headrace.trainer.catalogue import Catalogue
from headrace.trainer.negatives import Negatives
from headrace.trainer.optimisers import DenseOptimiser, RowTable
from headrace.trainer.peers import Peers
from headrace.trainer.sequences import Pairs, Windows, pairs_of
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.teacher import Teacher, divergence

# what comes first of all says little beside what follows something
_FIRST_WEIGHT = 0.2
# windows that are read at once where nothing is learned
_WINDOWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did: the items that it was about (their rows moved), pairs, mean loss."""

    touched: NDArray[np.int64]
    examples: int
    loss: float
    is_taken: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Windows from `first_row` on are replayed, and held to what the teacher says of them."""

    teacher: Teacher
    first_row: int


class TowerLearner:
    """The item and user towers with the items' own rows and the optimisers' state of both.

    What moves when: a step moves the rows of the items that its windows saw or predicted, those of its negatives
    (unless `negatives_move` is off), and every dense weight of the item and user towers. A row that is not
    admitted stays at zero. The text encoder never moves.
    """

    def __init__(self, towers: Towers, catalogue: Catalogue, settings: TrainerSettings, peers: Peers) -> None:
        self._towers = towers
        self._peers = peers
        self._catalogue = catalogue
        self._settings = settings
        self.rows = RowTable(towers.shape.dimension, settings.row_rate, settings.optimiser)
        self.admission = Admission(settings.admit_after, settings.expire_days)
        self.dense = DenseOptimiser(_moving(towers), settings.dense_rate, settings.optimiser)
        self.anchor = Anchor(towers.shape.dimension, settings.anchor)
        for module in towers.user.modules():
            if isinstance(module, nn.Dropout):
                module.p = settings.dropout

    def item_vectors(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors as they are now: content plus the item's own row."""
        with torch.no_grad():
            vectors = self._towers.item(self._catalogue.content(ordinals), self.rows.rows(ordinals))
        return np.asarray(vectors.numpy(), dtype=np.float32)

    def user_vectors(self, windows: Windows, waits_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """B × D: what people want after all events of their windows; the newest `max_length` must be all."""
        places = windows.ordinals_BW[:, :-1].astype(np.int64)
        vectors = self.item_vectors(places.ravel()).reshape(*places.shape, -1)
        return person_vectors(self._towers.user, windows, vectors, waits_B)

    def wants(self, windows: Windows, pairs: Pairs) -> NDArray[np.float32]:
        """P × D: what people wanted at each pair's state."""
        return pair_wants(self._towers.user, windows, pairs, self.item_vectors)

    def teacher(self) -> Teacher:
        """The towers as they are, to be held to later."""
        return Teacher(self._towers.user, self.item_vectors(np.arange(self._catalogue.count)))

    def step(
        self,
        windows: Windows,
        negatives: Negatives,
        rng: np.random.Generator,
        rate: float = 1.0,
        lesson: Held | None = None,
    ) -> Step:
        """Learns from windows; `rate` scales both learning rates. Nothing moves when a gradient is not finite."""
        pairs = pairs_of(windows)
        if not len(pairs):
            return Step(np.empty(0, np.int64), 0, 0.0, is_taken=True)
        longest = max(int(pairs.states_P.max()), 1)
        seen_BL = windows.ordinals_BW[:, :longest].astype(np.int64)
        ordinals, at = np.unique(
            np.concatenate([seen_BL.ravel(), pairs.targets_P, negatives.ordinals_S]), return_inverse=True
        )
        seen_at, target_at, negative_at = np.split(at, [seen_BL.size, seen_BL.size + len(pairs)])
        own_RD = self.rows.rows(ordinals).requires_grad_()
        vectors_RD = self._towers.item(self._catalogue.content(ordinals), own_RD * self._shown(ordinals, rng))
        part = _part(self._peers.share(len(windows)), windows, pairs, seen_at.reshape(seen_BL.shape), target_at)
        part_loss = self._back_propagated(part, ordinals, vectors_RD, negative_at, negatives, lesson)
        part_RD = np.zeros(own_RD.shape, np.float32) if own_RD.grad is None else own_RD.grad.numpy()
        gradients_RD, loss = self._peers.summed(self.dense.parameters, part_RD, part_loss)
        if not np.isfinite(gradients_RD).all():
            self.dense.forget()
            return Step(np.empty(0, np.int64), 0, 0.0, is_taken=False)
        if not self.dense.step(rate):
            return Step(np.empty(0, np.int64), 0, 0.0, is_taken=False)
        is_lesson = np.zeros(len(ordinals), np.bool_)
        is_lesson[np.concatenate([seen_at[_is_seen(windows, longest)], target_at])] = True
        moves = np.ones(len(ordinals), np.bool_) if self._settings.negatives_move else is_lesson
        moves = moves & self.admission.are_admitted(ordinals)
        self.rows.step(ordinals[moves], gradients_RD[moves], rate)
        return Step(ordinals[is_lesson], len(pairs), loss, is_taken=True)

    def _shown(self, ordinals: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """R × 1: 0 for items that this step knows by their content alone; those without any are always shown."""
        shown_R = rng.random(len(ordinals)) >= self._settings.own_dropout
        shown_R |= ~self._catalogue.are_described(ordinals)
        return torch.from_numpy(shown_R[:, None].astype(np.float32))

    def _back_propagated(
        self,
        part: _Part,
        ordinals: NDArray[np.int64],
        vectors_RD: Tensor,
        negative_at: NDArray[np.int64],
        negatives: Negatives,
        lesson: Held | None,
    ) -> float:
        """Leaves the gradients of a part's share in the step's mean loss; that share.

        The anchor's pull is on the whole step's items: one process gives it for all.
        """
        loss = torch.zeros(())
        if len(part.pairs):
            loss = self._loss(part, vectors_RD, negative_at, negatives, lesson)
        pulled = loss
        if self.anchor.is_held and self._peers.rank == 0:
            pulled = loss + self.anchor.pull(ordinals, vectors_RD)
        if pulled.requires_grad:
            pulled.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _loss(
        self,
        part: _Part,
        vectors_RD: Tensor,
        negative_at: NDArray[np.int64],
        negatives: Negatives,
        lesson: Held | None,
    ) -> Tensor:
        windows, pairs = part.windows, part.pairs
        self._towers.user.train()
        seen_BLD = functional.embedding(torch.from_numpy(part.seen_at_BL), vectors_RD)
        seen_BLD = functional.dropout(seen_BLD, self._settings.input_dropout)
        states = _states(self._towers.user, windows, seen_BLD)
        chosen_PD = states[torch.from_numpy(pairs.rows_P), torch.from_numpy(pairs.states_P)]
        wants_PD = self._towers.user.wants(chosen_PD, torch.from_numpy(pairs.waits_P))
        negatives_SD = functional.embedding(torch.from_numpy(negative_at), vectors_RD)
        losses_P = sampled_softmax(
            wants_PD,
            functional.embedding(torch.from_numpy(part.target_at), vectors_RD),
            negatives_SD,
            positive_ids_P=torch.from_numpy(pairs.targets_P),
            negative_ids_S=torch.from_numpy(negatives.ordinals_S),
            positive_log_q_P=torch.from_numpy(negatives.log_q_N[pairs.targets_P]),
            negative_log_q_S=torch.from_numpy(negatives.log_q_N[negatives.ordinals_S]),
        )
        loss = (losses_P * _weights(pairs)).sum() / part.whole_weight
        if lesson is None:
            return loss
        return loss + self._settings.distillation * self._held(lesson, part, wants_PD @ negatives_SD.T, negatives)

    def _held(self, lesson: Held, part: _Part, scores_PS: Tensor, negatives: Negatives) -> Tensor:
        old_P = part.rows_B[part.pairs.rows_P] >= lesson.first_row
        said = lesson.teacher.log_shares(part.windows, part.pairs.at(old_P), negatives.ordinals_S)
        return divergence(said, scores_PS[torch.from_numpy(old_P)]).sum() / part.whole_pairs


@dataclass(frozen=True, slots=True)
class _Part:
    """Some windows of a step with their pairs, and what the step's mean is over."""

    rows_B: NDArray[np.int64]  # which windows of the step
    windows: Windows
    pairs: Pairs
    seen_at_BL: NDArray[np.int64]  # into the step's distinct items
    target_at: NDArray[np.int64]  # P, likewise
    whole_weight: Tensor
    whole_pairs: int


def _part(
    rows_B: NDArray[np.int64],
    windows: Windows,
    pairs: Pairs,
    seen_at_BL: NDArray[np.int64],
    target_at: NDArray[np.int64],
) -> _Part:
    inside_P = np.isin(pairs.rows_P, rows_B)
    chosen = pairs.at(inside_P)
    longest = max(int(chosen.states_P.max(initial=0)), 1)
    return _Part(
        rows_B,
        windows.at(rows_B),
        replace(chosen, rows_P=np.searchsorted(rows_B, chosen.rows_P)),
        seen_at_BL[rows_B, :longest],
        target_at[inside_P],
        _weights(pairs).sum(),
        len(pairs),
    )


def _weights(pairs: Pairs) -> Tensor:
    return torch.from_numpy(np.where(pairs.states_P > 0, 1.0, _FIRST_WEIGHT).astype(np.float32))


def person_vectors(
    user: UserTower, windows: Windows, vectors_BLD: NDArray[np.float32], waits_B: NDArray[np.int64]
) -> NDArray[np.float32]:
    """B × D: what people want, a wait (gap bucket) after the last event of their windows."""
    user.eval()
    with torch.no_grad():
        states = _states(user, windows, torch.from_numpy(vectors_BLD))
        last = states[torch.arange(len(windows)), torch.from_numpy(windows.lengths_B.astype(np.int64))]
        return np.asarray(user.wants(last, torch.from_numpy(waits_B)).numpy(), dtype=np.float32)


def pair_wants(
    user: UserTower,
    windows: Windows,
    pairs: Pairs,
    item_vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """P × D: what people wanted at each pair's state, by a user tower over the rows that `item_vectors` gives."""
    wants_PD = np.empty((len(pairs), user.out.out_features), np.float32)
    user.eval()
    for part_P in _by_length(pairs):
        rows, at_P = np.unique(pairs.rows_P[part_P], return_inverse=True)
        own = replace(pairs.at(part_P), rows_P=at_P)
        wants_PD[part_P] = _wants_of(user, windows.at(rows), own, item_vectors)
    return wants_PD


def _wants_of(
    user: UserTower, windows: Windows, pairs: Pairs, item_vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    longest = max(int(pairs.states_P.max()), 1)
    seen = windows.ordinals_BW[:, :longest].astype(np.int64)
    vectors = torch.from_numpy(item_vectors(seen.ravel()).reshape(*seen.shape, -1))
    with torch.no_grad():
        states = _states(user, windows, vectors)
        chosen_PD = states[torch.from_numpy(pairs.rows_P), torch.from_numpy(pairs.states_P)]
        return np.asarray(user.wants(chosen_PD, torch.from_numpy(pairs.waits_P)).numpy())


def _by_length(pairs: Pairs) -> Iterator[NDArray[np.int64]]:
    """Pairs in parts: those of one window together, windows by how much of them is needed, so little is padded."""
    furthest_B = np.zeros(int(pairs.rows_P.max(initial=-1)) + 1, np.int64)
    np.maximum.at(furthest_B, pairs.rows_P, pairs.states_P)
    order_P = np.lexsort((pairs.rows_P, furthest_B[pairs.rows_P]))
    are_new_P = np.diff(pairs.rows_P[order_P], prepend=-1) != 0
    part_P = (np.cumsum(are_new_P) - 1) // _WINDOWS_AT_ONCE
    bounds = np.flatnonzero(np.diff(part_P)) + 1
    yield from (part for part in np.split(order_P, bounds) if len(part))


def _states(user: UserTower, windows: Windows, vectors_BLD: Tensor) -> Tensor:
    return user(vectors_BLD, *windows.codes(vectors_BLD.shape[1]))  # type: ignore[no-any-return]


def _is_seen(windows: Windows, longest: int) -> NDArray[np.bool_]:
    return np.asarray((np.arange(longest) < windows.lengths_B[:, None]).ravel())


def _moving(towers: Towers) -> nn.Module:
    return nn.ModuleDict({"item": towers.item, "user": towers.user})
