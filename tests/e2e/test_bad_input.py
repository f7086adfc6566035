"""Every method of every service, given what it must refuse: the stated status, every fault named, nothing lost."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.cli.suite import Suite
from headrace.runtime.channels import open_channel
from headrace.runtime.rpc_status import faults_of
from headrace.v1 import (
    common_pb2,
    feature_store_pb2,
    index_pb2,
    index_pb2_grpc,
    ingest_pb2,
    ranker_pb2,
    ranker_pb2_grpc,
    trainer_pb2,
)

Eventually = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = Timestamp()
NOW.GetCurrentTime()
YEAR_3000 = Timestamp(seconds=32_503_680_000)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 129


def event(**fields: object) -> common_pb2.UserEvent:
    """A good detail-page-view, with some fields replaced."""
    good: dict[str, object] = {
        "event_type": "detail-page-view",
        "visitor_id": "v1",
        "event_time": NOW,
        "product_details": [common_pb2.ProductDetail(product_id="p1")],
    }
    return common_pb2.UserEvent(**{name: value for name, value in (good | fields).items() if value is not None})


def detail(**fields: object) -> list[common_pb2.ProductDetail]:
    return [common_pb2.ProductDetail(**({"product_id": "p1"} | fields))]


BAD_EVENTS: dict[str, tuple[common_pb2.UserEvent, set[str]]] = {
    "empty": (common_pb2.UserEvent(), {"event_type", "visitor_id", "event_time"}),
    "unknown type": (event(event_type="teleport"), {"event_type"}),
    "no visitor and no user": (event(visitor_id=""), {"visitor_id"}),
    "no time": (event(event_time=None), {"event_time"}),
    "year 3000": (event(event_time=YEAR_3000), {"event_time"}),
    "year 1970": (event(event_time=Timestamp(seconds=1)), {"event_time"}),
    "time out of range": (event(event_time=Timestamp(seconds=2**60)), {"event_time"}),
    "no product": (event(product_details=[]), {"product_details"}),
    "empty product id": (event(product_details=detail(product_id="")), {"product_details[0].product_id"}),
    "long product id": (event(product_details=detail(product_id=LONG)), {"product_details[0].product_id"}),
    "negative quantity": (event(product_details=detail(quantity=-1)), {"product_details[0].quantity"}),
    "absurd quantity": (event(product_details=detail(quantity=2_000_000)), {"product_details[0].quantity"}),
    "negative price": (event(product_details=detail(price=-0.01)), {"product_details[0].price"}),
    "absurd price": (event(product_details=detail(price=1e10)), {"product_details[0].price"}),
    "NaN price": (event(product_details=detail(price=math.nan)), {"product_details[0].price"}),
    "infinite price": (event(product_details=detail(price=math.inf)), {"product_details[0].price"}),
    "search without words": (event(event_type="search", product_details=[]), {"search_query"}),
    "category view without category": (
        event(event_type="category-page-view", product_details=[]),
        {"page_categories"},
    ),
    "long ids": (
        event(event_id=LONG, visitor_id=LONG, session_id=LONG, user_id=LONG),
        {"event_id", "visitor_id", "session_id", "user_id"},
    ),
    "several faults at once": (
        event(event_type="teleport", event_time=YEAR_3000, visitor_id=""),
        {"event_type", "event_time", "visitor_id"},
    ),
}

BAD_PRODUCTS: dict[str, tuple[common_pb2.Product, set[str]]] = {
    "empty": (common_pb2.Product(), {"id", "title"}),
    "long id": (common_pb2.Product(id=LONG, title="t"), {"id"}),
    "NaN price": (
        common_pb2.Product(id="p", title="t", price_info=common_pb2.PriceInfo(price=math.nan)),
        {"price_info.price"},
    ),
    "negative price": (
        common_pb2.Product(id="p", title="t", price_info=common_pb2.PriceInfo(price=-1)),
        {"price_info.price"},
    ),
    "original price below price": (
        common_pb2.Product(id="p", title="t", price_info=common_pb2.PriceInfo(price=5, original_price=2)),
        {"price_info.original_price"},
    ),
    "unknown currency form": (
        common_pb2.Product(id="p", title="t", price_info=common_pb2.PriceInfo(price=5, currency_code="pounds")),
        {"price_info.currency_code"},
    ),
}


@dataclass(frozen=True)
class Call:
    """One refused call: where, what, and how it must be answered."""

    service: str
    method: str
    request: Message
    status: grpc.StatusCode
    fields: frozenset[str] = frozenset()
    timeout_s: float = 5


def recommend(**fields: object) -> ranker_pb2.RecommendRequest:
    return ranker_pb2.RecommendRequest(**({"serving_config": "home", "visitor_id": "v1"} | fields))


def matrix(values: np.ndarray) -> common_pb2.Matrix:
    rows, columns = values.shape
    return common_pb2.Matrix(rows=rows, columns=columns, values=values.astype("<f4").tobytes())


ONE = np.ones((1, 64), np.float32)
REFUSED: dict[str, Call] = {
    "WriteUserEvents without events": Call(
        "ingest", "WriteUserEvents", ingest_pb2.WriteUserEventsRequest(), INVALID, frozenset({"events"})
    ),
    "WriteUserEvents with too many": Call(
        "ingest",
        "WriteUserEvents",
        ingest_pb2.WriteUserEventsRequest(events=[event()] * 2_001),
        INVALID,
        frozenset({"events"}),
    ),
    "WriteProducts without products": Call(
        "ingest", "WriteProducts", ingest_pb2.WriteProductsRequest(), INVALID, frozenset({"products"})
    ),
    "DeleteProduct without id": Call(
        "ingest", "DeleteProduct", ingest_pb2.DeleteProductRequest(), INVALID, frozenset({"product_id"})
    ),
    "DeleteProduct never seen": Call(
        "ingest",
        "DeleteProduct",
        ingest_pb2.DeleteProductRequest(product_id="never-seen"),
        grpc.StatusCode.NOT_FOUND,
    ),
    "ForgetUser of nobody": Call(
        "ingest", "ForgetUser", ingest_pb2.ForgetUserRequest(), INVALID, frozenset({"user_id"})
    ),
    "ListDeadLetters page_size": Call(
        "ingest",
        "ListDeadLetters",
        ingest_pb2.ListDeadLettersRequest(page_size=1_001),
        INVALID,
        frozenset({"page_size"}),
    ),
    "ListDeadLetters page_token": Call(
        "ingest",
        "ListDeadLetters",
        ingest_pb2.ListDeadLettersRequest(page_token="nonsense"),
        INVALID,
        frozenset({"page_token"}),
    ),
    "GetUserState without key": Call(
        "feature-store",
        "GetUserState",
        feature_store_pb2.GetUserStateRequest(),
        INVALID,
        frozenset({"user_key"}),
    ),
    "GetUserState negative max_events": Call(
        "feature-store",
        "GetUserState",
        feature_store_pb2.GetUserStateRequest(user_key="u:1", max_events=-1),
        INVALID,
        frozenset({"max_events"}),
    ),
    "GetUserState beyond the log": Call(
        "feature-store",
        "GetUserState",
        feature_store_pb2.GetUserStateRequest(user_key="u:1", min_offset=10**12),
        grpc.StatusCode.DEADLINE_EXCEEDED,
        timeout_s=0.3,
    ),
    "GetTrainingRows negative": Call(
        "feature-store",
        "GetTrainingRows",
        feature_store_pb2.GetTrainingRowsRequest(after_offset=-1, until_offset=10),
        INVALID,
        frozenset({"after_offset"}),
    ),
    "GetTrainingRows backwards": Call(
        "feature-store",
        "GetTrainingRows",
        feature_store_pb2.GetTrainingRowsRequest(after_offset=10, until_offset=5),
        INVALID,
        frozenset({"until_offset"}),
    ),
    "GetTrainingRows of the future": Call(
        "feature-store",
        "GetTrainingRows",
        feature_store_pb2.GetTrainingRowsRequest(after_offset=0, until_offset=10**12),
        grpc.StatusCode.FAILED_PRECONDITION,
    ),
    "CreateSpace bad name": Call(
        "index",
        "CreateSpace",
        index_pb2.CreateSpaceRequest(space="No Such Name!", dimension=0),
        INVALID,
        frozenset({"space", "dimension"}),
    ),
    "ActivateSpace unknown": Call(
        "index", "ActivateSpace", index_pb2.ActivateSpaceRequest(space="nowhere"), grpc.StatusCode.NOT_FOUND
    ),
    "index Search unknown space": Call(
        "index",
        "Search",
        index_pb2.IndexServiceSearchRequest(space="nowhere", queries=matrix(ONE), k=10),
        grpc.StatusCode.NOT_FOUND,
    ),
    "index Search k 0": Call(
        "index",
        "Search",
        index_pb2.IndexServiceSearchRequest(queries=matrix(ONE), k=0),
        INVALID,
        frozenset({"k"}),
    ),
    "index Search k too large": Call(
        "index",
        "Search",
        index_pb2.IndexServiceSearchRequest(queries=matrix(ONE), k=10**9),
        INVALID,
        frozenset({"k"}),
    ),
    "index Search NaN": Call(
        "index",
        "Search",
        index_pb2.IndexServiceSearchRequest(queries=matrix(ONE * np.nan), k=10),
        INVALID,
        frozenset({"queries"}),
    ),
    "index Search without a query": Call(
        "index", "Search", index_pb2.IndexServiceSearchRequest(k=10), INVALID, frozenset({"queries"})
    ),
    "index Search short bytes": Call(
        "index",
        "Search",
        index_pb2.IndexServiceSearchRequest(queries=common_pb2.Matrix(rows=2, columns=64, values=b"abc"), k=10),
        INVALID,
        frozenset({"queries"}),
    ),
    "WatchEmbeddings unknown space": Call(
        "index",
        "WatchEmbeddings",
        index_pb2.WatchEmbeddingsRequest(space="nowhere"),
        grpc.StatusCode.NOT_FOUND,
    ),
    "GetEmbeddings unknown space": Call(
        "index", "GetEmbeddings", index_pb2.GetEmbeddingsRequest(space="nowhere"), grpc.StatusCode.NOT_FOUND
    ),
    "GetRelease never published": Call(
        "trainer", "GetRelease", trainer_pb2.GetReleaseRequest(release="r-999999"), grpc.StatusCode.NOT_FOUND
    ),
    "FetchArtifact never published": Call(
        "trainer",
        "FetchArtifact",
        trainer_pb2.FetchArtifactRequest(release="r-999999", part="config.json"),
        grpc.StatusCode.NOT_FOUND,
    ),
    "ListReleases page_size": Call(
        "trainer",
        "ListReleases",
        trainer_pb2.ListReleasesRequest(page_size=-1),
        INVALID,
        frozenset({"page_size"}),
    ),
    "CreateRollout of nothing": Call(
        "trainer", "CreateRollout", trainer_pb2.CreateRolloutRequest(), INVALID, frozenset({"release"})
    ),
    "CreateRollout everything wrong": Call(
        "trainer",
        "CreateRollout",
        trainer_pb2.CreateRolloutRequest(release="r-000001", steps_bp=[10_001, 0], reason="x" * 10_000),
        INVALID,
        frozenset({"steps_bp[0]", "steps_bp[1]", "steps_bp", "reason"}),
    ),
    "GetRollout unknown": Call(
        "trainer", "GetRollout", trainer_pb2.GetRolloutRequest(rollout="ro-999999"), grpc.StatusCode.NOT_FOUND
    ),
    "PromoteRollout unknown": Call(
        "trainer", "PromoteRollout", trainer_pb2.PromoteRolloutRequest(rollout="7"), grpc.StatusCode.NOT_FOUND
    ),
    "UndoRollout before anything serves": Call(
        "trainer", "UndoRollout", trainer_pb2.UndoRolloutRequest(), grpc.StatusCode.FAILED_PRECONDITION
    ),
    "ReportServing of nobody": Call(
        "trainer",
        "ReportServing",
        trainer_pb2.ReportServingRequest(track="north"),
        INVALID,
        frozenset({"ranker", "start_time", "track"}),
    ),
    "Recommend page_size 0": Call("ranker", "Recommend", recommend(page_size=0), INVALID, frozenset({"page_size"})),
    "Recommend page_size 10^9": Call(
        "ranker", "Recommend", recommend(page_size=10**9), INVALID, frozenset({"page_size"})
    ),
    "Recommend everything wrong": Call(
        "ranker",
        "Recommend",
        recommend(serving_config="nonsense", visitor_id="", page_size=-1),
        INVALID,
        frozenset({"serving_config", "visitor_id", "page_size"}),
    ),
    "Recommend similar to nothing": Call(
        "ranker",
        "Recommend",
        recommend(serving_config="similar-items"),
        INVALID,
        frozenset({"product_ids"}),
    ),
    "Recommend NaN price filter": Call(
        "ranker",
        "Recommend",
        recommend(filter=common_pb2.ProductFilter(min_price=math.nan)),
        INVALID,
        frozenset({"filter.min_price"}),
    ),
    "Search without words": Call(
        "ranker", "Search", ranker_pb2.SearchRequest(visitor_id="v1"), INVALID, frozenset({"query"})
    ),
    "Search with a book": Call(
        "ranker",
        "Search",
        ranker_pb2.SearchRequest(query="x" * 1_001, visitor_id="v1"),
        INVALID,
        frozenset({"query"}),
    ),
    "Search page_token": Call(
        "ranker",
        "Search",
        ranker_pb2.SearchRequest(query="mug", visitor_id="v1", page_token="nonsense"),
        INVALID,
        frozenset({"page_token"}),
    ),
    "Search order_by": Call(
        "ranker",
        "Search",
        ranker_pb2.SearchRequest(query="mug", visitor_id="v1", order_by="colour"),
        INVALID,
        frozenset({"order_by"}),
    ),
    "Search page_size 10^9": Call(
        "ranker",
        "Search",
        ranker_pb2.SearchRequest(query="mug", visitor_id="v1", page_size=10**9),
        INVALID,
        frozenset({"page_size"}),
    ),
    "Rank without products": Call(
        "ranker", "Rank", ranker_pb2.RankRequest(visitor_id="v1"), INVALID, frozenset({"product_ids"})
    ),
    "Rank too many": Call(
        "ranker",
        "Rank",
        ranker_pb2.RankRequest(visitor_id="v1", product_ids=["p"] * 1_001),
        INVALID,
        frozenset({"product_ids"}),
    ),
}

STREAMS = {"GetTrainingRows", "WatchEmbeddings", "FetchArtifact"}


async def refusal(suite: Suite, call: Call) -> grpc.aio.AioRpcError:
    async with suite.client() as client:
        method = getattr(getattr(client, call.service.replace("-", "_")), call.method)
        answer = method(call.request, timeout=call.timeout_s)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (answer.read() if call.method in STREAMS else answer)
    return caught.value


@pytest.fixture(scope="module")
async def stocked(suite: Suite, eventually: Eventually) -> Suite:
    """A suite with one product, so that a space exists."""
    async with suite.client() as client:
        product = common_pb2.Product(id="p1", title="a blue mug")
        await client.ingest.WriteProducts(ingest_pb2.WriteProductsRequest(products=[product]))
        await eventually(lambda: _has_vectors(client.index))
        await eventually(lambda: _finds(client.ranker, "mug", "p1"))
    return suite


async def _has_vectors(index: index_pb2_grpc.IndexServiceAsyncStub) -> bool:
    stats = await index.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))
    return any(space.vectors for space in stats.spaces)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_call_is_refused_with_every_fault(stocked: Suite, name: str) -> None:
    call = REFUSED[name]
    error = await refusal(stocked, call)
    assert error.code() == call.status, error.details()
    assert call.fields <= {fault.field for fault in faults_of(error)}


@pytest.mark.parametrize("name", BAD_EVENTS)
async def test_a_bad_event_is_refused_alone_with_every_fault(stocked: Suite, name: str) -> None:
    bad, fields = BAD_EVENTS[name]
    # of a visitor of its own: the door takes no second view of one product within the same moment
    good = event(event_id=f"beside {name}", visitor_id=f"visitor beside {name}")
    async with stocked.client() as client:
        stub = client.ingest
        request = ingest_pb2.WriteUserEventsRequest(events=[bad, good])
        first, second = (await stub.WriteUserEvents(request, timeout=5)).results
    assert first.outcome == ingest_pb2.WriteResult.OUTCOME_REJECTED
    assert fields <= {violation.field for violation in first.violations}
    assert first.reason
    assert second.outcome == ingest_pb2.WriteResult.OUTCOME_ACCEPTED


@pytest.mark.parametrize("name", BAD_PRODUCTS)
async def test_a_bad_product_is_refused_alone_with_every_fault(stocked: Suite, name: str) -> None:
    bad, fields = BAD_PRODUCTS[name]
    good = common_pb2.Product(id=f"beside {name}", title="fine")
    async with stocked.client() as client:
        stub = client.ingest
        response = await stub.WriteProducts(ingest_pb2.WriteProductsRequest(products=[bad, good]), timeout=5)
    first, second = response.results
    assert first.outcome == ingest_pb2.WriteResult.OUTCOME_REJECTED
    assert fields <= {violation.field for violation in first.violations}
    assert second.outcome == ingest_pb2.WriteResult.OUTCOME_ACCEPTED


async def test_a_refused_event_waits_in_the_dead_letters(stocked: Suite) -> None:
    async with stocked.client() as client:
        stub = client.ingest
        bad = event(event_id="refused once", event_type="teleport")
        await stub.WriteUserEvents(ingest_pb2.WriteUserEventsRequest(events=[bad]), timeout=5)
        letters = (await stub.ListDeadLetters(ingest_pb2.ListDeadLettersRequest(page_size=10), timeout=5)).dead_letters
    assert letters[0].event == bad


UNARY = [
    ("ingest", "IngestService/WriteUserEvents"),
    ("ingest", "IngestService/WriteProducts"),
    ("feature-store", "FeatureStoreService/GetUserState"),
    ("index", "IndexService/Search"),
    ("trainer", "TrainerService/GetRelease"),
    ("ranker", "RankerService/Recommend"),
    ("ranker", "RankerService/Search"),
    ("ranker", "RankerService/Rank"),
]


@pytest.mark.parametrize(("service", "method"), UNARY)
async def test_bytes_that_are_no_message_are_the_callers_fault(stocked: Suite, service: str, method: str) -> None:
    # field 1 as a string or message of two bytes that are neither UTF-8 nor a message
    error = await _raw(stocked, service, method, b"\x0a\x02\xff\xff")
    assert error.code() == INVALID
    assert {fault.field for fault in faults_of(error)} == {"request"}


@pytest.mark.parametrize(("service", "method"), UNARY)
async def test_a_message_of_100_mb_is_refused_and_the_service_goes_on(
    stocked: Suite, service: str, method: str
) -> None:
    error = await _raw(stocked, service, method, bytes(100_000_000))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await stocked.wait_ready([service], timeout_s=5)


async def _raw(suite: Suite, service: str, method: str, data: bytes) -> grpc.aio.AioRpcError:
    async with open_channel(suite.addresses[service], max_message_bytes=200_000_000) as channel:
        call = channel.unary_unary(f"/headrace.v1.{method}", request_serializer=lambda given: given)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(data, timeout=10)
    return caught.value


async def test_a_vector_that_is_not_finite_changes_nothing(stocked: Suite) -> None:
    async with stocked.client() as client:
        stub = client.index
        before = await stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))
        space = before.spaces[0]
        for bad in (np.full((1, space.dimension), np.nan), np.full((1, space.dimension), np.inf), np.ones((1, 3))):
            request = index_pb2.ApplyEmbeddingsRequest(
                space=space.space,
                first_sequence=space.applied_sequence + 1,
                item_ordinals=np.zeros(1, "<u4").tobytes(),
                vectors=matrix(bad),
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.ApplyEmbeddings(iter([request])):
                    pass
            assert caught.value.code() == INVALID
        after = await stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))
    assert after.spaces[0].applied_sequence == space.applied_sequence
    assert after.spaces[0].digest == space.digest


async def test_vectors_for_an_unknown_space_are_refused(stocked: Suite) -> None:
    async with stocked.client() as client:
        stub = client.index
        request = index_pb2.ApplyEmbeddingsRequest(space="nowhere", first_sequence=1, vectors=matrix(ONE))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.ApplyEmbeddings(iter([request])):
                pass
    assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, INVALID)


async def test_an_unknown_user_gets_a_list(stocked: Suite) -> None:
    async with stocked.client() as client:
        stub = client.ranker
        answer = await stub.Recommend(recommend(visitor_id="never-seen"), timeout=5)
    assert len(answer.results) >= 1


async def test_fewer_candidates_than_asked_give_a_shorter_list(stocked: Suite) -> None:
    async with stocked.client() as client:
        stub = client.ranker
        answer = await stub.Recommend(recommend(page_size=500), timeout=5)
    assert 1 <= len(answer.results) < 500


async def test_a_deleted_product_is_in_no_answer(stocked: Suite, eventually: Eventually) -> None:
    async with stocked.client() as client:
        doomed = common_pb2.Product(id="doomed", title="a doomed teapot")
        await client.ingest.WriteProducts(ingest_pb2.WriteProductsRequest(products=[doomed]), timeout=5)
        await eventually(lambda: _finds(client.ranker, "doomed teapot", "doomed"))
        await client.ingest.DeleteProduct(ingest_pb2.DeleteProductRequest(product_id="doomed"), timeout=5)

        async def gone() -> bool:
            return not await _finds(client.ranker, "doomed teapot", "doomed")

        await eventually(gone)
        home = await client.ranker.Recommend(recommend(page_size=500), timeout=5)
    assert "doomed" not in {result.product_id for result in home.results}


async def _finds(ranker: ranker_pb2_grpc.RankerServiceAsyncStub, query: str, product_id: str) -> bool:
    answer = await ranker.Search(ranker_pb2.SearchRequest(query=query, visitor_id="v1"), timeout=5)
    return product_id in {result.product_id for result in answer.results}


async def test_an_empty_catalogue_is_answered_with_an_empty_list(tmp_path: Path) -> None:
    async with Suite(tmp_path) as empty, empty.client() as client:
        home = await client.ranker.Recommend(recommend(), timeout=5)
        found = await client.ranker.Search(ranker_pb2.SearchRequest(query="mug", visitor_id="v1"), timeout=5)
    assert not home.results
    assert not found.results
