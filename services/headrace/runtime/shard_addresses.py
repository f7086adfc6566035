"""Where the index is: replicas separated by commas, shards by semicolons, in the order of their numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

ShardAddresses = tuple[tuple[str, ...], ...]


def addresses_of(text: str) -> ShardAddresses:
    """The addresses of every shard's replicas. ValueError.

    >>> addresses_of("a:1,b:2;c:3")
    (('a:1', 'b:2'), ('c:3',))
    """
    shards = tuple(replicas_of(part, f"shard {number}") for number, part in enumerate(text.split(";")))
    _check_distinct([address for shard in shards for address in shard])
    return shards


def replicas_of(text: str, what: str = "the list") -> tuple[str, ...]:
    """The addresses of one shard's replicas. ValueError."""
    addresses = tuple(part.strip() for part in text.split(","))
    for place, address in enumerate(addresses):
        if ":" not in address or any(letter.isspace() for letter in address):
            raise ValueError(f"address {place} of {what} must be host:port, got {address!r}")
    _check_distinct(addresses)
    return addresses


def _check_distinct(addresses: list[str] | tuple[str, ...]) -> None:
    for place, address in enumerate(addresses):
        if address in addresses[:place]:
            raise ValueError(f"{address} is named twice")


def _checked(text: str) -> str:
    addresses_of(text)
    return text


def _checked_replicas(text: str) -> str:
    if text:
        replicas_of(text)
    return text


# settings that hold such addresses: checked when they are read, and kept as they were given
ShardAddressesSetting = Annotated[str, AfterValidator(_checked)]
ReplicasSetting = Annotated[str, AfterValidator(_checked_replicas)]
