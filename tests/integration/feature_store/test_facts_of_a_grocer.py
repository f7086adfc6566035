"""Promotions, coupons and campaigns of a grocer, mapped, folded and joined as of every purchase: beside one join of
the whole data set.

`TEST_DUNNHUMBY=FOLDER` runs it over the real files too (a minute).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headrace.datasets.importing.importing import import_batches
from headrace.datasets.importing.mapping import load_mapping
from headrace.datasets.times import us
from headrace.feature_store.context_facts import context_facts
from headrace.feature_store.facts import DatedFact, UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.records import fact_of
from headrace.feature_store.rules import Rules
from headrace.model.events import EventCode
from headrace.runtime.eventlog import LoggedRecord
from headrace.v1.common_pb2 import ENTITY_KIND_PRODUCT
from headrace.v1.common_pb2 import DatedFact as DatedFactMessage
from headrace.v1.log_pb2 import LoggedDatedFact

MAPPINGS = Path(__file__).parents[3] / "docs" / "mappings"
FILES = {
    "dunnhumby_display": "promotions_sample",
    "dunnhumby_mailer": "promotions_sample",
    "dunnhumby_coupons": "coupons",
    "dunnhumby_campaigns": "campaigns",
    "dunnhumby_redemptions": "coupon_redemptions",
}
ZONE = "America/New_York"


def small_grocer(folder: Path) -> Path:
    """Seven weeks around the day on which clocks change, with the columns and types of the real files."""
    chance = random.Random(7)
    first = datetime(2017, 2, 20, 5)
    products, stores, people, campaigns = (list(map(str, range(count))) for count in (12, 3, 8, 4))
    texts = pl.Categorical()

    def purchase() -> tuple[object, ...]:
        time = first + timedelta(minutes=chance.randrange(7 * 7 * 24 * 60))
        if chance.random() < 0.2:
            # the first and last moments of a week
            time = first + timedelta(weeks=chance.randrange(1, 7), seconds=chance.choice([-3601, -3600, -1, 0, 1]))
        local = time + (timedelta(hours=-4) if time >= datetime(2017, 3, 12, 7) else timedelta(hours=-5))
        week = 2 + (local.date() - date(2017, 1, 2)).days // 7
        return (chance.choice(people), chance.choice(stores), chance.choice(products), week, time)

    tables = {
        "transactions_sample": pl.DataFrame(
            sorted((purchase() for _ in range(600)), key=lambda row: row[4]),  # type: ignore[arg-type, return-value]
            {"household_id": texts, "store_id": texts, "product_id": texts, "week": pl.Int32,
             "transaction_timestamp": pl.Datetime("us")},
            orient="row",
        ),
        "promotions_sample": pl.DataFrame(
            [(product, store, chance.choice("0035"), chance.choice("00AD"), week)
             for product in products for store in stores for week in range(9, 16) if chance.random() < 0.3],
            {"product_id": texts, "store_id": texts, "display_location": texts, "mailer_location": texts,
             "week": pl.Int32},
            orient="row",
        ),
        "campaign_descriptions": pl.DataFrame(
            [(one, "Type A", date(2017, 2, 18) + later, date(2017, 3, 5) + later)
             for one, later in ((one, timedelta(9 * int(one))) for one in campaigns)],
            {"campaign_id": texts, "campaign_type": texts, "start_date": pl.Date, "end_date": pl.Date},
            orient="row",
        ),
        "campaigns": pl.DataFrame(
            [(one, person) for one in campaigns for person in people if chance.random() < 0.4],
            {"campaign_id": texts, "household_id": texts},
            orient="row",
        ),
        "coupons": pl.DataFrame(
            [(f"u{number}", chance.choice(products), chance.choice(campaigns)) for number in range(20)],
            {"coupon_upc": texts, "product_id": texts, "campaign_id": texts},
            orient="row",
        ),
        "coupon_redemptions": pl.DataFrame(
            [("1", "u1", "0", date(2017, 3, 1))],
            {"household_id": texts, "coupon_upc": texts, "campaign_id": texts, "redemption_date": pl.Date},
            orient="row",
        ),
    }  # fmt: skip
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(params=["small", "real"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "small":
        return small_grocer(tmp_path)
    if "TEST_DUNNHUMBY" not in os.environ:
        pytest.skip("TEST_DUNNHUMBY names no folder")
    return Path(os.environ["TEST_DUNNHUMBY"])


def facts_of(folder: Path, ordinals: dict[str, int]) -> Iterator[DatedFact]:
    """Every fact as it comes out of the log, with the offset 0."""
    for mapping, file in FILES.items():
        rules = load_mapping(MAPPINGS / f"{mapping}.toml")
        for batch in import_batches(folder / f"{file}.parquet", rules):
            assert not batch.rejects
            for one in batch.mapped:
                message = one.message
                assert isinstance(message, DatedFactMessage)
                is_product = message.entity_kind == ENTITY_KIND_PRODUCT
                ordinal = ordinals.setdefault(message.entity_id, len(ordinals)) if is_product else None
                payload = LoggedDatedFact(fact=message, item_ordinal=ordinal).SerializeToString()
                fact = fact_of(LoggedRecord(0, 0, 0, "dated-fact", "", "", 0, payload, ""))
                assert isinstance(fact, DatedFact)
                yield fact


def expected(folder: Path) -> pl.DataFrame:
    """The features of every purchase by joins of whole tables."""

    def table(name: str) -> pl.DataFrame:
        return pl.read_parquet(folder / f"{name}.parquet").with_columns(pl.col(pl.Categorical).cast(pl.String))

    bought = table("transactions_sample").with_row_index("row")
    is_promoted = (pl.col("display_location") != "0") | (pl.col("mailer_location") != "0")
    promoted = table("promotions_sample").filter(is_promoted)
    on_promotion = bought.join(promoted, on=["product_id", "store_id", "week"], how="semi")["row"]

    def local(day: pl.Expr) -> pl.Expr:
        midnight = day.cast(pl.Datetime("us")).dt.replace_time_zone(ZONE)
        return midnight.dt.convert_time_zone("UTC").dt.replace_time_zone(None)

    runs = table("campaign_descriptions").with_columns(
        begins=local(pl.col("start_date")), ends=local(pl.col("end_date") + pl.duration(days=1))
    )
    theirs = bought.join(table("campaigns"), on="household_id").join(runs, on="campaign_id")
    time = pl.col("transaction_timestamp")
    theirs = theirs.filter((pl.col("begins") <= time) & (time < pl.col("ends")))
    has_coupon = theirs.join(table("coupons"), on=["product_id", "campaign_id"], how="semi")["row"]
    return bought.with_columns(
        on_promotion=pl.col("row").is_in(on_promotion.implode()),
        in_campaign=pl.col("row").is_in(theirs["row"].implode()),
        has_coupon=pl.col("row").is_in(has_coupon.implode()),
    ).sort("transaction_timestamp", "row")


NAMES = ("on_promotion", "in_campaign", "has_coupon")


def test_every_purchase_sees_the_facts_that_held_at_its_moment(folder: Path) -> None:
    """Facts are written a day before they hold, purchases as they happen; what is over for 90 days is forgotten.

    Asked at the moment of the purchase, and again ten days of the log later as of that moment and offset.
    """
    ordinals: dict[str, int] = {}
    waiting = sorted(facts_of(folder, ordinals), key=lambda fact: fact.from_us)
    rows = expected(folder)
    state, place, offset = State(Rules(fact_horizon_days=90)), 0, 0
    then: list[tuple[int, int, str, int, str, list[bool]]] = []
    asked_again = differences = 0

    def seen(time_us: int, known: int, user: str, item: int, store: str) -> list[bool]:
        found = context_facts(state, user, np.array([item], np.uint32), time_us, offset=known, store_id=store)
        return [bool(found[name][0]) for name in NAMES]

    for row in rows.iter_rows(named=True):
        time_us = us(row["transaction_timestamp"])
        while place < len(waiting) and waiting[place].from_us < time_us + 86_400_000_000:
            offset += 1
            state.apply(waiting[place]._replace(offset=offset))
            place += 1
        offset += 1
        user = f"u:{row['household_id']}"
        state.apply(UserAct(offset, "search", EventCode.NONE, user, time_us, 1, [], False))
        item = ordinals.get(row["product_id"], 1_000_000)
        answer = seen(time_us, offset, user, item, row["store_id"])
        differences += answer != [row[name] for name in NAMES]
        then.append((time_us, offset, user, item, row["store_id"], answer))
        while asked_again < len(then) and then[asked_again][0] < time_us - 10 * 86_400_000_000:
            *question, before = then[asked_again]
            differences += seen(*question) != before  # type: ignore[arg-type]
            asked_again += 1
    assert differences == 0
    assert asked_again > len(then) / 2
    assert all(0 < rows[name].sum() < len(rows) for name in NAMES)
