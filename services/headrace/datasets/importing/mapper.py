"""Rows as messages, by a mapping; a row that cannot be one has all of its reasons told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.datasets.importing.files import Row, read_batches
from headrace.datasets.importing.mapping import MappingFile, Rule
from headrace.datasets.importing.targets import FORMS, Message, Sort, Target, message_of
from headrace.datasets.importing.values import Cells, UnmappedError, cell, converter, number_of, text_of
from headrace.runtime.errors import InvalidRequestError

_MOST_LOOKED_UP = 1_000_000

# the value of a field from a row; None leaves it out
Read = Callable[[Cells], Any]


class RejectedRowError(ValueError):
    """A row that cannot be mapped; `reasons` has a sentence a field."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class Mapper:
    """Makes messages of rows. Tables that are looked up are read from `folder`, whole, when it is made."""

    def __init__(self, mapping: MappingFile, folder: Path) -> None:
        self._kind = mapping.kind
        form = FORMS[mapping.kind]
        tables = _Tables(folder, mapping)
        self._fields = {
            name: _reader(rule, form.fields[name], mapping.zone, tables) for name, rule in mapping.fields.items()
        }
        text = Target(Sort.TEXT)
        self._extra = {name: _reader(rule, text, mapping.zone, tables) for name, rule in mapping.extra.items()}
        self._extra_name = form.extra
        self._skip = {column: frozenset(texts) for column, texts in mapping.skip.items()}

    def is_skipped(self, cells: Cells) -> bool:
        """Whether the mapping says that such rows are not meant."""
        return any(_text_or_none(cell(cells, column)) in texts for column, texts in self._skip.items())

    def message(self, cells: Cells) -> Message:
        """The row's message. RejectedRowError tells everything that is wrong with it."""
        reasons: list[str] = []
        values = _read_all(self._fields, cells, "", reasons)
        extra = _read_all(self._extra, cells, f"{self._extra_name}.", reasons)
        if reasons:
            raise RejectedRowError(reasons)
        return message_of(self._kind, values, extra)


def _text_or_none(value: Any) -> str | None:
    try:
        return "" if value is None else text_of(value)
    except UnmappedError:
        return None


def _read_all(reads: Mapping[str, Read], cells: Cells, prefix: str, reasons: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, read in reads.items():
        try:
            value = read(cells)
        except UnmappedError as error:
            reasons.append(f"{prefix}{name}: {error}")
            continue
        if value is not None:
            values[name] = value
    return values


def _reader(rule: Rule, target: Target, zone: str, tables: _Tables) -> Read:
    """Cell → looked up → mapped → converted → divided; an empty one takes the default, or is left out."""
    convert = converter(rule, target, zone)
    translate = _translator(rule, tables, target.sort is Sort.TEXTS)

    def read(cells: Cells) -> Any:
        value = _origin(rule, cells)
        if value is not None:
            value = translate(value)
        if value is None:
            value = rule.default
        if value is None:
            return None
        made = convert(value)
        return made if rule.per is None else made / _divisor(cell(cells, rule.per), rule.per)

    return read


def _origin(rule: Rule, cells: Cells) -> Any:
    if rule.column is not None:
        return cell(cells, rule.column)
    if rule.value is not None:
        return rule.value
    parts = [cell(cells, column) for column in rule.columns]
    if rule.skip_empty:
        parts = [part for part in parts if part is not None]
    return rule.join.join(text_of(part) if part is not None else "" for part in parts) if parts else None


def _translator(rule: Rule, tables: _Tables, is_list: bool) -> Callable[[Any], Any]:
    table = tables.of(rule)
    words = rule.map

    def translate(value: Any) -> Any:
        if table is not None:
            value = _found(table, text_of(value), f"in {rule.lookup.file if rule.lookup else ''}")
        if not words or value is None:
            return value
        if is_list:
            parts = value if isinstance(value, list) else text_of(value).split(rule.split) if rule.split else [value]
            return [_found(words, text_of(part).strip(), "in the map", rule.otherwise) for part in parts]
        return _found(words, text_of(value), "in the map", rule.otherwise)

    return translate


def _found(table: Mapping[str, Any], text: str, where: str, otherwise: str | None = None) -> Any:
    if text in table:
        return table[text]
    if otherwise is None:
        raise UnmappedError(f"is not {where}: {text[:60]!r}")
    return otherwise


def _divisor(value: Any, column: str) -> float:
    if value is None:
        raise UnmappedError(f"is to be divided by {column}, which is empty")
    # no units counts as one, as in the contract
    return number_of(value) or 1.0


class _Tables:
    """Tables that are looked up, by rule."""

    def __init__(self, folder: Path, mapping: MappingFile) -> None:
        self._folder = folder
        self._form = mapping.file

    def of(self, rule: Rule) -> dict[str, Any] | None:
        if rule.lookup is None:
            return None
        path, key, value = self._folder / rule.lookup.file, rule.lookup.key, rule.lookup.value
        table: dict[str, Any] = {}
        for row in self._rows(path):
            found = cell(row.cells, key)
            if found is not None:
                table[text_of(found)] = cell(row.cells, value)
            if len(table) > _MOST_LOOKED_UP:
                raise InvalidRequestError.of(str(path), f"must have at most {_MOST_LOOKED_UP} rows to be looked up in")
        return table

    def _rows(self, path: Path) -> Iterator[Row]:
        for batch in read_batches(path, self._form):
            for row in batch.rows:
                if not isinstance(row, Row):
                    raise InvalidRequestError.of(str(path), f"row {row.number} {row.reason}")
                yield row
