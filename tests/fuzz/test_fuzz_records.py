"""Whatever a record of the log holds: a fold takes it or passes over it, and what must be read says its offset."""

from __future__ import annotations

import pytest
from confluent_kafka import Message
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.feature_store.facts import Tick
from headrace.feature_store.records import KINDS_FOLDED, fact_of
from headrace.runtime.erasures import TOMBSTONE, erasure_of
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.eventlog.kafka_records import event_id_of, logged_record, restored_message
from headrace.trainer.records import slice_of
from headrace.v1 import common_pb2, log_pb2
from tests.fuzz.damage import check_tells, damaged
from tests.fuzz.profile import fuzz

EVENT = common_pb2.UserEvent(event_type="purchase-complete", visitor_id="v", user_id="u", search_query="a lamp")
EVENT.product_details.add(product_id="p", quantity=2, price=3.5)
FACT = common_pb2.DatedFact(entity_kind=1, entity_id="p", name="discount", number=0.5)
FACT.valid_from.FromMicroseconds(1)
MESSAGES = {
    "user-event": log_pb2.LoggedUserEvent(event=EVENT, user_key="u:u", item_ordinals=[7], event_time_us=9),
    "product-change": log_pb2.ProductChange(ordinal=7, product=common_pb2.Product(id="p", title="Lamp", brands=["B"])),
    "dated-fact": log_pb2.LoggedDatedFact(fact=FACT, item_ordinal=7),
    "identity-change": log_pb2.IdentityChange(device_key="v:v", user_key="u:u", joined=True),
    "impression": log_pb2.Impression(
        item_ordinals=bytes(8), features=common_pb2.Matrix(rows=2, columns=1, values=bytes(8))
    ),
}
TYPES = {kind: type(message) for kind, message in MESSAGES.items()}
PAYLOADS = damaged(*(message.SerializeToString() for message in MESSAGES.values()))


def record(kind: str, payload: bytes) -> LoggedRecord:
    return LoggedRecord(41, 0, 0, kind, "u:u", "e", 0, payload, "")


def is_message(kind: str, payload: bytes) -> bool:
    try:
        TYPES[kind].FromString(payload)
    except DecodeError:
        return False
    return True


@fuzz
@given(st.sampled_from([*KINDS_FOLDED, "impression", "no such kind"]), PAYLOADS)
@example("user-event", b"\xff")
@example("user-event", MESSAGES["user-event"].SerializeToString())
def test_any_payload_is_a_fact_or_is_passed_over(kind: str, payload: bytes) -> None:
    fact = fact_of(record(kind, payload))
    assert fact.offset == 41
    assert isinstance(fact, Tick) == (kind not in KINDS_FOLDED or not is_message(kind, payload))


@fuzz
@given(st.lists(st.tuples(st.sampled_from(list(TYPES)), PAYLOADS), max_size=4))
@example([("impression", log_pb2.Impression(item_ordinals=b"abc").SerializeToString())])
@example([("impression", b"\x1a\x04\x08\x07\x10\x07"), ("user-event", b"\xff")])
def test_a_slice_of_any_payloads_holds_what_can_be_read(drawn: list[tuple[str, bytes]]) -> None:
    good = MESSAGES["user-event"].SerializeToString()
    found = slice_of([*(record(*one) for one in drawn), record("user-event", good)], 0, 41)
    assert (found.events.ordinals[-1], found.events.user_keys[int(found.events.users[-1])]) == (7, "u:u")
    readable = sum(kind == "product-change" and is_message(kind, payload) for kind, payload in drawn)
    assert len(found.products) == readable


TOLD = log_pb2.UserTombstone(erasure_id="e", digests=[bytes(16)], partitions=[3], key_fingerprint="f")


@fuzz
@given(damaged(TOLD.SerializeToString()))
def test_who_is_to_be_forgotten_is_read_or_the_offset_told(payload: bytes) -> None:
    try:
        assert erasure_of(record(TOMBSTONE, payload)).offset == 41
    except CorruptDataError as error:
        check_tells(error, "offset 41")


HEADER = st.sampled_from(["kind", "event-id", "time-us", "append-time-us", "traceparent", "gap", "other"])
NUMBERS = st.sampled_from([b"12", b"-1", b"1e3", b"\xff", b"9" * 30, b"9" * 5_000, b" 7 ", b""])


@fuzz
@given(
    st.binary(max_size=20) | st.none(),
    st.binary(max_size=20) | st.none(),
    st.lists(st.tuples(HEADER, st.none() | NUMBERS | st.binary(max_size=12)), max_size=6) | st.none(),
)
@example(b"", b"", [("kind", None), ("event-id", b"e"), ("time-us", b"1")])
@example(b"", b"", [("kind", b"k"), ("event-id", None), ("time-us", None)])
@example(b"", b"", [("kind", b"k"), ("event-id", b"e"), ("time-us", b"9" * 30)])
def test_any_message_of_a_topic_is_a_record_or_told_to_be_none(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]] | None
) -> None:
    message = Message(topic="t", partition=0, offset=40, key=key, value=value, headers=headers, timestamp=(1, 5))
    for read in (logged_record, event_id_of):
        try:
            found = read(message)
        except CorruptDataError as error:
            check_tells(error, "offset 40")
            continue
        if isinstance(found, LoggedRecord):
            assert found.offset == 41
            assert all(-(2**63) <= number < 2**63 for number in (found.time_us, found.append_time_us))


def test_a_record_of_ours_is_read_as_it_was_written() -> None:
    ours = LoggedRecord(41, 17, 123_000, "user-event", "u:ü", "e", -5, b"\0x", "trace")
    key, value, headers = restored_message(ours)
    message = Message(topic="t", partition=0, offset=40, key=key, value=value, headers=headers, timestamp=(1, 5))
    found = logged_record(message)
    assert found == LoggedRecord(41, found.partition, 123_000, "user-event", "u:ü", "e", -5, b"\0x", "trace")


@pytest.mark.parametrize("kind", KINDS_FOLDED)
def test_a_fold_goes_on_behind_a_record_that_cannot_be_read(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    assert fact_of(record(kind, b"\xff")) == Tick(41)
    assert [one.message for one in caplog.records] == ["record_unreadable"]
