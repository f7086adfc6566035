"""Files as messages: right answers known, and every row accounted for."""

from __future__ import annotations

import gzip
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf.json_format import MessageToDict

from headrace.datasets.importing.importing import Batch, import_batches
from headrace.datasets.importing.mapping import MappingFile, parse_mapping
from headrace.runtime.errors import InvalidRequestError
from headrace.v1.common_pb2 import DatedFact, Product, UserEvent

EVENTS = 'kind = "events"\nzone = "Europe/London"\n'
WHO = '[fields]\nevent_type = {value = "purchase-complete"}\nuser_id = "who"\nevent_time = "at"\nproduct_id = "sku"\n'


def imported(path: Path, mapping: MappingFile | str, size: int = 2) -> Batch:
    """Everything of a file in one batch."""
    rules = parse_mapping(mapping) if isinstance(mapping, str) else mapping
    whole = Batch()
    for batch in import_batches(path, rules, size):
        whole.mapped += batch.mapped
        whole.rejects += batch.rejects
        whole.rows += batch.rows
        whole.skipped += batch.skipped
    return whole


def lines(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def events_of(batch: Batch) -> list[UserEvent]:
    return [one.message for one in batch.mapped if isinstance(one.message, UserEvent)]


def as_dict(batch: Batch) -> list[dict[str, Any]]:
    return [MessageToDict(one.message, preserving_proto_field_name=True) for one in batch.mapped]


def test_every_option_of_an_event_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "shops.csv").write_text("shop,region\n7,north\n")
    path = lines(
        tmp_path,
        {"kind": "sale", "who": {"id": 17.0}, "at": "03/07/2020 12:00", "sku": 5, "cents": "1250", "qty": "5",
         "path": "Shoes| Boots", "shop": 7, "src": "www", "order": "o1"},
    )  # fmt: skip
    mapping = (
        EVENTS
        + """
        [fields]
        event_type = { column = "kind", map = { sale = "purchase-complete" } }
        user_id = "who.id"
        visitor_id = { column = "device", default = "none" }
        event_time = { column = "at", format = "%d/%m/%Y %H:%M" }
        product_id = { column = "sku", prefix = "p" }
        quantity = "qty"
        price = { column = "cents", factor = 0.01, per = "qty" }
        page_categories = { column = "path", split = "|" }
        channel = { column = "src", map = { www = "web" }, otherwise = "app" }
        event_id = { columns = ["order", "none", "sku"], prefix = "shop/" }
        session_id = { columns = ["none", "order"], skip_empty = true }
        [labels]
        region = { column = "shop", lookup = { file = "shops.csv", key = "shop", value = "region" } }
        """
    )
    (event,) = as_dict(imported(path, mapping))
    assert event == {
        "event_id": "shop/o1//5",
        "event_type": "purchase-complete",
        "user_id": "17",
        "visitor_id": "none",
        "event_time": "2020-07-03T11:00:00Z",
        "product_details": [{"product_id": "p5", "quantity": 5, "price": 2.5}],
        "page_categories": ["Shoes", "Boots"],
        "channel": "CHANNEL_WEB",
        "session_id": "o1",
        "labels": {"region": "north"},
    }


