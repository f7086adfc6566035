"""Mapping files to begin with: an example of every option, or a draft from the columns of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from headrace.datasets.importing.files import Row, columns_of, read_batches
from headrace.datasets.importing.mapping import Form
from headrace.datasets.importing.targets import FORMS, Sort
from headrace.datasets.importing.values import UnmappedError, number_of

_SAMPLE_ROWS = 1_000

# what columns are often called, likeliest first; compared without case, blanks, dots and dashes
_CALLED: Mapping[str, tuple[str, ...]] = {
    "event_type": ("eventtype", "event", "action", "type", "kind"),
    "visitor_id": ("visitorid", "visitor", "deviceid", "device", "cookie", "anonymousid", "clientid", "sessionid"),
    "user_id": ("userid", "user", "customerid", "customer", "householdid", "memberid"),
    "event_time": ("eventtime", "timestamp", "ts", "time", "datetime", "transactiontimestamp", "createdat", "date"),
    "product_id": ("productid", "product", "itemid", "item", "sku", "stockcode", "articleid", "asin"),
    "quantity": ("quantity", "qty", "units", "count"),
    "price": ("price", "unitprice", "amount"),
    "search_query": ("searchquery", "query", "q", "searchterm", "keywords"),
    "channel": ("channel",),
    "session_id": ("sessionid", "session", "visitid"),
    "transaction_id": ("transactionid", "orderid", "order", "invoice", "invoiceno", "basketid"),
    "event_id": ("eventid",),
    "page_categories": ("pagecategories",),
    "id": ("id", "productid", "itemid", "item", "sku", "stockcode", "asin"),
    "title": ("title", "name", "productname", "description"),
    "description": ("description", "longdescription", "text"),
    "brands": ("brands", "brand", "manufacturer"),
    "categories": ("categories", "category", "categorypath", "department"),
    "original_price": ("originalprice", "listprice", "rrp"),
    "currency_code": ("currencycode", "currency"),
    "availability": ("availability", "stockstatus"),
    "available_quantity": ("availablequantity", "stock", "inventory"),
    "image_uri": ("imageuri", "imageurl", "image"),
    "uri": ("uri", "url", "link"),
    "publish_time": ("publishtime", "publishedat", "firstseen"),
    "expire_time": ("expiretime",),
    "entity_id": ("entityid", "productid", "product", "item", "householdid", "userid"),
    "campaign_id": ("campaignid", "campaign"),
    "store_id": ("storeid", "store", "shop"),
    "valid_from": ("validfrom", "startdate", "start", "from"),
    "valid_until": ("validuntil", "enddate", "end", "until"),
    "number": ("number", "discount", "percent"),
    "text": ("text", "value"),
    "source": ("source",),
    "fact_id": ("factid",),
}
_UNMAPPED = {
    "event_type": '{ value = "detail-page-view" }',
    "visitor_id": '{ value = "unknown" }',
    "event_time": '{ value = "2020-01-01" }',
    "id": '{ value = "unknown" }',
    "title": '{ value = "unknown" }',
    "entity_kind": '{ value = "product" }',
    "entity_id": '{ value = "unknown" }',
    "name": '{ value = "promotion" }',
}
# (least number, unit): a time of this century counted in it is at least so large
_UNITS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (0.0, "s"))


def draft(path: Path, kind: str) -> str:
    """A mapping of a file's columns, guessed by their names; what no column looks like is marked to be written."""
    samples = _samples(path)
    columns = columns_of(path, Form()) or list(dict.fromkeys(name for cells in samples for name in cells))  # type: ignore[call-arg]
    chosen = _chosen(columns, kind)
    lines = [f"# drafted from {json.dumps(path.name)}: read it, then try it with --dry-run", f'kind = "{kind}"', ""]
    lines += ["[fields]", *_field_lines(kind, chosen, samples)]
    left = [column for column in columns if column not in chosen.values()]
    if left:
        lines += ["", "# columns that are not used:"]
        lines += [f"#   {json.dumps(column)}: {_seen(samples, column)}" for column in left]
    return "\n".join(lines) + "\n"


def example(kind: str) -> str:
    """A mapping of the kind that shows every option."""
    return (Path(__file__).parent / "examples" / f"{kind}.toml").read_text()


def quoted(text: str) -> str:
    """A TOML string."""
    # JSON's escapes are TOML's, but for this one
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _samples(path: Path) -> list[Mapping[str, Any]]:
    batches = read_batches(path, Form(), _SAMPLE_ROWS)  # type: ignore[call-arg]
    return [row.cells for batch in islice(batches, 1) for row in batch.rows if isinstance(row, Row)]


def _chosen(columns: list[str], kind: str) -> dict[str, str]:
    """The column of each field that one is called like; a column serves one field."""
    by_plain_name: dict[str, str] = {}
    for column in columns:
        # a name that is not UTF-8 cannot be written down in TOML
        if column.isprintable() and column:
            by_plain_name.setdefault(re.sub(r"[\s._-]", "", column.lower()), column)
    chosen: dict[str, str] = {}
    for field in FORMS[kind].fields:
        names = (name for name in _CALLED.get(field, ()) if name in by_plain_name)
        free = (by_plain_name[name] for name in names if by_plain_name[name] not in chosen.values())
        if (match := next(free, None)) is not None:
            chosen[field] = match
    return chosen


def _field_lines(kind: str, chosen: Mapping[str, str], samples: list[Mapping[str, Any]]) -> Iterator[str]:
    form = FORMS[kind]
    for one_of in form.required:
        if chosen.keys().isdisjoint(one_of):
            yield f"{one_of[0]} = {_UNMAPPED[one_of[0]]}  # no column looks like it: to be written"
    for field, column in chosen.items():
        if form.fields[field].sort is Sort.TIME:
            yield f"{field} = {_time_rule(column, samples)}"
        else:
            yield f"{field} = {quoted(column)}  # such as {_seen(samples, column)}"


def _time_rule(column: str, samples: list[Mapping[str, Any]]) -> str:
    value = next((cells[column] for cells in samples if cells.get(column) is not None), None)
    if value is None or isinstance(value, date):
        return quoted(column)
    try:
        size = abs(number_of(value))
    except UnmappedError:
        return f"{quoted(column)}  # such as {_seen(samples, column)}; ISO 8601, else say `format`"
    unit = next(unit for least, unit in _UNITS if size >= least)
    return f'{{ column = {quoted(column)}, format = "{unit}" }}  # such as {_seen(samples, column)}'


def _seen(samples: list[Mapping[str, Any]], column: str) -> str:
    """A few different values of a column, on one line."""
    values = (str(cells[column])[:30] for cells in samples if cells.get(column) is not None)
    return json.dumps(list(dict.fromkeys(islice(values, 100)))[:3]).replace("\x7f", "")
