"""Dashboards, alerts and the collector name what there is, and every alert says what to do."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from deploy.monitoring.draw import DASHBOARDS, FOLDER, drawn

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy/monitoring"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES}
# what the collector's Prometheus exporter makes of units (its package translator/prometheus)
UNITS = {"ms": "_milliseconds", "s": "_seconds", "By": "_bytes"}
RESOURCE = {"service_name", "service_instance_id", "le"}


def rows(heading: str) -> list[list[str]]:
    part = (ROOT / "docs/telemetry.md").read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in part.splitlines()
        if line.startswith("| `")
    ]


def series_of(name: str, kind: str, unit: str) -> set[str]:
    """The series that Prometheus has of a metric."""
    base = name.replace(".", "_") + UNITS.get(unit, "")
    if kind == "counter":
        return {f"{base}_total"}
    if kind == "histogram":
        return {f"{base}_{part}" for part in ("bucket", "sum", "count")}
    return {base + ("_ratio" if unit == "1" else "")}


SERIES = {series: row[0] for row in rows("Metrics") for series in series_of(*row[:3])}


@cache
def labels() -> set[str]:
    """Attributes that the services give to what they measure."""
    found: set[str] = set()
    for path in (ROOT / "services/headrace").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in ("add", "record", "set") and isinstance(
                node.args[-1] if node.args else None, ast.Dict
            ):
                keys = node.args[-1].keys  # type: ignore[attr-defined]
                found |= {key.value for key in keys if isinstance(key, ast.Constant)}
    return found


def selectors(expression: Any) -> Iterator[tuple[Any, list[str]]]:
    """Each series that an expression reads, with the functions around it."""

    def walk(node: Any, around: list[str]) -> Iterator[tuple[Any, list[str]]]:
        if isinstance(node, promql_parser.VectorSelector):
            yield node, around
        elif isinstance(node, promql_parser.MatrixSelector):
            yield from walk(node.vector_selector, around)
        elif isinstance(node, promql_parser.Call):
            for argument in node.args:
                yield from walk(argument, [*around, node.func.name])
        elif isinstance(node, promql_parser.BinaryExpr):
            yield from walk(node.lhs, around)
            yield from walk(node.rhs, around)
        elif isinstance(node, promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.UnaryExpr):
            yield from walk(node.expr, around)
        elif not isinstance(node, promql_parser.NumberLiteral | promql_parser.StringLiteral):
            raise AssertionError(f"what is {type(node)}?")

    yield from walk(expression, [])


def parsed(text: str) -> Any:
    return promql_parser.parse(text.replace("$__rate_interval", "5m"))


def grouped_by(text: str) -> set[str]:
    return {label.strip() for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(",")}


EXPRESSIONS = [
    *((f"alert {name}", rule["expr"]) for name, rule in ALERTS.items()),
    *(
        (f"{dashboard.name}: {panel.title}", expression)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for expression in panel.series
    ),
]


@pytest.mark.parametrize("text", [text for _, text in EXPRESSIONS], ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_reads_series_that_exist_by_labels_that_exist(text: str) -> None:
    read = list(selectors(parsed(text)))
    assert read
    known = labels() | RESOURCE
    for selector, around in read:
        assert selector.name in SERIES, f"{selector.name} is no metric of docs/telemetry.md"
        assert {matcher.name for matcher in selector.matchers.matchers} <= known
        # sums that only grow say nothing by themselves
        if selector.name.endswith(("_total", "_bucket", "_sum", "_count")):
            assert {"rate", "increase", "absent"} & set(around), f"{selector.name} is read as if it were a gauge"
    assert grouped_by(text) <= known


def test_a_name_that_is_none_is_found() -> None:
    assert next(selectors(parsed("rate(headrace_ranker_anwsers_total[5m])")))[0].name not in SERIES
    assert "headrace_rpc_duration_milliseconds_bucket" in SERIES
    assert "headrace_process_cpu_seconds_total" in SERIES


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {
        SERIES[selector.name]
        for where, text in EXPRESSIONS
        if not where.startswith("alert ")
        for selector, _ in selectors(parsed(text))
    }
    assert {row[0] for row in rows("Metrics")} == shown


def test_the_dashboards_are_those_that_are_drawn_and_shipped() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {dashboard.name for dashboard in DASHBOARDS}
    for dashboard in DASHBOARDS:
        assert (FOLDER / f"{dashboard.name}.json").read_text() == drawn(dashboard), (
            "run python -m deploy.monitoring.draw"
        )
        assert json.loads(drawn(dashboard))["uid"] == f"headrace-{dashboard.name}"
    shipped = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())["configMapGenerator"][0]["files"]
    assert sorted(shipped) == sorted(f"dashboards/{dashboard.name}.json" for dashboard in DASHBOARDS)


def runbooks() -> dict[str, str]:
    parts = re.split(r"^### ", (ROOT / "docs/runbooks.md").read_text(), flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in parts}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert list(runbooks()) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_where_to_look_and_what_to_do(name: str) -> None:
    rule, runbook = ALERTS[name], runbooks()[name]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert f"({rule['labels']['severity']})" in runbook
    for part in ("What it means.", "Where to look.", "What to do."):
        assert re.search(rf"\*\*{re.escape(part)}\*\* \S", runbook)
    # an alert that compares nothing fires for ever
    assert isinstance(parsed(rule["expr"]), promql_parser.BinaryExpr)
    labels_shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert labels_shown <= grouped_by(rule["expr"]) | {"service_name"}


def test_runbooks_name_panels_and_variables_that_exist() -> None:
    titles = {panel.title.split(",")[0] for dashboard in DASHBOARDS for panel in dashboard.panels}
    text = (ROOT / "docs/runbooks.md").read_text()
    for named in re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)(?! \()", text):
        assert any(title.startswith(named.split(",")[0].rstrip(".")) for title in titles), f"no panel {named!r}"
    settings = "".join(path.read_text() for path in (ROOT / "services/headrace").rglob("settings.py"))
    for variable in re.findall(r"HEADRACE_[A-Z_]+", text):
        field = re.sub(r"HEADRACE_(INGEST_|FEATURE_STORE_|TRAINER_|INDEX_|RANKER_)?", "", variable).lower()
        assert f"    {field}:" in settings, f"no setting {variable}"


def collector() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((MONITORING / "collector/collector.yaml").read_text())
    return config


def test_the_collector_uses_what_it_defines_and_defines_what_it_uses() -> None:
    config = collector()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(config[kind])
    assert set(config["service"]["extensions"]) == set(config["extensions"])


def test_the_collector_keeps_every_canary_fallback_and_error() -> None:
    policies = {policy["name"]: policy for policy in collector()["processors"]["tail_sampling"]["policies"]}
    assert policies["canary arm"]["ottl_condition"]["span"] == ['name == "ranker.canary"']
    fallback = policies["fallback to stable"]["string_attribute"]
    assert fallback["key"] == "headrace.fallback"
    assert fallback["enabled_regex_matching"]
    assert [re.fullmatch(fallback["values"][0], reason) is not None for reason in ("timeout", "")] == [True, False]
    assert policies["errors"]["status_code"]["status_codes"] == ["ERROR"]
    degraded = policies["degraded answers"]["string_attribute"]["key"]
    assert degraded in {row[0] for row in rows("Attributes")}
    # a policy that drops would overrule those that keep
    assert not [policy for policy in policies.values() if "invert_match" in str(policy)]


def test_the_collector_gives_metrics_the_labels_that_dashboards_read() -> None:
    exporter = collector()["exporters"]["prometheus"]
    assert exporter["resource_to_telemetry_conversion"]["enabled"]
    assert exporter.get("add_metric_suffixes", True)
