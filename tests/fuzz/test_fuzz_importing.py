"""Whatever a file or a mapping holds: a clear error or an account of every row, and never a crash.

Cases that once failed stand as examples.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.datasets.importing.drafting import draft, quoted
from headrace.datasets.importing.importing import import_batches
from headrace.datasets.importing.mapping import MappingFile, parse_mapping
from headrace.datasets.importing.targets import FORMS, KINDS
from headrace.runtime.errors import InvalidRequestError
from headrace.v1.common_pb2 import UserEvent
from tests.fuzz.profile import fuzz

COLUMNS = ("who", "when", "what", "many")
MAPPING = parse_mapping(
    """
    kind = "events"
    [fields]
    event_type = { value = "detail-page-view" }
    visitor_id = "who"
    event_time = "when"
    product_id = "what"
    quantity = { column = "many", factor = 2 }
    price = { column = "many", per = "many" }
    page_categories = { column = "what", split = ">" }
    channel = { column = "what", map = { a = "web" }, otherwise = "app" }
    [labels]
    inner = "what.in"
    """
)
COUNTED = parse_mapping(
    """
    kind = "events"
    number_repeats = true
    group = { by = ["who"], within_rows = 2 }
    skip = { what = ["a"] }
    [fields]
    event_type = { value = "detail-page-view" }
    visitor_id = "who"
    event_time = { column = "when", format = "us", since = "2000-01-01", add_days = 1, zone = "Europe/London" }
    product_id = "what"
    quantity = "many"
    """
)


def check_words(error: InvalidRequestError, never: str = "") -> None:
    """An error says something of some field."""
    assert all(fault.field and fault.description for fault in error.faults)
    assert not never or never not in str(error)


def account(name: str, data: bytes, mapping: MappingFile) -> int | None:
    """The rows of a file, each of which is in a message, skipped or rejected; None when the file is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        rows = skipped = 0
        placed: list[int] = []
        try:
            for batch in import_batches(path, mapping, size=7):
                rows, skipped = rows + batch.rows, skipped + batch.skipped
                assert all(reject.reasons and all(reject.reasons) for reject in batch.rejects)
                json.dumps([reject.content for reject in batch.rejects], default=str)
                placed += [reject.row for reject in batch.rejects]
                for one in batch.mapped:
                    placed += one.rows
                    assert UserEvent.FromString(one.message.SerializeToString()) == one.message
        except InvalidRequestError as error:
            check_words(error)
            return None
    assert rows == skipped + len(placed)
    assert len(set(placed)) == len(placed)
    assert all(1 <= row <= rows for row in placed)
    return rows


