"""How people's rows lie in Redis: names of keys, a partition's standing, and the script that moves a partition on.

For partition 17, all in one slot of a cluster by the tag in braces:

- `hr:{p17}:u:<user key>`: a row, the history's packed events;
- `hr:{p17}:standing`: whose the partition is, its offset, and how many rows it has;
- `hr:{p17}:levels`: a list, oldest first, of "<offset> <offset before> <rows before>";
- `hr:{p17}:level:<offset>`: by user key, the rows that the move to that offset replaced, empty where there was none;
- `hr:{p17}:newest`: people by the time of their newest event.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.runtime.eventlog.log import PARTITIONS

EVERY_KEY = "hr:{p*}:*"
EVERY_ROW = "hr:{p*}:u:*"
_ROW = ":u:"


@dataclass(frozen=True, slots=True)
class Tag:
    """The keys of one partition."""

    partition: int

    def row(self, user_key: str) -> str:
        return f"hr:{{p{self.partition}}}{_ROW}{user_key}"

    def level(self, offset: int) -> str:
        return f"hr:{{p{self.partition}}}:level:{offset}"

    @property
    def standing(self) -> str:
        return f"hr:{{p{self.partition}}}:standing"

    @property
    def levels(self) -> str:
        return f"hr:{{p{self.partition}}}:levels"

    @property
    def newest(self) -> str:
        return f"hr:{{p{self.partition}}}:newest"


def user_key_of(row_key: bytes) -> str:
    """Whose row a key names."""
    return row_key.decode().split(_ROW, 1)[1]


@dataclass(frozen=True, slots=True)
class Standing:
    """A partition's rows are those of fold `fold` at `offset`; only `process` may change them."""

    fold: str
    process: str
    offset: int
    users: int

    @classmethod
    def parse(cls, value: bytes | None) -> Standing | None:
        if value is None:
            return None
        fold, process, offset, users = value.decode().split()
        return cls(fold, process, int(offset), int(users))

    def text(self) -> str:
        return f"{self.fold} {self.process} {self.offset} {self.users}"


# KEYS: standing, levels, this offset's level, newest, then the rows
# ARGV: fold, process, offset, then for each row its user key, its bytes (empty: remove it), its newest event's time
# Answers how many rows the partition has. Run again with the same offset, after a lost answer, it changes nothing.
STORE = """
local standing = redis.call('GET', KEYS[1]) or ''
local fold, process, offset, users = string.match(standing, '^(%S+) (%S+) (%d+) (%d+)$')
if fold ~= ARGV[1] or process ~= ARGV[2] then
  return redis.status_reply(KEYS[1] .. ' is not this process\\'s any more')
end
if tonumber(offset) >= tonumber(ARGV[3]) then
  return tonumber(users)
end
local before = users
for i = 5, #KEYS do
  local at = 3 * (i - 5) + 4
  local user, row, newest = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local old = redis.call('GET', KEYS[i])
  if old or row ~= '' then
    redis.call('HSET', KEYS[3], user, old or '')
  end
  if row ~= '' then
    redis.call('SET', KEYS[i], row)
    redis.call('ZADD', KEYS[4], newest, user)
    if not old then users = users + 1 end
  elseif old then
    redis.call('DEL', KEYS[i])
    redis.call('ZREM', KEYS[4], user)
    users = users - 1
  end
end
redis.call('RPUSH', KEYS[2], string.format('%s %s %s', ARGV[3], offset, before))
redis.call('SET', KEYS[1], string.format('%s %s %s %d', fold, process, ARGV[3], users))
return tonumber(users)
"""

__all__ = ["EVERY_KEY", "EVERY_ROW", "PARTITIONS", "STORE", "Standing", "Tag", "user_key_of"]
