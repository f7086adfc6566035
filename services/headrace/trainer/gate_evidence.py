"""What was logged of late, as evidence of gate 1: a candidate release beside the one that serves.

The log is followed in the controller's process, from a little before its end on. Nothing of it is kept but the newest
lists, steps and searches, and nothing is trusted that a release says of itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.serving_model import ModelError, ServingModel
from headrace.model.text.encoder import FindEncoder, no_encoder
from headrace.runtime.erasures import TOMBSTONE
from headrace.runtime.errors import CorruptDataError, NotFoundError, TrimmedError, UnavailableError
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.outage import Outage
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.analysis.evidence import Kept, LoggedEvidence
from headrace.trainer.index_vectors import SpaceVectors
from headrace.trainer.off_policy_values import LoggedValues
from headrace.trainer.paired_recall import Placed, queries_kept, towers_kept
from headrace.trainer.paired_scores import Scored, calibration, click_loss, order_loss, rank_agreement
from headrace.trainer.queries import Lesson
from headrace.trainer.recent_lists import RecentLists, ShownLists
from headrace.trainer.recent_states import RecentStates, State
from headrace.trainer.records import slice_of
from headrace.trainer.registry import Release

log = logging.getLogger(__name__)

# records before the log's end from which evidence is gathered at a start
_LOOK_BACK = 50_000
_READ = 2_000
_WAIT_S = 1.0
# people whose newest step is kept, items that a step is looked for among, and searches
_PEOPLE, _ITEMS, _SEARCHES = 512, 4_000, 256
# events that a step is foreseen from; a tower that sees fewer takes the newest
_HISTORY = 50
# models at hand: a candidate, its baseline and the one before
_MODELS = 3
_UNKNOWN = Kept(0, 0, 0, 0, 0)


class GateEvidence:
    """Follows the log, and holds two releases against what it says. `shadow` may be asked at any time."""

    def __init__(
        self,
        event_log: EventLog,
        read_parts: Callable[[Release], Mapping[str, bytes]],
        vectors: SpaceVectors,
        *,
        window_s: float,
        lists: int,
        find_encoder: FindEncoder = no_encoder,
        privacy: Privacy = UNKEYED,
    ) -> None:
        self._log = event_log
        self._patience = Outage("event log", "gather evidence")
        self._read_parts = read_parts
        self._vectors = vectors
        self._find_encoder = find_encoder
        self._lists = RecentLists(window_s, lists, privacy)
        self._states = RecentStates(_HISTORY, _PEOPLE, _ITEMS, privacy)
        self._offset = -1
        self._news = asyncio.Condition()
        # one thread at a time folds or looks
        self._turn = asyncio.Lock()
        self._models: dict[str, ServingModel] = {}

    async def reached(self, offset: int) -> None:
        """Waits until everything up to an offset is taken in, by `run` in another task."""
        async with self._news:
            await self._news.wait_for(lambda: self._offset >= offset)

    async def run(self) -> None:
        """Follows the log for ever; one that is away is asked again."""
        end, _ = await self._patience.insist(self._log.end)
        self._offset = max(0, end - _LOOK_BACK)
        while True:
            if records := await self._patience.attempt(self._next_records):
                async with self._turn:
                    await asyncio.to_thread(self._fold, records)
                async with self._news:
                    self._offset = records[-1].offset
                    self._news.notify_all()

    async def _next_records(self) -> Sequence[LoggedRecord]:
        if not await self._log.wait(self._offset, _WAIT_S):
            return []
        try:
            return await self._log.read(self._offset, limit=_READ)
        except TrimmedError:
            # evidence is of late: what the log forgot is not missed
            self._offset = 0
            return []

    def _fold(self, records: Sequence[LoggedRecord]) -> None:
        # a tombstone takes back what stands before it, so records are taken in up to each
        start = 0
        for at, record in enumerate(records):
            if record.kind == TOMBSTONE:
                self._take(records[start : at + 1])
                start = at + 1
        self._take(records[start:])

    def _take(self, records: Sequence[LoggedRecord]) -> None:
        found = slice_of(records, self._offset, records[-1].offset if records else self._offset)
        self._lists.fold(found.impressions, found.events)
        self._states.fold(found.searches, found.events)
        for erasure in found.erasures:
            self._lists.erase(erasure)
            self._states.erase(erasure)

    async def shadow(self, candidate: Release, baseline: Release) -> LoggedEvidence:
        """Both on the newest lists, steps and searches; counts say how much that is, which may be nothing.

        ModelError, CorruptDataError: the parts of the candidate are no model. Where the baseline's are none, nothing is
        known.
        """
        async with self._turn:
            lists, states, items = self._lists.all(), self._states.states(), self._states.items()
            searches = self._states.searches(_SEARCHES)
        model = await asyncio.to_thread(self._model, candidate)
        try:
            models = [model, await asyncio.to_thread(self._model, baseline)]
        except (ModelError, CorruptDataError, NotFoundError) as error:
            # nothing can be said against a candidate by what serves and cannot be read
            log.warning("evidence_without_baseline", extra={"release": baseline.name, "reason": str(error)})
            return _nothing(model)
        placed = await self._placed((candidate, baseline), models, states, items)
        return await asyncio.to_thread(_evidence, lists, states, searches, models, placed)

    def _model(self, release: Release) -> ServingModel:
        if release.checksum not in self._models:
            self._models[release.checksum] = ServingModel.load(self._read_parts(release), self._find_encoder)
        # the baseline is asked for again and again, a candidate while it is looked at
        for checksum in list(self._models)[:-_MODELS]:
            del self._models[checksum]
        return self._models[release.checksum]

    async def _placed(
        self,
        releases: Sequence[Release],
        models: Sequence[ServingModel],
        states: Sequence[State],
        items: NDArray[np.uint32],
    ) -> list[Placed]:
        """The models over their spaces' vectors of all items at hand; none where the index is away."""
        seen = [state.history.ordinals for state in states]
        wanted = np.unique(np.concatenate([items, *seen])) if len(items) else items
        try:
            vectors = {space: await self._vectors.of(space, wanted) for space in {each.space for each in releases}}
        except UnavailableError as error:
            log.warning("evidence_without_towers", extra={"reason": str(error)})
            return []
        return [Placed(model, vectors[release.space]) for release, model in zip(releases, models, strict=True)]


