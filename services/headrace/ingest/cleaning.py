"""Which events are taken: asks every declared rule (see `rules`) of every event.

An event repeated word for word is no fault: it has the same derived id and is answered as a duplicate, and the intake
answers so too where a rule has come to think otherwise since the event was taken. A cancellation without a purchase
is kept and marked (see `cancellations`).

What the rules remember is bounded, and rebuilt from the newest log records at a start (`remember`). Not rebuilt: who
was judged a bot, since what was refused is not in the log; it is judged again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from headrace.ingest.arrivals import Arrival
from headrace.ingest.arrivals import violations as stated_violations
from headrace.ingest.bots import Judged, PatternLimits, ViewRuns, VisitorRates
from headrace.ingest.limits import Violation
from headrace.ingest.repeats import Acts
from headrace.ingest.rules import BOT, BOT_PATTERN, OUTLIER, REPEAT
from headrace.ingest.usual import Odd, UsualValues
from headrace.ingest.validation import CANCEL, PRODUCT_EVENTS, PURCHASE, TimeBounds
from headrace.runtime.clock import MICROSECONDS
from headrace.v1.common_pb2 import Product, UserEvent

# a wholesale basket of 500 lines in one minute is a good customer, not a bot
_FACTS = frozenset({PURCHASE, CANCEL})
_COUNTED = PRODUCT_EVENTS - _FACTS
_VIEW, _CART = "detail-page-view", "add-to-cart"
_BUSY = frozenset({_CART, "remove-from-cart", PURCHASE})
_PRICED = PRODUCT_EVENTS - {CANCEL}
_WITH_QUANTITY = frozenset({_CART, PURCHASE})
_LEAST_PRICE_SCALE, _LEAST_QUANTITY_SCALE = 0.45, 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules go by. 0 turns `outlier_score`, `repeat_window_us` and `bot_views` off."""

    earliest_us: int = 0
    max_future_skew_us: int = 60 * MICROSECONDS
    require_event_ids: bool = False
    bot_events_per_minute: int = 600
    bot_views: int = 100
    bot_views_per_minute: int = 40
    bot_refusal_us: int = 3_600 * MICROSECONDS
    repeat_window_us: int = 300_000
    outlier_score: float = 6.0


