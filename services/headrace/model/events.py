"""Kinds of product events, as the byte that histories and labels hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class EventCode(IntEnum):
    """The numbers of `EventTypeCode` in the contracts."""

    NONE = 0
    VIEW = 1
    CART = 2
    REMOVE = 3
    PURCHASE = 4


EVENT_CODES: Mapping[str, EventCode] = MappingProxyType(
    {
        "detail-page-view": EventCode.VIEW,
        "add-to-cart": EventCode.CART,
        "remove-from-cart": EventCode.REMOVE,
        "purchase-complete": EventCode.PURCHASE,
    }
)

# what a training row may be labelled with, and what windows and decays count
COUNTED_CODES = (EventCode.VIEW, EventCode.CART, EventCode.PURCHASE)
COUNTED_NAMES = ("views", "carts", "purchases")
