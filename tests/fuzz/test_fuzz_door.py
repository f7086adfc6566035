"""Whatever callers send to a real door: every event is in the log or a dead letter, no fault is ours, it lives on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.ingest.__main__ import compose
from headrace.ingest.settings import IngestSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.log_pb2 import LoggedDatedFact, LoggedUserEvent, ProductChange
from tests.fuzz.damage import check_tells, damaged
from tests.fuzz.profile import fuzz

T = TypeVar("T")
ACCEPTED, REJECTED = pb.WriteResult.OUTCOME_ACCEPTED, pb.WriteResult.OUTCOME_REJECTED
SERVICE = "/headrace.v1.IngestService/"


class Door:
    """A real door in a loop of its own, asked from the thread of the test."""

    def __init__(self, folder: Path) -> None:
        self._common = CommonSettings(data_dir=folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open = self._opened()
        self.address, self.channel, self.log = self.run(self._open.__aenter__())
        self._letters: set[bytes] = set()
        self._newest_letter = 0

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[str, grpc.aio.Channel, EventLog]]:
        settings = IngestSettings(port=0, drain_s=0)
        log = open_event_log(self._common)
        async with (
            compose(settings, self._common) as parts,
            running(parts, settings) as server,
            open_channel(server.address) as channel,
        ):
            yield server.address, channel, log
        await log.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    @property
    def stub(self) -> IngestServiceStub:
        return IngestServiceStub(self.channel)

    def end(self) -> int:
        return self.run(self.log.end())[0]

    def record(self, offset: int) -> LoggedRecord:
        (record,) = self.run(self.log.read(offset - 1, limit=1))
        return record

    def letters(self) -> set[bytes]:
        """All refused events: those that are new since the last time are asked for."""
        newest, page = self._newest_letter, pb.ListDeadLettersResponse(next_page_token=" ")
        while page.next_page_token:
            request = pb.ListDeadLettersRequest(page_size=1_000, page_token=page.next_page_token.strip())
            page = self.run(_call(self.stub.ListDeadLetters, request))
            self._letters.update(one.event.SerializeToString(deterministic=True) for one in page.dead_letters)
            ids = [one.id for one in page.dead_letters]
            self._newest_letter = max([self._newest_letter, *ids])
            if min(ids, default=0) <= newest:
                break
        return self._letters

    def called(self, method: str, request: bytes) -> bytes:
        """The answer of a method to any bytes. AioRpcError."""
        call = self.channel.unary_unary(SERVICE + method)

        async def ask() -> bytes:
            return bytes(await call(request, timeout=20))

        return self.run(ask())

    def streamed(self, requests: Sequence[bytes]) -> tuple[list[pb.StreamUserEventsResponse], grpc.StatusCode]:
        """What came back for a stream of any bytes, and how it ended."""
        # grpc.aio tells INTERNAL of its own where the server has ended a stream that it still writes to
        with grpc.insecure_channel(self.address) as channel:
            answers: list[pb.StreamUserEventsResponse] = []
            try:
                for data in channel.stream_stream(SERVICE + "StreamUserEvents")(iter(requests), timeout=20):
                    answers.append(pb.StreamUserEventsResponse.FromString(data))  # noqa: PERF401  # those before an error
            except grpc.RpcError as error:
                return answers, error.code()
            return answers, grpc.StatusCode.OK

    def close(self) -> None:
        self.run(self._open.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    opened = Door(tmp_path_factory.mktemp("door"))
    yield opened
    opened.close()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\0", "é" * 600, "u:", "p"]
)
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 6) | st.integers(-(2**31), 2**31 - 1),
}
# of fields by name, what they may hold beside anything
LIKELY = {
    "event_type": st.sampled_from(
        ["detail-page-view", "add-to-cart", "purchase-complete", "purchase-cancel", "search"]
    ),
    "seconds": st.integers(1_400_000_000, 1_600_000_000),
    "nanos": st.integers(0, 999_999_999),
    "quantity": st.integers(-1, 3),
    "price": st.floats(0, 100),
    "name": st.sampled_from(["promotion", "discount", "coupon", "campaign"]),
}


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Whatever a field's type allows."""
    if field.message_type is not None:
        one: st.SearchStrategy[Any] = messages(field.message_type)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = st.binary(max_size=8) if field.type == FieldDescriptor.TYPE_BYTES else TEXT
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        one = st.floats(width=32 if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else 64)
    else:
        one = INTEGERS.get(field.cpp_type, st.booleans())
    likely = LIKELY.get(field.name)
    return one if likely is None else likely | one


