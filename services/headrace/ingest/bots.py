"""Visitors that are no people, by how many events they send and by how they look at products.

Once a visitor is judged a bot, its events are refused until `refusal_us` of event time have passed. What came in
before stays in the log. Purchases and cancellations are never refused for this: they are facts of the till.

All of it counts in this process: with several replicas a visitor may reach a limit in each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from headrace.runtime.clock import MICROSECONDS

_FEW = 8
_MINUTE_US = 60 * MICROSECONDS
# a longer pause ends a visit
_PAUSE_US = 30 * _MINUTE_US
# gaps of which the deviation is below this share of the mean come from a timer (people: about 1, and never below 0.3)
_REGULAR = 0.1
# that products come in order by chance: 1 in 30!
_IN_ORDER = 30
_MOST_VIEWS = 400
_PLACES = 1 << 16


class VisitorRates:
    """Counts events by visitor and minute of event time; forgets the oldest minutes first."""

    def __init__(self, limit: int, *, memory_events: int = 500_000) -> None:
        self.limit = limit
        self._memory_events = memory_events
        # few are kept as tuples: the garbage collector forgets tuples of numbers, while it looks through
        # all sets again and again, and the door stands still meanwhile
        self._seen: dict[tuple[str, int], tuple[int, ...] | set[int]] = {}
        self._events = 0

    def admits(self, user_key: str, event_id: str, time_us: int) -> bool:
        """Whether the event is within the limit. The same event counts once, however often it is sent."""
        slot = (user_key, time_us // _MINUTE_US)
        seen = self._seen.get(slot, ())
        # hashes instead of ids: a third of the memory, and a collision admits one event more
        number = hash(event_id)
        if number in seen:
            return True
        if len(seen) >= self.limit:
            return False
        if isinstance(seen, set):
            seen.add(number)
        else:
            self._seen[slot] = (*seen, number) if len(seen) < _FEW else {*seen, number}
        self._events += 1
        if self._events > self._memory_events:
            self._forget_oldest()
        return True

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        gone = {person for person in {person for person, _ in self._seen} if is_gone(person)}
        for slot in [slot for slot in self._seen if slot[0] in gone]:
            self._events -= len(self._seen.pop(slot))

    def _forget_oldest(self) -> None:
        # many at once: a dictionary looks for its first entry among all that were deleted before it
        while self._events > self._memory_events:
            for slot in list(islice(self._seen, max(1, len(self._seen) // 8))):
                self._events -= len(self._seen.pop(slot))


@dataclass(frozen=True, slots=True)
class PatternLimits:
    """A run of `views` product views without a cart or a purchase is looked at; `views_per_minute` is too fast then."""

    views: int
    views_per_minute: int


class ViewRuns:
    """The product views that a visitor makes one after another and with nothing else done, newest `memory_visitors`.

    A view at or before the newest one's time adds nothing, so what is sent again is counted once, and a clock that
    is too coarse to tell of pauses is not believed. A visitor's first views are only counted.
    """

    def __init__(self, limits: PatternLimits, *, memory_visitors: int = 100_000) -> None:
        self._limits = limits
        self._memory_visitors = memory_visitors
        self._fast_us = _MINUTE_US / limits.views_per_minute
        # views by visitor; two that share a place are looked at a little earlier
        self._views = bytearray(_PLACES)
        self._counted = 0
        # first and newest time, gaps, their squares in seconds, views in order of the product, product
        self._runs: OrderedDict[str, tuple[int, int, int, float, int, str]] = OrderedDict()

    def pattern(self, user_key: str, product_id: str, time_us: int) -> str:
        """What gives the visitor away with this view; empty when nothing does."""
        place = hash(user_key) % _PLACES
        views = self._views[place]
        if views < _FEW:
            self._views[place] = views + 1
            self._counted += 1
            if self._counted == _PLACES:
                self._views, self._counted = bytearray(_PLACES), 0
            return ""
        run = self._runs.get(user_key)
        return (
            self._continued(user_key, product_id, time_us, *run) if run else self._begin(user_key, product_id, time_us)
        )

    def end(self, user_key: str) -> None:
        """The visitor did what bots do not."""
        self._views[hash(user_key) % _PLACES] = 0
        self._runs.pop(user_key, None)

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        for user_key in [user_key for user_key in self._runs if is_gone(user_key)]:
            self.end(user_key)

    def _begin(self, user_key: str, product_id: str, time_us: int) -> str:
        self._runs[user_key] = time_us, time_us, 0, 0.0, 0, product_id
        self._runs.move_to_end(user_key)
        if len(self._runs) > self._memory_visitors:
            self._runs.popitem(last=False)
        return ""

    def _continued(
        self,
        user_key: str,
        product_id: str,
        time_us: int,
        first_us: int,
        newest_us: int,
        gaps: int,
        squares: float,
        ordered: int,
        before: str,
    ) -> str:
        gap_us = time_us - newest_us
        if gap_us <= 0:
            return ""
        if gap_us > _PAUSE_US or gaps >= _MOST_VIEWS:
            return self._begin(user_key, product_id, time_us)
        gaps, squares = gaps + 1, squares + (gap_us / MICROSECONDS) ** 2
        ordered = ordered + 1 if product_id > before else 0
        self._runs[user_key] = first_us, time_us, gaps, squares, ordered, product_id
        if ordered >= _IN_ORDER:
            return f"opened {ordered + 1} products in the order of their ids"
        # the run began after the first views
        return self._paced(gaps, time_us - first_us, squares) if gaps + _FEW >= self._limits.views else ""

    def _paced(self, gaps: int, total_us: int, squares: float) -> str:
        mean_us = total_us / gaps
        if mean_us < self._fast_us:
            return f"viewed {gaps + 1} products in {total_us / MICROSECONDS:.0f} s and did nothing else"
        mean_s = mean_us / MICROSECONDS
        if squares / gaps - mean_s * mean_s < (_REGULAR * mean_s) ** 2:
            return f"viewed {gaps + 1} products, one every {mean_s:.1f} s"
        return ""


class Judged:
    """Visitors that were judged bots, when and by which rule; newest `memory_visitors`."""

    def __init__(self, refusal_us: int, *, memory_visitors: int = 100_000) -> None:
        self._refusal_us = refusal_us
        self._memory_visitors = memory_visitors
        self._since: OrderedDict[str, tuple[int, str, str]] = OrderedDict()
        self.any = False

    def judge(self, user_key: str, time_us: int, rule: str, why: str) -> None:
        """Refuses the visitor from this time on."""
        self._since[user_key] = time_us, rule, why
        self._since.move_to_end(user_key)
        self.any = True
        if len(self._since) > self._memory_visitors:
            self._since.popitem(last=False)

    def verdict(self, user_key: str, time_us: int) -> tuple[str, str] | None:
        """The rule that a visitor broke and how, when it is refused at this time."""
        found = self._since.get(user_key)
        if found is None or not found[0] <= time_us <= found[0] + self._refusal_us:
            return None
        return found[1], found[2]

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        for user_key in [user_key for user_key in self._since if is_gone(user_key)]:
            del self._since[user_key]
