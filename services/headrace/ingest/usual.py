"""What a product's price or quantity usually is, and how far a value is from it: a robust z-score on logarithms.

score = |ln value − median| ÷ max(1.4826 × MAD, `least_scale`), over the product's newest values (Iglewicz and
Hoaglin, How to Detect and Handle Outliers, 1993; MAD: the median distance from the median). A product of which
fewer than eight values were met is judged by what it is listed at, else by the newest values of the whole shop. What
is like the listed value is never odd: a clearance that the catalogue knows of is no slip.

An odd value is not remembered as a usual one, but a level that stays becomes the usual one: after 16 odd values of a
product in a row its memory begins anew with them. Of usual values, one in eight is remembered once the memory is full.
The same values in the same order give the same judgements.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_WINDOW = 31
_SHOP_WINDOW = 1_001
_ENOUGH = 8
# bounds are made anew after so many values; what is outside of them is judged by the newest ones
_LOOK_AGAIN = 16
_ODD_IN_A_ROW = 16
_MOST_ODD = 10_000
# a product's values change slowly, and remembering one takes longer than judging it
_ONE_IN = 8
# the normal distribution's standard deviation in median distances from the median
_DEVIATIONS = 1.4826

# values met at which the shop's bounds are made anew; then at every 256th
_SHOP_LOOKS = frozenset({8, 16, 32, 64, 128})
_NOTHING = array("d", bytes(8 * _WINDOW))


@dataclass(frozen=True, slots=True)
class Odd:
    """A value that is too far from the usual one."""

    value: float
    usual: float
    score: float


class UsualValues:
    """The usual values of products, each of which has a place: a number from 0 on, which another may have later.

    `is_low_odd`: whether a value may be too low as well. Memory: 272 bytes a place.
    """

    def __init__(self, limit: float, *, least_scale: float, is_low_odd: bool) -> None:
        self.limit = limit
        self._least_scale = least_scale
        self._is_low_odd = is_low_odd
        # side by side, so that a look at a product's bounds finds them near those of others: of what a judgement
        # took, most was waiting for memory
        self._low, self._high, self._met, self._logs = array("d"), array("d"), array("q"), array("d")
        self._odd: OrderedDict[int, array[float]] = OrderedDict()
        self._listed: dict[str, float] = {}
        self._turn = 0
        self._shop_logs = array("d")
        self._shop_met = 0
        # nothing lies between 0 and −1: the first values are judged otherwise
        self._shop_low, self._shop_high = 0.0, -1.0

    def list_at(self, product_id: str, value: float) -> None:
        """What a product is listed at: its usual value while few were met."""
        self._listed[product_id] = value

    def begin(self, place: int) -> None:
        """A place for a product of which nothing is known: the next one, or one that was another's."""
        self._odd.pop(place, None)
        if place == len(self._met):
            self._low.append(0.0)
            self._high.append(0.0)
            self._met.append(0)
            self._logs.extend(_NOTHING)
        self._met[place] = 0

    def odd(self, place: int, product_id: str, value: float) -> Odd | None:
        """What is odd about a value above 0; None, and the value counts as usual, when nothing is."""
        met = self._met[place]
        if met >= _ENOUGH:
            is_usual = self._low[place] <= value <= self._high[place]
        else:
            is_usual = product_id not in self._listed and self._shop_low <= value <= self._shop_high
        if not is_usual:
            found = self._judged(place, product_id, value)
            if found is not None:
                return found
        if self._odd:
            self._odd.pop(place, None)
        self._turn += 1
        if met < _WINDOW or not self._turn % _ONE_IN:
            self._add(place, met, math.log(value))
        return None

    def note_odd(self, place: int, value: float) -> None:
        """Counts a value that was odd; it and the ones before become the usual ones when they are many in a row."""
        logs = self._odd.setdefault(place, array("d"))
        logs.append(math.log(value))
        if len(logs) >= _ODD_IN_A_ROW:
            self.begin(place)
            for met, log in enumerate(logs):
                self._add(place, met, log)
        elif len(self._odd) > _MOST_ODD:
            self._odd.popitem(last=False)

    def _add(self, place: int, met: int, log: float) -> None:
        self._logs[place * _WINDOW + met % _WINDOW] = log
        if met < _WINDOW:
            # the shop is made of the beginnings of products, so that its best-selling ones are not all of it
            self._note_shop(log)
        met += 1
        self._met[place] = met
        if met % _ENOUGH == 0 and (met <= _WINDOW + 1 or met % _LOOK_AGAIN == 0):
            self._low[place], self._high[place] = self._bounds(self._newest(place, met))

    def _note_shop(self, log: float) -> None:
        met = self._shop_met
        if met < _SHOP_WINDOW:
            self._shop_logs.append(log)
        else:
            self._shop_logs[met % _SHOP_WINDOW] = log
        self._shop_met = met = met + 1
        if met % 256 == 0 or met in _SHOP_LOOKS:
            self._shop_low, self._shop_high = self._bounds(self._shop_logs)

    def _newest(self, place: int, met: int) -> array[float]:
        first = place * _WINDOW
        return self._logs[first : first + min(met, _WINDOW)]

    def _judged(self, place: int, product_id: str, value: float) -> Odd | None:
        found, met = None, self._met[place]
        if met >= _ENOUGH:
            found = self._compared(value, *self._centre(self._newest(place, met)))
            if found is None:
                return None
        listed = self._listed.get(product_id)
        if listed is not None:
            by_list = self._compared(value, math.log(listed), self._least_scale)
            return by_list and (found or by_list)
        if met >= _ENOUGH:
            return found
        if self._shop_low <= value <= self._shop_high or self._shop_high < 0:
            return None
        return self._compared(value, *self._centre(self._shop_logs))

    def _compared(self, value: float, centre: float, scale: float) -> Odd | None:
        distance = math.log(value) - centre
        score = (abs(distance) if self._is_low_odd else distance) / scale
        return Odd(value, math.exp(centre), score) if score > self.limit else None

    def _centre(self, logs: Sequence[float]) -> tuple[float, float]:
        logs = sorted(logs)
        centre = _median(logs)
        if logs[0] == logs[-1]:
            return centre, self._least_scale
        deviation = _median(sorted([abs(one - centre) for one in logs]))
        return centre, max(_DEVIATIONS * deviation, self._least_scale)

    def _bounds(self, logs: Sequence[float]) -> tuple[float, float]:
        centre, scale = self._centre(logs)
        low = math.exp(centre - self.limit * scale) if self._is_low_odd else 0.0
        return low, math.exp(centre + self.limit * scale)


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
