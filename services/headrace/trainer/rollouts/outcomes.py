"""What people in either arm did: the log followed from some way back, in memory, for gate 2.

Nothing of it is kept on disk, so there is nothing to be forgotten there: a process that starts folds the log again, and
until it is at the end nothing is known.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.model.attribution import Tokens
from headrace.runtime.erasures import TOMBSTONE, erasure_of
from headrace.runtime.errors import CorruptDataError, TrimmedError
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.payloads import pass_over, payload_of
from headrace.runtime.outage import Outage
from headrace.runtime.privacy import Privacy
from headrace.trainer.analysis.observations import Observations, Observed
from headrace.trainer.analysis.policy import CanaryPolicy
from headrace.trainer.rollouts.evidence import LINEAGE
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout
from headrace.v1 import log_pb2

log = logging.getLogger(__name__)

_READ = 2_000
_WAIT_S = 1.0
# sums over everybody: not at every look
_FRESH_S = 5.0
_MOST_KEYS = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one rollout: an experiment of its own. Empty: none runs."""

    rollout: str = ""
    step: int = 0
    began_us: int = 0

    @classmethod
    def of(cls, rollout: Rollout) -> Step:
        return cls(rollout.name, rollout.step, rollout.step_time_us)


class LoggedOutcomes:
    """Follows the log; `running` tells the open rollouts, of which at most one lineage's is in its canary phase."""

    def __init__(
        self,
        event_log: EventLog,
        privacy: Privacy,
        policy: CanaryPolicy,
        running: Callable[[], Sequence[Rollout]],
        look_back: int,
    ) -> None:
        self._log = event_log
        self._patience = Outage("event log", "outcomes")
        self._privacy = privacy
        self._tokens = Tokens(privacy.derived("attribution tokens"))
        self._running = running
        self._look_back = look_back
        self._watching = Observations(policy.metrics, policy.visit_s)
        self._lock = threading.Lock()
        self._step, self._wanted = Step(), Step()
        self._offset = self._now_us = 0
        self._is_at_end = False
        self._first_keys: dict[str, int] = {}
        self._answer: tuple[Step, float, Observed] | None = None

    async def run(self) -> None:
        """Follows for ever; a log that is away is asked again."""
        end, _ = await self._patience.insist(self._log.end)
        self._offset = max(0, end - self._look_back)
        while True:
            self._wanted = await asyncio.to_thread(self._running_step)
            if not (records := await self._patience.attempt(self._next)):
                self._is_at_end = records is not None
                continue
            self._is_at_end = len(records) < _READ
            await asyncio.to_thread(self._fold, records)

    async def _next(self) -> Sequence[LoggedRecord]:
        await self._log.wait(self._offset, _WAIT_S)
        try:
            return await self._log.read(self._offset, limit=_READ)
        except TrimmedError as error:
            # what is gone tells nothing of people whom the log is to have forgotten
            self._offset = error.oldest_offset - 1
            return await self._log.read(self._offset, limit=_READ)

    def _running_step(self) -> Step:
        steps = (Step.of(each) for each in self._running() if each.kind == LINEAGE and each.at == Phase.CANARY)
        return next(steps, Step())

    def observed(self, rollout: Rollout, now_us: int) -> Observed | None:
        """Of the rollout's present step, a few seconds old at most; None: it is not known yet."""
        step = Step.of(rollout)
        if not self._is_at_end or step != self._step:
            return None
        if self._answer is not None and self._answer[0] == step and time.monotonic() - self._answer[1] < _FRESH_S:
            return self._answer[2]
        with self._lock:
            found = self._watching.evidence(self._now_us)
        self._answer = step, time.monotonic(), found
        return found

    def _fold(self, records: Sequence[LoggedRecord]) -> None:
        with self._lock:
            for record in records:
                if self._step != self._wanted and record.append_time_us >= self._wanted.began_us:
                    self._begin(self._wanted, max(self._now_us, record.time_us))
                try:
                    self._take(record)
                except CorruptDataError as error:
                    pass_over(record, error)
            self._offset = records[-1].offset

    def _begin(self, step: Step, time_us: int) -> None:
        self._watching.begin(step.rollout, time_us)
        self._step = step
        self._first_keys.clear()

    def _take(self, record: LoggedRecord) -> None:
        if record.kind == "impression":
            self._show(payload_of(log_pb2.Impression, record))
        elif record.kind == "user-event":
            self._act(payload_of(log_pb2.LoggedUserEvent, record))
        elif record.kind == TOMBSTONE:
            self._watching.forget(erasure_of(record).owners)
            self._first_keys.clear()

    def _show(self, shown: log_pb2.Impression) -> None:
        self._now_us = max(self._now_us, shown.time_us)
        items = np.frombuffer(shown.item_ordinals, "<u4").tolist()
        person, told = self._person(shown.user_key), _probabilities(shown, len(items))
        answer = self._answer_of(shown.attribution_token, {shown.user_key}) or ""
        self._watching.shown(shown.time_us, person, shown.rollout, shown.arm, items, told, answer)

    def _act(self, logged: log_pb2.LoggedUserEvent) -> None:
        self._now_us = max(self._now_us, logged.event_time_us)
        device = f"v:{logged.event.visitor_id}" if logged.event.visitor_id else ""
        if device in self._first_keys and logged.user_key not in self._first_keys:
            # whoever logs in stays in the arm that they were first in
            self._first_keys[logged.user_key] = self._first_keys[device]
        person = self._person(logged.user_key)
        answer = self._answer_of(logged.event.attribution_token, {logged.user_key, device} - {""})
        if answer is None or logged.token_refused:
            # whoever brings a token that is not theirs, or not ours, or once more, earns nothing by it
            return
        self._watching.acted(logged.event_time_us, person, logged.event.event_type, logged.item_ordinals, answer)

    def _answer_of(self, token: str, keys: set[str]) -> str | None:
        """The answer that a token of one of these people names, empty for no token; None: it is worth nothing."""
        if not token:
            return ""
        try:
            facts = self._tokens.facts(token)
        except ValueError:
            return None
        return facts.answer_id if any(self._tokens.is_of(facts, key) for key in keys) else None

    def _person(self, key: str) -> int:
        """The number of whom a key stands for: of the key by which they were first met in this step."""
        if len(self._first_keys) > _MOST_KEYS:
            self._first_keys.clear()
        if key not in self._first_keys:
            self._first_keys[key] = self._privacy.owner(key)
        return self._first_keys[key]


def _probabilities(shown: log_pb2.Impression, items: int) -> list[float]:
    """Of a click on each item; none where the release told none that are numbers."""
    found = np.frombuffer(shown.click_probabilities, "<f4")
    return found.tolist() if len(found) == items and np.isfinite(found).all() else []
