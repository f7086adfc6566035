"""Rows of Parquet, CSV and JSON-lines files, a batch at a time, in memory that does not grow with the file.

A row that cannot be read is told apart and stops nothing. Blank lines are no rows. Cells of a CSV file are texts:
nobody guesses that 007 is a number.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from headrace.datasets.importing.mapping import Form
from headrace.datasets.importing.values import Cells
from headrace.runtime.errors import InvalidRequestError

BATCH_ROWS = 2_000
_LINE_CHARACTERS = 1 << 20
_SHOWN_CHARACTERS = 2_000
_READING = (OSError, EOFError, zlib.error)

_CSV, _JSON, _PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json"), (".parquet", ".pq")
SUFFIXES = (*_CSV, *_JSON, *_PARQUET)


@dataclass(frozen=True, slots=True)
class Row:
    """A row with its number in the file, from 1 (the header is none)."""

    number: int
    cells: Cells


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is none: the text that stands there, and why."""

    number: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows in order; `share` of the file's bytes has been read."""

    rows: list[Row | Unreadable]
    share: float


def read_batches(path: Path, form: Form, size: int = BATCH_ROWS) -> Iterator[RowBatch]:
    """The rows of a file. InvalidRequestError when it is none of the known kinds, or breaks off."""
    suffix = _suffix(path)
    return _parquet_batches(path, size) if suffix in _PARQUET else _text_batches(path, suffix in _CSV, form, size)


def columns_of(path: Path, form: Form) -> list[str] | None:
    """The columns of a file, `a.b` for b within a; None for JSON lines, where every row has its own."""
    suffix = _suffix(path)
    if suffix in _JSON:
        return None
    if suffix in _CSV:
        with _opened(path) as (text, _):
            return _header(path, csv.reader(_Lines(text), **_dialect(path, form)))
    return list(_column_names(_parquet_frame(path).collect_schema()))


def _suffix(path: Path) -> str:
    *_, last = ["", *path.suffixes]
    inner = Path(path.stem).suffix.lower() if last.lower() == ".gz" else last.lower()
    if inner not in SUFFIXES or (inner in _PARQUET and last.lower() == ".gz"):
        raise InvalidRequestError.of(str(path), f"must end in {', '.join(SUFFIXES)}; .gz may follow but to Parquet")
    if not path.is_file():
        raise InvalidRequestError.of(str(path), "is not there, or no file")
    return inner


def _column_names(fields: Any, prefix: str = "") -> Iterator[str]:
    import polars as pl

    for name, kind in fields.items():
        yield prefix + name
        if isinstance(kind, pl.Struct):
            yield from _column_names(dict(kind), f"{prefix}{name}.")


def _parquet_batches(path: Path, size: int) -> Iterator[RowBatch]:
    import polars as pl

    number, total = 0, 1
    try:
        frame = _parquet_frame(path)
        total = max(frame.select(pl.len()).collect().item(), 1)
        for batch in frame.collect_batches(chunk_size=size, maintain_order=True, lazy=True):
            for part in batch.iter_slices(size):
                rows: list[Row | Unreadable] = [
                    Row(number + place, cells) for place, cells in enumerate(part.iter_rows(named=True), 1)
                ]
                number += len(rows)
                yield RowBatch(rows, number / total)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, *_READING, ValueError, OverflowError) as error:
        raise InvalidRequestError.of(str(path), f"breaks off after row {number}: {_first_line(error)}") from error


def _parquet_frame(path: Path) -> Any:
    import polars as pl

    try:
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InvalidRequestError.of(str(path), f"is no Parquet file: {_first_line(error)}") from error
    return frame


def _text_batches(path: Path, is_csv: bool, form: Form, size: int) -> Iterator[RowBatch]:
    number, whole = 0, max(_size(path), 1)
    with _opened(path) as (text, raw):
        rows = _csv_rows(path, text, form) if is_csv else _json_rows(text)
        failure: Exception | None = None
        while failure is None:
            batch, failure = _gathered(rows, size)
            if not batch:
                break
            number = batch[-1].number
            yield RowBatch(batch, min(raw.tell() / whole, 1.0))
    if failure is not None:
        raise InvalidRequestError.of(str(path), f"breaks off after row {number}: {_first_line(failure)}") from failure


