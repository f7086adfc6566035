"""Opens the tier that a feature store is told of: in the process, or in a Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headrace.feature_store.in_process_tier import InProcessTier
from headrace.feature_store.user_tier import UserTier
from headrace.runtime.errors import UnavailableError
from headrace.runtime.settings import SettingsError

if TYPE_CHECKING:
    from headrace.feature_store.redis_tier import Client

_CLUSTER = "+cluster"
_TIMEOUT_S = 5.0


def open_user_tier(redis_url: str) -> UserTier:
    """The tier at `redis_url`; in the process when that is empty. It is asked for nothing yet.

    SettingsError: the extra `redis` is not installed, or the URL can't be read. UnavailableError: a cluster tells what
    its nodes are when it is opened, and can't be reached.
    """
    if not redis_url:
        return InProcessTier()
    client = open_client(redis_url)
    from headrace.feature_store.redis_tier import RedisTier

    return RedisTier(client, shown(redis_url))


def open_client(redis_url: str) -> Client:
    """A client of the Redis at a URL. Errors as above."""
    try:
        # only those who have the extra `redis` can import it
        import hiredis  # noqa: F401  # the client reads by it when it is there, and slowly when it isn't
        import redis
    except ImportError as error:
        raise SettingsError(f"HEADRACE_FEATURE_STORE_REDIS_URL needs the extra `redis`: {error}") from error
    plain = redis_url.replace(_CLUSTER + "://", "://", 1)
    options = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
    # again at once, by a new connection: the old one may be from before the server was started again
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 1)
    try:
        if plain == redis_url:
            return redis.Redis.from_url(plain, retry=retry, **options)
        return redis.RedisCluster.from_url(plain, **options)
    except ValueError as error:
        raise SettingsError(f"HEADRACE_FEATURE_STORE_REDIS_URL={shown(redis_url)!r}: {error}") from error
    except (redis.RedisError, redis.RedisClusterException) as error:
        raise UnavailableError(f"{shown(redis_url)}: {error}") from error


def shown(url: str) -> str:
    """Without the password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
