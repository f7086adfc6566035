"""Looks for a person's ids in every store and file of a suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from headrace.cli.forgetting.traces_in_bytes import files_with, forms_of
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.tier_opening import open_user_tier
from headrace.ingest.devices import records_of, uses_of
from headrace.ingest.settings import IngestSettings
from headrace.ingest.storage import open_store
from headrace.runtime.eventlog.opening import open_event_log, require_event_log
from headrace.runtime.settings import CommonSettings, load
from headrace.v1.common_pb2 import UserEvent

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """Where something of the person is, and how often."""

    place: str
    count: int


@dataclass(frozen=True, slots=True)
class Search:
    """What was looked through, and what was found."""

    places: tuple[str, ...]
    files: int
    found: tuple[Found, ...]


async def search(common: CommonSettings, user_id: str, visitor_id: str) -> Search:
    """Looks through the log, the door's database and a Redis by query, and through the data folder's files by bytes."""
    require_event_log(common)
    ids = (user_id, visitor_id)
    counts = {
        "event log": await _in_log(common, *ids),
        "dead letters": await _in_letters(common, *ids),
    }
    if redis_url := load(FeatureStoreSettings).redis_url:
        counts["users in Redis"] = _in_redis(redis_url, *ids)
    files = sorted(path for path in common.data_dir.rglob("*") if path.is_file())
    found = [Found(place, count) for place, count in counts.items() if count]
    found += [Found(str(path), count) for path, count in files_with(forms_of(*ids), files)]
    return Search((*counts, f"files in {common.data_dir}"), len(files), tuple(found))


async def _in_log(common: CommonSettings, user_id: str, visitor_id: str) -> int:
    log = open_event_log(common)
    try:
        before = (await log.end())[0] + 1
        count = 0
        for key in _keys(user_id, visitor_id):
            count += await _length(records_of(log, key, before))
        if visitor_id:
            count += await _length(uses_of(log, visitor_id, before))
        return count
    finally:
        await log.close()


def _keys(user_id: str, visitor_id: str) -> tuple[str, ...]:
    return ("u:" + user_id,) * bool(user_id) + ("v:" + visitor_id,) * bool(visitor_id)


async def _length(items: AsyncIterator[object]) -> int:
    return len([item async for item in items])


def _in_redis(redis_url: str, user_id: str, visitor_id: str) -> int:
    tier = open_user_tier(redis_url)
    try:
        return sum(tier.traces_of(key) for key in _keys(user_id, visitor_id))
    finally:
        tier.close()


async def _in_letters(common: CommonSettings, user_id: str, visitor_id: str) -> int:
    store = open_store(load(IngestSettings).database_url, common.data_dir / "ingest")
    try:
        count, after = 0, 0
        while letters := await store.dead_letters(limit=_PAGE, after_id=after, newest_first=False):
            events = [UserEvent.FromString(letter.refusal.event) for letter in letters]
            count += sum(_is_of(event, user_id, visitor_id) for event in events)
            after = letters[-1].id
        return count
    finally:
        await store.close()


def _is_of(event: UserEvent, user_id: str, visitor_id: str) -> bool:
    return bool((user_id and event.user_id == user_id) or (visitor_id and event.visitor_id == visitor_id))
