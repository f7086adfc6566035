"""docs/telemetry.md and the code name the same metrics and spans."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in (ROOT / "services/headrace").rglob("*.py") if "v1" not in path.parts]


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a function of these names in the services."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield node.func.id, node


def documented(heading: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    text = (ROOT / "docs/telemetry.md").read_text()
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


def test_every_metric_is_documented_with_its_kind_and_unit() -> None:
    coded = set()
    for kind, call in calls("counter", "gauge", "histogram"):
        name, unit = (argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant))
        coded.add((name, kind, unit))
    assert {(row[0], row[1], row[2]) for row in documented("Metrics")} == coded


def test_every_span_is_documented() -> None:
    named = set()
    for _, call in calls("span"):
        first = call.args[0]
        if isinstance(first, ast.Constant):
            named.add(first.value)
        elif isinstance(first, ast.JoinedStr):
            named.add(f"{ast.literal_eval(first.values[0])}*")
    assert {row[0] for row in documented("Spans")} == named


def test_every_attribute_of_the_suite_is_documented() -> None:
    # those that are keys of facts, that are set alone, or that a constant names
    named: set[object] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            keys: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                keys = list(node.keys)
            elif isinstance(node, ast.Assign):
                keys = [node.value]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                keys = list(node.args[:1]) if node.func.attr == "set_attribute" else []
            named |= {key.value for key in keys if isinstance(key, ast.Constant)}
    attributes = {name for name in named if isinstance(name, str) and re.fullmatch(r"headrace\.[a-z_]+", name)}
    assert {row[0] for row in documented("Attributes")} == attributes


def test_metric_names_say_whose_they_are() -> None:
    owners = "process|rpc|event_log|ingest|feature_store|trainer|rollout|index|ranker"
    for row in documented("Metrics"):
        assert re.fullmatch(rf"headrace\.({owners})\.[a-z_.]+", row[0])