class Rules:
    """Judges events one by one, in the order in which they come in."""

    def __init__(self, limits: Limits, *, rates: VisitorRates | None = None, acts: Acts | None = None) -> None:
        self._limits = limits
        self._rates = rates or VisitorRates(limits.bot_events_per_minute)
        self._runs = (
            ViewRuns(PatternLimits(limits.bot_views, limits.bot_views_per_minute)) if limits.bot_views else None
        )
        self._bots = Judged(limits.bot_refusal_us)
        self._acts = acts or (Acts(limits.repeat_window_us) if limits.repeat_window_us else None)
        self._outliers = Outliers(limits.outlier_score) if limits.outlier_score else None

    def bounds(self, now_us: int) -> TimeBounds:
        """The event times that are believed at a moment."""
        return TimeBounds(self._limits.earliest_us, now_us + self._limits.max_future_skew_us)

    def violations(self, one: Arrival, bounds: TimeBounds) -> list[Violation]:
        """Everything against taking an event; empty when it is taken."""
        found = stated_violations(one, bounds)
        if self._limits.require_event_ids and one.is_derived:
            found = [Violation("missing", "event_id", "must be given"), *found]
        return found or self.remember(one)

    def remember(self, one: Arrival) -> list[Violation]:
        """What the rules with a memory have against an event that is sound in itself; they know of it from now on."""
        event_type = one.event_type
        found: list[Violation] = []
        if event_type not in _FACTS:
            if self._bots.any and (known := self._bots.verdict(one.user_key, one.time_us)) is not None:
                return [_bot(one.event, *known)]
            if event_type in _COUNTED:
                found = self._bot_violations(one)
            if self._acts is not None and not self._acts.is_new(one):
                found.append(_repeat(one.event, self._acts.window_us))
        if self._runs is not None and event_type in _BUSY:
            self._runs.end(one.user_key)
        if self._outliers is not None and event_type in _PRICED:
            found += self._outliers.violations(one)
        return found

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Forgets people: what they sent, and what they were taken for."""
        for memory in (self._rates, self._runs, self._bots):
            if memory is not None:
                memory.drop(is_gone)

    def list_product(self, product: Product) -> None:
        """Tells of a product that is written: its price is the usual one while nobody has met it."""
        if self._outliers is not None and product.price_info.price > 0:
            self._outliers.prices.list_at(product.id, product.price_info.price)

    def _bot_violations(self, one: Arrival) -> list[Violation]:
        if not self._rates.admits(one.user_key, one.event_id, one.time_us):
            why = f"must send at most {self._rates.limit} product events a minute, sent more"
            return [self._judged(one, BOT, why)]
        if self._runs is not None and one.event_type == _VIEW:
            seen = self._runs.pattern(one.user_key, one.lines[0][0], one.time_us)
            if seen:
                return [self._judged(one, BOT_PATTERN, f"must look at products as people do, {seen}")]
        return []

    def _judged(self, one: Arrival, rule: str, why: str) -> Violation:
        self._bots.judge(one.user_key, one.time_us, rule, why)
        return _bot(one.event, rule, why)


class Outliers:
    """Prices and quantities that are far from their product's usual ones."""

    def __init__(self, limit: float, *, memory_products: int = 200_000, memory_refused: int = 100_000) -> None:
        """Forgets the products that it met first beyond `memory_products`."""
        self.prices = UsualValues(limit, least_scale=_LEAST_PRICE_SCALE, is_low_odd=True)
        self._quantities = UsualValues(limit, least_scale=_LEAST_QUANTITY_SCALE, is_low_odd=False)
        self._places: OrderedDict[str, int] = OrderedDict()
        self._memory_products = memory_products
        # an odd event that is sent again and again counts once
        self._refused: OrderedDict[int, None] = OrderedDict()
        self._memory_refused = memory_refused

    def violations(self, one: Arrival) -> list[Violation]:
        """The odd values of an event."""
        has_quantity, prices, quantities = one.event_type in _WITH_QUANTITY, self.prices, self._quantities
        found: list[tuple[UsualValues, int, str, Odd]] = []
        for number, (product_id, price, quantity) in enumerate(one.lines):
            place = self._places.get(product_id)
            if place is None:
                place = self._begin(product_id)
            # free and not told are the same here
            if price > 0 and (odd := prices.odd(place, product_id, price)) is not None:
                found.append((prices, place, f"product_details[{number}].price", odd))
            if has_quantity and (odd := quantities.odd(place, product_id, quantity or 1)) is not None:
                found.append((quantities, place, f"product_details[{number}].quantity", odd))
        if not found:
            return []
        if self._is_first(one.event_id):
            for usual, place, _, odd in found:
                usual.note_odd(place, odd.value)
        return [_outlier(field, odd, prices.limit) for _, _, field, odd in found]

    def _begin(self, product_id: str) -> int:
        place = len(self._places)
        if place == self._memory_products:
            _, place = self._places.popitem(last=False)
        self._places[product_id] = place
        for usual in (self.prices, self._quantities):
            usual.begin(place)
        return place

    def _is_first(self, event_id: str) -> bool:
        number = hash(event_id)
        if number in self._refused:
            return False
        self._refused[number] = None
        if len(self._refused) > self._memory_refused:
            self._refused.popitem(last=False)
        return True


def _bot(event: UserEvent, rule: str, why: str) -> Violation:
    return Violation(rule, "user_id" if event.user_id else "visitor_id", why)


def _repeat(event: UserEvent, window_us: int) -> Violation:
    given = f"{event.event_type} under another event_id"
    return Violation(REPEAT, "event_time", f"must not be within {window_us / 1_000:g} ms of the same {given}")


def _outlier(field: str, odd: Odd, limit: float) -> Violation:
    told = f"got {odd.value:g}, a robust z-score of {odd.score:.1f} where {limit:g} is the most"
    return Violation(OUTLIER, field, f"must be like the usual {odd.usual:.4g}, {told}")
