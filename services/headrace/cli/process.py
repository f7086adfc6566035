"""One service as a child process: started, watched, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from headrace.cli.suite_file import service_of

_TAIL_BYTES = 4_000


class ServiceProcess:
    """`python -m headrace.<service>` with its output appended to `log`."""

    def __init__(self, service: str, environment: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.log = log
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 when it does not run."""
        return self._process.pid if self._process is not None and self.is_running else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts the process; it is not ready yet."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                _module(self.service),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # the terminal's Ctrl-C is for the suite, which stops its services in order
                start_new_session=True,
            )

    async def wait(self) -> int:
        """The exit status, when it ended; negative: the signal that killed it."""
        assert self._process is not None, "start() comes first"
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL when it has not ended after `grace_s`."""
        if not self.is_running:
            return
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        if self.is_running:
            self._send(signal.SIGKILL)
            await self.wait()

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None, "start() comes first"
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def stop_left_behind(pid: int, service: str, grace_s: float) -> bool:
    """Stops a service whose suite was killed; False when `pid` is not (or no longer) that service."""
    if not pid or _module(service) not in await _command_of(pid):
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if await _ended(pid, grace_s):
            return True
    return True


def _module(service: str) -> str:
    return f"headrace.{service_of(service).replace('-', '_')}"


async def _command_of(pid: int) -> str:
    listing = await asyncio.create_subprocess_exec(
        "ps", "-p", str(pid), "-o", "args=", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await listing.communicate()
    return output.decode(errors="replace")


async def _ended(pid: int, within_s: float) -> bool:
    deadline = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.05)
    return False
