"""The whole suite under security, seen from outside: what goes through, and what does not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from benchmarks.postgres_server import PostgresServer
from headrace.cli.main import app
from headrace.client import ApiKey, Deadlines, Shop, connect
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import HeadraceError, PermissionDeniedError, UnauthenticatedError
from headrace.runtime.tls import TlsFiles
from headrace.trainer.plan_rows import PlanChange
from headrace.trainer.registry import open_registry
from headrace.trainer.releases import Releases, Watermark
from headrace.v1 import ranker_pb2, ranker_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import WriteResult
from headrace.v1.ranker_pb2 import RecommendRequest, RecommendResponse
from tests.e2e.secured_suite import SERVICE_OF, SecuredSuite
from tests.security.authority import Authority

Eventually = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCTS = [Product(id=f"p{number}", title=f"mug number {number}") for number in range(8)]
# slow machines are not the matter here
PATIENT = Deadlines(answer_s=10.0)


@pytest.fixture(scope="module")
async def suite(
    tmp_path_factory: pytest.TempPathFactory, shared_postgres: PostgresServer
) -> AsyncIterator[SecuredSuite]:
    async with SecuredSuite(tmp_path_factory.mktemp("secured"), shared_postgres.new_database()) as running:
        yield running


@pytest.fixture(scope="module")
async def shop(suite: SecuredSuite) -> AsyncIterator[Shop]:
    """A storefront with its certificate and key."""
    async with storefront(suite, suite.keys["shop"]) as connected:
        yield connected


def storefront(suite: SecuredSuite, key: str, tls: TlsFiles | None = None) -> Shop:
    return connect(
        ingest=suite.address("ingest"),
        ranker=suite.address("ranker"),
        credentials=ApiKey(key) if key else None,
        tls=tls or suite.certificate("storefront"),
        deadlines=PATIENT,
    )


@pytest.fixture(scope="module")
async def answer(suite: SecuredSuite, shop: Shop, eventually: Eventually) -> RecommendResponse:
    """One event in, one answer out: made from that event, with a signed release."""
    await shop.write_products(PRODUCTS)
    [written] = await shop.write_events([view("p3")])
    assert written.outcome == WriteResult.OUTCOME_ACCEPTED, written
    found = RecommendResponse()

    async def is_whole() -> bool:
        found.CopyFrom(await shop.recommend(recently_viewed()))
        return bool(found.results and found.info.release and not found.info.degraded_reasons)

    await eventually(is_whole)
    return found


def view(product_id: str, visitor: str = "v") -> UserEvent:
    event = UserEvent(event_type="detail-page-view", visitor_id=visitor)
    event.product_details.append(ProductDetail(product_id=product_id))
    event.event_time.FromMicroseconds(time.time_ns() // 1_000)
    return event


def recently_viewed() -> RecommendRequest:
    return RecommendRequest(serving_config="recently-viewed", visitor_id="v", page_size=3)


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def headrace(suite: SecuredSuite, tenant: str, trainer: str, *arguments: str) -> tuple[int, str, str]:
    """Runs the command as an operator; status, standard output, standard error."""
    at = {name: name for name in ("ingest", "feature-store", "index", "ranker")} | {"trainer": trainer}
    addresses = [f"--address={service}={suite.address(name)}" for service, name in at.items()]
    environment = suite.command_environment(tenant) | {"COLUMNS": "160", "HEADRACE_DATA_DIR": str(suite.folder / "cli")}
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *addresses], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


async def test_one_event_goes_in_and_one_answer_comes_out(answer: RecommendResponse) -> None:
    assert [found.product_id for found in answer.results] == ["p3"]
    assert answer.info.release == "r-000001"
    assert answer.info.track == "stable"


@pytest.mark.parametrize(("key", "error"), [("", UnauthenticatedError), ("hr_false", UnauthenticatedError)])
async def test_without_a_key_nobody_is_let_in(suite: SecuredSuite, key: str, error: type[HeadraceError]) -> None:
    async with storefront(suite, key) as nobody:
        for call in (nobody.recommend(recently_viewed()), nobody.write_events([view("p1")])):
            with pytest.raises(error):
                await call


async def test_a_key_for_reading_does_not_write(suite: SecuredSuite, answer: RecommendResponse) -> None:
    async with storefront(suite, suite.keys["reader"]) as reader:
        assert (await reader.recommend(recently_viewed())).results
        with pytest.raises(PermissionDeniedError, match="'write'"):
            await reader.write_events([view("p1")])


async def test_a_foreign_certificate_gets_no_connection(suite: SecuredSuite, tmp_path: Path) -> None:
    foreign = Authority("somebody else")
    theirs = foreign.write(tmp_path / "foreign", foreign.pair("operator"))
    # what they trust is not the matter here
    theirs.ca.write_bytes(suite.authority.pem)
    request = ranker_pb2.GetRankerStatusRequest()
    metadata = (("x-api-key", suite.keys["operations"]),)
    for tls in (theirs, None):
        async with open_channel(suite.address("ranker"), tls=tls, retries=False) as channel:
            status = ranker_pb2_grpc.RankerServiceStub(channel).GetRankerStatus(request, metadata=metadata, timeout=5)
            assert (await refusal(status)).code() == grpc.StatusCode.UNAVAILABLE


async def test_plans_and_reports_are_for_rankers_and_rollouts_for_who_may_change_them(suite: SecuredSuite) -> None:
    async def codes(caller: str, tenant: str) -> list[str]:
        metadata = (("x-api-key", suite.keys[tenant]),) if tenant else ()
        async with open_channel(suite.address("registry"), tls=suite.certificate(caller)) as channel:
            stub: Any = trainer_pb2_grpc.TrainerServiceStub(channel)
            plan = stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest(), metadata=metadata, timeout=10)
            report = stub.ReportServing(trainer_pb2.ReportServingRequest(), metadata=metadata, timeout=10)
            promote = stub.PromoteRollout(
                trainer_pb2.PromoteRolloutRequest(rollout="ro-999999"), metadata=metadata, timeout=10
            )
            return [await code(plan.read()), await code(report), await code(promote)]

    async def code(call: Awaitable[Any]) -> str:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    denied, allowed = "PERMISSION_DENIED", "INVALID_ARGUMENT"
    # an empty report is refused for what it lacks: it was let in
    assert await codes("ranker", "") == ["OK", allowed, denied]
    for service in ("index", "ingest", "storefront"):
        assert await codes(service, "operations") == [denied, denied, denied]
    assert (await codes("operator", ""))[2] == "UNAUTHENTICATED"
    assert (await codes("operator", "reader"))[2] == denied
    assert (await codes("operator", "operations"))[2] == "NOT_FOUND"


async def test_the_command_works_with_a_certificate_and_a_key(suite: SecuredSuite, answer: RecommendResponse) -> None:
    status, output, errors = await headrace(suite, "reader", "learner", "status", "--json")
    assert status == 0, output + errors
    assert json.loads(output)["release"]["served"] == answer.info.release
    _, output, errors = await headrace(suite, "reader", "registry", "rollout", "status")
    assert answer.info.release in output, errors
    status, _, errors = await headrace(suite, "reader", "registry", "rollout", "pause")
    assert (status, "PERMISSION_DENIED" in errors, "rollout:write" in errors) == (1, True, True)


async def test_up_starts_services_that_only_the_suites_certificates_reach(suite: SecuredSuite, tmp_path: Path) -> None:
    environment = suite.command_environment("operations") | {"HEADRACE_DATA_DIR": str(tmp_path)}
    command = (sys.executable, "-m", "headrace.cli.main", "up", "--only", "ingest", "--json")
    up = await asyncio.create_subprocess_exec(*command, env=inherited() | environment, stdout=asyncio.subprocess.PIPE)
    assert up.stdout is not None
    while b'"ready"' not in await up.stdout.readline():
        assert up.returncode is None
    up.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(up.wait(), 30) == 0


def inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}


async def test_replaced_certificates_cost_no_call(
    suite: SecuredSuite, shop: Shop, answer: RecommendResponse, eventually: Eventually
) -> None:
    over, calls = asyncio.Event(), 0

    async def traffic(visitor: str) -> None:
        nonlocal calls
        while not over.is_set():
            assert (await shop.recommend(recently_viewed())).results
            [written] = await shop.write_events([view(f"p{calls % 8}", f"{visitor}-{calls}")])
            assert written.outcome == WriteResult.OUTCOME_ACCEPTED, written
            calls += 2

    before = {name: await asyncio.to_thread(shown_by, suite.address(name)) for name in SERVICE_OF}
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(traffic(f"renewed-{number}"))
        for name in (*SERVICE_OF, "storefront"):
            suite.certificate(name)

        async def all_are_renewed() -> bool:
            shown = [await asyncio.to_thread(shown_by, suite.address(name)) for name in before]
            return not set(shown) & set(before.values())

        await eventually(all_are_renewed)
        renewed = calls

        async def went_on() -> bool:
            return calls >= renewed + 20

        await eventually(went_on)
        over.set()


def shown_by(address: str) -> str:
    """The certificate that a server shows to somebody without one."""
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port)))


async def test_the_canary_track_answers_over_mutual_tls(
    suite: SecuredSuite, shop: Shop, answer: RecommendResponse, eventually: Eventually
) -> None:
    with closing(open_registry(suite.registry_url)) as registry:
        everybody = PlanChange(canary=1, rollout="ro-000099", salt="salt", share_bp=10_000)
        await asyncio.to_thread(registry.change_plan, everybody)

        async def is_asked() -> bool:
            return (await shop.recommend(recently_viewed())).info.track == "canary"

        await eventually(is_asked)
        await asyncio.to_thread(registry.change_plan, PlanChange(canary=0, rollout="", salt="", share_bp=0))


async def test_an_unsigned_release_is_refused_and_named_by_ranker_and_registry(
    suite: SecuredSuite, shop: Shop, answer: RecommendResponse, eventually: Eventually
) -> None:
    with closing(open_registry(suite.registry_url)) as registry:
        signed = await asyncio.to_thread(registry.release, answer.info.release)
        store = ArtifactStore(str(suite.artifacts))
        # somebody who can write to both, and has not got the key
        intruder = Releases(store, registry, 9)
        parts = await asyncio.to_thread(intruder.parts, signed)
        mark = Watermark(signed.lineage, signed.space, signed.delta_sequence, signed.log_offset)
        forged = await asyncio.to_thread(intruder.publish, parts, mark, {})

        async with open_channel(suite.address("registry"), tls=suite.certificate("operator")) as channel:
            stub: Any = trainer_pb2_grpc.TrainerServiceStub(channel)
            metadata = (("x-api-key", suite.keys["reader"]),)

            async def is_rolled_back() -> bool:
                found = await stub.GetRolloutHistory(
                    trainer_pb2.GetRolloutHistoryRequest(), metadata=metadata, timeout=10
                )
                return any(f"{forged.name} is not signed" in one.reason for one in found.transitions)

            await eventually(is_rolled_back)
        # nor does it serve where the plan itself is changed behind the registry's back
        await asyncio.to_thread(registry.change_plan, PlanChange(stable=forged.number))
        async with open_channel(suite.address("ranker"), tls=suite.certificate("operator")) as channel:
            ranker: Any = ranker_pb2_grpc.RankerServiceStub(channel)

            async def is_refused() -> bool:
                found = await ranker.GetRankerStatus(ranker_pb2.GetRankerStatusRequest(), metadata=metadata, timeout=10)
                return found.refused_release == forged.name and "is not signed" in found.refused_reason

            await eventually(is_refused)
        assert (await shop.recommend(recently_viewed())).info.release == answer.info.release
