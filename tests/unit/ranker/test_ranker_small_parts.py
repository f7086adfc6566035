"""Tokens, pages, the breaker, admission, stages, impressions and what a listing takes from a product."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from headrace.ranker.admission import Admission
from headrace.ranker.breaker import Breaker
from headrace.ranker.exploration import Policy
from headrace.ranker.impressions import ImpressionLog, Shown
from headrace.ranker.paging import Page, page_of, page_token
from headrace.ranker.peers import listing_of
from headrace.ranker.stages import Stages
from headrace.runtime.errors import OverloadedError, UnavailableError
from headrace.runtime.eventlog import Record
from headrace.v1 import common_pb2


def test_a_page_token_belongs_to_its_search():
    token = page_token(40, "red mug")
    assert page_of(token, "red mug") == Page(40, "stable")
    with pytest.raises(ValueError, match="another search"):
        page_of(token, "blue mug")
    with pytest.raises(ValueError, match="not a page token"):
        page_of("é", "red mug")


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_try():
    now = [0.0]
    breaker = Breaker(failures=2, open_s=10, clock=lambda: now[0])
    breaker.fail()
    breaker.succeed()
    breaker.fail()
    assert breaker.allows()
    breaker.fail()
    assert not breaker.allows()
    now[0] = 10
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeed()
    assert breaker.allows()


async def test_admission_lets_some_in_some_wait_and_refuses_the_rest():
    admission, go = Admission(1, 1), asyncio.Event()
    done: list[int] = []

    async def call(number: int) -> None:
        async with admission.turn():
            await go.wait()
            done.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await call(2)
    go.set()
    await asyncio.gather(*calls)
    assert done == [0, 1]
    await call(3)


async def test_a_waiting_call_that_goes_away_leaves_its_place():
    admission, go = Admission(1, 1), asyncio.Event()

    async def call() -> None:
        async with admission.turn():
            await go.wait()

    first = asyncio.create_task(call())
    await asyncio.sleep(0)
    second = asyncio.create_task(call())
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = asyncio.create_task(call())
    go.set()
    await asyncio.gather(first, third)


def test_stages_keep_time_for_the_next_ones_and_note_each_miss_once():
    stages = Stages(0.01)
    assert stages.peer_budget_s(5) <= 0.005
    assert 0.005 <= Stages(0.01).cpu_budget_s(5) <= 0.007
    assert Stages(10).peer_budget_s(0.1) == 0.1
    assert Stages(-1).peer_budget_s(5) < 0
    stages.miss("index", "deadline")
    stages.miss("index", "deadline")
    assert stages.missing == ["index: deadline"]
    for _ in range(2):
        with stages.timed("state"):
            pass
    assert stages.ms["state"] > 0


class _Log:
    """An event log in a list, which can be told to refuse."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_down = False

    async def append(self, records):
        if self.is_down:
            raise UnavailableError("down")
        self.records += records


def shown(token: str) -> Shown:
    none = np.zeros(0, np.float32)
    return Shown(token, "v:a", "r", "home", none.astype(np.uint32), none, none[None], "s", 1, none, Policy())


async def test_impressions_beyond_the_queue_are_dropped_and_counted():
    log = _Log()
    impressions = ImpressionLog(
        log, lambda each: Record("impression", "", each.attribution_token, 0, b""), interval_s=0.01, queue_size=2
    )
    for number in range(3):
        impressions.note(shown(str(number)))
    await impressions.flush()
    assert [record.event_id for record in log.records] == ["0", "1"]
    assert (impressions.logged, impressions.dropped) == (2, 1)
    log.is_down = True
    impressions.note(shown("3"))
    await impressions.flush()
    assert (impressions.logged, impressions.dropped) == (2, 2)


Availability = common_pb2.Availability


@pytest.mark.parametrize(
    ("availability", "quantity", "expected"),
    [
        (Availability.AVAILABILITY_UNSPECIFIED, None, True),
        (Availability.AVAILABILITY_IN_STOCK, 0, False),
        (Availability.AVAILABILITY_IN_STOCK, 3, True),
        (Availability.AVAILABILITY_OUT_OF_STOCK, 3, False),
        (Availability.AVAILABILITY_PREORDER, 0, True),
        (Availability.AVAILABILITY_BACKORDER, 0, True),
    ],
)
def test_what_can_be_bought(availability, quantity, expected):
    product = common_pb2.Product(id="a", title="a", availability=availability)
    if quantity is not None:
        product.available_quantity = quantity
    assert listing_of(0, product).is_available is expected


def test_a_product_without_a_price_has_none_and_times_are_open():
    listing = listing_of(3, common_pb2.Product(id="a", title="a", attributes={"colour": "red"}))
    assert np.isnan(listing.price)
    assert listing.publish_us == 0
    assert listing.expire_us == np.iinfo(np.int64).max
    assert listing.attributes == ("red",)
    assert common_pb2.Product.FromString(listing.document).id == "a"
