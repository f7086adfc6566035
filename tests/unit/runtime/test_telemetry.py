from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.runtime.settings import CommonSettings
from headrace.runtime.telemetry import counter, histogram, is_traceparent, span, telemetry, traceparent

PARENT = f"00-{0xABC:032x}-{0x12:016x}-01"


def test_without_a_span_there_is_no_traceparent() -> None:
    assert traceparent() == ""


def test_a_span_continues_the_trace_of_its_parent() -> None:
    with span("work", parent=PARENT):
        assert traceparent().split("-")[1] == f"{0xABC:032x}"
    assert traceparent() == ""


def test_a_parent_that_was_not_sampled_gives_no_traceparent() -> None:
    with span("work", parent=PARENT[:-1] + "0"):
        assert traceparent() == ""


@pytest.mark.parametrize("value", ["", "rubbish", "00-1", "00-zz-12-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_rubbish_is_no_traceparent_and_does_no_harm(value: str) -> None:
    assert not is_traceparent(value)
    with span("work", parent=value, links=(value, PARENT)):
        pass
    assert is_traceparent(PARENT)


def test_without_an_endpoint_nothing_is_exported() -> None:
    with telemetry("ranker", CommonSettings()):
        counter("headrace.test.count", "1", "counts").add(1)
        histogram("headrace.test.time", "ms", "times").record(1.0)


_EXPORTING = """
import sys
from concurrent import futures
import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as mp, metrics_service_pb2_grpc as mg
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as tp, trace_service_pb2_grpc as tg
from headrace.runtime.settings import CommonSettings
from headrace.runtime.telemetry import counter, span, telemetry, traceparent

spans, names = [], []

class Traces(tg.TraceServiceServicer):
    def Export(self, request, context):
        spans.extend(s for r in request.resource_spans for ss in r.scope_spans for s in ss.spans)
        return tp.ExportTraceServiceResponse()

class Metrics(mg.MetricsServiceServicer):
    def Export(self, request, context):
        names.extend(m.name for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics)
        return mp.ExportMetricsServiceResponse()

server = grpc.server(futures.ThreadPoolExecutor(2))
tg.add_TraceServiceServicer_to_server(Traces(), server)
mg.add_MetricsServiceServicer_to_server(Metrics(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
before = counter("headrace.test.made_before", "1", "made at import, before the export starts")
with telemetry("ranker", CommonSettings(otlp_endpoint=f"http://127.0.0.1:{port}")):
    with span("outer"):
        outer = traceparent()
        with span("inner"):
            inner = traceparent()
    before.add(1)
assert outer.split("-")[1] == inner.split("-")[1] and outer != inner, (outer, inner)
assert sorted(s.name for s in spans) == ["inner", "outer"], spans
assert names == ["headrace.test.made_before"], names
server.stop(None)
print("exported")
"""


def test_spans_and_metrics_reach_the_endpoint_before_the_process_ends() -> None:
    # in a process of its own: OpenTelemetry's providers can be set only once
    done = subprocess.run([sys.executable, "-c", _EXPORTING], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "exported\n", done.stderr
