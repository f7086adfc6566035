"""What one check found: a level, a sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is; the worst one decides the exit status."""

    OK = 0
    WARNING = 1
    FAILURE = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` is empty when nothing has to be done."""

    part: str
    level: Level
    found: str
    remedy: str = ""


def ok(part: str, found: str) -> Finding:
    return Finding(part, Level.OK, found)


def warning(part: str, found: str, remedy: str) -> Finding:
    return Finding(part, Level.WARNING, found, remedy)


def failure(part: str, found: str, remedy: str) -> Finding:
    return Finding(part, Level.FAILURE, found, remedy)
