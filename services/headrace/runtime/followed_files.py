"""Files that others change under a running process: whether they did since they were last read."""

from __future__ import annotations

import time
from pathlib import Path

# a file system is asked at most so often
_LOOK_S = 0.5


class FollowedFiles:
    """Some files, as they were when `changed` was last true."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._marks = self._as_they_are()
        self._looked = time.monotonic()

    def changed(self) -> bool:
        """Whether any of them is another one than before; a change may show half a second late."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return False
        self._looked = now
        marks = self._as_they_are()
        before, self._marks = self._marks, marks
        return marks != before

    def _as_they_are(self) -> list[tuple[int, int, int] | None]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