TEXT = st.text(max_size=20) | st.sampled_from(
    [
        "a",
        "1",
        "-3",
        "1e400",
        "nan",
        "0x1",
        "2020-01-01",
        "2020-02-30",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01",
        "1_0",
    ]
)
CELL = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(CELL, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
MAPPINGS = st.sampled_from([MAPPING, COUNTED])


@fuzz
@given(st.binary(max_size=400), MAPPINGS, st.booleans())
@example(b"who,when,what,many\n\xff,1,2,3\n", MAPPING, False)
@example(b'who,when,what,many\n"open,1,2,3\na,b,c,d\n', MAPPING, False)
@example(b"", COUNTED, True)
def test_any_bytes_as_csv(data: bytes, mapping: MappingFile, is_packed: bool) -> None:
    account("f.csv.gz" if is_packed else "f.csv", data, mapping)


@fuzz
@given(st.lists(st.lists(TEXT, min_size=3, max_size=5), max_size=12), MAPPINGS, st.integers(0, 60))
def test_any_cells_in_a_csv(rows: list[list[str]], mapping: MappingFile, cut: int) -> None:
    lines = [",".join(COLUMNS), *(",".join(row) for row in rows)]
    data = "\n".join(lines).encode(errors="surrogatepass")
    account("f.csv", data, mapping)
    packed = gzip.compress(data)
    account("f.csv.gz", packed[: len(packed) - cut], mapping)


@fuzz
@given(st.lists(st.binary(max_size=40) | st.dictionaries(st.sampled_from(COLUMNS), JSON), max_size=12), MAPPINGS)
@example([{"who": 10**400, "when": 10**4000, "what": "\ud800", "many": 1e308}], MAPPING)
@example([{"who": "v", "when": 10**400, "what": "p", "many": 10**400}], COUNTED)
@example([b"[" * 100_000, b"7", b'{"many": ' + b"9" * 5_000 + b"}"], COUNTED)
@example([b"x" * (1 << 21), {"who": "v"}], MAPPING)
@example([b"\xef"], MAPPING)
def test_any_json_lines(lines: list[bytes | dict[str, Any]], mapping: MappingFile) -> None:
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    rows = account("f.jsonl", data, mapping)
    lines_there = re.split("\r\n|\r|\n", data.decode(errors="surrogateescape").removeprefix("\ufeff"))
    assert rows == sum(1 for line in lines_there if line.strip())


FRAME = st.fixed_dictionaries({column: st.lists(CELL, min_size=5, max_size=5) for column in COLUMNS})


def parquet_of(columns: dict[str, list[Any]]) -> bytes:
    frame = pl.DataFrame({name: pl.Series(values, strict=False) for name, values in columns.items()})
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


PARQUET = parquet_of({"who": ["a"] * 9, "when": list(range(9)), "what": ["p", "q", None] * 3, "many": [1.5] * 9})


@fuzz
@given(FRAME, MAPPINGS)
def test_any_cells_in_a_parquet_file(columns: dict[str, list[Any]], mapping: MappingFile) -> None:
    columns = {name: [_fitting(value) for value in values] for name, values in columns.items()}
    assert account("f.parquet", parquet_of(columns), mapping) in (None, 5)


def _fitting(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return value if not isinstance(value, int) or abs(value) < 2**62 else None


@fuzz
@given(
    st.binary(max_size=300)
    | st.builds(
        lambda place, new, cut: (PARQUET[:place] + new + PARQUET[place + len(new) :])[: len(PARQUET) - cut],
        st.integers(0, len(PARQUET) - 1),
        st.binary(min_size=1, max_size=4),
        st.sampled_from([0, 0, 0, 1, 9, 100]),
    ),
    MAPPINGS,
)
def test_any_bytes_as_parquet(data: bytes, mapping: MappingFile) -> None:
    account("f.parquet", data, mapping)


@fuzz
@given(st.binary(max_size=300))
def test_any_bytes_as_a_mapping(data: bytes) -> None:
    try:
        parse_mapping(data.decode(errors="replace"))
    except InvalidRequestError as error:
        check_words(error)


OPTIONS = [
    "column", "columns", "join", "value", "lookup", "map", "otherwise", "default", "prefix", "split", "factor", "per",
    "format", "since", "zone", "add_days", "skip_empty", "wrong",
]  # fmt: skip
# dates and times are TOML's own values
VALUE = (
    st.sampled_from(["who", "what", "%Y", "%", "us", "weeks", "Europe/London", "../..", "2020-01-01", ""])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.integers(-(2**62), 2**62)
    | st.floats()
    | st.booleans()
)
TOML_VALUE = st.recursive(VALUE, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
RULE = VALUE | st.dictionaries(
    st.sampled_from(OPTIONS), TOML_VALUE | st.dictionaries(st.sampled_from(["a", "b"]), VALUE, max_size=2), max_size=4
)


@st.composite
def likely_mappings(draw: st.DrawFn) -> str:
    """Mappings that are nearly right."""
    kind = draw(st.sampled_from(KINDS))
    rules = draw(st.dictionaries(st.sampled_from(list(FORMS[kind].fields)), RULE, max_size=4))
    for one_of in FORMS[kind].required:
        if draw(st.integers(0, 9)):
            rules[one_of[0]] = draw(st.sampled_from(["who", "when", {"value": "2020-01-01"}, {"value": "product"}]))
    lines = [f"kind = {quoted(kind)}", "[fields]"]
    return "\n".join([*lines, *(f"{name} = {toml(rule)}" for name, rule in rules.items())])


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + " }"
    return repr(value)


REQUIRED = 'kind = "facts"\n[fields]\nentity_kind = "who"\nentity_id = "who"\nname = "who"\n'


@fuzz
@example(REQUIRED + "valid_from = { column = 'when', zone = 0 }", [])
@example(REQUIRED + "valid_from = { column = 'when', zone = {} }", [])
@given(likely_mappings(), st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELL)), max_size=4))
def test_any_mapping_of_any_cells(text: str, rows: list[dict[str, Any]]) -> None:
    try:
        mapping = parse_mapping(text)
    except InvalidRequestError as error:
        check_words(error)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        try:
            batches = list(import_batches(path, mapping))
        except InvalidRequestError as error:
            # a table to be looked up in is not there
            check_words(error, "f.jsonl" if "lookup" not in text else "")
            return
    assert len(rows) == sum(len(batch.rejects) + len(batch.mapped) for batch in batches)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@fuzz
@given(st.lists(NAMES, min_size=1, max_size=6), st.sampled_from(KINDS))
@example(["user\x7fid", 'a"b', "event_type"], "events")
def test_any_columns_have_a_draft_that_is_a_mapping(columns: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.jsonl"
        path.write_text(json.dumps(dict.fromkeys(columns, "x")) + "\n")
        assert parse_mapping(draft(path, kind)).kind == kind
