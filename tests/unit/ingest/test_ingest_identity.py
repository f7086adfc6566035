from __future__ import annotations

import hashlib

from headrace.ingest.identity import event_id, user_key
from headrace.v1.common_pb2 import UserEvent


def test_a_person_is_known_by_user_id_and_else_by_device() -> None:
    assert user_key(UserEvent(user_id="7", visitor_id="d")) == "u:7"
    assert user_key(UserEvent(visitor_id="d")) == "v:d"


def test_a_given_event_id_is_kept() -> None:
    assert event_id(UserEvent(event_id="mine", visitor_id="d")) == "mine"


def test_a_derived_id_is_the_hash_of_everything_else() -> None:
    event = UserEvent(visitor_id="d", labels={"b": "2", "a": "1"})
    expected = hashlib.sha256(event.SerializeToString(deterministic=True)).hexdigest()[:32]
    assert event_id(event) == expected
    # a map has no order of its own
    assert event_id(UserEvent(labels={"a": "1", "b": "2"}, visitor_id="d")) == expected
    assert event_id(UserEvent(labels={"a": "1", "b": "3"}, visitor_id="d")) != expected


def test_a_derived_id_is_the_same_for_every_version() -> None:
    # field 3, length 1, "d"
    assert event_id(UserEvent(visitor_id="d")) == hashlib.sha256(b"\x1a\x01d").hexdigest()[:32]