def _gathered(rows: Iterator[Row | Unreadable], size: int) -> tuple[list[Row | Unreadable], Exception | None]:
    """Up to `size` rows, and what went wrong after them."""
    batch: list[Row | Unreadable] = []
    try:
        # one by one: those before a failure count
        for row in islice(rows, size):
            batch.append(row)  # noqa: PERF402
    except _READING as error:
        return batch, error
    return batch, None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InvalidRequestError.of(str(path), f"cannot be read: {error}") from error


class _opened:  # noqa: N801  # used as a function
    """The text of a file, and the file itself for how far it was read."""

    def __init__(self, path: Path) -> None:
        try:
            self._raw = path.open("rb")
        except OSError as error:
            raise InvalidRequestError.of(str(path), f"cannot be read: {error}") from error
        is_packed = path.name.lower().endswith(".gz")
        unpacked: BinaryIO = gzip.GzipFile(fileobj=self._raw) if is_packed else self._raw  # type: ignore[assignment]
        # what is not UTF-8 is found where it is used, and written back as it was
        self._text = io.TextIOWrapper(unpacked, "utf-8", errors="surrogateescape", newline="")

    def __enter__(self) -> tuple[io.TextIOWrapper, BinaryIO]:
        return self._text, self._raw

    def __exit__(self, *error: object) -> None:
        self._raw.close()


class _Lines:
    """Lines of a text; keeps those that were read since `taken` was called last.

    Of a line longer than 1 MiB something stands in its place that no reader takes.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._kept: list[str] = []
        self._is_first = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        if self._is_first:
            # the codec "utf-8-sig" loses a file that is only the beginning of a mark
            line, self._is_first = line.removeprefix("\ufeff"), False
        if len(line) == _LINE_CHARACTERS and line[-1] not in "\r\n":
            while (rest := self._text.readline(_LINE_CHARACTERS)) and rest[-1] not in "\r\n":
                pass
            line = "x" * (csv.field_size_limit() + 1) + "\n"
        self._kept.append(line[:_SHOWN_CHARACTERS])
        return line

    def taken(self) -> str:
        text, self._kept = "".join(self._kept)[:_SHOWN_CHARACTERS], []
        return text


def _csv_rows(path: Path, text: io.TextIOWrapper, form: Form) -> Iterator[Row | Unreadable]:
    lines = _Lines(text)
    reader = csv.reader(lines, **_dialect(path, form))
    header, nulls, number = _header(path, reader), frozenset(form.nulls), 0
    while True:
        lines.taken()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            number += 1
            yield Unreadable(number, lines.taken(), f"is no row: {error}")
            continue
        if cells is None:
            return
        if not cells:
            continue
        number += 1
        if len(cells) != len(header):
            yield Unreadable(number, lines.taken(), f"must have {len(header)} cells as the header, got {len(cells)}")
            continue
        values = (None if value in nulls else value for value in cells)
        yield Row(number, dict(zip(header, values, strict=True)))


def _dialect(path: Path, form: Form) -> dict[str, Any]:
    is_by_tabs = _suffix(path) == ".tsv" and "separator" not in form.model_fields_set
    return {"delimiter": "\t" if is_by_tabs else form.separator, "quotechar": form.quote}


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, None)
    except (csv.Error, *_READING) as error:
        raise InvalidRequestError.of(str(path), f"has no header: {_first_line(error)}") from error
    if not header:
        raise InvalidRequestError.of(str(path), "has no header: its first line is empty")
    twice = sorted({name for name in header if header.count(name) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise InvalidRequestError.of(str(path), f"has columns of one name: {', '.join(map(repr, twice[:5]))}")
    return header


def _json_rows(text: io.TextIOWrapper) -> Iterator[Row | Unreadable]:
    number = 0
    for line in _Lines(text):
        if not line.strip():
            continue
        number += 1
        try:
            cells = json.loads(line)
        # nested too deeply
        except (ValueError, RecursionError) as error:
            yield Unreadable(number, line[:_SHOWN_CHARACTERS], f"is not JSON: {_first_line(error)}")
            continue
        if isinstance(cells, dict):
            yield Row(number, cells)
        else:
            yield Unreadable(number, line[:_SHOWN_CHARACTERS], "must be a JSON object")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