def messages(kind: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of a message, for its constructor."""

    def of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            return st.dictionaries(values(key), values(value), max_size=2)
        return st.lists(values(field), max_size=2) if field.is_repeated else values(field)

    return st.fixed_dictionaries({}, optional={field.name: st.deferred(lambda f=field: of(f)) for field in kind.fields})


def built(kind: type[T]) -> st.SearchStrategy[T]:
    descriptor: Descriptor = kind.DESCRIPTOR  # type: ignore[attr-defined]
    return messages(descriptor).map(lambda fields: kind(**fields))


def check_event(door: Door, event: common_pb2.UserEvent, result: pb.WriteResult, before: int) -> None:
    """It is in the log, whole, or a dead letter, whole."""
    if result.outcome == REJECTED:
        assert result.violations
        assert event.SerializeToString(deterministic=True) in door.letters()
        return
    record = door.record(result.offset)
    assert (record.kind, record.event_id) == ("user-event", result.id)
    assert not event.event_id or event.event_id == result.id
    if result.outcome == ACCEPTED:
        assert record.offset > before
        named = common_pb2.UserEvent()
        named.CopyFrom(event)
        named.event_id = result.id
        assert LoggedUserEvent.FromString(record.payload).event == named or _has_nan(named)


def _has_nan(event: common_pb2.UserEvent) -> bool:
    return any(detail.price != detail.price for detail in event.product_details)


def check_events(
    door: Door, events: Sequence[common_pb2.UserEvent], results: Sequence[pb.WriteResult], before: int
) -> None:
    assert len(results) == len(events)
    for event, result in zip(events, results, strict=True):
        check_event(door, event, result, before)
    # nothing else was written
    accepted = sum(result.outcome == ACCEPTED for result in results)
    assert door.end() == before + accepted


EVENTS = st.lists(built(common_pb2.UserEvent), min_size=1, max_size=4)
GOOD = common_pb2.UserEvent(event_type="search", visitor_id="v", search_query="a lamp")
GOOD.event_time.seconds = 1_500_000_000
FAR = common_pb2.UserEvent(event_type="search", visitor_id="v", search_query="a")
FAR.event_time.seconds = 2**62


@fuzz
@given(events=EVENTS)
@example(events=[FAR])
@example(events=[common_pb2.UserEvent(), GOOD, GOOD])
def test_any_events(door: Door, events: list[common_pb2.UserEvent]) -> None:
    before = door.end()
    answer = door.run(_call(door.stub.WriteUserEvents, pb.WriteUserEventsRequest(events=events)))
    check_events(door, events, answer.results, before)


async def _call(method: Callable[..., Any], request: Message) -> Any:
    return await method(request, timeout=20)


@fuzz
@given(products=st.lists(built(common_pb2.Product), min_size=1, max_size=3))
def test_any_products(door: Door, products: list[common_pb2.Product]) -> None:
    answer = door.run(_call(door.stub.WriteProducts, pb.WriteProductsRequest(products=products)))
    for product, result in zip(products, answer.results, strict=True):
        assert (result.outcome == REJECTED) == bool(result.violations)
        if result.outcome == ACCEPTED:
            change = ProductChange.FromString(door.record(result.offset).payload)
            assert (change.product.id, change.product.title) == (product.id, product.title)


@fuzz
@given(facts=st.lists(built(common_pb2.DatedFact), min_size=1, max_size=3))
def test_any_facts(door: Door, facts: list[common_pb2.DatedFact]) -> None:
    answer = door.run(_call(door.stub.WriteFacts, pb.WriteFactsRequest(facts=facts)))
    for fact, result in zip(facts, answer.results, strict=True):
        assert (result.outcome == REJECTED) == bool(result.violations)
        if result.outcome == ACCEPTED:
            logged = LoggedDatedFact.FromString(door.record(result.offset).payload).fact
            assert (logged.entity_id, logged.name, logged.fact_id) == (fact.entity_id, fact.name, result.id)


@fuzz
@given(events=EVENTS, sequences=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4))
def test_any_events_in_a_stream(door: Door, events: list[common_pb2.UserEvent], sequences: list[int]) -> None:
    before = door.end()
    pairs = list(zip(sequences, events, strict=False))
    sent = [pb.StreamUserEventsRequest(sequence=number, event=event).SerializeToString() for number, event in pairs]
    answers, status = door.streamed(sent)
    assert status == grpc.StatusCode.OK
    assert [answer.sequence for answer in answers] == [number for number, _ in pairs]
    check_events(door, events, [answer.result for answer in answers], before)


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "WriteUserEvents": (pb.WriteUserEventsRequest, pb.WriteUserEventsResponse),
    "WriteProducts": (pb.WriteProductsRequest, pb.WriteProductsResponse),
    "WriteFacts": (pb.WriteFactsRequest, pb.WriteFactsResponse),
}
SENT = [
    pb.WriteUserEventsRequest(events=[GOOD, GOOD]).SerializeToString(),
    pb.WriteProductsRequest(products=[common_pb2.Product(id="p", title="Lamp")]).SerializeToString(),
    pb.WriteFactsRequest(facts=[common_pb2.DatedFact(entity_kind=1, entity_id="p", name="coupon")]).SerializeToString(),
]


def parsed(kind: type[Message], data: bytes) -> Any:
    """None where the bytes are no message of the kind."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


@fuzz
@given(method=st.sampled_from(list(METHODS)), data=damaged(*SENT))
@example(method="WriteUserEvents", data=b"\xff")
@example(method="WriteUserEvents", data=b"")
def test_any_bytes_as_a_request(door: Door, method: str, data: bytes) -> None:
    of, answered = METHODS[method]
    before, request = door.end(), parsed(of, data)
    try:
        answer: Any = answered.FromString(door.called(method, data))
    except grpc.aio.AioRpcError as error:
        check_tells(error, "INVALID_ARGUMENT")
        # no message, or one without anything to be written
        assert request is None or not request.ListFields()
        assert door.end() == before
        return
    assert request is not None
    if method == "WriteUserEvents":
        check_events(door, request.events, answer.results, before)


@fuzz
@given(datas=st.lists(damaged(pb.StreamUserEventsRequest(sequence=7, event=GOOD).SerializeToString()), max_size=5))
@example(datas=[SENT[0], b"\xff", SENT[0]])
@example(datas=[b"\x00", b"", b"\x00", b"\x00", b""])
def test_any_bytes_in_a_stream(door: Door, datas: list[bytes]) -> None:
    before = door.end()
    requests = [parsed(pb.StreamUserEventsRequest, data) for data in datas]
    answers, status = door.streamed(datas)
    if None not in requests:
        assert status == grpc.StatusCode.OK
        check_events(door, [request.event for request in requests], [answer.result for answer in answers], before)
        return
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    # what was answered before it was taken at its word
    sound = requests[: requests.index(None)]
    assert len(answers) <= len(sound)
    for request, answer in zip(sound, answers, strict=False):
        check_event(door, request.event, answer.result, before)
