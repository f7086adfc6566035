"""Learns a slice of the log: test, then train, then say which vectors moved.

Everything that a slice changes is a function of the state before it, its records, the settings and its
number. So the state after a crash is found again by learning the same slices once more, to the bit on
the same kind of machine.

B windows, L length, P pairs, D width, N items, R distinct items of a step, S negatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headrace.model.losses import in_batch_softmax, sampled_softmax
from headrace.model.text.encoder import TextEncoder
from headrace.model.towers import Towers, TowerShape, UserTower, event_gaps, gap_buckets
from headrace.trainer.arrays import Arrays, Kept, gathered, scatter
from headrace.trainer.catalogue import Catalogue
from headrace.trainer.deltas import Deltas, Sent
from headrace.trainer.optimisers import DenseAdam, RowTable
from headrace.trainer.popularity import Popularity
from headrace.trainer.prequential import Prequential, Trial, trials_of
from headrace.trainer.queries import Lesson, SearchPairs, pseudo_queries
from headrace.trainer.records import Product, Slice
from headrace.trainer.replay import Reservoir
from headrace.trainer.sequences import Pairs, Sequences, Windows, pairs_of, windows_of
from headrace.trainer.settings import TrainerSettings

_QUERY_BATCH = 64
_QUERY_RATE = 2e-3
_STEPS_A_QUERY_LESSON = 10
# histories are kept longer than the tower sees, for the floor by personal frequency
_KEPT_EVENTS = 100


@dataclass(frozen=True, slots=True)
class Learned:
    """What a slice did."""

    deltas: Deltas
    examples: int
    loss: float
    skipped_steps: int


class TowerWeights:
    """The towers' weights as a part of the state."""

    def __init__(self, towers: Towers) -> None:
        self._towers = towers

    def arrays(self) -> Arrays:
        return {name: value.numpy() for name, value in self._towers.state_dict().items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._towers.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in arrays.items()})