def test_products_and_facts_have_their_own_fields(tmp_path: Path) -> None:
    path = lines(tmp_path, {"sku": "s", "name": "Boots", "cents": 990, "stock": "no", "tags": ["a", "b"], "week": 2})
    product = imported(
        path,
        """
        kind = "products"
        [fields]
        id = "sku"
        title = "name"
        categories = { column = "tags", map = { a = "A", b = "B > C" } }
        price = { column = "cents", factor = 0.01 }
        availability = { column = "stock", map = { no = "out-of-stock" } }
        [attributes]
        colour = { value = "red" }
        """,
    )
    fact = imported(
        path,
        """
        kind = "facts"
        zone = "America/New_York"
        [fields]
        entity_kind = { value = "product" }
        entity_id = "sku"
        name = { value = "promotion" }
        valid_from = { column = "week", format = "weeks", since = "2017-02-27" }
        valid_until = { column = "week", format = "weeks", since = "2017-02-27", add_days = 7 }
        revision = { value = "9007199254740993" }
        deleted = { value = "no" }
        """,
    )
    assert [type(batch.mapped[0].message) for batch in (product, fact)] == [Product, DatedFact]
    assert as_dict(product) == [
        {"id": "s", "title": "Boots", "categories": ["A", "B > C"], "price_info": {"price": 9.9},
         "availability": "AVAILABILITY_OUT_OF_STOCK", "attributes": {"colour": "red"}}
    ]  # fmt: skip
    # the clocks changed on the day before: midnight there is an hour earlier here
    assert as_dict(fact) == [
        {"entity_kind": "ENTITY_KIND_PRODUCT", "entity_id": "s", "name": "promotion", "revision": "9007199254740993",
         "valid_from": "2017-03-13T04:00:00Z", "valid_until": "2017-03-20T04:00:00Z"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("", "2020-01-01", "2020-01-01T00:00:00Z"),
        ("", "2020-07-01T10:00:00", "2020-07-01T09:00:00Z"),
        ("", "2020-07-01T10:00:00+02:00", "2020-07-01T08:00:00Z"),
        ('format = "s"', "1.5", "1970-01-01T00:00:01.500Z"),
        ('format = "ms"', 1_500_000_000_123, "2017-07-14T02:40:00.123Z"),
        ('format = "ns"', 1_500_000_000_123_456_789, "2017-07-14T02:40:00.123456Z"),
        ('format = "s", since = "2000-01-01T00:00:00+00:00"', 60, "2000-01-01T00:01:00Z"),
        ('format = "days", since = "2020-01-01"', 200, "2020-07-18T23:00:00Z"),
        ('zone = "UTC", add_days = 1', "2020-07-01", "2020-07-02T00:00:00Z"),
    ],
)
def test_times_are_read_in_every_way_that_files_have(tmp_path: Path, rule: str, value: Any, expected: str) -> None:
    fields = WHO.replace('"at"', f'{{ column = "at", {rule} }}' if rule else '"at"')
    (event,) = as_dict(imported(lines(tmp_path, {"who": "a", "sku": "s", "at": value}), EVENTS + fields))
    assert event["event_time"] == expected


def test_a_row_that_cannot_be_mapped_is_rejected_with_every_reason_and_stops_nothing(tmp_path: Path) -> None:
    bad = {"who": ["a"], "at": 1_500_000_000, "sku": "s", "qty": 1.5, "price": "dear", "src": "fax", "n": 0}
    path = lines(tmp_path, bad, {"who": "b", "at": "2020-01-01", "sku": "s", "qty": 2})
    fields = 'quantity = "qty"\nprice = "price"\nchannel = "src"\n'
    batch = imported(path, EVENTS + WHO + fields)
    assert [event.user_id for event in events_of(batch)] == ["b"]
    (reject,) = batch.rejects
    assert (reject.row, reject.content) == (1, bad)
    assert reject.reasons == [
        "user_id: is a list, not a text: ['a']",
        "event_time: is a number: its unit is to be said by `format`, got 1500000000",
        "quantity: must be a whole number, got 1.5",
        "price: is no number: 'dear'",
        "channel: must be one of web, mobile-web, app, store, email, call-center, marketplace, got 'fax'",
    ]


def test_csv_cells_are_texts_and_broken_rows_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "f.csv.gz"
    text = '\ufeffwho,sku,at\n007,"a,b",2020-01-01\n\nx,y\n  é ,NA,2020-01-01\n\udcff,s,2020-01-01\n'
    path.write_bytes(gzip.compress(text.encode(errors="surrogateescape")))
    batch = imported(path, EVENTS + WHO)
    assert [(event.user_id, [one.product_id for one in event.product_details]) for event in events_of(batch)] == [
        ("007", ["a,b"]),
        ("  é ", []),
    ]
    assert [(reject.row, reject.reasons) for reject in batch.rejects] == [
        (2, ["must have 3 cells as the header, got 2"]),
        (4, ["user_id: is not UTF-8: '\\udcff'"]),
    ]
    assert (batch.rows, batch.rejects[0].content) == (4, "x,y\n")


def test_parquet_types_are_what_they_are(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "who": pl.Series(["a", "b"], dtype=pl.Categorical),
            "at": [datetime(2020, 7, 1, 10), datetime(2020, 7, 1, 11)],
            "sku": [17.0, float("nan")],
            "day": [date(2020, 1, 2), None],
        }
    ).write_parquet(tmp_path / "f.parquet")
    first, second = as_dict(imported(tmp_path / "f.parquet", EVENTS + WHO + '[labels]\nday = "day"\n'))
    assert (first["event_time"], first["labels"]) == ("2020-07-01T09:00:00Z", {"day": "2020-01-02"})
    assert first["product_details"] == [{"product_id": "17"}]
    assert "product_details" not in second
    assert "labels" not in second


