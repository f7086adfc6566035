"""Reads log records into facts: the one place where the fold's input meets the contracts."""

from __future__ import annotations

from collections.abc import Callable

from headrace.feature_store.dated_facts import ALWAYS, NEVER
from headrace.feature_store.facts import DatedFact, Fact, IdentityFact, ProductFact, Tick, UserAct
from headrace.feature_store.identities import device_key_of
from headrace.model.events import EVENT_CODES, EventCode
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.eventlog.payloads import pass_over, payload_of
from headrace.v1 import common_pb2, feature_store_pb2, log_pb2

_CANCEL = "purchase-cancel"
_UNAVAILABLE = (common_pb2.AVAILABILITY_OUT_OF_STOCK,)


def fact_of(record: LoggedRecord) -> Fact:
    """The fact of a record; a Tick for kinds that change no state, such as impressions, and for unreadable ones."""
    read = _READ.get(record.kind)
    if read is None:
        return Tick(record.offset)
    try:
        return read(record)
    except CorruptDataError as error:
        pass_over(record, error)
        return Tick(record.offset)


def _user_act(record: LoggedRecord) -> UserAct:
    logged = payload_of(log_pb2.LoggedUserEvent, record)
    event = logged.event
    event_type = event.event_type
    is_cancel = event_type == _CANCEL and bool(logged.cancelled_event_id)
    code = EVENT_CODES.get(event_type, EventCode.NONE)
    # a cancellation whose purchase was not found, and an impression, touch no item
    ordinals = list(dict.fromkeys(logged.item_ordinals)) if code or is_cancel else []
    return UserAct(
        record.offset,
        event_type,
        code,
        logged.user_key,
        logged.event_time_us,
        event.channel,
        ordinals,
        is_cancel,
        device_key_of(event.visitor_id) if event.user_id and event.visitor_id else "",
    )


def _dated_fact(record: LoggedRecord) -> DatedFact:
    logged = payload_of(log_pb2.LoggedDatedFact, record)
    fact = logged.fact
    return DatedFact(
        offset=record.offset,
        entity=(fact.entity_kind, fact.entity_id),
        ordinal=logged.item_ordinal if logged.HasField("item_ordinal") else None,
        fact_id=fact.fact_id,
        name=fact.name,
        store_id=fact.store_id,
        campaign_id=fact.campaign_id,
        number=fact.number,
        from_us=fact.valid_from.ToMicroseconds() if fact.HasField("valid_from") else ALWAYS,
        until_us=fact.valid_until.ToMicroseconds() if fact.HasField("valid_until") else NEVER,
        revision=fact.revision,
        deleted=fact.deleted,
        document=fact.SerializeToString(deterministic=True),
    )


def _product_fact(record: LoggedRecord) -> ProductFact:
    change = payload_of(log_pb2.ProductChange, record)
    product = change.product
    document = feature_store_pb2.ItemDocument(ordinal=change.ordinal, product=product, deleted=change.deleted)
    return ProductFact(
        offset=record.offset,
        ordinal=change.ordinal,
        time_us=change.change_time_us,
        deleted=change.deleted,
        price=product.price_info.price,
        original_price=product.price_info.original_price,
        available=product.availability not in _UNAVAILABLE,
        publish_us=product.publish_time.ToMicroseconds() if product.HasField("publish_time") else None,
        expire_us=product.expire_time.ToMicroseconds() if product.HasField("expire_time") else None,
        category=product.categories[0] if product.categories else "",
        brand=product.brands[0] if product.brands else "",
        title=product.title,
        document=document.SerializeToString(deterministic=True),
        product_id=product.id,
    )


def _identity_fact(record: LoggedRecord) -> IdentityFact:
    change = payload_of(log_pb2.IdentityChange, record)
    return IdentityFact(record.offset, change.device_key, change.user_key, change.joined)


_READ: dict[str, Callable[[LoggedRecord], Fact]] = {
    "user-event": _user_act,
    "product-change": _product_fact,
    "dated-fact": _dated_fact,
    "identity-change": _identity_fact,
}

# all that `fact_of` does not make a Tick of
KINDS_FOLDED = tuple(_READ)
