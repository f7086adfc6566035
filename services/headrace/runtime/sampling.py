"""Which traces are recorded: a share of the new ones, all that a caller records, and what must never be missed."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from headrace.runtime.telemetry import KEPT


class Sampling(Sampler):
    """Records `share` of new traces and whatever follows from a recorded span, and each span that says it is kept."""

    def __init__(self, share: float) -> None:
        self._usual = ParentBased(TraceIdRatioBased(share))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if attributes and attributes.get(KEPT):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._usual.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return "Headrace"
