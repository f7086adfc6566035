"""Refused events: sent through the door again, as they were or mended; forgotten with their people; let go when old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

from headrace.ingest.identity import digest, user_key
from headrace.ingest.intake import EventIntake
from headrace.ingest.outcomes import Outcome
from headrace.ingest.storage import DeadLetter, IngestStore
from headrace.runtime.clock import MICROSECONDS, now_us
from headrace.runtime.errors import NotFoundError, UnavailableError
from headrace.v1.common_pb2 import UserEvent

log = logging.getLogger(__name__)

_BATCH = 500
_DAY_US = 86_400 * MICROSECONDS
_LOOK_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many were sent again, and how many of them are in the log now."""

    replayed: int = 0
    accepted: int = 0


async def replay(
    store: IngestStore, intake: EventIntake, *, ids: Collection[int], reason: str, excused: Collection[str] = ()
) -> Replayed:
    """Replays the named dead letters, or all of `reason`, or all; those that pass leave the list."""
    replayed = accepted = 0
    async for letters in _batches(store, ids, reason):
        events = [UserEvent.FromString(letter.refusal.event) for letter in letters]
        results = await intake.write(events, excused=excused)
        passed = [
            letter.id for letter, result in zip(letters, results, strict=True) if result.outcome is not Outcome.REJECTED
        ]
        await store.forget_dead_letters(passed)
        replayed += len(letters)
        accepted += len(passed)
    return Replayed(replayed, accepted)


async def replay_mended(
    store: IngestStore, intake: EventIntake, mended: Mapping[int, UserEvent], *, excused: Collection[str] = ()
) -> Replayed:
    """Replays other events instead of those of the named dead letters; NotFoundError when one is not there.

    The old letters leave the list: an event that is refused again is in it with its own faults, unless nothing of
    it was changed.
    """
    letters = await store.dead_letters_of(mended)
    missing = mended.keys() - {letter.id for letter in letters}
    if missing:
        raise NotFoundError(f"no dead letter {', '.join(map(str, sorted(missing)))}")
    events = [mended[letter.id] for letter in letters]
    # as they are sent: a taken event gets its id meanwhile
    digests = [digest(event.SerializeToString(deterministic=True)) for event in events]
    results = await intake.write(events, excused=excused)
    taken = [result.outcome is not Outcome.REJECTED for result in results]
    await store.forget_dead_letters(
        [
            letter.id
            for letter, sent, is_taken in zip(letters, digests, taken, strict=True)
            if is_taken or sent != letter.refusal.digest
        ]
    )
    return Replayed(len(letters), sum(taken))


async def forget_people(store: IngestStore, user_keys: Collection[str]) -> dict[str, int]:
    """Erases the dead letters of people, and takes their devices out of those of others."""
    gone: list[int] = []
    blanked = 0
    async for letters in _batches(store, (), ""):
        for letter in letters:
            event = UserEvent.FromString(letter.refusal.event)
            if user_key(event) in user_keys:
                gone.append(letter.id)
            elif "v:" + event.visitor_id in user_keys:
                event.visitor_id = ""
                await store.rewrite_dead_letter(letter.id, event.SerializeToString(deterministic=True))
                blanked += 1
    for start in range(0, len(gone), _BATCH):
        await store.forget_dead_letters(gone[start : start + _BATCH])
    await store.scrub()
    return {"letters": len(gone), "devices_blanked": blanked}


async def keep_young(store: IngestStore, days: float) -> None:
    """Lets dead letters go that are older than `days`, for ever."""
    while True:
        try:
            count = await store.forget_dead_letters_before(now_us() - int(days * _DAY_US))
        except UnavailableError as error:
            log.warning("dead_letters_unavailable", extra={"reason": str(error)})
        else:
            if count:
                log.info("dead_letters_expired", extra={"count": count})
        await asyncio.sleep(min(_LOOK_S, days * _DAY_US / MICROSECONDS / 2))


async def _batches(store: IngestStore, ids: Collection[int], reason: str) -> AsyncIterator[Sequence[DeadLetter]]:
    if ids:
        named = sorted(set(ids))
        for start in range(0, len(named), _BATCH):
            found = await store.dead_letters_of(named[start : start + _BATCH])
            wanted = [letter for letter in found if not reason or letter.refusal.reason == reason]
            if wanted:
                yield wanted
        return
    after = 0
    while letters := await store.dead_letters(limit=_BATCH, after_id=after, reason=reason, newest_first=False):
        yield letters
        after = letters[-1].id
