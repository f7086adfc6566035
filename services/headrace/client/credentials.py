"""How a caller says who it is: metadata that goes with every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

API_KEY = "x-api-key"
AUTHORIZATION = "authorization"

Metadata = tuple[tuple[str, str], ...]


class Credentials(Protocol):
    """Something that can say who calls."""

    def metadata(self) -> Metadata:
        """What is sent with a call; asked anew for each."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that the operator of the suite gave out."""

    key: str = field(repr=False)

    def metadata(self) -> Metadata:
        return ((API_KEY, self.key),)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A JSON Web Token; `token` is asked at every call, so it may give a newer one."""

    token: Callable[[], str] = field(repr=False)

    def metadata(self) -> Metadata:
        return ((AUTHORIZATION, f"Bearer {self.token()}"),)
