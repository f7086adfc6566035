"""Looks at the Redis that people's histories rest in: whether it answers, is durable, and whose people it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace.cli.doctor.finding import Finding, failure, ok, warning
from headrace.runtime.errors import UnavailableError
from headrace.runtime.settings import SettingsError, load

if TYPE_CHECKING:
    from headrace.feature_store.redis_tier import Client

_PART = "users' Redis"
_SET = "set them in redis.conf: what is evicted or lost at a restart ends the feature store until it folds anew"


def user_tier() -> Iterator[Finding]:
    """Findings on the Redis that the feature store is told of; none where histories are in its memory."""
    from headrace.feature_store.settings import FeatureStoreSettings
    from headrace.feature_store.tier_opening import open_client, shown

    url = load(FeatureStoreSettings).redis_url
    if not url:
        return
    try:
        client = open_client(url)
    except SettingsError as error:
        yield failure(_PART, str(error), "pip install 'headrace[redis]', or correct the URL")
        return
    except UnavailableError as error:
        yield _away(str(error))
        return
    import redis

    try:
        yield from _served(client, shown(url))
    except (redis.RedisError, redis.RedisClusterException) as error:
        yield _away(f"{shown(url)}: {error}")
    finally:
        client.close()


def _away(reason: str) -> Finding:
    return failure(_PART, f"does not answer: {reason}", "check the URL, the server and the password")


def _served(client: Client, name: str) -> Iterator[Finding]:
    # the client's types allow for its asynchronous twin, and for each node of a cluster
    info: Any = client.info("server")
    versions = [info["redis_version"]] if "redis_version" in info else [one["redis_version"] for one in info.values()]
    yield ok(_PART, f"Redis {', '.join(sorted(set(versions)))} at {name}")
    yield _durable(client)
    yield _held(client)


def _durable(client: Client) -> Finding:
    import redis

    from headrace.feature_store.redis_tier import WANTED

    try:
        settings: dict[str, Any] = {name: client.config_get(name) for name in WANTED}
    except redis.ResponseError as error:
        wanted = ", ".join(f"{name} {values[0]}" for name, values in WANTED.items())
        return warning(f"{_PART}: settings", f"cannot be read: {error}", f"see to it that they are {wanted}")
    found = {name: settings[name].get(name, "") for name in WANTED}
    wrong = {name: values[0] for name, values in WANTED.items() if found[name] not in values}
    said = ", ".join(f"{name} {value}" for name, value in found.items())
    if not wrong:
        return ok(f"{_PART}: settings", said)
    needed = ", ".join(f"{name} {value}" for name, value in wrong.items())
    return warning(f"{_PART}: settings", said, f"needed: {needed}; {_SET}")


def _held(client: Client) -> Finding:
    """Whose partitions they are: all of one fold, or none yet."""
    from headrace.feature_store.redis_rows import PARTITIONS, Standing, Tag

    commands = client.pipeline(transaction=False)
    for partition in range(PARTITIONS):
        commands.get(Tag(partition).standing)
    texts = [text for text in commands.execute() if text is not None]
    part = f"{_PART}: people"
    if not texts:
        return ok(part, "none yet: no feature store has used it")
    try:
        standings = [standing for text in texts if (standing := Standing.parse(text)) is not None]
    except ValueError as error:
        return failure(part, f"keys of ours hold what is not ours: {error}", "give the feature store its own database")
    folds = {standing.fold for standing in standings}
    if len(texts) < PARTITIONS or len(folds) > 1:
        found = f"{len(texts)} of {PARTITIONS} partitions, of {len(folds)} feature stores"
        return failure(part, found, "give each feature store a database of its own; one that finds this folds anew")
    users, ends = sum(one.users for one in standings), {one.offset for one in standings}
    told = f"offset {min(ends):,}" if len(ends) == 1 else f"offsets {min(ends):,} to {max(ends):,}"
    return ok(part, f"{users:,} of feature store {folds.pop()[:8]}, {PARTITIONS} partitions at {told}")
