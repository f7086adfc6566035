from __future__ import annotations

import json

import pytest

from headrace.cli.mending import changed, line_of, mended_of
from headrace.runtime.errors import InvalidRequestError
from headrace.v1.common_pb2 import CHANNEL_APP, FieldViolation, ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import DeadLetter


@pytest.fixture
def event() -> UserEvent:
    event = UserEvent(
        event_type="add-to-cart",
        visitor_id="v",
        channel=CHANNEL_APP,
        product_details=[ProductDetail(product_id="p", price=-1.0)],
    )
    event.event_time.FromJsonString("2025-03-03T10:00:00.250Z")
    return event


def test_a_letter_in_a_line_can_be_read_back_as_it_was(event: UserEvent) -> None:
    violation = FieldViolation(field="product_details[0].price", description="must be 0 .. 1e9, got -1.0")
    line = line_of(DeadLetter(id=7, event=event, reason="price", violations=[violation]))
    (mended,) = mended_of([line, "", "\n"], "letters.jsonl")
    assert (mended.id, mended.event) == (7, event)
    assert json.loads(line)["faults"] == ["product_details[0].price: must be 0 .. 1e9, got -1.0"]


def test_a_line_can_be_mended_in_an_editor(event: UserEvent) -> None:
    line = line_of(DeadLetter(id=7, event=event)).replace("-1.0", "9.5")
    (mended,) = mended_of([line], "letters.jsonl")
    assert mended.event.product_details[0].price == 9.5


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": 7}', '{"id": 7, "event": {"price": 1}}', '{"id": "x", "event": {}}']
)
def test_a_line_that_is_no_letter_is_named(line: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"letters\.jsonl:2"):
        list(mended_of(['{"id": 7, "event": {}}', line], "letters.jsonl"))


def test_fields_are_set_and_taken_out_by_name(event: UserEvent) -> None:
    fixed = changed(
        event,
        [
            "product_details.0.price=9.5",
            "product_details.0.quantity=2",
            "visitor_id=",
            "user_id=u",
            "labels.country=NL",
            "event_time=2025-03-03T11:00:00Z",
        ],
    )
    detail = fixed.product_details[0]
    assert (detail.product_id, detail.price, detail.quantity) == ("p", 9.5, 2)
    assert (fixed.visitor_id, fixed.user_id, fixed.labels["country"]) == ("", "u", "NL")
    assert fixed.event_time.ToJsonString() == "2025-03-03T11:00:00Z"
    assert event.visitor_id == "v"


@pytest.mark.parametrize(
    "setting",
    [
        "price",
        "=1",
        "prise=1",
        "product_details.3.price=1",
        "product_details.x.price=1",
        "event_time=soon",
        "user_id.x=1",
    ],
)
def test_a_setting_that_does_not_fit_is_refused(event: UserEvent, setting: str) -> None:
    with pytest.raises(InvalidRequestError, match="--set"):
        changed(event, [setting])
