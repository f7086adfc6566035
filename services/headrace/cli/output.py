"""What a command prints: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    Console(soft_wrap=True, highlight=False, markup=False).print(json.dumps(value, indent=2, default=str))


def as_dict(message: Message) -> dict[str, Any]:
    """A message with the names of its proto file, fields without a value too."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
    """A table on standard output; numbers are aligned to the right."""
    table = Table(title=title or None, caption=caption or None, title_justify="left", caption_justify="left")
    for place, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    Console(markup=False).print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Name and value, a line each."""
    console, width = Console(markup=False, highlight=False, soft_wrap=True), max(map(len, facts), default=0)
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
