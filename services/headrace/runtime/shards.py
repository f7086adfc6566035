"""Which shard of the index holds an item: a hash of its ordinal, the same for senders, servers and askers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

_FORM = re.compile(r"(\d{1,5})/(\d{1,5})")
# the finaliser of MurmurHash3 (Appleby, public domain): each bit of the ordinal moves half of the hash's bits
_FIRST, _SECOND = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


def shard_of(ordinals: NDArray[np.uint32], shards: int) -> NDArray[np.uint32]:
    """The shard, 0 to `shards` - 1, of each item."""
    mixed = ordinals.astype(np.uint32)
    mixed ^= mixed >> np.uint32(16)
    mixed *= _FIRST
    mixed ^= mixed >> np.uint32(13)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint32(16)
    return mixed % np.uint32(shards)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shards.

    >>> Shard.parsed("1/4")
    Shard(number=1, count=4)
    >>> str(Shard.parsed("1/4"))
    '1/4'
    """

    number: int = 0
    count: int = 1

    @classmethod
    def parsed(cls, text: str) -> Shard:
        """The shard of "number/count". ValueError."""
        form = _FORM.fullmatch(text)
        number, count = (int(form[1]), int(form[2])) if form else (0, 0)
        if number >= count:
            raise ValueError(f"must be NUMBER/COUNT with NUMBER below COUNT, such as 0/2, got {text!r}")
        return cls(number, count)

    def owns(self, ordinals: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of the items it holds."""
        owned: NDArray[np.bool_] = shard_of(ordinals, self.count) == self.number
        return owned

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


# an index that is not in shards
WHOLE = Shard()


def _checked(text: str) -> str:
    Shard.parsed(text)
    return text


# a setting that names a shard: checked when it is read, and kept as it was given
ShardSetting = Annotated[str, AfterValidator(_checked)]
