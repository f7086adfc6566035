"""Each adapter on a few rows written here, with the columns of the real files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from headrace.datasets.source import NAMES, SIMULATED_SHOP, Dataset, find
from headrace.runtime.errors import InvalidRequestError, NotFoundError
from headrace.v1.common_pb2 import Product, UserEvent


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def events_of(dataset: Dataset, start: datetime | None = None, end: datetime | None = None) -> list[UserEvent]:
    return [event for batch in dataset.events(start, end) for event in batch]


def products_of(dataset: Dataset) -> list[Product]:
    return [product for batch in dataset.products() for product in batch]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with small data sets of every kind."""
    tables: dict[str, pl.DataFrame] = {
        "online_retail/events": invoice_lines(),
        "online_retail/items": pl.DataFrame(
            {
                "item": ["85123A", "22633"],
                "description": ["WHITE HANGING HEART", "HAND WARMER"],
                "first_seen": [moment("2010-12-01T08:26:00"), moment("2011-01-05T00:00:00")],
            }
        ),
        "ader/diginetica": pl.DataFrame(
            {"period": [0, 0, 1, 1], "session": [1, 2, 2, 2], "item": [10, 11, 10, 12]},
            schema={"period": pl.UInt8, "session": pl.UInt32, "item": pl.UInt32},
        ),
        "diginetica_srgnn/train_sessions": pl.DataFrame({"items": [[1, 2], [3]]}),
        "amazon14/beauty_items": pl.DataFrame(
            {"item": [1], "asin": ["B1"], "text": ["nail lacquer"], "attributes": [[7, 9]]}
        ),
        "amazon14/beauty_interactions": pl.DataFrame({"user": [1, 1, 2], "pos": [0, 1, 0], "item": [1, 1, 1]}),
        "chorus_search/products": chorus_products(),
        "dunnhumby_sample/products": grocer_products(),
        "dunnhumby_sample/transactions_sample": transactions(),
        "dunnhumby_sample/promotions_sample": pl.DataFrame(
            {"product_id": ["7"], "store_id": ["3"], "display_location": ["5"], "mailer_location": ["A"], "week": [1]}
        ).with_columns(pl.col(pl.String).cast(pl.Categorical)),
    }
    for name, table in tables.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table.write_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def invoice_lines() -> pl.DataFrame:
    rows = [
        ("2010-12-01T08:26:00", "536365", "purchase", 17850, "85123A", 6, 2.55),
        ("2010-12-01T08:26:00", "536365", "purchase", 17850, "85123A", 6, 2.55),
        ("2010-12-01T09:00:00", "536370", "purchase", None, "85123A", 2, 3.00),
        ("2010-12-02T09:00:00", "C536379", "cancel", 17850, "85123A", -6, 2.55),
        ("2010-12-03T09:00:00", "536589", "stock_adjust", None, "21777", -10, 0.0),
        ("2011-01-05T10:00:00", "A563186", "bad_debt", None, "B", 1, -11062.06),
    ]
    names = ["ts", "invoice", "event", "user", "item", "quantity", "price"]
    columns: dict[str, list[object]] = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    columns["ts"] = [moment(str(text)) for text in columns["ts"]]
    return pl.DataFrame(columns).with_columns(
        pl.col("ts").cast(pl.Datetime("ms")),
        pl.col("event").cast(pl.Categorical),
        pl.col("user").cast(pl.UInt32),
        pl.lit("United Kingdom").cast(pl.Categorical).alias("country"),
    )


def chorus_products() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "docid": ["2", "1"],
            "title": ["Toner", "Cable"],
            "short_description": [None, "3 m"],
            "supplier": ["Xerox", None],
            "price_cents": [4995.0, None],
            "date_released": [moment("2009-12-10T00:00:00"), None],
            "image_url": [None, "http://images/1.jpg"],
            "attributes_json": ['{"attr_t_printing_colours":"Black","attr_t_long":"' + "x" * 300 + '"}', None],
        }
    )


def grocer_products() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "product_id": ["7", "8"],
            "manufacturer_id": ["69", "2"],
            "department": ["GROCERY", "MISC"],
            "brand": ["Private", "National"],
            "product_category": ["COOKIES", None],
            "product_type": ["SPECIALTY", None],
            "package_size": ["14 OZ", None],
        }
    ).with_columns(pl.col("brand").cast(pl.Categorical))


def transactions() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "household_id": ["906", "906"],
            "store_id": ["3", "4"],
            "basket_id": ["b1", "b2"],
            "product_id": ["7", "7"],
            "quantity": [2.0, 0.0],
            "sales_value": [3.0, 1.25],
            "retail_disc": [0.5, 0.0],
            "week": pl.Series([1, 1], dtype=pl.Int32),
            "transaction_timestamp": [moment("2017-01-01T12:30:27"), moment("2017-01-02T00:00:00")],
        }
    ).with_columns(pl.col("household_id", "store_id", "basket_id", "product_id").cast(pl.Categorical))


