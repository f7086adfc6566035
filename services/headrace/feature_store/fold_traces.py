"""Where the newest traced event of each person was folded, so that an answer can name it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

_KEPT = 10_000


class FoldTraces:
    """Traceparents by person or device, of those whose events were traced last."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def note(self, key: str, offset: int, traceparent: str) -> None:
        self._newest[key] = offset, traceparent
        self._newest.move_to_end(key)
        if len(self._newest) > _KEPT:
            self._newest.popitem(last=False)

    def newest(self, keys: Iterable[str]) -> str:
        """The newest of somebody who goes by several keys; empty when there is none."""
        return max((self._newest.get(key, (0, "")) for key in keys), default=(0, ""))[1]

    def clear(self) -> None:
        """Somebody is forgotten: nothing of theirs may stay."""
        self._newest.clear()