def test_lines_of_a_basket_are_one_event_however_they_are_batched(tmp_path: Path) -> None:
    def line(who: str, sku: str) -> dict[str, Any]:
        return {"who": who, "sku": sku, "at": "2020-01-01"}

    rows = [line("a", "1"), line("b", "2"), line("a", "3"), line("c", "4"), line("a", "5"), line("b", "6")]
    grouped = parse_mapping(EVENTS + 'group = { by = ["who"], within_rows = 3 }\n' + WHO)
    for size in (1, 2, 100):
        batch = imported(lines(tmp_path, *rows), grouped, size)
        made = {event.user_id: [one.product_id for one in event.product_details] for event in events_of(batch)}
        assert made == {"a": ["1", "3", "5"], "b": ["2"], "c": ["4"]}
        assert [(reject.row, reject.reasons) for reject in batch.rejects] == [
            (6, ["group: comes over 3 rows (group.within_rows) after its event"])
        ]


def test_rows_of_one_basket_must_agree(tmp_path: Path) -> None:
    rows = [{"who": who, "sku": "s", "at": "2020-01-01", "basket": 1} for who in "ab"]
    batch = imported(lines(tmp_path, *rows), EVENTS + 'group = { by = ["basket"] }\n' + WHO)
    assert [reject.reasons for reject in batch.rejects] == [
        ["group: user_id 'b' is not that of its event's first row, 'a'"]
    ]


def test_equal_rows_are_repeats_unless_they_are_numbered(tmp_path: Path) -> None:
    row = {"who": "a", "sku": "s", "at": "2020-01-01"}
    path = lines(tmp_path, row, row, {**row, "who": "b"}, row)
    plain = events_of(imported(path, EVENTS + WHO))
    numbered = events_of(imported(path, EVENTS + "number_repeats = true\n" + WHO))
    assert {event.event_id for event in plain} == {""}
    ids = [event.event_id for event in numbered]
    assert (ids[0], ids[2], ids[1][-2:], ids[3][-2:]) == ("", "", "-2", "-3")
    assert ids[1][:-2] == ids[3][:-2]
    assert ids == [event.event_id for event in events_of(imported(path, EVENTS + "number_repeats = true\n" + WHO))]


def test_rows_that_are_not_meant_are_skipped_and_counted(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"who": who, "sku": "s", "at": "2020-01-01", "test": 1} for who in "aba"))
    batch = imported(path, EVENTS + 'skip = { who = ["a"] }\n' + WHO)
    assert (batch.rows, batch.skipped, len(batch.mapped)) == (3, 2, 1)


def test_columns_that_the_file_lacks_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("who,sku\n")
    with pytest.raises(InvalidRequestError) as caught:
        imported(tmp_path / "f.csv", EVENTS + 'skip = { gone = ["1"] }\n' + WHO)
    assert [(fault.field, fault.description) for fault in caught.value.faults] == [
        ("fields.event_time", "names the column 'at', which f.csv lacks; there: who, sku"),
        ("skip", "names the column 'gone', which f.csv lacks; there: who, sku"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("f.xlsx", b"", r"must end in \.csv"),
        ("f.parquet.gz", b"", "must end in"),
        ("f.csv", b"", "has no header"),
        ("f.csv", b"a,a\n", "has columns of one name: 'a'"),
        ("f.parquet", b"PAR1", "is no Parquet file"),
        ("f.csv.gz", b"no gzip", "has no header: Not a gzipped file"),
    ],
)
def test_a_file_that_is_none_of_the_known_kinds_is_told(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRequestError, match=words):
        imported(tmp_path / name, EVENTS + WHO)


def test_a_file_that_breaks_off_gives_what_came_before_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl.gz"
    rows = [{"who": str(number), "sku": str(number * 7919 % 1000), "at": "2020-01-01"} for number in range(5_000)]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())[:-3000])
    sizes = map(len, (batch.mapped for batch in import_batches(path, parse_mapping(EVENTS + WHO), 1_000_000)))
    seen = next(sizes)
    assert seen > 1_000
    with pytest.raises(InvalidRequestError, match=f"breaks off after row {seen}:"):
        next(sizes)


def test_the_worked_example_of_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "importing.md").read_text()
    (tmp_path / "orders.csv").write_text(text.split("```\n")[1])
    batch = imported(tmp_path / "orders.csv", text.split("```toml\n")[1].split("```")[0])
    (event,) = as_dict(batch)
    assert (batch.rows, batch.skipped, event["event_time"]) == (3, 1, "2020-07-01T11:00:00Z")
    assert event["product_details"] == [
        {"product_id": "boots", "quantity": 1, "price": 59.9},
        {"product_id": "laces", "quantity": 2, "price": 1.99},
    ]
