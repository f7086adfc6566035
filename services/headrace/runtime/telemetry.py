"""Traces and metrics by OpenTelemetry: exported over OTLP when an endpoint is set, else nothing.

Trace context travels as one W3C `traceparent` string: in call metadata, and inside log records,
so that a click can be followed through processes that it reaches much later.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from headrace.runtime.settings import CommonSettings

# attribute of a link: what the linked span did for the one that links
LINK = "headrace.link"

# attribute of spans that are kept whatever share of traces is
KEPT = "headrace.kept"

# by unit; the usual ones are too coarse for stages of an answer, and hold all shares in one
_BUCKETS = {
    "ms": (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4),
    "1": tuple(round(0.05 * step, 2) for step in range(1, 21)),
}

_tracer = trace.get_tracer("headrace")
_meter = metrics.get_meter("headrace")


@contextmanager
def telemetry(service: str, settings: CommonSettings) -> Iterator[None]:
    """Exports spans and metrics of this process while open; flushes at the end."""
    if not settings.otlp_endpoint:
        yield
        return
    stop = _start_export(service, settings)
    try:
        yield
    finally:
        stop()


def _start_export(service: str, settings: CommonSettings) -> Callable[[], None]:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from headrace.runtime.sampling import Sampling

    interval_ms = settings.telemetry_interval_s * 1000
    endpoint, insecure = settings.otlp_endpoint, settings.otlp_endpoint.startswith("http://")
    # without an instance the counters of two replicas are one that jumps to and fro
    instance = f"{socket.gethostname()}-{os.getpid()}"
    resource = Resource.create(
        {"service.name": service, "service.namespace": "headrace", "service.instance.id": instance}
    )
    tracers = TracerProvider(resource=resource, sampler=Sampling(settings.trace_ratio))
    spans = OTLPSpanExporter(endpoint=endpoint, insecure=insecure)
    tracers.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=interval_ms))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=insecure), export_interval_millis=interval_ms
    )
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)

    def stop() -> None:
        tracers.shutdown()
        meters.shutdown()

    return stop


@contextmanager
def span(
    name: str,
    *,
    parent: str = "",
    links: tuple[str, ...] = (),
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: dict[str, str | int | float | bool] | None = None,
    is_kept: bool = False,
) -> Iterator[Span]:
    """A span around a block. `parent` and `links` are traceparent strings.

    Without `parent` it continues the span that is current, if any. One that `is_kept` is recorded, and what follows
    from it too, also where its trace is not among those that are.
    """
    if is_kept:
        attributes = {**(attributes or {}), KEPT: True}
    context = trace.set_span_in_context(NonRecordingSpan(_parse(parent))) if parent else None
    with _tracer.start_as_current_span(
        name,
        context=context,
        kind=kind,
        links=[Link(_parse(link)) for link in links if link],
        attributes=attributes,
    ) as current:
        yield current


def traceparent() -> str:
    """The current span as a W3C traceparent; empty when it is not recorded."""
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def annotate(attributes: Mapping[str, str | int | float | bool], links: Mapping[str, str] | None = None) -> None:
    """Adds facts to the current span, and links to the spans that led to it: traceparent → what that one did for it."""
    current = trace.get_current_span()
    current.set_attributes(attributes)
    for link, what in (links or {}).items():
        current.add_link(_parse(link), {LINK: what})


def is_traceparent(value: str) -> bool:
    """Whether `value` can be parsed as a W3C traceparent."""
    return _parse(value).is_valid


def _parse(value: str) -> SpanContext:
    parts = value.split("-")
    try:
        _, trace_id, span_id, flags = parts
        return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    except ValueError:
        return trace.INVALID_SPAN_CONTEXT


def counter(name: str, unit: str, description: str) -> metrics.Counter:
    """A sum that only grows. Names are listed in docs/telemetry.md."""
    return _meter.create_counter(name, unit, description)


def gauge(name: str, unit: str, description: str) -> metrics._Gauge:
    """A value as it is now. Names are listed in docs/telemetry.md."""
    return _meter.create_gauge(name, unit, description)


def histogram(name: str, unit: str, description: str) -> metrics.Histogram:
    """A distribution of measured values, of milliseconds or of shares. Names are listed in docs/telemetry.md."""
    return _meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=_BUCKETS[unit])
