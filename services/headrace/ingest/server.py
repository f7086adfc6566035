"""The gRPC face of the door: translates in, calls once, translates out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.catalogue import Catalogue
from headrace.ingest.dead_letters import Replayed, replay, replay_mended
from headrace.ingest.fact_intake import FactIntake
from headrace.ingest.forgetting import Forgetting
from headrace.ingest.identity_changes import change_identity
from headrace.ingest.intake import EventIntake
from headrace.ingest.limits import Violation
from headrace.ingest.outcomes import Outcome, Result
from headrace.ingest.rules import EXCUSABLE, RULES, Does, Rule
from headrace.ingest.storage import DeadLetter, IngestStore
from headrace.ingest.streaming import answered_in_order
from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.serving import Face
from headrace.v1 import ingest_pb2 as pb
from headrace.v1 import ingest_pb2_grpc
from headrace.v1.common_pb2 import FieldViolation, UserEvent

# grpc's context has no types of its own
_Context = grpc.aio.ServicerContext[Any, Any]

_MAX_BATCH = 2_000
_PAGE_SIZE, _MAX_PAGE_SIZE = 50, 1_000

_OUTCOMES = {
    Outcome.ACCEPTED: pb.WriteResult.OUTCOME_ACCEPTED,
    Outcome.DUPLICATE: pb.WriteResult.OUTCOME_DUPLICATE,
    Outcome.REJECTED: pb.WriteResult.OUTCOME_REJECTED,
}


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """IngestService over one intake and one catalogue."""

    def __init__(
        self,
        *,
        intake: EventIntake,
        catalogue: Catalogue,
        facts: FactIntake,
        store: IngestStore,
        log: EventLog,
        forgetting: Forgetting,
        stream_batch_events: int,
        max_unacknowledged: int,
        settings: Mapping[str, object],
    ) -> None:
        self._intake = intake
        self._catalogue = catalogue
        self._facts = facts
        self._store = store
        self._log = log
        self._forgetting = forgetting
        self._stream_batch_events = stream_batch_events
        self._max_unacknowledged = max_unacknowledged
        self._rules = [_cleaning_rule(rule, settings) for rule in RULES]
        self._products_written = 0

    async def WriteUserEvents(
        self, request: pb.WriteUserEventsRequest, context: _Context
    ) -> pb.WriteUserEventsResponse:
        _check_batch("events", len(request.events))
        results = await self._intake.write(request.events)
        return pb.WriteUserEventsResponse(results=[_write_result(result) for result in results])

    async def StreamUserEvents(
        self, request_iterator: AsyncIterator[pb.StreamUserEventsRequest], context: _Context
    ) -> AsyncIterator[pb.StreamUserEventsResponse]:
        responses = answered_in_order(
            request_iterator,
            self._write_streamed,
            group_limit=self._stream_batch_events,
            unanswered_limit=self._max_unacknowledged,
        )
        async for response in responses:
            yield response

    async def _write_streamed(
        self, requests: Sequence[pb.StreamUserEventsRequest]
    ) -> Sequence[pb.StreamUserEventsResponse]:
        results = await self._intake.write([request.event for request in requests])
        return [
            pb.StreamUserEventsResponse(sequence=request.sequence, result=_write_result(result))
            for request, result in zip(requests, results, strict=True)
        ]

    async def WriteProducts(self, request: pb.WriteProductsRequest, context: _Context) -> pb.WriteProductsResponse:
        _check_batch("products", len(request.products))
        results = await self._catalogue.write(request.products)
        self._products_written += sum(result.outcome is Outcome.ACCEPTED for result in results)
        return pb.WriteProductsResponse(results=[_write_result(result) for result in results])

    async def WriteFacts(self, request: pb.WriteFactsRequest, context: _Context) -> pb.WriteFactsResponse:
        _check_batch("facts", len(request.facts))
        results = await self._facts.write(request.facts)
        return pb.WriteFactsResponse(results=[_write_result(result) for result in results])

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: _Context) -> pb.DeleteProductResponse:
        if not request.product_id:
            raise InvalidRequestError.of("product_id", "must be given")
        return pb.DeleteProductResponse(offset=await self._catalogue.delete(request.product_id))

    async def ForgetUser(self, request: pb.ForgetUserRequest, context: _Context) -> pb.ForgetUserResponse:
        standing = await self._forgetting.forget(
            request.user_id, request.visitor_id, include_shared=request.include_shared_devices
        )
        return pb.ForgetUserResponse(receipt=standing.receipt, complete=standing.complete)

    async def ChangeIdentity(self, request: pb.ChangeIdentityRequest, context: _Context) -> pb.ChangeIdentityResponse:
        joined = _is_join(request.change)
        offset = await change_identity(self._log, request.visitor_id, request.user_id, joined=joined)
        return pb.ChangeIdentityResponse(offset=offset)

    async def GetIngestStatus(
        self, request: pb.GetIngestStatusRequest, context: _Context
    ) -> pb.GetIngestStatusResponse:
        offset, append_time_us = await self._log.end()
        counts = self._intake.counts
        return pb.GetIngestStatusResponse(
            accepted=counts.accepted,
            duplicates=counts.duplicates,
            rejected_by_reason=counts.rejected_by_reason,
            products_written=self._products_written,
            log_end_offset=offset,
            log_end_time=_timestamp(append_time_us),
            dead_letters=await self._store.count_dead_letters(),
            items=len(self._catalogue),
            rules=self._rules,
            rule_counts=[
                pb.CleaningCount(rule=rule, channel=channel, events=number)
                for (rule, channel), number in sorted(counts.by_rule.items())
            ],
        )

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: _Context
    ) -> pb.ListDeadLettersResponse:
        size = _page_size(request.page_size)
        letters = await self._store.dead_letters(
            limit=size + 1, before_id=_before_id(request.page_token), reason=request.reason
        )
        page = letters[:size]
        return pb.ListDeadLettersResponse(
            dead_letters=[_dead_letter(letter) for letter in page],
            next_page_token=str(page[-1].id) if len(letters) > size else "",
        )

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: _Context
    ) -> pb.ReplayDeadLettersResponse:
        done = await self._replayed(request)
        return pb.ReplayDeadLettersResponse(
            replayed=done.replayed, accepted=done.accepted, still_rejected=done.replayed - done.accepted
        )

    async def _replayed(self, request: pb.ReplayDeadLettersRequest) -> Replayed:
        excused = _excused(request.excused_rules)
        if not request.mended:
            return await replay(self._store, self._intake, ids=request.ids, reason=request.reason, excused=excused)
        _check_batch("mended", len(request.mended))
        if request.ids or request.reason:
            raise InvalidRequestError.of("mended", "must not be given beside ids or reason")
        mended = {letter.id: letter.event for letter in request.mended}
        return await replay_mended(self._store, self._intake, mended, excused=excused)


def face(servicer: IngestServicer) -> Face:
    """The servicer, ready to be served."""
    name = pb.DESCRIPTOR.services_by_name["IngestService"].full_name
    return Face(name, lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server))


def _check_batch(field: str, size: int) -> None:
    if not 1 <= size <= _MAX_BATCH:
        raise InvalidRequestError.of(field, f"must be 1 .. {_MAX_BATCH}, got {size}")


def _is_join(change: int) -> bool:
    if change not in (pb.ChangeIdentityRequest.CHANGE_JOIN, pb.ChangeIdentityRequest.CHANGE_SPLIT):
        raise InvalidRequestError.of("change", f"must be CHANGE_JOIN or CHANGE_SPLIT, got {change}")
    return change == pb.ChangeIdentityRequest.CHANGE_JOIN


def _page_size(given: int) -> int:
    if not 0 <= given <= _MAX_PAGE_SIZE:
        raise InvalidRequestError.of("page_size", f"must be 0 .. {_MAX_PAGE_SIZE}, got {given}")
    return given or _PAGE_SIZE


def _before_id(page_token: str) -> int | None:
    if not page_token:
        return None
    if not (page_token.isdecimal() and len(page_token) < 19):
        raise InvalidRequestError.of("page_token", f"must be one that ListDeadLetters gave, got {page_token[:40]!r}")
    return int(page_token)


def _cleaning_rule(rule: Rule, settings: Mapping[str, object]) -> pb.CleaningRule:
    return pb.CleaningRule(
        name=rule.name,
        action=pb.CleaningRule.ACTION_REFUSE if rule.does is Does.REFUSE else pb.CleaningRule.ACTION_MARK,
        looks_at=rule.looks_at,
        description=rule.description,
        settings={name: str(settings[name]) for name in rule.settings},
    )


def _excused(rules: Sequence[str]) -> frozenset[str]:
    unknown = sorted(set(rules) - EXCUSABLE)
    if unknown:
        raise InvalidRequestError.of(
            "excused_rules", f"must be of {', '.join(sorted(EXCUSABLE))}, got {', '.join(unknown)[:80]!r}"
        )
    return frozenset(rules)


def _write_result(result: Result) -> pb.WriteResult:
    if not result.violations:
        outcome, fault = _OUTCOMES[result.outcome], result.token_fault
        return pb.WriteResult(id=result.id, outcome=outcome, offset=result.offset, token_fault=fault)
    return pb.WriteResult(
        id=result.id,
        outcome=_OUTCOMES[result.outcome],
        violations=_field_violations(result.violations),
        reason=result.reason,
    )


def _field_violations(violations: Sequence[Violation]) -> list[FieldViolation]:
    return [FieldViolation(field=violation.field, description=violation.description) for violation in violations]


def _dead_letter(letter: DeadLetter) -> pb.DeadLetter:
    refusal = letter.refusal
    return pb.DeadLetter(
        id=letter.id,
        event=UserEvent.FromString(refusal.event),
        reason=refusal.reason,
        violations=_field_violations(refusal.violations),
        refused_time=_timestamp(refusal.refused_time_us),
    )


def _timestamp(time_us: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(time_us)
    return timestamp
