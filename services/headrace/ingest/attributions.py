"""What an event's attribution token is worth: nothing, when it is forged, another person's, too old or used before.

Whatever it is worth, the event is taken. Which items were credited is remembered for the newest so many; who joins
events to answers must still count an item of an answer once, since a door has forgotten, or is one of several.
"""

from __future__ import annotations

from array import array
from enum import StrEnum

from headrace.ingest.arrivals import Arrival
from headrace.ingest.identity import key_of
from headrace.model.attribution import TokenFacts, Tokens


class Worth(StrEnum):
    """What became of a token; all but the first count for nothing."""

    GOOD = "good"
    # not this suite's, or changed
    FORGED = "forged"
    # given to somebody else
    FOREIGN = "foreign"
    # the event is of before the answer, or of long after it
    EARLY = "early"
    LATE = "late"
    # an item of the answer was credited for the same act before
    REPEATED = "repeated"


class Attributions:
    """Judges tokens by event time; remembers about `memory_credits` credits, 16 bytes each."""

    def __init__(self, tokens: Tokens, *, max_age_us: int, skew_us: int, memory_credits: int = 1 << 18) -> None:
        """`skew_us`: so much may the clocks of whoever sends events and of the ranker differ."""
        self._tokens = tokens
        self._max_age_us = max_age_us
        self._skew_us = skew_us
        # a credit overwrites another of the same place, as in `repeats`
        self._mask = (1 << (memory_credits - 1).bit_length()) - 1
        self._credits, self._ids = (array("q", bytes(8 * (self._mask + 1))) for _ in range(2))

    def worth(self, one: Arrival, token: str) -> Worth:
        """What the token of an event is worth; what it earns is remembered."""
        try:
            facts = self._tokens.facts(token)
        except ValueError:
            return Worth.FORGED
        if not self._is_theirs(one, facts):
            return Worth.FOREIGN
        age_us = one.time_us - facts.time_us
        if age_us < -self._skew_us:
            return Worth.EARLY
        if age_us > self._max_age_us:
            return Worth.LATE
        return Worth.GOOD if self._is_first(one, facts.answer_id) else Worth.REPEATED

    def remember(self, one: Arrival) -> None:
        """Notes an event of the log, whose token was judged when it came."""
        token = one.event.attribution_token
        if not token:
            return
        try:
            facts = self._tokens.facts(token)
        except ValueError:
            # of before tokens were signed, or by another key
            return
        self._is_first(one, facts.answer_id)

    def _is_theirs(self, one: Arrival, facts: TokenFacts) -> bool:
        if self._tokens.is_of(facts, one.user_key):
            return True
        # who logs in after the answer is still the visitor that it was given to
        visitor_id = one.event.visitor_id
        return bool(visitor_id) and self._tokens.is_of(facts, key_of("", visitor_id))

    def _is_first(self, one: Arrival, answer_id: str) -> bool:
        products = {product_id for product_id, _, _ in one.lines} or {""}
        credits = [hash((answer_id, one.event_type, product_id)) for product_id in products]
        number = hash(one.event_id)
        if any(
            self._credits[credit & self._mask] == credit and self._ids[credit & self._mask] != number
            for credit in credits
        ):
            return False
        for credit in credits:
            self._credits[credit & self._mask], self._ids[credit & self._mask] = credit, number
        return True
