"""Writes Grafana's dashboards from a few words about each panel: `python -m deploy.monitoring.draw`.

Names of metrics are Prometheus', as the collector's exporter makes them (docs/telemetry.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboards"

_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_SOURCE = {"type": "prometheus", "uid": "${source}"}
ANSWERS = 'method=~"Recommend|Search|Rank"'


@dataclass(frozen=True)
class Panel:
    """A picture of some series over time: expression → legend. `unit` is Grafana's."""

    title: str
    series: Mapping[str, str]
    unit: str = "short"
    what: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A page of panels."""

    name: str
    title: str
    panels: Sequence[Panel]


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Events a second of a counter."""
    return f"sum{_by(by)} (rate({metric}{_where(where)}[$__rate_interval]))"


def mean(metric: str, by: str = "") -> str:
    """Mean of what a histogram measured."""
    return (
        f"sum{_by(by)} (rate({metric}_sum[$__rate_interval])) / sum{_by(by)} (rate({metric}_count[$__rate_interval]))"
    )


def quantile(level: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of what a histogram measured."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({level}, sum by ({labels}) (rate({metric}_bucket{_where(where)}[$__rate_interval])))"


def largest(metric: str, by: str) -> str:
    """The largest of a gauge."""
    return f"max by ({by}) ({metric})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _where(condition: str) -> str:
    return f"{{{condition}}}" if condition else ""


def _quantiles(metric: str, where: str = "") -> dict[str, str]:
    return {quantile(level, metric, where=where): f"p{level * 100:g}" for level in (0.5, 0.95, 0.99)}


_RPC_MS = "headrace_rpc_duration_milliseconds"
_REPLICA = "service_name, service_instance_id"

SUITE = Dashboard(
    "suite",
    "Headrace: the suite",
    [
        Panel("Answers", {rate("headrace_ranker_answers_total", "method"): "{{method}}"}, "reqps"),
        Panel(
            "Answers that failed",
            {rate("headrace_rpc_calls_total", "method, status", f'{ANSWERS}, status!="OK"'): "{{method}} {{status}}"},
            "reqps",
        ),
        Panel("Time to answer", _quantiles(_RPC_MS, ANSWERS), "ms"),
        Panel(
            "Degraded answers",
            {
                rate("headrace_ranker_answers_total", where='degraded="True"')
                + " / "
                + rate("headrace_ranker_answers_total"): "share"
            },
            "percentunit",
        ),
        Panel("What answers went without", {rate("headrace_ranker_degraded_total", "reason"): "{{reason}}"}, "reqps"),
        Panel(
            "Stages of an answer, p99",
            {quantile(0.99, "headrace_ranker_stage_duration_milliseconds", "stage"): "{{stage}}"},
            "ms",
        ),
        Panel("Events at the door", {rate("headrace_ingest_events_total", "outcome"): "{{outcome}}"}, "reqps"),
        Panel(
            "Events refused, by reason",
            {rate("headrace_ingest_events_total", "reason", 'outcome="rejected"'): "{{reason}}"},
            "reqps",
        ),
        Panel("Cleaning rules met", {rate("headrace_ingest_rules_total", "rule"): "{{rule}}"}, "reqps"),
        Panel("Time to acknowledge events", _quantiles("headrace_ingest_acknowledge_duration_milliseconds"), "ms"),
        Panel("Dated facts at the door", {rate("headrace_ingest_facts_total", "outcome"): "{{outcome}}"}, "reqps"),
        Panel(
            "Erasures; records trimmed",
            {
                rate("headrace_ingest_erasures_total", "complete"): "erasures, complete: {{complete}}",
                rate("headrace_ingest_trimmed_total"): "trimmed",
            },
        ),
        Panel(
            "Calls by method",
            {rate("headrace_rpc_calls_total", "service_name, method"): "{{service_name}} {{method}}"},
            "reqps",
        ),
        Panel(
            "Calls that failed",
            {
                rate(
                    "headrace_rpc_calls_total", "service_name, method, status", 'status!="OK"'
                ): "{{service_name}} {{method}} {{status}}"
            },
            "reqps",
        ),
        Panel(
            "Records passed over: unreadable",
            {rate("headrace_event_log_unreadable_total", "service_name, kind"): "{{service_name}} {{kind}}"},
        ),
    ],
)

FRESHNESS = Dashboard(
    "freshness",
    "Headrace: freshness of every stage",
    [
        Panel(
            "Event → state (feature store)",
            _quantiles("headrace_feature_store_lag_milliseconds"),
            "ms",
            "From a record's append to its being in the person's state.",
        ),
        Panel(
            "Event → delta (trainer)",
            _quantiles("headrace_trainer_learn_lag_milliseconds"),
            "ms",
            "From a record's append to what was learned of it being durable.",
        ),
        Panel(
            "Event → served vector (index)",
            _quantiles("headrace_trainer_push_lag_milliseconds"),
            "ms",
            "From a record's append to the index's acknowledgement.",
        ),
        Panel("Batch → visible (index)", _quantiles("headrace_index_apply_lag_milliseconds"), "ms"),
        Panel(
            "Records behind the end of the log",
            {largest("headrace_event_log_behind", _REPLICA): "{{service_name}} {{service_instance_id}}"},
            what="Also of a reader that stands still, which measures no lag.",
        ),
        Panel(
            "Records folded and learned",
            {
                rate("headrace_feature_store_records_total"): "folded",
                rate("headrace_trainer_records_total"): "learned",
                rate("headrace_feature_store_back_fill_records_total"): "back-filled",
            },
            "reqps",
        ),
        Panel(
            "Rows pushed and taken",
            {
                rate("headrace_trainer_push_rows_total"): "acknowledged",
                rate("headrace_index_rows_total"): "taken by indexes",
            },
            "reqps",
        ),
        Panel(
            "Gaps, copies, divergences (index)",
            {
                rate("headrace_index_gaps_total"): "gaps",
                rate("headrace_index_catch_ups_total"): "spaces copied",
                rate("headrace_index_divergences_total"): "divergences",
            },
        ),
        Panel("Slices (trainer)", _quantiles("headrace_trainer_slice_duration_milliseconds"), "ms"),
    ],
)

LEARNING = Dashboard(
    "learning",
    "Headrace: quality and forgetting",
    [
        Panel("Recall@20 before learning", {mean("headrace_trainer_prequential_recall"): "recall"}, "percentunit"),
        Panel(
            "Frozen sample: new, old, and old when it was new",
            {mean("headrace_trainer_gauge_recall", "period"): "{{period}}"},
            "percentunit",
            "old below old_fresh: that much is forgotten.",
        ),
        Panel(
            "Skew and comparability at releases",
            {mean("headrace_trainer_skew"): "skew", mean("headrace_trainer_comparability"): "comparability"},
            "percentunit",
        ),
        Panel("Learning rates, times", {mean("headrace_trainer_rate"): "times"}),
        Panel(
            "Drifts",
            {
                rate("headrace_trainer_drifts_total"): "changes for the worse",
                rate("headrace_trainer_rotations_wanted_total"): "a new space is asked for",
            },
        ),
        Panel("New spaces", {rate("headrace_trainer_rotations_total", "reason"): "{{reason}}"}),
        Panel(
            "Stability of features",
            {mean("headrace_feature_store_stability", "feature"): "{{feature}}"},
            what="Population stability index; above 0.2 a feature has moved.",
        ),
        Panel(
            "Values that are no numbers",
            {rate("headrace_feature_store_values_not_finite_total", "feature"): "{{feature}}"},
        ),
        Panel(
            "Recall of the index",
            {mean("headrace_index_check_recall"): "recall"},
            "percentunit",
            "Share of a query's true best that its answer had.",
        ),
    ],
)

SATURATION = Dashboard(
    "saturation",
    "Headrace: saturation",
    [
        Panel(
            "Event loop is late, p99",
            {
                quantile(
                    0.99, "headrace_process_loop_lag_milliseconds", _REPLICA
                ): "{{service_name}} {{service_instance_id}}"
            },
            "ms",
        ),
        Panel(
            "Processor",
            {rate("headrace_process_cpu_seconds_total", _REPLICA): "{{service_name}} {{service_instance_id}}"},
            "percentunit",
        ),
        Panel(
            "Memory",
            {largest("headrace_process_memory_bytes", _REPLICA): "{{service_name}} {{service_instance_id}}"},
            "bytes",
        ),
        Panel("Threads", {largest("headrace_process_threads", _REPLICA): "{{service_name}} {{service_instance_id}}"}),
        Panel(
            "What waits",
            {
                largest(
                    "headrace_process_waiting", "service_name, service_instance_id, queue"
                ): "{{service_name}} {{queue}}"
            },
        ),
        Panel(
            "Time of calls, p99", {quantile(0.99, _RPC_MS, "service_name, method"): "{{service_name}} {{method}}"}, "ms"
        ),
        Panel("Searches", {rate("headrace_index_queries_total"): "queries"}, "reqps"),
        Panel("Time to search", _quantiles("headrace_index_search_duration_milliseconds"), "ms"),
        Panel(
            "People in memory",
            {
                largest("headrace_feature_store_users_held", _REPLICA): "{{service_instance_id}}",
                rate("headrace_feature_store_users_fetched_total"): "fetched a second",
            },
        ),
        Panel("Snapshots (feature store)", _quantiles("headrace_feature_store_snapshot_duration_milliseconds"), "ms"),
        Panel(
            "People's tier to a snapshot", _quantiles("headrace_feature_store_users_store_duration_milliseconds"), "ms"
        ),
    ],
)

ROLLOUTS = Dashboard(
    "rollouts",
    "Headrace: rollouts of weights",
    [Panel("Steps of rollouts", {rate("headrace_rollout_transitions_total", "kind, phase"): "{{kind}} {{phase}}"})],
)

DASHBOARDS = (SUITE, FRESHNESS, LEARNING, SATURATION, ROLLOUTS)


def drawn(dashboard: Dashboard) -> str:
    """A dashboard as Grafana reads it."""
    document = {
        "uid": f"headrace-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["headrace"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(document, indent=2) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, object]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.what,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.series.items())
        ],
    }


def main() -> None:
    """Writes all of them."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.name}.json").write_text(drawn(dashboard))


if __name__ == "__main__":
    main()
