"""What a dated fact must be to be taken: the limits that the contract states, all faults reported together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.limits import MAX_SECONDS, MIN_SECONDS, Violation, time_us
from headrace.v1.common_pb2 import DatedFact, EntityKind

_ID_BYTES, _TEXT_BYTES, _CATEGORY_BYTES, _NAME_BYTES = 128, 256, 500, 64
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

_Found = Iterator[tuple[str, str]]


def fact_violations(fact: DatedFact) -> list[Violation]:
    """Everything that is wrong with a fact; empty when it may be taken."""
    return [Violation(reason, field, description) for reason, rule in FACT_RULES for field, description in rule(fact)]


def _missing(fact: DatedFact) -> _Found:
    if fact.entity_kind == EntityKind.ENTITY_KIND_UNSPECIFIED:
        yield "entity_kind", "must be given"
    if not fact.entity_id:
        yield "entity_id", "must be given"
    if not fact.name:
        yield "name", "must be given"
    if fact.name == "campaign" and not fact.campaign_id:
        yield "campaign_id", "must be given for campaign"
    if fact.name == "discount" and not fact.HasField("number"):
        yield "number", "must be given for discount"


def _unknown_type(fact: DatedFact) -> _Found:
    if fact.entity_kind not in EntityKind.values():
        yield "entity_kind", f"must be one of {', '.join(EntityKind.keys())}, got {fact.entity_kind}"
    if fact.name and not _NAME.fullmatch(fact.name):
        yield "name", f'must be small letters, digits, "-", "_" with dots between words, got {fact.name[:40]!r}'


def _time(fact: DatedFact) -> _Found:
    sound = [field for field in ("valid_from", "valid_until") if fact.HasField(field)]
    for field in tuple(sound):
        given: Timestamp = getattr(fact, field)
        if not (MIN_SECONDS <= given.seconds <= MAX_SECONDS and 0 <= given.nanos < 1_000_000_000):
            sound.remove(field)
            yield field, f"must be within the years 1 .. 9999, got {given.seconds} s and {given.nanos} ns"
    if len(sound) == 2 and time_us(fact.valid_until) <= time_us(fact.valid_from):
        start, end = fact.valid_from.ToJsonString(), fact.valid_until.ToJsonString()
        yield "valid_until", f"must be after valid_from {start}, got {end}"


def _value(fact: DatedFact) -> _Found:
    if not math.isfinite(fact.number):
        yield "number", f"must be finite, got {fact.number}"
    elif fact.name == "discount" and not 0 <= fact.number <= 1:
        yield "number", f"must be 0 .. 1 for discount, got {fact.number}"


def _too_long(fact: DatedFact) -> _Found:
    is_category = fact.entity_kind == EntityKind.ENTITY_KIND_CATEGORY
    limits = {
        "fact_id": _ID_BYTES,
        "entity_id": _CATEGORY_BYTES if is_category else _ID_BYTES,
        "store_id": _ID_BYTES,
        "name": _NAME_BYTES,
        "text": _TEXT_BYTES,
        "campaign_id": _ID_BYTES,
        "source": _ID_BYTES,
    }
    for field, limit in limits.items():
        if (size := len(getattr(fact, field).encode())) > limit:
            yield field, f"must have at most {limit} bytes, got {size}"


# in this order; the first broken one is the reason that is counted
FACT_RULES: tuple[tuple[str, Callable[[DatedFact], _Found]], ...] = (
    ("missing", _missing),
    ("unknown-type", _unknown_type),
    ("time", _time),
    ("value", _value),
    ("too-long", _too_long),
)
