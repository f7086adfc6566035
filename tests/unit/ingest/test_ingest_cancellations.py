from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.ingest.cancellations import Purchases
from headrace.runtime.eventlog import EventLog, Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from headrace.v1.log_pb2 import LoggedUserEvent


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    log = SqliteEventLog(tmp_path / "events.db")
    yield log
    await log.close()


def event(kind: str, event_id: str, units: dict[str, int], transaction: str = "") -> UserEvent:
    details = [ProductDetail(product_id=name, quantity=count) for name, count in units.items()]
    return UserEvent(event_type=kind, event_id=event_id, product_details=details, transaction_id=transaction)


def bought(event_id: str, transaction: str = "", **units: int) -> UserEvent:
    return event("purchase-complete", event_id, units, transaction)


def cancel(event_id: str, transaction: str = "", **units: int) -> UserEvent:
    return event("purchase-cancel", event_id, units, transaction)


async def taken(log: EventLog, *events: UserEvent, key: str = "u:1", window: int = 1_000) -> list[str]:
    """Brings a batch as the intake does, with a memory of its own: every call is a restart."""
    purchases = Purchases(log, window=window)
    await purchases.catch_up()
    draft = purchases.draft()
    decided = [draft.decide(key, one.event_id, one) for one in events]
    logged = [
        LoggedUserEvent(event=one, user_key=key, cancelled_event_id=purchase)
        for one, purchase in zip(events, decided, strict=True)
    ]
    await log.append([Record("user-event", key, one.event.event_id, 1, one.SerializeToString()) for one in logged])
    return decided


async def test_the_newest_purchase_with_enough_units_is_taken_back(log: EventLog) -> None:
    await taken(log, bought("b1", p=5), bought("b2", p=5), bought("b3", p=1))
    assert await taken(log, cancel("c1", p=2)) == ["b2"]


async def test_units_can_be_taken_back_once(log: EventLog) -> None:
    await taken(log, bought("b1", p=5))
    assert await taken(log, cancel("c1", p=3)) == ["b1"]
    assert await taken(log, cancel("c2", p=3)) == [""]
    assert await taken(log, cancel("c3", p=2)) == ["b1"]


async def test_within_one_batch_it_is_the_same(log: EventLog) -> None:
    batch = (bought("b1", p=5), cancel("c1", p=3), cancel("c2", p=3), cancel("c3", p=2))
    assert await taken(log, *batch) == ["", "b1", "", "b1"]
    assert await taken(log, cancel("c4", p=1)) == [""]


async def test_a_purchase_of_somebody_else_or_something_else_is_not_taken(log: EventLog) -> None:
    await taken(log, bought("b1", p=5))
    assert await taken(log, cancel("c1", p=1), key="u:2") == [""]
    assert await taken(log, cancel("c2", q=1)) == [""]


async def test_a_named_transaction_must_be_the_same(log: EventLog) -> None:
    await taken(log, bought("b1", "t1", p=5), bought("b2", "t2", p=5))
    assert await taken(log, cancel("c1", "t1", p=1), cancel("c2", "t9", p=1), cancel("c3", p=1)) == ["b1", "", "b2"]


async def test_one_purchase_must_hold_every_product(log: EventLog) -> None:
    await taken(log, bought("b1", p=2, q=1), bought("b2", p=2))
    assert await taken(log, cancel("c1", p=1, q=1)) == ["b1"]
    assert await taken(log, cancel("c2", p=1, q=1)) == [""]
    assert await taken(log, cancel("c3", p=1)) == ["b2"]


async def test_no_quantity_means_one_and_repeated_lines_add_up(log: EventLog) -> None:
    double = bought("b1", p=0)
    double.product_details.add(product_id="p", quantity=2)
    await taken(log, double)
    assert await taken(log, cancel("c1", p=3), cancel("c2", p=0)) == ["b1", ""]


async def test_what_is_sent_again_changes_nothing(log: EventLog) -> None:
    await taken(log, bought("b1", p=1), bought("b2", p=1))
    assert await taken(log, cancel("c1", p=1)) == ["b2"]
    again = (bought("b1", p=1), bought("b2", p=1), cancel("c1", p=1), cancel("c2", p=1), cancel("c3", p=1))
    assert await taken(log, *again) == ["", "", "b2", "b1", ""]


async def test_a_cancellation_twice_in_a_batch_takes_once(log: EventLog) -> None:
    await taken(log, bought("b1", p=1), bought("b2", p=1))
    assert await taken(log, cancel("c1", p=1), cancel("c1", p=1), cancel("c2", p=1)) == ["b2", "b2", "b1"]


async def test_a_long_lived_memory_and_a_new_one_agree(log: EventLog) -> None:
    old = Purchases(log, window=20)
    for number in range(50):
        await old.catch_up()
        draft = old.draft()
        probe = cancel("probe", p=2)
        from_old = draft.decide("u:1", "probe", probe)
        new = Purchases(log, window=20)
        await new.catch_up()
        assert new.draft().decide("u:1", "probe", probe) == from_old
        events = [bought(f"b{number}", p=3), cancel(f"c{number}", p=number % 4)]
        await taken(log, *events, window=20)
    assert old.offset > 50


async def test_purchases_before_the_window_are_forgotten(log: EventLog) -> None:
    await taken(log, bought("b1", p=1))
    await taken(log, *(bought(f"other{number}", q=1) for number in range(9)))
    assert await taken(log, cancel("c1", p=1), window=9) == [""]
    assert await taken(log, cancel("c2", p=1), window=100) == ["b1"]


async def test_other_records_of_the_log_are_passed_over(log: EventLog) -> None:
    await log.append([Record("impression", "u:1", "i", 1, b"purchase-complete")])
    purchases = Purchases(log, window=100)
    await purchases.catch_up()
    assert purchases.offset == 1
