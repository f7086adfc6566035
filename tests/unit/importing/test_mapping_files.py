"""Mapping files: what they may say, and every fault of one named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.datasets.importing.drafting import draft, example
from headrace.datasets.importing.mapping import load_mapping, parse_mapping
from headrace.datasets.importing.targets import KINDS
from headrace.runtime.errors import InvalidRequestError

MAPPINGS = Path(__file__).parents[3] / "docs" / "mappings"
EVENTS = 'kind = "events"\n[fields]\nevent_type = "kind"\nuser_id = "who"\nevent_time = "at"\n'


def faults_of(text: str) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        parse_mapping(text, "m.toml")
    return {fault.field: fault.description for fault in caught.value.faults}


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_that_is_printed_is_a_mapping(kind: str) -> None:
    assert parse_mapping(example(kind)).kind == kind


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_mappings_of_the_known_data_sets_are_mappings(path: Path) -> None:
    assert load_mapping(path).kind in KINDS


def test_a_field_that_is_a_name_alone_is_a_column() -> None:
    mapping = parse_mapping(EVENTS)
    assert mapping.fields["user_id"].column == "who"
    assert mapping.named_columns() == {"kind": "fields.event_type", "who": "fields.user_id", "at": "fields.event_time"}


def test_every_fault_is_named_with_its_key_and_what_was_given() -> None:
    faults = faults_of(
        """
        kind = "events"
        zone = "Mars/Olympus"
        colour = "red"
        group = { by = [], within_rows = 0 }
        [fields]
        price = { column = "p", factor = 0 }
        event_time = { column = "at", format = "%Q", add_days = 40000 }
        user_id = { column = "a", value = "b" }
        """
    )
    assert faults == {
        "m.toml: zone": "is no time zone such as Europe/London, got 'Mars/Olympus'",
        "m.toml: colour": "is no key of a mapping",
        "m.toml: group.by": "List should have at least 1 item after validation, not 0, got []",
        "m.toml: group.within_rows": "Input should be greater than or equal to 1, got 0",
        "m.toml: fields.price.factor": "must be finite and not 0, got 0",
        "m.toml: fields.event_time.format": faults["m.toml: fields.event_time.format"],
        "m.toml: fields.event_time.add_days": "Input should be less than or equal to 36500, got 40000",
        "m.toml: fields.user_id": "must have one of column, columns and value, got {'column': 'a', 'value': 'b'}",
    }
    assert "or a format such as %Y-%m-%d %H:%M" in faults["m.toml: fields.event_time.format"]


def test_what_says_nothing_or_is_missing_is_named_too() -> None:
    faults = faults_of(
        """
        kind = "products"
        number_repeats = true
        [fields]
        id = { column = "sku", split = "|" }
        tittle = "name"
        [labels]
        a = "b"
        """
    )
    assert list(faults) == [
        "m.toml: fields.id.split",
        "m.toml: fields.tittle",
        "m.toml: fields.title",
        "m.toml: labels",
        "m.toml: number_repeats",
    ]
    assert faults["m.toml: fields.id.split"] == "says nothing about a text"
    assert faults["m.toml: fields.tittle"].startswith("is no field of products; known: id, title, description")


@pytest.mark.parametrize(
    ("text", "words"), [("kind = ", "is not TOML"), ("", "Field required"), ("kind = 'orders'", "Input should be")]
)
def test_what_is_no_mapping_at_all_is_told(text: str, words: str) -> None:
    assert words in " ".join(faults_of(text).values())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"none\.toml: cannot be read"):
        load_mapping(tmp_path / "none.toml")


def test_a_draft_finds_columns_by_what_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("Order ID,Customer,Stock-Code,TS,qty,colour\n7,ann,s1,1700000000000,2,red\n")
    text = draft(path, "events")
    mapping = parse_mapping(text)
    assert {name: rule.column for name, rule in mapping.fields.items()} == {
        "event_type": None,
        "user_id": "Customer",
        "event_time": "TS",
        "product_id": "Stock-Code",
        "quantity": "qty",
        "transaction_id": "Order ID",
    }
    assert mapping.fields["event_time"].format == "ms"
    assert '#   "colour": ["red"]' in text
