"""Sends refused events through the door again, as they were or mended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

from headrace.ingest.identity import digest
from headrace.ingest.intake import EventIntake
from headrace.ingest.outcomes import Outcome
from headrace.ingest.storage import DeadLetter, IngestStore
from headrace.runtime.errors import NotFoundError
from headrace.v1.common_pb2 import UserEvent

_BATCH = 500


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
