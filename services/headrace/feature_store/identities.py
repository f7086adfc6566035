"""Which devices are one person's: joined by a log-in, and taken apart again without a trace.

A device joins the person who logged in on it last. One on which more than three people logged in is shared and
joins nobody. Only the keys are joined: what was done under each key stays its own, and is put together when it is
read, so that taking a device away leaves both profiles exactly as they would be had they never been joined.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from itertools import chain

import numpy as np

from headrace.feature_store.columns import Columns

# people who log in on one device, at most, before it is a shop's or a library's
SHARED_BEYOND = 3
# devices of one person that are read together; the ones joined last
DEVICES = 20


class Identities:
    """Persons by key: "u:" + user_id and its devices "v:" + visitor_id. Anything may be read from any thread."""

    def __init__(self) -> None:
        self._person_of: dict[str, str] = {}
        self._devices_of: dict[str, tuple[str, ...]] = {}
        # everybody who logged in on a device, in the order of the first time
        self._seen_on: dict[str, tuple[str, ...]] = {}
        # pairs that somebody took apart
        self._apart: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        """Devices that are joined to a person."""
        return len(self._person_of)

    def person_of(self, key: str) -> str:
        """The person of a device; the key itself when it is a person's, or a device's of its own."""
        return self._person_of.get(key, key)

    def members_of(self, key: str) -> tuple[str, ...]:
        """All keys that are one person with `key`: the person's first, then the devices as they were joined."""
        person = self._person_of.get(key, key)
        return (person, *self._devices_of.get(person, ()))

    def note_log_in(self, device: str, person: str) -> bool:
        """Joins a device to the person who logged in on it; whether that changed anything."""
        if self._person_of.get(device) == person or (device, person) in self._apart:
            return False
        seen = self._seen_on.get(device, ())
        if person not in seen:
            seen = self._seen_on[device] = (*seen, person)
        if len(seen) > SHARED_BEYOND:
            return self._part(device)
        self._join(device, person)
        return True

    def join(self, device: str, person: str) -> None:
        """Joins the two, also where they were taken apart before, or the device is shared."""
        self._apart.discard((device, person))
        self._join(device, person)

    def split(self, device: str, person: str) -> None:
        """Takes the two apart; later log-ins do not join them again."""
        self._apart.add((device, person))
        if self._person_of.get(device) == person:
            self._part(device)

    def keys(self) -> Iterable[str]:
        """Everybody who is or was joined, logged in, or taken apart."""
        yield from chain(self._person_of, self._devices_of, self._seen_on, *self._seen_on.values(), *self._apart)

    def erase(self, keys: Collection[str]) -> None:
        """The keys were never here."""
        for key in keys:
            self._part(key)
            self._seen_on.pop(key, None)
            for device in self._devices_of.get(key, ()):
                self._part(device)
        for device in [device for device, seen in self._seen_on.items() if not set(seen).isdisjoint(keys)]:
            self._seen_on[device] = tuple(person for person in self._seen_on[device] if person not in keys)
        self._apart = {pair for pair in self._apart if set(pair).isdisjoint(keys)}

    def _join(self, device: str, person: str) -> None:
        self._part(device)
        devices = (*self._devices_of.get(person, ()), device)
        for oldest in devices[:-DEVICES]:
            self._part(oldest)
        self._devices_of[person] = devices[-DEVICES:]
        self._person_of[device] = person

    def _part(self, device: str) -> bool:
        person = self._person_of.pop(device, None)
        if person is None:
            return False
        rest = tuple(other for other in self._devices_of[person] if other != device)
        if rest:
            self._devices_of[person] = rest
        else:
            del self._devices_of[person]
        return True

    def columns(self) -> Columns:
        facts = [list(self._devices_of.items()), list(self._seen_on.items()), sorted(self._apart)]
        return {"identities": np.frombuffer(json.dumps(facts).encode(), np.uint8)}

    def restore(self, columns: Columns) -> None:
        devices_of, seen_on, apart = json.loads(columns["identities"].tobytes())
        self._devices_of = {person: tuple(devices) for person, devices in devices_of}
        self._person_of = {device: person for person, devices in devices_of for device in devices}
        self._seen_on = {device: tuple(people) for device, people in seen_on}
        self._apart = {(device, person) for device, person in apart}


def device_key_of(visitor_id: str) -> str:
    """The key of what is done on a device while nobody is logged in."""
    return "v:" + visitor_id
