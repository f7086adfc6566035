"""Which arm of a rollout a person is in: the same answer in every process, with nothing stored.

A hash salted with the rollout puts everybody at a place between 0 and 9,999; the canary arm is the places below its
share. So a larger share keeps everybody who was in it, and another rollout divides people independently of this one.
"""

from __future__ import annotations

import hashlib

STABLE, CANARY = "stable", "canary"
PLACES = 10_000


def place_of(salt: str, key: str) -> int:
    """0 … 9,999: where `key` stands in the rollout that `salt` belongs to."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest, "little") * PLACES >> 64


def arm_of(salt: str, share_bp: int, key: str) -> str:
    """The arm of a person, of whom `key` stands; nobody (an empty key) is in the stable arm.

    >>> arm_of("ro-000001", 10_000, "u:eve"), arm_of("ro-000001", 0, "u:eve"), arm_of("ro-000001", 10_000, "")
    ('canary', 'stable', 'stable')
    """
    return CANARY if key and place_of(salt, key) < share_bp else STABLE
