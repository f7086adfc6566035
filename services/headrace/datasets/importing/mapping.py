"""The mapping file: which column is which field. Read from TOML, with every fault named."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from headrace.datasets.importing.targets import FORMS, Sort
from headrace.runtime.errors import Fault, Faults, InvalidRequestError

UNITS = ("s", "ms", "us", "ns", "days", "weeks")
_MOST_BYTES = 1 << 20

Constant = str | bool | int | float | list[str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lookup(_Strict):
    """A small table beside the imported file: the cell is looked for in `key`, what stands in `value` is taken."""

    file: str = Field(min_length=1)
    key: str = Field(min_length=1)
    value: str = Field(min_length=1)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    # an impossible name may be a folder or too long for a file
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("is no time zone such as Europe/London") from error
    return name


Zone = Annotated[str, AfterValidator(_zone)]


class Rule(_Strict):
    """How one field is made. One of `column`, `columns` and `value` says from what."""

    column: str | None = Field(None, min_length=1, description="its cell; a.b is b within a")
    columns: list[str] = Field([], description="their cells, joined")
    join: str = Field("/", description="what stands between `columns`")
    skip_empty: bool = Field(False, description="empty cells of `columns` are left out; else their place stays empty")
    value: Constant | None = Field(None, description="the same for every row")
    lookup: Lookup | None = None
    map: dict[str, str] = Field({}, description="what stands in the file → what is meant")
    otherwise: str | None = Field(None, description="for what the map has not; without it the row is rejected")
    default: Constant | None = Field(None, description="where the cell is empty")
    prefix: str = Field("", description="text put in front")
    split: str | None = Field(None, min_length=1, description="what stands between the texts of a cell")
    factor: float = Field(1.0, description="multiplies a number: 0.01 makes cents units")
    per: str | None = Field(None, min_length=1, description="column that a number is divided by; 0 counts as 1")
    format: str | None = Field(None, description="of a time: s, ms, us, ns, days, weeks, or %Y-%m-%d …; else ISO 8601")
    since: str | None = Field(None, description="the moment that a number counts from; 1970-01-01")
    zone: Zone | None = None
    add_days: int = Field(0, ge=-36_500, le=36_500, description="days put on top of a time: 1 makes a last day an end")

    @field_validator("factor")
    @classmethod
    def _is_a_factor(cls, factor: float) -> float:
        if not math.isfinite(factor) or factor == 0:
            raise ValueError("must be finite and not 0")
        return factor

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, form: str | None) -> str | None:
        if form is None or form in UNITS:
            return form
        try:
            datetime.strptime(datetime(2001, 2, 3, 4, 5, 6).strftime(form), form)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"must be {', '.join(UNITS)} or a format such as %Y-%m-%d %H:%M ({error})") from error
        if "%" not in form:
            raise ValueError(f"must be {', '.join(UNITS)} or a format such as %Y-%m-%d %H:%M")
        return form

    @field_validator("since")
    @classmethod
    def _is_a_moment(cls, since: str | None) -> str | None:
        if since is not None:
            datetime.fromisoformat(since)
        return since

    @model_validator(mode="after")
    def _has_one_origin(self) -> Rule:
        if (self.column is not None) + bool(self.columns) + (self.value is not None) != 1:
            raise ValueError("must have one of column, columns and value")
        if self.otherwise is not None and not self.map:
            raise ValueError("otherwise stands beside a map")
        return self

    def named_columns(self) -> Iterator[str]:
        """The columns that it reads."""
        yield from filter(None, (self.column, *self.columns, self.per))


def _spelled_out(given: object) -> object:
    return {"column": given} if isinstance(given, str) else given


FieldRule = Annotated[Rule, BeforeValidator(_spelled_out)]


class Group(_Strict):
    """Rows that are one event: lines of a basket become its products."""

    by: list[str] = Field(min_length=1, description="columns that rows of one event have alike")
    within_rows: int = Field(10_000, ge=1, le=1_000_000, description="how far apart rows of one event may stand")


class Form(_Strict):
    """How a text file is written."""

    separator: str = Field(",", min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    nulls: list[str] = Field(["", "null", "NULL", "NA", "NaN"], description="texts that stand for nothing")

    @model_validator(mode="after")
    def _are_apart(self) -> Form:
        for character in (self.separator, self.quote):
            if character in "\r\n\0" or not character.isascii():
                raise ValueError("separator and quote must be ASCII, and no end of a line")
        if self.separator == self.quote or self.quote == " ":
            raise ValueError("separator and quote must differ, and the quote be no blank")
        return self


class MappingFile(_Strict):
    """The whole file."""

    kind: Literal["events", "products", "facts"]
    zone: Zone = "UTC"
    file: Form = Form()  # type: ignore[call-arg]  # pydantic's defaults
    fields: dict[str, FieldRule]
    labels: dict[str, FieldRule] = {}
    attributes: dict[str, FieldRule] = {}
    skip: dict[str, list[str]] = Field({}, description="rows that are not meant: column → its texts")
    group: Group | None = None
    number_repeats: bool = Field(False, description="equal rows are separate events, not repeats of one")

    @property
    def extra(self) -> dict[str, Rule]:
        """Rules of the free facts: labels of events, attributes of products."""
        return self.labels or self.attributes

    def named_columns(self) -> dict[str, str]:
        """Every column that is read, with the key of the file that names it first."""
        named: dict[str, str] = {}
        for table, rules in (("fields", self.fields), (FORMS[self.kind].extra, self.extra)):
            for name, rule in rules.items():
                for column in rule.named_columns():
                    named.setdefault(column, f"{table}.{name}")
        for column in self.skip:
            named.setdefault(column, "skip")
        for column in self.group.by if self.group else ():
            named.setdefault(column, "group.by")
        return named


def load_mapping(path: Path) -> MappingFile:
    """The mapping in a file. InvalidRequestError names every fault: file, key, value."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidRequestError.of(str(path), f"must have at most {_MOST_BYTES} bytes")
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise InvalidRequestError.of(str(path), f"cannot be read: {error}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, name: str = "mapping") -> MappingFile:
    """The mapping that a TOML text is; `name` stands in front of faults."""
    try:
        tables = tomllib.loads(text)
    # nested too deeply
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRequestError.of(name, f"is not TOML: {error}") from error
    try:
        mapping = MappingFile.model_validate(tables)
    except ValidationError as error:
        raise InvalidRequestError([_fault(name, one) for one in error.errors()]) from error
    _check(mapping, name)
    return mapping


def _fault(name: str, error: Any) -> Fault:
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    given = "" if error["type"] in ("missing", "extra_forbidden") else f", got {error['input']!r:.80}"
    words = "is no key of a mapping" if error["type"] == "extra_forbidden" else error["msg"]
    return Fault(f"{name}: {where}", words.removeprefix("Value error, ") + given)


# options that say nothing to fields of other sorts
_OF_SORTS = {
    "split": (Sort.TEXTS,),
    "factor": (Sort.NUMBER, Sort.WHOLE),
    "per": (Sort.NUMBER,),
    "format": (Sort.TIME,),
    "since": (Sort.TIME,),
    "zone": (Sort.TIME,),
    "add_days": (Sort.TIME,),
    "prefix": (Sort.TEXT, Sort.TEXTS),
}


def _check(mapping: MappingFile, name: str) -> None:
    """What can be said only of the whole."""
    faults, form = Faults(), FORMS[mapping.kind]
    for field, rule in mapping.fields.items():
        where = f"{name}: fields.{field}"
        if field not in form.fields:
            faults.add(where, f"is no field of {mapping.kind}; known: {', '.join(form.fields)}")
            continue
        sort = form.fields[field].sort
        for option in sorted(rule.model_fields_set & _OF_SORTS.keys()):
            faults.check(sort in _OF_SORTS[option], f"{where}.{option}", f"says nothing about a {sort.value}")
    for one_of in form.required:
        faults.check(
            not mapping.fields.keys().isdisjoint(one_of), f"{name}: fields.{' or '.join(one_of)}", "must be mapped"
        )
    for table, rules in (("labels", mapping.labels), ("attributes", mapping.attributes)):
        faults.check(not rules or table == form.extra, f"{name}: {table}", f"is nothing that {mapping.kind} have")
    is_of_events = mapping.kind == "events"
    faults.check(is_of_events or mapping.group is None, f"{name}: group", "is for events")
    faults.check(is_of_events or not mapping.number_repeats, f"{name}: number_repeats", "is for events")
    has_both = mapping.number_repeats and "event_id" in mapping.fields
    faults.check(not has_both, f"{name}: number_repeats", "is for events without a mapped event_id")
    faults.raise_if_any()
