"""Labels joined with features as of their time: every label kept, no later row seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.datasets.as_of_join import join_as_of
from headrace.runtime.errors import InvalidRequestError

Key = tuple[str | None, int | None]

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = st.tuples(st.sampled_from(["ann", "bob", "eve", None]), st.one_of(st.none(), st.integers(0, 30)))


def _table(keys: list[Key], name: str) -> pl.DataFrame:
    times = [None if minutes is None else START + timedelta(minutes=minutes) for _, minutes in keys]
    schema = {"user": pl.String, "at": pl.Datetime("us", "UTC"), name: pl.Int64}
    return pl.DataFrame({"user": [user for user, _ in keys], "at": times, name: range(len(keys))}, schema)


def _expected(labels: list[Key], rows: list[Key]) -> list[int | None]:
    """By a look at every row for every label."""
    found: list[int | None] = []
    for user, at in labels:
        known = [
            (when, place) for place, (of, when) in enumerate(rows) if of == user and when is not None and at is not None
        ]
        before = [pair for pair in known if user is not None and at is not None and pair[0] <= at]
        found.append(max(before)[1] if before else None)
    return found


@given(labels=st.lists(KEYS, max_size=40), rows=st.lists(KEYS, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_label_gets_the_newest_row_that_is_not_later(labels: list[Key], rows: list[Key]) -> None:
    table = _table(labels, "label")
    joined, found = join_as_of(table, _table(rows, "views"), "user", "at")
    expected = _expected(labels, rows)
    assert joined["views"].to_list() == expected
    assert joined.select(table.columns).equals(table)
    assert found == sum(value is not None for value in expected)


def test_every_fault_of_the_tables_is_named() -> None:
    labels = pl.DataFrame({"user": [1], "at": [5], "views": [0]})
    features = pl.DataFrame({"user": ["1"], "views": [1]})
    with pytest.raises(InvalidRequestError) as refused:
        join_as_of(labels, features, "user", "at")
    message = str(refused.value)
    for fault in ("features: must have the column 'at'", "user: must be of one type in both", "already: views"):
        assert fault in message
