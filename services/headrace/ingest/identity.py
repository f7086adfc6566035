"""Whose event it is, and which event it is."""

from __future__ import annotations

import hashlib

from headrace.v1.common_pb2 import UserEvent

_ID_LENGTH = 32


def user_key(event: UserEvent) -> str:
    """The key of the history that an event belongs to: the person when known, else the device."""
    return key_of(event.user_id, event.visitor_id)


def key_of(user_id: str, visitor_id: str) -> str:
    """The same of an event whose ids are read."""
    return "u:" + user_id if user_id else "v:" + visitor_id


def event_id(event: UserEvent) -> str:
    """The given event id, or one derived from all other fields: 32 hex digits of SHA-256.

    An event that is sent again word for word has the same id, whatever process derives it.
    """
    return event.event_id or digest(event.SerializeToString(deterministic=True))


def digest(data: bytes) -> str:
    """32 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:_ID_LENGTH]
