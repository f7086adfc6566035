"""Says which shard a directory holds: the rows of another one must not be mixed with them."""

from __future__ import annotations

from pathlib import Path

from headrace.runtime.atomic import write_atomically
from headrace.runtime.errors import CorruptDataError, FailedPreconditionError
from headrace.runtime.shards import WHOLE, Shard

_NAME = "shard"


def check_shard(directory: Path, shard: Shard) -> None:
    """Notes the shard of a new directory. FailedPreconditionError: it is that of another one."""
    held = _held(directory)
    if held is None:
        write_atomically(directory / _NAME, str(shard).encode())
    elif held != shard:
        raise FailedPreconditionError(
            f"{directory} holds shard {held} and cannot serve as shard {shard}: give that one its own directory"
        )


def _held(directory: Path) -> Shard | None:
    path = directory / _NAME
    if path.exists():
        return _shard(path)
    # a directory of before there were shards holds all items
    return WHOLE if (directory / "wal").exists() else None


def _shard(path: Path) -> Shard:
    try:
        return Shard.parsed(path.read_text())
    except ValueError as error:
        raise CorruptDataError(f"{path} cannot be read: {error}") from error