class Learner:
    """The state of learning. One thread at a time may use it.

    Deltas that it answers are to be noted in `sent` by whoever makes them durable, before anything else is learned.
    """

    def __init__(self, settings: TrainerSettings, encoder: TextEncoder | None = None) -> None:
        self._settings = settings
        shape = tower_shape(settings)
        self.shape = shape if encoder is None else replace(shape, text_width=encoder.width)
        torch.manual_seed(settings.seed)
        self.towers = Towers(self.shape)
        self.catalogue = Catalogue(self.shape, settings.seed, encoder)
        self.sent = Sent(self.shape.dimension)
        self.prequential = Prequential()
        self._rows = RowTable(self.shape.dimension, settings.row_rate)
        self._dense = DenseAdam(_main_towers(self.towers), settings.dense_rate)
        self._query_adam = DenseAdam(self.towers.query, _QUERY_RATE)
        self._sequences = Sequences(max(_KEPT_EVENTS, self.shape.max_length))
        self._reservoir = Reservoir(settings.replay_windows, self.shape.max_length + 1)
        self._popularity = Popularity()
        self._searches = SearchPairs()
        self._parts: dict[str, Kept] = {
            "towers": TowerWeights(self.towers),
            "catalogue": self.catalogue,
            "sent": self.sent,
            "prequential": self.prequential,
            "rows": self._rows,
            "dense": self._dense,
            "query": self._query_adam,
            "sequences": self._sequences,
            "reservoir": self._reservoir,
            "popularity": self._popularity,
            "searches": self._searches,
        }

    def arrays(self) -> Arrays:
        """The whole state; views, so write them down before learning on."""
        return gathered(self._parts)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        scatter(self._parts, arrays)

    def learn_products(self, products: Sequence[Product]) -> Deltas:
        """Takes in product changes; new products have a vector from their content at once."""
        changed = self.catalogue.fold(products).astype(np.int64)
        self._grow()
        return self._moved(changed)

    def learn(self, records: Slice, number: int) -> Learned:
        """Evaluates and then learns the events of slice `number`; products must have been learned before."""
        rng = self._seeded(number)
        events = records.events
        self.catalogue.grow(int(events.ordinals.max()) + 1 if len(events) else 0)
        self._grow()
        people = self._sequences.fold(events)
        self._evaluate(trials_of(people, self._settings.evaluated_people, rng))
        windows = windows_of(people, self.shape.max_length)
        steps = [self._step(batch, rng) for batch in self._batches(windows, rng)]
        self._popularity.add(events.ordinals, events.times_us)
        self._reservoir.add(windows, rng)
        new_pairs = self._searches.fold(records.searches, events)
        if new_pairs or records.products:
            self._learn_queries(rng)
        touched = np.unique(np.concatenate([np.empty(0, np.int64), *(step.touched for step in steps)]))
        return _learned(steps, self._moved(touched))

    def gather(self, records: Slice) -> Windows:
        """Takes in a slice without learning from it; the windows that would have taught."""
        self.catalogue.fold(records.products)
        events = records.events
        self.catalogue.grow(int(events.ordinals.max()) + 1 if len(events) else 0)
        self._grow()
        self._popularity.add(events.ordinals, events.times_us)
        self._searches.fold(records.searches, events)
        return windows_of(self._sequences.fold(events), self.shape.max_length)

    def learn_epoch(self, windows: Windows, number: int) -> Learned:
        """One pass over windows in a random order: retraining, where nothing is evaluated first."""
        rng = self._seeded(number)
        steps = [self._step(batch, rng) for batch in self._batches(windows, rng)]
        for _ in range(len(steps) // _STEPS_A_QUERY_LESSON):
            self._learn_queries(rng)
        return _learned(steps, self.drifted())

    def _seeded(self, number: int) -> np.random.Generator:
        rng = np.random.default_rng((self._settings.seed, number))
        torch.manual_seed(int(rng.integers(1 << 62)))
        return rng

    def drifted(self) -> Deltas:
        """Every vector that moved since it was sent, whatever moved it (the shared projections do)."""
        return self._moved(np.arange(self.catalogue.count))

    def item_vectors(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors as they are now: content plus the item's own row."""
        with torch.no_grad():
            vectors = self.towers.item(self.catalogue.content(ordinals)) + self._rows.rows(ordinals)
        return np.asarray(vectors.numpy(), dtype=np.float32)

    def user_vectors(self, windows: Windows, waits_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """B × D: what people want after all events of their windows; the newest `max_length` must be all."""
        places = windows.ordinals_BW[:, :-1].astype(np.int64)
        vectors = self.item_vectors(places.ravel()).reshape(*places.shape, -1)
        return person_vectors(self.towers.user, windows, vectors, waits_B)

    def _grow(self) -> None:
        for part in (self._rows, self.sent, self._popularity):
            part.grow(self.catalogue.count)

    def _moved(self, ordinals: NDArray[np.int64]) -> Deltas:
        deleted = self.catalogue.are_deleted(ordinals)
        vectors = self.item_vectors(ordinals)
        return self.sent.moved(ordinals, vectors, deleted, self._settings.delta_threshold)

    def _evaluate(self, trials: Sequence[Trial]) -> None:
        if not trials:
            return
        items_ND = self.item_vectors(np.arange(self.catalogue.count))
        windows = windows_before(trials, self.shape.max_length)
        waits = np.array([_wait(trial) for trial in trials], np.int64)
        scores = self.user_vectors(windows, waits) @ items_ND.T
        self.prequential.score(trials, scores, self._popularity.counts(self.catalogue.count))

    def _batches(self, windows: Windows, rng: np.random.Generator) -> Iterator[Windows]:
        # windows of like length stand together, so that little is padded; the order of batches is random
        by_length = np.argsort(windows.lengths_B + rng.random(len(windows)), kind="stable")
        size = self._settings.batch_windows
        for start in rng.permutation(np.arange(0, len(windows), size)):
            fresh = windows.at(by_length[start : start + size])
            replayed = self._reservoir.sample(max(len(fresh), self._settings.least_replay), rng)
            yield fresh.joined(replayed) if len(replayed) else fresh

    def _step(self, windows: Windows, rng: np.random.Generator) -> _Step:
        pairs = pairs_of(windows)
        if not len(pairs):
            return _Step(np.empty(0, np.int64), 0, 0.0, is_taken=True)
        sample = self._negatives(rng)
        longest = max(int(pairs.states_P.max()), 1)
        seen_BL = windows.ordinals_BW[:, :longest].astype(np.int64)
        ordinals, at = np.unique(
            np.concatenate([seen_BL.ravel(), pairs.targets_P, sample.ordinals_S]), return_inverse=True
        )
        own_RD = self._rows.rows(ordinals).requires_grad_()
        vectors_RD = own_RD + self.towers.item(self.catalogue.content(ordinals))
        seen_at, target_at, negative_at = np.split(at, [seen_BL.size, seen_BL.size + len(pairs)])
        seen_BLD = functional.embedding(torch.from_numpy(seen_at.reshape(seen_BL.shape)), vectors_RD)
        loss = self._loss(windows, pairs, seen_BLD, vectors_RD, target_at, negative_at, sample)
        loss.backward()  # type: ignore[no-untyped-call]
        assert own_RD.grad is not None
        gradients_RD = own_RD.grad.numpy()
        if not (np.isfinite(gradients_RD).all() and self._dense.step()):
            return _Step(np.empty(0, np.int64), 0, 0.0, is_taken=False)
        is_lesson = np.zeros(len(ordinals), np.bool_)
        is_lesson[np.concatenate([seen_at[_is_seen(windows, longest)], target_at])] = True
        touched = ordinals[is_lesson]
        self._rows.step(touched, gradients_RD[is_lesson])
        return _Step(touched, len(pairs), float(loss.detach()), is_taken=True)

    def _loss(
        self,
        windows: Windows,
        pairs: Pairs,
        seen_BLD: Tensor,
        vectors_RD: Tensor,
        target_at: NDArray[np.int64],
        negative_at: NDArray[np.int64],
        sample: _Sample,
    ) -> Tensor:
        seen_BLD = functional.dropout(seen_BLD, self._settings.dropout)
        states = _states(self.towers.user, windows, seen_BLD)
        chosen_PD = states[torch.from_numpy(pairs.rows_P), torch.from_numpy(pairs.states_P)]
        wants_PD = self.towers.user.wants(chosen_PD, torch.from_numpy(pairs.waits_P))
        losses_P = sampled_softmax(
            wants_PD,
            functional.embedding(torch.from_numpy(target_at), vectors_RD),
            functional.embedding(torch.from_numpy(negative_at), vectors_RD),
            positive_ids_P=torch.from_numpy(pairs.targets_P),
            negative_ids_S=torch.from_numpy(sample.ordinals_S),
            positive_log_q_P=torch.from_numpy(sample.log_q_N[pairs.targets_P]),
            negative_log_q_S=torch.from_numpy(sample.log_q_N[sample.ordinals_S]),
        )
        return losses_P.mean()

    def _negatives(self, rng: np.random.Generator) -> _Sample:
        living = self.catalogue.living()
        if not len(living):  # everything is deleted, but something was looked at just before
            living = np.arange(self.catalogue.count)
        counts_N = self._popularity.counts(self.catalogue.count) + 1e-9
        evenly = living[rng.integers(0, len(living), self._settings.uniform_negatives)]
        sums_N = np.cumsum(counts_N)
        drawn = np.searchsorted(sums_N, rng.random(self._settings.popular_negatives) * sums_N[-1])
        drawn = np.minimum(drawn, len(sums_N) - 1)
        expected_N = len(evenly) / len(living) + len(drawn) * counts_N / sums_N[-1]
        return _Sample(np.concatenate([evenly, drawn]), np.log(expected_N).astype(np.float32))

    def _learn_queries(self, rng: np.random.Generator) -> None:
        described = self.catalogue.described()
        for _ in range(self._settings.query_steps if len(described) > 1 else 0):
            chosen = rng.choice(described, min(_QUERY_BATCH, len(described)), replace=False)
            texts = pseudo_queries([self.catalogue.text_of(int(at)) for at in chosen], rng)
            real = self._searches.sample(_QUERY_BATCH // 2, rng)
            self._query_step(Lesson(texts + real.texts, np.concatenate([chosen, real.ordinals])))

    def _query_step(self, lesson: Lesson) -> None:
        queries_QD = self.towers.query(torch.from_numpy(self.catalogue.encoder.encode(lesson.texts)))
        items_QD = torch.from_numpy(self.item_vectors(lesson.ordinals))
        loss = in_batch_softmax(queries_QD, items_QD, torch.from_numpy(lesson.ordinals))
        loss.backward()  # type: ignore[no-untyped-call]
        self._query_adam.step()


@dataclass(frozen=True, slots=True)
class _Step:
    touched: NDArray[np.int64]
    examples: int
    loss: float
    is_taken: bool


@dataclass(frozen=True, slots=True)
class _Sample:
    ordinals_S: NDArray[np.int64]
    log_q_N: NDArray[np.float32]


def _learned(steps: Sequence[_Step], deltas: Deltas) -> Learned:
    losses = [step.loss for step in steps if step.is_taken]
    return Learned(
        deltas,
        examples=sum(step.examples for step in steps),
        loss=float(np.mean(losses)) if losses else 0.0,
        skipped_steps=sum(not step.is_taken for step in steps),
    )


def person_vectors(
    user: UserTower, windows: Windows, vectors_BLD: NDArray[np.float32], waits_B: NDArray[np.int64]
) -> NDArray[np.float32]:
    """B × D: what people want, a wait (gap bucket) after the last event of their windows."""
    with torch.no_grad():
        states = _states(user, windows, torch.from_numpy(vectors_BLD))
        last = states[torch.arange(len(windows)), torch.from_numpy(windows.lengths_B.astype(np.int64))]
        return np.asarray(user.wants(last, torch.from_numpy(waits_B)).numpy(), dtype=np.float32)


def _states(user: UserTower, windows: Windows, vectors_BLD: Tensor) -> Tensor:
    length = vectors_BLD.shape[1]
    return user(  # type: ignore[no-any-return]
        vectors_BLD,
        torch.from_numpy(windows.event_types_BW[:, :length].astype(np.int64)),
        torch.from_numpy(windows.channels_BW[:, :length].astype(np.int64)),
        torch.from_numpy(event_gaps(windows.times_us_BW[:, :length])),
    )


def tower_shape(settings: TrainerSettings) -> TowerShape:
    return TowerShape(
        dimension=settings.dimension,
        blocks=settings.blocks,
        heads=settings.heads,
        max_length=settings.max_length,
        text_width=settings.text_width,
    )


def windows_before(trials: Sequence[Trial], length: int) -> Windows:
    """What each person had done before the trial: the last `length` events."""
    windows = Windows.empty(len(trials), length + 1)
    for row, trial in enumerate(trials):
        start, end = max(0, trial.person.old - length), trial.person.old
        windows.ordinals_BW[row, : end - start] = trial.person.ordinals[start:end]
        windows.event_types_BW[row, : end - start] = trial.person.event_types[start:end]
        windows.times_us_BW[row, : end - start] = trial.person.times_us[start:end]
        windows.channels_BW[row, : end - start] = trial.person.channels[start:end]
        windows.lengths_B[row] = end - start
    return windows


def _wait(trial: Trial) -> int:
    if not trial.person.old:
        return 0
    return int(gap_buckets(np.array([trial.time_us - trial.person.times_us[trial.person.old - 1]]))[0])


def _is_seen(windows: Windows, longest: int) -> NDArray[np.bool_]:
    return np.asarray((np.arange(longest) < windows.lengths_B[:, None]).ravel())


def _main_towers(towers: Towers) -> torch.nn.Module:
    return torch.nn.ModuleDict({"item": towers.item, "user": towers.user})
