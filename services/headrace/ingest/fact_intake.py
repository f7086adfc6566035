"""The way of a dated fact from the door into the log: judged, named, joined to its product, appended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from headrace.ingest.catalogue import Catalogue
from headrace.ingest.fact_validation import fact_violations
from headrace.ingest.forgotten import Forgotten
from headrace.ingest.identity import digest
from headrace.ingest.limits import Violation
from headrace.ingest.outcomes import Outcome, Result
from headrace.runtime.clock import now_us
from headrace.runtime.eventlog import Appended, EventLog, Record
from headrace.runtime.telemetry import counter, traceparent
from headrace.v1.common_pb2 import DatedFact, EntityKind
from headrace.v1.log_pb2 import LoggedDatedFact

KIND = "dated-fact"

_facts = counter("headrace.ingest.facts", "{fact}", "dated facts brought to the door, by outcome and reason")
# whoever searches the log for all that is a person's finds their facts by the key of their events
_PREFIXES = {EntityKind.ENTITY_KIND_USER: "u:", EntityKind.ENTITY_KIND_VISITOR: "v:"}


class FactIntake:
    """Takes batches of dated facts. A record's id is its whole content, so that any repeat is one."""

    def __init__(self, *, log: EventLog, catalogue: Catalogue, forgotten: Forgotten) -> None:
        self._log = log
        self._catalogue = catalogue
        self._forgotten = forgotten
        self._appending: set[asyncio.Task[list[Appended]]] = set()

    async def write(self, facts: Sequence[DatedFact]) -> list[Result]:
        """A result a fact, in order, when every accepted one is durable.

        OverloadedError when the log is behind: then no fact of the batch was taken.
        """
        stated = [fact_violations(fact) for fact in facts]
        sound = [fact for fact, found in zip(facts, stated, strict=True) if not found]
        ordinals = await self._catalogue.ordinals([fact.entity_id for fact in sound if _is_of_product(fact)])
        # nothing is waited for between this judgement and the append, which an erasure waits for
        violations = [
            found or self._forgotten.fact_violations(fact, _key(fact))
            for fact, found in zip(facts, stated, strict=True)
        ]
        taken = [_named(fact) for fact, found in zip(facts, violations, strict=True) if not found]
        # the append goes on when the caller gives up: others may share its commit
        places = iter(await asyncio.shield(self._start_append(_records(taken, ordinals))))
        names = iter(taken)
        results = [
            _refused(fact, found) if found else _placed(next(names).fact_id, next(places))
            for fact, found in zip(facts, violations, strict=True)
        ]
        for result in results:
            _facts.add(1, {"outcome": result.outcome.value, "reason": result.reason})
        return results

    async def settle(self) -> None:
        """Returns when everything that was judged before is in the log, or was refused by it."""
        if self._appending:
            await asyncio.wait(set(self._appending))

    def _start_append(self, records: Sequence[Record]) -> asyncio.Task[list[Appended]]:
        task = asyncio.create_task(self._log.append(records), name="ingest-append-facts")
        self._appending.add(task)
        task.add_done_callback(self._appending.discard)
        return task


def _is_of_product(fact: DatedFact) -> bool:
    return fact.entity_kind == EntityKind.ENTITY_KIND_PRODUCT


def _key(fact: DatedFact) -> str:
    return _PREFIXES.get(fact.entity_kind, "") + fact.entity_id


def _records(facts: Sequence[DatedFact], ordinals: Mapping[str, int]) -> list[Record]:
    time_us, trace = now_us(), traceparent()
    return [_record(fact, ordinals.get(fact.entity_id), time_us, trace) for fact in facts]


def _named(fact: DatedFact) -> DatedFact:
    named = DatedFact()
    named.CopyFrom(fact)
    named.fact_id = fact.fact_id or _derived_id(fact)
    return named


def _derived_id(fact: DatedFact) -> str:
    """32 hex digits of SHA-256 over what does not change when a fact is ended, corrected or deleted."""
    lasting = DatedFact()
    lasting.CopyFrom(fact)
    for field in ("valid_until", "revision", "deleted"):
        lasting.ClearField(field)
    return digest(lasting.SerializeToString(deterministic=True))


def _record(fact: DatedFact, ordinal: int | None, time_us: int, trace: str) -> Record:
    logged = LoggedDatedFact(fact=fact, item_ordinal=ordinal if _is_of_product(fact) else None, ingest_time_us=time_us)
    content = digest(fact.SerializeToString(deterministic=True))
    return Record(KIND, _key(fact), f"{KIND}:{content}", time_us, logged.SerializeToString(), trace)


def _refused(fact: DatedFact, violations: Sequence[Violation]) -> Result:
    return Result(fact.fact_id, Outcome.REJECTED, violations=violations)


def _placed(fact_id: str, place: Appended) -> Result:
    return Result(fact_id, Outcome.DUPLICATE if place.duplicate else Outcome.ACCEPTED, place.offset)
