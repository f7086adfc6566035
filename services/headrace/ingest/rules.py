"""The cleaning rules, declared: what each looks at, what it does, and which settings it has.

Every rule is named once, here; its name is the `reason` of a refusal, and what counters go by. The rules are asked in
this order. The first is asked alone, of dated facts too. The others above the line need only the event, and all of an
event's faults are reported together; the ones below need a memory, are asked of events that the others let pass, and
again all report together. An event of a visitor who was judged a bot is looked at no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Does(Enum):
    """What a rule does; `value` is the word for it."""

    REFUSE = "refuse"
    # the event is taken, and counted
    MARK = "mark"


@dataclass(frozen=True, slots=True)
class Rule:
    """A declared rule. `settings` are the names of those of `IngestSettings` that it goes by."""

    name: str
    does: Does
    looks_at: str
    description: str
    settings: tuple[str, ...] = ()
    needs_memory: bool = False


FORGOTTEN = "forgotten"
BOT, BOT_PATTERN, REPEAT, OUTLIER = "bot", "bot-pattern", "repeat", "outlier"
CANCEL_UNMATCHED, CANCEL_EXCEEDS = "cancel-unmatched", "cancel-exceeds"

RULES = (
    Rule(
        FORGOTTEN,
        Does.REFUSE,
        "the person, and event_time; of facts valid_from",
        "the person was forgotten after that time; no dead letter is kept",
    ),
    Rule("missing", Does.REFUSE, "required fields", "a required field is not there", ("require_event_ids",)),
    Rule("unknown-type", Does.REFUSE, "event_type, channel", "an event type or channel that nobody declared"),
    Rule(
        "time",
        Does.REFUSE,
        "event_time",
        "before `min_event_time`, or after now + `max_future_skew_s`",
        ("min_event_time", "max_future_skew_s"),
    ),
    Rule("price", Does.REFUSE, "product_details.price", "negative, above 1e9, or no number"),
    Rule("quantity", Does.REFUSE, "product_details.quantity", "negative, or above 1,000,000"),
    Rule("too-long", Does.REFUSE, "all fields", "more bytes or more parts than the contract allows"),
    # ------------------------------------------------------------------------------------------
    Rule(
        BOT,
        Does.REFUSE,
        "product events of a visitor, without purchases and cancellations",
        "more than `bot_events_per_minute` in a minute; all but purchases is refused for `bot_refusal_minutes` then",
        ("bot_events_per_minute", "bot_refusal_minutes"),
        needs_memory=True,
    ),
    Rule(
        BOT_PATTERN,
        Does.REFUSE,
        "views of a visitor without a cart or purchase among them",
        "`bot_views` in a row, faster than `bot_views_per_minute` or as by a timer, or 31 in the order of product ids",
        ("bot_views", "bot_views_per_minute", "bot_refusal_minutes"),
        needs_memory=True,
    ),
    Rule(
        REPEAT,
        Does.REFUSE,
        "all events but purchases and cancellations",
        "the same person, session, type and product within `repeat_window_ms` under another event id",
        ("repeat_window_ms",),
        needs_memory=True,
    ),
    Rule(
        OUTLIER,
        Does.REFUSE,
        "price of all product events, quantity of carts and purchases; not cancellations",
        "more than `outlier_score` robust deviations from the product's usual logarithm (price both ways, 15 times at "
        "the least; quantity above, 403 times at the least)",
        ("outlier_score",),
        needs_memory=True,
    ),
    Rule(
        CANCEL_UNMATCHED,
        Does.MARK,
        "purchase-cancel",
        "no purchase of the product by this person among the newest `cancel_window_records`",
        ("cancel_window_records",),
        needs_memory=True,
    ),
    Rule(
        CANCEL_EXCEEDS,
        Does.MARK,
        "purchase-cancel",
        "no purchase that still holds as many units as are given back",
        ("cancel_window_records",),
        needs_memory=True,
    ),
)

REASONS = tuple(rule.name for rule in RULES if rule.does is Does.REFUSE)
# a person who has looked may let an event pass these; the others state what an event is
EXCUSABLE = frozenset(rule.name for rule in RULES if rule.does is Does.REFUSE and rule.needs_memory)
