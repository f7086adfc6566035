"""Learns a slice of the log: test, then train, then say which vectors moved.

Everything that a slice changes is a function of the state before it, its records, the settings and its
number. So the state after a crash is found again by learning the same slices once more, to the bit on
the same kind of machine.

B windows, D width, N items, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.losses import in_batch_softmax
from headrace.model.text.encoder import TextEncoder
from headrace.model.towers import Towers, TowerShape, gap_buckets
from headrace.runtime.erasures import Erasure
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.arrays import Arrays, Kept, gathered, scatter
from headrace.trainer.batches import batches, some_reversed
from headrace.trainer.catalogue import Catalogue
from headrace.trainer.counted import Counted
from headrace.trainer.deltas import Deltas, Sent
from headrace.trainer.forecast import Forecaster, Outcomes
from headrace.trainer.gauge import Gauge, Reading
from headrace.trainer.likeness import ItemFacts
from headrace.trainer.module_weights import ModuleWeights
from headrace.trainer.negatives import NegativeSampler
from headrace.trainer.optimisers import DenseOptimiser
from headrace.trainer.peers import Alone, Peers
from headrace.trainer.popularity import Popularity
from headrace.trainer.prequential import Prequential, Trial, trials_of
from headrace.trainer.queries import Lesson, SearchPairs, pseudo_queries
from headrace.trainer.rate_control import RateControl, forecast_loss
from headrace.trainer.records import Events, Product, Slice
from headrace.trainer.replay import Reservoir
from headrace.trainer.sequences import Pairs, Sequences, Windows, pairs_of, windows_of
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.tower_learner import Held, Step, TowerLearner

_QUERY_BATCH = 64
_QUERY_RATE = 2e-3
_STEPS_A_QUERY_LESSON = 10
# histories are kept longer than the tower sees, for the floor by personal frequency
_KEPT_EVENTS = 100
# steps from which on the rate falls within a slice, and what it falls to
_LONG_SLICE = 40
_LAST_RATE = 0.1
# sets the gauge's draws apart from those of learning, which must not change with the gauge
_GAUGE_DRAWS = 1


@dataclass(frozen=True, slots=True)
class Learned:
    """What a slice did."""

    deltas: Deltas
    examples: int
    loss: float
    skipped_steps: int
    # how some of the slice's events were foreseen before anything was learned from it
    outcomes: Outcomes | None = None


class Learner:
    """The state of learning. One thread at a time may use it.

    Deltas that it answers are to be noted in `sent` by whoever makes them durable, before anything else is learned.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        encoder: TextEncoder | None = None,
        peers: Peers | None = None,
        privacy: Privacy = UNKEYED,
    ) -> None:
        self._settings = settings
        self._peers = peers or Alone()
        shape = tower_shape(settings)
        self.shape = shape if encoder is None else replace(shape, text_width=encoder.width)
        torch.manual_seed(settings.seed)
        self.towers = Towers(self.shape)
        self.towers.user.begin_at(settings.temperature)
        self.catalogue = Catalogue(self.shape, settings.seed, encoder)
        self.sent = Sent(self.shape.dimension)
        self.prequential = Prequential()
        self._tower = TowerLearner(self.towers, self.catalogue, settings, self._peers)
        self.anchor = self._tower.anchor
        # sees what is to be learned just before it is; must not change the state
        self.before_learning: Callable[[Windows], None] = lambda _: None
        self._query_optimiser = DenseOptimiser(self.towers.query, _QUERY_RATE)
        self._sequences = Sequences(max(_KEPT_EVENTS, self.shape.max_length), privacy)
        self._reservoir = Reservoir(settings.replay_windows, self.shape.max_length + 1)
        self._popularity = Popularity()
        self._searches = SearchPairs(privacy)
        self._counted = Counted(settings.covisitation_half_life_days)
        self.forecaster = Forecaster(settings.evaluated_places)
        self.rate_control = RateControl(settings)
        self.gauge = Gauge(settings.gauge_windows, settings.gauge_stretches, self.shape.max_length + 1)
        self._parts: dict[str, Kept] = {
            "towers": ModuleWeights(self.towers),
            "catalogue": self.catalogue,
            "sent": self.sent,
            "prequential": self.prequential,
            "rows": self._tower.rows,
            "dense": self._tower.dense,
            "anchor": self.anchor,
            "query": self._query_optimiser,
            "sequences": self._sequences,
            "reservoir": self._reservoir,
            "popularity": self._popularity,
            "searches": self._searches,
            "counted": self._counted,
            "forecaster": self.forecaster,
            "admission": self._tower.admission,
            "rate_control": self.rate_control,
            "gauge": self.gauge,
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

    def erase(self, erasure: Erasure) -> dict[str, int]:
        """Forgets people; what was held of them. What their acts taught stays in weights and counts."""
        return {
            "histories": self._sequences.erase(erasure),
            "replayed_windows": self._reservoir.erase(erasure.owners),
            "gauge_windows": self.gauge.erase(erasure.owners),
            "searches": self._searches.erase(erasure),
        }

    def know(self, count: int) -> None:
        """Makes `count` items exist, of which nothing is known but that they are different ones."""
        self.catalogue.grow(count)
        self._grow()

    def learn(self, records: Slice, number: int, passes: int | None = None) -> Learned:
        """Evaluates and then learns the events of slice `number`; products must have been learned before.

        `passes` stands in for the settings' own: a first slice of months wants more than one of a second.
        """
        rng = self._seeded(number)
        events = records.events
        self.know(int(events.ordinals.max()) + 1 if len(events) else 0)
        people = self._sequences.fold(events)
        self._evaluate(trials_of(people, self._settings.evaluated_people, rng))
        windows = windows_of(people, self.shape.max_length)
        outcomes = self._weigh_sources(windows, rng)
        self.before_learning(windows)
        expired = self._meet(events)
        self._counted.add(people)
        self._popularity.add(events.ordinals, events.times_us)
        steps = self._learn_windows(windows, passes or self._settings.passes, rng)
        self._reservoir.add(windows, rng)
        self.gauge.add(windows, np.random.default_rng((self._settings.seed, number, _GAUGE_DRAWS)))
        new_pairs = self._searches.fold(records.searches, events)
        if new_pairs or records.products:
            self._learn_queries(rng)
        touched = np.unique(np.concatenate([expired, *(step.touched for step in steps)]))
        return replace(_learned(steps, self._moved(touched)), outcomes=outcomes)

    def gather(self, records: Slice, is_tested: bool = False) -> Windows:
        """Takes in a slice without teaching the towers; the windows that would have taught.

        `is_tested`: the blend learns from what the sources had said of it.
        """
        self.catalogue.fold(records.products)
        events = records.events
        self.know(int(events.ordinals.max()) + 1 if len(events) else 0)
        self._popularity.add(events.ordinals, events.times_us)
        self._searches.fold(records.searches, events)
        self._meet(events)
        people = self._sequences.fold(events)
        windows = windows_of(people, self.shape.max_length)
        if is_tested:
            self._weigh_sources(windows, np.random.default_rng(self._settings.seed))
        self._counted.add(people)
        return windows

    def retrain(self, windows: Windows, epochs: int) -> Iterator[Learned]:
        """Passes over windows in random orders, nothing evaluated first; the rate falls to a tenth over all of them."""
        expected = max(1, epochs * windows.targets() // self._settings.batch_targets)
        sampler, taken = self._sampler(), 0
        for epoch in range(1, epochs + 1):
            rng = self._seeded(epoch)
            steps: list[Step] = []
            for rows in batches(windows, self._settings.batch_targets, rng):
                turned = some_reversed(windows.at(rows), self._settings.reversed_share, rng)
                steps.append(self._tower.step(turned, sampler.draw(rng), rng, self._rate(taken, expected)))
                taken += 1
            for _ in range(len(steps) // _STEPS_A_QUERY_LESSON):
                self._learn_queries(rng)
            yield _learned(steps, self.drifted())

    def _seeded(self, number: int) -> np.random.Generator:
        rng = np.random.default_rng((self._settings.seed, number))
        # what torch draws is what a process leaves out of its own share of each step
        torch.manual_seed(int(rng.integers(1 << 62)) + self._peers.rank)
        return rng

    def drifted(self) -> Deltas:
        """Every vector that moved since it was sent, whatever moved it (the shared projections do)."""
        return self._moved(np.arange(self.catalogue.count))

    def item_vectors(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors as they are now: content plus the item's own row, of length 1."""
        return self._tower.item_vectors(ordinals)

    def user_vectors(self, windows: Windows, waits_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """B × D: what people want after all events of their windows; the newest `max_length` must be all."""
        return self._tower.user_vectors(windows, waits_B)

    def foresee(
        self, windows: Windows, pairs: Pairs, known: int, *, is_new_only: bool = False, is_lesson: bool = False
    ) -> Outcomes:
        """Where each pair's target stands among the first `known` items, before anything is learned from it.

        `is_new_only`: among those of them that were not seen before it. `is_lesson`: for `weigh_sources`.
        """
        wants_PD, facts = self._tower.wants(windows, pairs), self._facts(known)
        return self.forecaster.outcomes(
            windows, pairs, wants_PD, facts, self._counted, is_new_only=is_new_only, is_lesson=is_lesson
        )

    def _facts(self, known: int) -> ItemFacts:
        ordinals = np.arange(known)
        return ItemFacts(
            self.item_vectors(ordinals),
            self.catalogue.text_directions(ordinals),
            self.catalogue.marks(ordinals),
            self._popularity.counts(known),
        )

    def weigh_sources(self, outcomes: Outcomes) -> None:
        """Takes in what every source had said of what came next, so that the blend believes those that knew."""
        self.forecaster.learn(outcomes)

    def measure(self) -> Reading | None:
        """What the towers foresee now of the gauge's old windows; None before there are any."""
        if not len(self.gauge):
            return None
        return self.gauge.measure(self._tower.wants, self.item_vectors(np.arange(self.catalogue.count)))

    def _meet(self, events: Events) -> NDArray[np.int64]:
        """Counts the items of events as met; those whose rows went back to zero, since they were not for too long."""
        self._tower.admission.meet(events.ordinals, events.times_us)
        expired = self._tower.admission.expire()
        self._tower.rows.forget(expired)
        return expired

    def _weigh_sources(self, windows: Windows, rng: np.random.Generator) -> Outcomes | None:
        pairs = pairs_of(windows).followed()
        pairs = pairs.at(np.sort(rng.permutation(len(pairs))[: self._settings.evaluated_states]))
        if not len(pairs):
            return None
        outcomes = self.foresee(windows, pairs, self.catalogue.count, is_lesson=True)
        self.rate_control.note(forecast_loss(outcomes))
        if len(self._reservoir):  # what is foreseen before anything was learned says nothing of the sources
            self.weigh_sources(outcomes)
        return outcomes

    def _grow(self) -> None:
        for part in (self._tower.rows, self._tower.admission, self.sent, self._popularity, self._counted):
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

    def _learn_windows(self, windows: Windows, passes: int, rng: np.random.Generator) -> list[Step]:
        """Some passes over new windows, each beside a sample of old ones; the rate falls within a long slice."""
        steps: list[Step] = []
        sampler = self._sampler()
        teacher = self._tower.teacher() if self._settings.distillation and len(self._reservoir) else None
        expected = max(1, passes * windows.targets() // self._settings.batch_targets)
        for _ in range(passes):
            # old windows stand among the new ones by length: little is padded
            joined = windows.joined(self._replayed(len(windows), rng))
            targets = self._settings.batch_targets * joined.targets() // max(windows.targets(), 1)
            for rows in batches(joined, targets, rng):
                fresh_first = np.sort(rows)
                turned = some_reversed(joined.at(fresh_first), self._settings.reversed_share, rng)
                first_old = int(np.searchsorted(fresh_first, len(windows)))
                lesson = Held(teacher, first_old) if teacher is not None else None
                rate = self._rate(len(steps), expected)
                steps.append(self._tower.step(turned, sampler.draw(rng), rng, rate, lesson))
        return steps

    def _replayed(self, fresh: int, rng: np.random.Generator) -> Windows:
        wanted = max(round(fresh * self._settings.replay_share), self._settings.least_replay) if fresh else 0
        return self._reservoir.sample(wanted, rng)

    def _rate(self, step: int, expected: int) -> float:
        """A live slice of a few steps takes the whole rate of now; a long one ends at a tenth of it."""
        whole = self.rate_control.multiplier
        if expected < _LONG_SLICE:
            return whole
        return whole * (1.0 - (1.0 - _LAST_RATE) * min(1.0, step / expected))

    def _sampler(self) -> NegativeSampler:
        """Of negatives, for as long as no event is folded."""
        counts_N = self._popularity.counts(self.catalogue.count)
        met = self.catalogue.living()
        met = met[counts_N[met] > 0]
        if not len(met):  # everything is deleted, but something was looked at just before
            met = np.arange(self.catalogue.count)
        settings = self._settings
        return NegativeSampler(met, counts_N, settings.uniform_negatives, settings.popular_negatives)

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
        self._query_optimiser.step()


def _learned(steps: Sequence[Step], deltas: Deltas) -> Learned:
    losses = [step.loss for step in steps if step.is_taken]
    return Learned(
        deltas,
        examples=sum(step.examples for step in steps),
        loss=float(np.mean(losses)) if losses else 0.0,
        skipped_steps=sum(not step.is_taken for step in steps),
    )


def tower_shape(settings: TrainerSettings) -> TowerShape:
    return TowerShape(
        dimension=settings.dimension,
        blocks=settings.blocks,
        heads=settings.heads,
        max_length=settings.max_length,
        text_width=settings.text_width,
        habit=settings.habit,
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
