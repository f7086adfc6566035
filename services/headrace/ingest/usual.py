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

# a state is one array, which the garbage collector does not look into: low, high, values met, the newest values
_LOW, _HIGH, _MET, _FIRST = range(4)


@dataclass(frozen=True, slots=True)
class Odd:
    """A value that is too far from the usual one."""

    value: float
    usual: float
    score: float


class UsualValues:
    """The usual values of products; forgets the products that it met first beyond `memory_products`.

    `is_low_odd`: whether a value may be too low as well. Memory: up to 350 bytes a product.
    """

    def __init__(self, limit: float, *, least_scale: float, is_low_odd: bool, memory_products: int = 200_000) -> None:
        self.limit = limit
        self._least_scale = least_scale
        self._is_low_odd = is_low_odd
        self._memory_products = memory_products
        self._of: OrderedDict[str, array[float]] = OrderedDict()
        self._odd: OrderedDict[str, array[float]] = OrderedDict()
        self._listed: dict[str, float] = {}
        self._turn = 0
        self._shop = _fresh()

    def list_at(self, product_id: str, value: float) -> None:
        """What a product is listed at: its usual value while few were met."""
        self._listed[product_id] = value

    def odd(self, product_id: str, value: float) -> Odd | None:
        """What is odd about a value above 0; None, and the value counts as usual, when nothing is."""
        state = self._of.get(product_id)
        if state is None or not state[_LOW] <= value <= state[_HIGH]:
            found = self._judged(product_id, state, value)
            if found is not None:
                return found
        if self._odd:
            self._odd.pop(product_id, None)
        self._turn += 1
        if state is None:
            self._add(self._begin(product_id), value)
        elif self._turn % _ONE_IN == 0 or state[_MET] < _WINDOW:
            self._add(state, value)
        return None

    def note_odd(self, product_id: str, value: float) -> None:
        """Counts a value that was odd; it and the ones before become the usual ones when they are many in a row."""
        values = self._odd.setdefault(product_id, array("d"))
        values.append(value)
        if len(values) >= _ODD_IN_A_ROW:
            del self._odd[product_id]
            state = self._begin(product_id)
            for one in values:
                self._add(state, one)
        elif len(self._odd) > _MOST_ODD:
            self._odd.popitem(last=False)

    def _begin(self, product_id: str) -> array[float]:
        state = self._of[product_id] = _fresh()
        if len(self._of) > self._memory_products:
            self._of.popitem(last=False)
        return state

    def _add(self, state: array[float], value: float) -> None:
        met = int(state[_MET]) + 1
        state[_MET] = met
        if met <= _WINDOW:
            state.append(value)
            # the shop is made of the beginnings of products, so that its best-selling ones are not all of it
            self._note_shop(value)
        else:
            state[_FIRST + (met - 1) % _WINDOW] = value
        if met % _ENOUGH == 0 and (met <= _WINDOW + 1 or met % _LOOK_AGAIN == 0):
            self._set_bounds(state)

    def _note_shop(self, value: float) -> None:
        shop = self._shop
        met = int(shop[_MET]) + 1
        shop[_MET] = met
        if met <= _SHOP_WINDOW:
            shop.append(value)
        else:
            shop[_FIRST + (met - 1) % _SHOP_WINDOW] = value
        if met % 256 == 0 or met in (8, 16, 32, 64, 128):
            self._set_bounds(shop)

    def _judged(self, product_id: str, state: array[float] | None, value: float) -> Odd | None:
        found = None
        has_met = state is not None and state[_MET] >= _ENOUGH
        if state is not None and has_met:
            found = self._compared(value, *self._centre(state[_FIRST:]))
            if found is None:
                return None
        listed = self._listed.get(product_id)
        if listed is not None:
            by_list = self._compared(value, math.log(listed), self._least_scale)
            return by_list and (found or by_list)
        if has_met:
            return found
        shop = self._shop
        if shop[_LOW] <= value <= shop[_HIGH] or shop[_HIGH] < 0:
            return None
        return self._compared(value, *self._centre(shop[_FIRST:]))

    def _compared(self, value: float, centre: float, scale: float) -> Odd | None:
        distance = math.log(value) - centre
        score = (abs(distance) if self._is_low_odd else distance) / scale
        return Odd(value, math.exp(centre), score) if score > self.limit else None

    def _centre(self, values: Sequence[float]) -> tuple[float, float]:
        logs = sorted(map(math.log, values))
        centre = _median(logs)
        if logs[0] == logs[-1]:
            return centre, self._least_scale
        deviation = _median(sorted([abs(one - centre) for one in logs]))
        return centre, max(_DEVIATIONS * deviation, self._least_scale)

    def _set_bounds(self, state: array[float]) -> None:
        centre, scale = self._centre(state[_FIRST:])
        state[_LOW] = math.exp(centre - self.limit * scale) if self._is_low_odd else 0.0
        state[_HIGH] = math.exp(centre + self.limit * scale)


def _fresh() -> array[float]:
    # nothing lies between 0 and −1: the first values are judged otherwise
    return array("d", (0.0, -1.0, 0.0))


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
