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

spans, names, instances = [], [], set()

class Traces(tg.TraceServiceServicer):
    def Export(self, request, context):
        instances.update(a.value.string_value for r in request.resource_spans for a in r.resource.attributes
                         if a.key == "service.instance.id")
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
with telemetry("ranker", CommonSettings(otlp_endpoint=f"http://127.0.0.1:{port}", trace_ratio=SHARE)):
    with span("outer"):
        outer = traceparent()
        with span("inner"):
            inner = traceparent()
    before.add(1)
    with span("usual"), span("kept", is_kept=True), span("below"):
        below = traceparent()
assert sorted(s.name for s in spans) == SPANS, spans
assert int(below[-2:], 16) & 1, below
if SHARE:
    assert outer.split("-")[1] == inner.split("-")[1] and outer != inner, (outer, inner)
assert len(instances) == 1 and "" not in instances, instances
assert names == ["headrace.test.made_before"], names
server.stop(None)
print("exported")
"""


@pytest.mark.parametrize(
    ("share", "names"), [(1.0, ["below", "inner", "kept", "outer", "usual"]), (0.0, ["below", "kept"])]
)
def test_spans_and_metrics_reach_the_endpoint_and_what_is_kept_does_always(share: float, names: list[str]) -> None:
    # in a process of its own: OpenTelemetry's providers can be set only once
    program = f"SHARE, SPANS = {share}, {names}\n{_EXPORTING}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "exported\n", done.stderr
