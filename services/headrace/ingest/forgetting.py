"""Forgets people: asks all consumers by a tombstone in the log, then empties the log, and signs what was done.

The log comes last, so that no consumer that starts again learns a journalled slice over records that have changed.
Of the log the person's own records come last: they tell which devices were theirs, and whoever asks again after a
crash finds the same. Every step may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headrace.ingest.cancellations import Purchases
from headrace.ingest.cleaning import Rules
from headrace.ingest.dead_letters import forget_people
from headrace.ingest.devices import Person, person_of, uses_of, without_device
from headrace.ingest.forgotten import Forgotten
from headrace.ingest.ledger import Ledger, Standing
from headrace.ingest.receipts import Signer
from headrace.ingest.storage import IngestStore
from headrace.runtime.clock import now_us
from headrace.runtime.erasures import DONE, done_of, read_left, tombstone
from headrace.runtime.errors import InvalidRequestError, UnavailableError
from headrace.runtime.eventlog import ErasableLog, EventLog
from headrace.runtime.privacy import Privacy, pseudonym_of
from headrace.runtime.telemetry import counter
from headrace.v1.log_pb2 import ErasureDone

log = logging.getLogger(__name__)

_erasures = counter("headrace.ingest.erasures", "{erasure}", "erasures of people answered, by whether all was done")

_LOG, _LETTERS = "log", "dead-letters"
_POLL_S = 0.05
_NOT_ERASED = (
    "weights: a model's are shared by all, none is of one person; they are not unlearned",
    "counts of items, categories, brands and pairs of items: the person's share in them is not kept",
    "copies outside the suite: backups, and what a database server keeps until it recycles it",
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How an erasure goes: whose word is waited for, how long, and until other replicas know of it."""

    consumers: Sequence[str]
    deadline_s: float
    settle_s: float
    refresh_s: float


class Intake(Protocol):
    """A way into the log."""

    async def settle(self) -> None:
        """Returns when everything that was judged before is in the log, or was refused by it."""


