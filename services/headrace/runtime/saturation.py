"""What a process has left: how late its event loop is, what waits, what it holds and uses."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.runtime.telemetry import counter, gauge, histogram

_loop_lag = histogram("headrace.process.loop.lag", "ms", "how late the event loop takes up what is due")
_cpu = counter("headrace.process.cpu", "s", "processor time used")
_memory = gauge("headrace.process.memory", "By", "resident memory")
_threads = gauge("headrace.process.threads", "{thread}", "threads of Python")
_waiting = gauge("headrace.process.waiting", "{item}", "what waits for its turn, by queue")

_LOOK_S = 0.5
# the rest changes slowly
_LOOKS = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")

Queues = Mapping[str, Callable[[], int]]


async def watch_saturation(queues: Queues) -> None:
    """Measures this process, for ever."""
    used_s, looks = 0.0, 0
    while True:
        due = time.perf_counter() + _LOOK_S
        await asyncio.sleep(_LOOK_S)
        _loop_lag.record(max(0.0, time.perf_counter() - due) * 1e3)
        for name, length in queues.items():
            _waiting.set(length(), {"queue": name})
        if looks % _LOOKS == 0:
            now_s = time.process_time()
            _cpu.add(now_s - used_s)
            used_s = now_s
            _threads.set(threading.active_count())
            if _STATM.exists():
                _memory.set(int(_STATM.read_text().split()[1]) * _PAGE)
        looks += 1
