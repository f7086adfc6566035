"""Devices and persons in a running suite, from the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from headrace.cli.client import Client
from headrace.cli.main import app
from headrace.cli.suite import Suite
from headrace.runtime.clock import now_us
from headrace.runtime.rpc_status import faults_of
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from headrace.v1.feature_store_pb2 import GetUserStateRequest, GetUserStateResponse
from headrace.v1.ingest_pb2 import ChangeIdentityRequest, WriteUserEventsRequest


def view(product: str, *, visitor: str, user: str = "") -> UserEvent:
    event = UserEvent(
        event_type="detail-page-view",
        visitor_id=visitor,
        user_id=user,
        product_details=[ProductDetail(product_id=product)],
    )
    event.event_time.FromMicroseconds(now_us())
    return event


async def told(folder: Path, *arguments: str) -> dict[str, Any]:
    given = ["identity", *arguments, "--data-dir", str(folder), "--json"]
    answer = await asyncio.to_thread(CliRunner().invoke, app, given)
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


async def state_of(client: Client, key: str, offset: int) -> GetUserStateResponse:
    return await client.feature_store.GetUserState(GetUserStateRequest(user_key=key, min_offset=offset), timeout=20)


async def test_a_device_joins_at_log_in_parts_and_joins_again(tmp_path: Path) -> None:
    async with Suite(tmp_path, services=("ingest", "feature-store")) as suite, suite.client() as client:
        events = [view("lamp", visitor="phone"), view("chair", visitor="phone", user="ann")]
        written = await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=events), timeout=20)
        offset = written.results[-1].offset
        served = await state_of(client, "v:phone", offset)

        shown = await told(tmp_path, "show", "--visitor", "phone")
        split = await told(tmp_path, "split", "--visitor", "phone", "--user", "ann")
        alone = await state_of(client, "v:phone", split["offset"])
        joined = await told(tmp_path, "join", "--visitor", "phone", "--user", "ann")

    assert (served.person_key, list(served.device_keys)) == ("u:ann", ["v:phone"])
    assert (shown["person"], shown["devices"], shown["events"]) == ("u:ann", ["v:phone"], 2)
    assert (split["devices"], split["events"]) == ([], 1)
    assert (alone.person_key, len(alone.history.event_types)) == ("v:phone", 1)
    assert joined["events"] == 2


async def test_every_fault_of_a_change_is_told(tmp_path: Path) -> None:
    async with Suite(tmp_path, services=("ingest",)) as suite, suite.client() as client:
        request = ChangeIdentityRequest(user_id="x" * 200, change=ChangeIdentityRequest.CHANGE_JOIN)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.ingest.ChangeIdentity(request, timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await client.ingest.ChangeIdentity(ChangeIdentityRequest(visitor_id="v", user_id="u"), timeout=20)
    assert [fault.field for fault in faults_of(refused.value)] == ["visitor_id", "user_id"]
    assert [fault.field for fault in faults_of(unknown.value)] == ["change"]
