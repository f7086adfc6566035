from __future__ import annotations

import json
import logging
import sys

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from headrace.runtime.logs import JsonFormatter, configure_logs


def line_of(**fields: object) -> dict[str, object]:
    record = logging.makeLogRecord(
        {"name": "headrace.x", "levelname": "INFO", "msg": "swapped", "created": 0.0} | fields
    )
    return dict(json.loads(JsonFormatter("ranker").format(record)))


def test_a_line_is_json_with_the_event_and_its_fields() -> None:
    assert line_of(release="r-7", rows=3) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "INFO",
        "service": "ranker",
        "logger": "headrace.x",
        "event": "swapped",
        "release": "r-7",
        "rows": 3,
    }


def test_a_line_within_a_trace_names_it() -> None:
    span = NonRecordingSpan(SpanContext(0xABC, 0x12, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        line = line_of()
    assert (line["trace_id"], line["span_id"]) == (f"{0xABC:032x}", f"{0x12:016x}")


def test_an_error_comes_with_its_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = line_of(exc_info=sys.exc_info())
    assert "ValueError: broken" in str(line["error"])


def test_configured_logs_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    before, level = list(logging.root.handlers), logging.root.level
    try:
        configure_logs("index", "warning")
        logging.getLogger("headrace.test").info("quiet")
        logging.getLogger("headrace.test").warning("loud", extra={"n": 1})
    finally:
        logging.root.handlers[:] = before
        logging.root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["service"], line["n"]) for line in lines] == [("loud", "index", 1)]