class Forgetting:
    """Erases one person at a time in this process; several processes may."""

    def __init__(
        self,
        *,
        event_log: EventLog,
        store: IngestStore,
        ledger: Ledger,
        intakes: Sequence[Intake],
        forgotten: Forgotten,
        purchases: Purchases,
        rules: Rules,
        privacy: Privacy,
        manner: Manner,
    ) -> None:
        self._log = event_log
        self._store = store
        self._ledger = ledger
        self._intakes = intakes
        self._forgotten = forgotten
        self._purchases = purchases
        self._rules = rules
        self._privacy = privacy
        self._manner = manner
        self._signer = Signer(privacy)
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Knows everybody who was forgotten, whoever did it."""
        await self._ledger.catch_up(self._log)
        await self.refresh()

    async def refresh(self) -> None:
        """Takes in the ledger, and drops from memory who is new in it."""
        new = self._forgotten.learn(await self._ledger.forgotten())
        if new:
            self._purchases.drop(lambda user_key: self._privacy.digest(user_key) in new)
            self._rules.drop(lambda user_key: self._privacy.digest(user_key) in new)

    async def keep_fresh(self) -> None:
        """Follows what other replicas forget, for ever."""
        while True:
            await asyncio.sleep(self._manner.refresh_s)
            try:
                await self.refresh()
            except UnavailableError as error:
                log.warning("ledger_unavailable", extra={"reason": str(error)})

    async def forget(self, user_id: str, visitor_id: str, *, include_shared: bool) -> Standing:
        """Erases a person, as far as that can be done by the deadline; the answer holds the receipt."""
        if not (user_id or visitor_id):
            raise InvalidRequestError.of("user_id", "must be given unless visitor_id is")
        async with self._turn:
            standing = await self._asked(user_id, visitor_id, include_shared)
            if standing.complete:
                return standing
            if not standing.log_offset:
                standing = await self._announced(standing, user_id, visitor_id, include_shared)
            said = await self._waited_for(standing)
            standing = await self._emptied(standing, user_id, visitor_id, include_shared, said)
        _erasures.add(1, {"complete": standing.complete})
        log.info("forgotten", extra={"erasure": standing.id, "complete": standing.complete})
        return standing

    async def _asked(self, user_id: str, visitor_id: str, include_shared: bool) -> Standing:
        """The erasure that answers a question: the newest one, unless the person has come back since."""
        question = f"{len(user_id)} {user_id} {visitor_id} {include_shared}"
        request = self._privacy.derived(f"request {question}").hex()[:32]
        standing = await self._ledger.newest(request)
        if standing is not None and not (standing.complete and await self._is_back(standing, user_id, visitor_id)):
            return standing
        number = 1 if standing is None else standing.number + 1
        return await self._begun(f"{request}-{number}", request, number, user_id, visitor_id, include_shared)

    async def _is_back(self, standing: Standing, user_id: str, visitor_id: str) -> bool:
        if not isinstance(self._log, ErasableLog):
            return False
        keys = ["u:" + user_id] * bool(user_id) + ["v:" + visitor_id] * bool(visitor_id)
        # only their own: a shared device is left alone, and others go on using it
        keys = [key for key in keys if self._privacy.digest(key).hex() in standing.own]
        after, end = standing.log_offset, (await self._log.end())[0]
        return bool(keys and await self._log.find(keys=keys, after_offset=after, before_offset=end + 1))

    async def _begun(
        self, erasure_id: str, request: str, number: int, user_id: str, visitor_id: str, include_shared: bool
    ) -> Standing:
        person = await self._person(user_id, visitor_id, include_shared, None)
        standing = Standing(
            erasure_id,
            request,
            number,
            now_us(),
            own=tuple(self._privacy.digest(key).hex() for key in person.keys),
            shared=tuple(self._privacy.digest(key).hex() for key in person.shared),
        )
        await self._ledger.begin(standing)
        return await self._ledger.newest(request) or standing

    async def _person(self, user_id: str, visitor_id: str, include_shared: bool, before_offset: int | None) -> Person:
        before = (await self._log.end())[0] + 1 if before_offset is None else before_offset
        return await person_of(self._log, user_id, visitor_id, include_shared=include_shared, before_offset=before)

    async def _announced(self, standing: Standing, user_id: str, visitor_id: str, include_shared: bool) -> Standing:
        """The erasure with its tombstone in the log, behind everything of the person that any replica still took."""
        await self.refresh()
        for intake in self._intakes:
            await intake.settle()
        await asyncio.sleep(self._manner.settle_s)
        person = await self._person(user_id, visitor_id, include_shared, None)
        named = {key: digest for key in person.keys if (digest := self._privacy.digest(key)).hex() in standing.own}
        record = tombstone(standing.id, named, standing.time_us, self._privacy.fingerprint)
        ((appended),) = await self._log.append([record])
        standing = replace(standing, log_offset=appended.offset)
        await self._ledger.put(standing)
        return standing

    async def _waited_for(self, standing: Standing) -> dict[str, ErasureDone]:
        """What the consumers said, once all have or the deadline is over."""
        loop = asyncio.get_running_loop()
        until, after = loop.time() + self._manner.deadline_s, standing.log_offset
        said: dict[str, ErasureDone] = {}
        while True:
            end = (await self._log.end())[0]
            for record in await read_left(self._log, after, DONE, limit=max(1, end - after)):
                done = done_of(record)
                if done.erasure_id == standing.id:
                    said[done.consumer] = done
            after = end
            if set(self._manner.consumers) <= set(said) or loop.time() >= until:
                return said
            await asyncio.sleep(_POLL_S)

    async def _emptied(
        self,
        standing: Standing,
        user_id: str,
        visitor_id: str,
        include_shared: bool,
        said: Mapping[str, ErasureDone],
    ) -> Standing:
        """The erasure with its receipt, after everything here is erased too."""
        person = await self._person(user_id, visitor_id, include_shared, standing.log_offset)
        # asked again, devices that are empty by now are not found any more; no others can be
        keys = [key for key in person.keys if self._privacy.digest(key).hex() in standing.own]
        letters = await forget_people(self._store, set(keys))
        erased = {_LETTERS: letters, _LOG: await self._empty_log(keys, standing.log_offset)}
        sums = {store: _added(standing.erased.get(store, {}), counts) for store, counts in erased.items()}
        sums |= {consumer: dict(done.erased) for consumer, done in said.items()}
        pending = self._pending(said)
        standing = replace(standing, erased=sums, complete=not pending)
        standing = replace(standing, receipt=self._signer.signed(self._facts(standing, pending)))
        await self._ledger.put(standing)
        return standing

    async def _empty_log(self, keys: Sequence[str], before_offset: int) -> dict[str, int]:
        if not isinstance(self._log, ErasableLog):
            return {}
        devices = [key.removeprefix("v:") for key in keys if key.startswith("v:")]
        blanked = sum([await self._blank(self._log, device, keys, before_offset) for device in devices])
        erased = 0
        # the person's own last: they tell which devices were theirs
        for part in (["v:" + device for device in devices], [key for key in keys if key.startswith("u:")]):
            if part:
                erased += await self._log.erase(part, before_offset)
        return {"records": erased, "devices_blanked": blanked}

    async def _blank(self, event_log: ErasableLog, device: str, keys: Collection[str], before_offset: int) -> int:
        """Takes a device out of what others did while they were logged in on it."""
        blanked = 0
        async for record in uses_of(event_log, device, before_offset):
            if record.key not in keys:
                await event_log.rewrite({record.offset: without_device(record)})
                blanked += 1
        return blanked

    def _pending(self, said: Mapping[str, ErasureDone]) -> dict[str, str]:
        pending: dict[str, str] = {}
        for consumer in self._manner.consumers:
            if consumer not in said:
                pending[consumer] = f"has not answered within {self._manner.deadline_s:g} s; ask again"
            elif said[consumer].key_fingerprint != self._privacy.fingerprint:
                pending[consumer] = "has another privacy key and finds nobody: give all services the same one"
        if not isinstance(self._log, ErasableLog):
            pending[_LOG] = "this log cannot change its records: the person's stay until its retention drops them"
        return pending

    def _facts(self, standing: Standing, pending: Mapping[str, str]) -> dict[str, Any]:
        return {
            "erasure_id": standing.id,
            "requested_us": standing.time_us,
            "receipt_us": now_us(),
            "tombstone_offset": standing.log_offset,
            "privacy_key": self._privacy.fingerprint,
            "erased_people": _pseudonyms(standing.own),
            "shared_devices_kept": _pseudonyms(standing.shared),
            "erased": standing.erased,
            "pending": pending,
            "not_erased": _NOT_ERASED,
        }


def _pseudonyms(digests: Collection[str]) -> list[str]:
    return [pseudonym_of(bytes.fromhex(digest)) for digest in digests]


def _added(before: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    return {name: before.get(name, 0) + counts.get(name, 0) for name in {**before, **counts}}
