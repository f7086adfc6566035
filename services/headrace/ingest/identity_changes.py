"""Devices that somebody joins to a person, or takes apart from one, by hand: a record of the log like any other."""

from __future__ import annotations

import uuid

from headrace.ingest.limits import ID_BYTES, over
from headrace.runtime.clock import now_us
from headrace.runtime.errors import Faults
from headrace.runtime.eventlog import EventLog, Record
from headrace.v1.log_pb2 import IdentityChange


async def change_identity(log: EventLog, visitor_id: str, user_id: str, *, joined: bool) -> int:
    """Writes the change; its offset. InvalidRequestError: an id is missing or too long."""
    _check(visitor_id, user_id)
    change = IdentityChange(
        device_key=f"v:{visitor_id}", user_key=f"u:{user_id}", joined=joined, change_time_us=now_us()
    )
    # a change that is made again is made again: in between it may have been undone
    event_id = f"identity-change:{uuid.uuid4().hex}"
    payload = change.SerializeToString(deterministic=True)
    record = Record("identity-change", change.user_key, event_id, change.change_time_us, payload)
    (appended,) = await log.append([record])
    return appended.offset


def _check(visitor_id: str, user_id: str) -> None:
    faults = Faults()
    for field, value in (("visitor_id", visitor_id), ("user_id", user_id)):
        faults.check(bool(value), field, "must be given")
        for path, description in over(ID_BYTES, field, value):
            faults.add(path, description)
    faults.raise_if_any()
