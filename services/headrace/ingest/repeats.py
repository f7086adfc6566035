"""Near-repeats: one act that was sent twice under two event ids, by a double click or a pixel that fired twice."""

from __future__ import annotations

from array import array

from headrace.ingest.arrivals import Arrival
from headrace.runtime.clock import MICROSECONDS


class Acts:
    """When each of about `memory_acts` newest acts was last done; within `window_us` the same act is a repeat.

    The same act: same person, session, type, products (or search, or category page). Times are those of the events,
    so the order of arrival does not matter. Two times of whole seconds say too little about a fraction of one, and
    are let pass. An event that is sent again under its own id is no repeat of itself.
    """

    def __init__(self, window_us: int, *, memory_acts: int = 1 << 16) -> None:
        self.window_us = window_us
        # a table in which an act overwrites another of the same place: 24 bytes each, nothing to collect, and
        # a fifth of the time that a dictionary took which forgot its oldest
        self._mask = (1 << (memory_acts - 1).bit_length()) - 1
        self._acts, self._times_us, self._ids = (array("q", bytes(8 * (self._mask + 1))) for _ in range(3))

    def is_new(self, one: Arrival) -> bool:
        """Whether it is no repeat; it is remembered then."""
        lines, time_us = one.lines, one.time_us
        what: object = lines[0][0] if len(lines) == 1 else _what(one)
        act, number = hash((one.user_key, one.session_id, one.event_type, what)), hash(one.event_id)
        place = act & self._mask
        if self._acts[place] == act:
            first_us = self._times_us[place]
            gap_us = time_us - first_us
            if -self.window_us <= gap_us <= self.window_us and self._ids[place] != number:
                return time_us % MICROSECONDS == 0 and first_us % MICROSECONDS == 0
            if gap_us <= 0:
                return True
        self._acts[place], self._times_us[place], self._ids[place] = act, time_us, number
        return True


def _what(one: Arrival) -> object:
    products = tuple(product_id for product_id, _, _ in one.lines)
    return products or one.event.search_query or tuple(one.event.page_categories)
