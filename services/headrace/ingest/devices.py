"""Which keys are a person's: their own, and of the devices that they used those that nobody else used.

A device is shared when somebody else logged in on it too. What was done there without logging in may be anybody's,
so it is not taken for this person's, unless that is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from headrace.runtime.eventlog import ErasableLog, EventLog, LoggedRecord
from headrace.v1.log_pb2 import IdentityChange, LoggedUserEvent

EVENT, CHANGE = "user-event", "identity-change"


@dataclass(frozen=True, slots=True)
class Person:
    """User keys to be forgotten: `own` of a login, if any, and of devices. `shared` devices are left alone."""

    own: str
    devices: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return ((self.own,) if self.own else ()) + self.devices


async def person_of(
    log: EventLog, user_id: str, visitor_id: str, *, include_shared: bool, before_offset: int
) -> Person:
    """All keys of a person, found in the log before an offset."""
    own = "u:" + user_id if user_id else ""
    used = {visitor_id} if visitor_id else set()
    if own:
        async for record in records_of(log, own, before_offset):
            used.add(_device_of(record))
    used.discard("")
    shared: set[str] = set()
    for device in used:
        others = await _logged_in(log, device, before_offset) - {own}
        # nobody says who asks for a device alone: the one who logged in there, if there is one
        if len(others) > (0 if own else 1):
            shared.add(device)
    taken = used if include_shared else used - shared
    return Person(own, _keys(taken), _keys(used - taken))


def _keys(devices: set[str]) -> tuple[str, ...]:
    return tuple(sorted("v:" + device for device in devices))


async def _logged_in(log: EventLog, device: str, before_offset: int) -> set[str]:
    """The keys of people who logged in on a device, or were joined to it."""
    return {record.key async for record in uses_of(log, device, before_offset)}


async def uses_of(log: EventLog, device: str, before_offset: int) -> AsyncIterator[LoggedRecord]:
    """What people did on a device while they were logged in, and changes of whose it is."""
    async for record in _records(log, b"", device.encode(), before_offset):
        if record.key.startswith("u:") and _device_of(record) == device:
            yield record


def _device_of(record: LoggedRecord) -> str:
    """The visitor id that a person's record names; empty when it names none."""
    if record.kind == EVENT:
        return LoggedUserEvent.FromString(record.payload).event.visitor_id
    if record.kind == CHANGE:
        return IdentityChange.FromString(record.payload).device_key.removeprefix("v:")
    return ""


def without_device(record: LoggedRecord) -> bytes:
    """The payload of a person's record that names a device, without it."""
    if record.kind == EVENT:
        logged = LoggedUserEvent.FromString(record.payload)
        logged.event.visitor_id = ""
        return logged.SerializeToString()
    # nobody's device, taken apart: that changes nothing for whoever folds it
    change = IdentityChange.FromString(record.payload)
    change.device_key, change.joined = "v:", False
    return change.SerializeToString()


def records_of(log: EventLog, user_key: str, before_offset: int) -> AsyncIterator[LoggedRecord]:
    """All records of a key."""
    return _records(log, user_key.encode(), b"", before_offset)


async def _records(log: EventLog, key: bytes, text: bytes, before_offset: int) -> AsyncIterator[LoggedRecord]:
    after = 0
    while part := await _part(log, key, text, after, before_offset):
        for record in part:
            if (record.key.encode() == key) if key else (text in record.payload):
                yield record
        after = part[-1].offset


async def _part(
    log: EventLog, key: bytes, text: bytes, after_offset: int, before_offset: int
) -> Sequence[LoggedRecord]:
    if isinstance(log, ErasableLog):
        keys = [key.decode()] if key else []
        return await log.find(keys=keys, text=text, after_offset=after_offset, before_offset=before_offset)
    # a log that can't look anything up is read
    part = await log.read(after_offset, limit=5_000)
    return [record for record in part if record.offset < before_offset]