def _nothing(candidate: ServingModel) -> LoggedEvidence:
    return _evidence(ShownLists.none(), (), Lesson((), np.zeros(0, np.int64)), (candidate, candidate), ())


def _evidence(
    lists: ShownLists,
    states: Sequence[State],
    searches: Lesson,
    models: Sequence[ServingModel],
    placed: Sequence[Placed],
) -> LoggedEvidence:
    if models[0].feature_schema != FEATURE_SCHEMA:
        raise ModelError(f"features of schema {models[0].feature_schema!r}, what is logged has {FEATURE_SCHEMA!r}")
    if models[1].feature_schema != FEATURE_SCHEMA:
        # what served read other features: no list can be scored by both
        lists = ShownLists.none()
    candidate, baseline = (_scored(model, lists) for model in models)
    values = LoggedValues(lists)
    snips, robust = values.of(candidate, baseline)
    baseline_snips, baseline_robust = values.of(baseline, baseline)
    return LoggedEvidence(
        lists=len(lists),
        people=len(np.unique(lists.owners_G)),
        click_loss=click_loss(lists, candidate, baseline),
        order_loss=order_loss(lists, candidate, baseline),
        calibration=calibration(lists, candidate),
        baseline_calibration=calibration(lists, baseline),
        rank_agreement=rank_agreement(lists, candidate, baseline),
        snips=snips,
        baseline_snips=baseline_snips,
        doubly_robust=robust,
        baseline_doubly_robust=baseline_robust,
        towers=towers_kept(placed[0], placed[1], states) if placed else _UNKNOWN,
        queries=queries_kept(placed[0], placed[1], searches) if placed else _UNKNOWN,
        not_finite=candidate.not_finite,
    )


def _scored(model: ServingModel, lists: ShownLists) -> Scored:
    if not len(lists):
        return Scored.of(np.zeros(0, np.float32), np.zeros(0, np.float32))
    return Scored.of(model.scores(lists.features_RF), model.task_probabilities(lists.features_RF)[:, 0])