def test_invoice_lines_become_purchases_and_cancellations(data: Path) -> None:
    first, _, anonymous, cancelled, adjusted, debt = events_of(find("online_retail", data))

    assert (first.event_type, first.user_id, first.transaction_id) == ("purchase-complete", "17850", "536365")
    assert (first.product_details[0].quantity, first.product_details[0].price) == (6, 2.55)
    assert first.labels["country"] == "United Kingdom"
    assert (anonymous.user_id, anonymous.visitor_id) == ("", "invoice-536370")
    assert (cancelled.event_type, cancelled.product_details[0].quantity) == ("purchase-cancel", 6)
    # a credit note is no order
    assert (cancelled.transaction_id, cancelled.session_id) == ("", "C536379")
    assert (adjusted.event_type, adjusted.product_details[0].quantity) == ("purchase-complete", -10)
    assert debt.product_details[0].price == -11062.06


def test_rows_that_repeat_word_for_word_share_an_event_id(data: Path) -> None:
    first, again, *others = events_of(find("online_retail", data))

    assert first == again
    assert len({event.event_id for event in (first, *others)}) == 5


def test_a_products_price_is_that_of_its_first_sale(data: Path) -> None:
    heart, warmer = products_of(find("online_retail", data))

    assert (heart.id, heart.title, heart.price_info.price) == ("85123A", "WHITE HANGING HEART", 2.55)
    first_sale = datetime(2010, 12, 1, 8, 26)
    assert first_sale - timedelta(days=28) < heart.publish_time.ToDatetime() <= first_sale
    assert not warmer.HasField("price_info")


def test_a_window_takes_its_start_and_leaves_its_end(data: Path) -> None:
    shop = find("online_retail", data)

    inside = events_of(shop, datetime(2010, 12, 1, 9, tzinfo=UTC), datetime(2010, 12, 3, 9, tzinfo=UTC))

    assert [event.session_id for event in inside] == ["536370", "C536379"]
    assert shop.span.start == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    assert events_of(shop, end=shop.span.end) == events_of(shop)


def test_clicks_keep_their_order_and_split_sessions_at_a_periods_border(data: Path) -> None:
    clicks = events_of(find("diginetica", data))

    assert [click.product_details[0].product_id for click in clicks] == ["10", "11", "10", "12"]
    assert [click.visitor_id for click in clicks] == ["session-0-1", "session-0-2", "session-1-2", "session-1-2"]
    times = [click.event_time.ToMicroseconds() for click in clicks]
    assert times == sorted(times)
    assert (times[2] - times[0]) / 86_400e6 == 22 * 7


def test_static_sessions_follow_one_another(data: Path) -> None:
    clicks = events_of(find("diginetica_srgnn", data))

    assert [(click.session_id, click.product_details[0].product_id) for click in clicks] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "3"),
    ]


def test_reviews_keep_each_users_order(data: Path) -> None:
    shop = find("amazon_beauty", data)

    assert [event.event_id for event in events_of(shop)] == [
        "amazon_beauty/1/0",
        "amazon_beauty/2/0",
        "amazon_beauty/1/1",
    ]
    assert products_of(shop)[0].attributes == {"asin": "B1", "attribute-7": "yes", "attribute-9": "yes"}
    assert (shop.span.end - shop.span.start).days == 2


def test_electronics_have_brand_price_and_attributes_within_the_contract(data: Path) -> None:
    cable, toner = products_of(find("chorus", data))

    assert (cable.id, list(cable.brands), cable.HasField("price_info")) == ("1", [], False)
    assert (list(toner.brands), toner.price_info.price) == (["Xerox"], 49.95)
    assert toner.attributes == {"printing colours": "Black"}
    assert events_of(find("chorus", data)) == []


def test_groceries_carry_department_brand_and_the_weeks_promotion(data: Path) -> None:
    shop = find("dunnhumby", data)
    own, other = products_of(shop)
    promoted, plain = events_of(shop)

    assert (list(own.categories), list(own.brands)) == (["GROCERY > COOKIES > SPECIALTY"], ["Private"])
    assert (other.title, list(other.brands)) == ("MISC", ["National 2"])
    assert (promoted.product_details[0].price, promoted.labels["display"], promoted.labels["mailer"]) == (1.5, "5", "A")
    assert "display" not in plain.labels
    assert plain.product_details[0].quantity == 1


@pytest.mark.parametrize("name", ["online_retail", "diginetica", "amazon_beauty", "chorus", "dunnhumby"])
def test_real_data_sets_have_no_later_product_versions_and_say_their_licence(data: Path, name: str) -> None:
    dataset = find(name, data)

    assert list(dataset.product_updates()) == []
    assert dataset.licence
    assert not dataset.is_simulated
    assert dataset.name == name


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match="known: online_retail"):
        find("netflix")


def test_a_missing_folder_is_answered_with_what_is_there(data: Path) -> None:
    (data / "other" / "empty").mkdir(parents=True)

    with pytest.raises(NotFoundError, match=r"no folder 'online_retail' in .*; there: empty"):
        find("online_retail", data / "other")


def test_the_environment_names_the_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATA", str(data))

    assert find("chorus").name == "chorus"


def test_a_misspelt_variable_is_the_callers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATTA", "x")

    with pytest.raises(InvalidRequestError, match="HEADRACE_DATTA"):
        find("chorus")


def test_data_beside_the_working_directory_is_found(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "shared" / "data").symlink_to(data)
    monkeypatch.delenv("HEADRACE_DATA", raising=False)
    monkeypatch.chdir(tmp_path / "project")

    assert find("chorus").name == "chorus"


def test_without_any_folder_the_simulated_shop_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotFoundError, match="simulated-shop"):
        find("online_retail")
    assert find(SIMULATED_SHOP).is_simulated
    assert SIMULATED_SHOP in NAMES
