"""The door and the feature store as processes that share a log on Kafka's protocol and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.feature_store.fold import State
from headrace.feature_store.records import fact_of
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusRequest, GetUserStateRequest
from headrace.v1.feature_store_pb2_grpc import FeatureStoreServiceStub
from headrace.v1.ingest_pb2 import WriteProductsRequest, WriteResult, WriteUserEventsRequest
from headrace.v1.ingest_pb2_grpc import IngestServiceStub

EVENTS = 200


@contextmanager
def service(name: str, folder: Path, url: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A service's address and its process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    told = {"DATA_DIR": str(folder), "EVENT_LOG_URL": url, f"{name.upper()}_PORT": "0"}
    environment = kept | {f"HEADRACE_{key}": value for key, value in told.items()}
    command = [sys.executable, "-m", f"headrace.{name}"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
            yield next(line["address"] for line in lines if line["event"] == "serving"), process
        finally:
            process.kill()


async def test_what_the_door_takes_is_in_the_features_once_also_when_it_was_killed(
    kafka_url: str, tmp_path: Path
) -> None:
    products = [Product(id=f"p{number}", title=f"Boot {number}") for number in range(5)]
    events = [
        UserEvent(
            event_id=f"e{number}",
            event_type="detail-page-view",
            visitor_id=f"v{number % 7}",
            event_time=Timestamp(seconds=1_500_000_000 + number),
            product_details=[ProductDetail(product_id=f"p{number % 5}")],
        )
        for number in range(EVENTS)
    ]
    with service("feature_store", tmp_path / "features", kafka_url) as (features, _):
        with service("ingest", tmp_path / "door", kafka_url) as (door, process):
            async with open_channel(door) as channel:
                stub = IngestServiceStub(channel)
                await stub.WriteProducts(WriteProductsRequest(products=products), wait_for_ready=True)
                first = await stub.WriteUserEvents(WriteUserEventsRequest(events=events[:150]))
            process.send_signal(signal.SIGKILL)
            process.wait()
        # what the client does not know of it sends again, to a door that has lost its file of known ids
        (tmp_path / "door" / "event-log-ids" / "0.db").unlink()
        with service("ingest", tmp_path / "door", kafka_url) as (door, _):
            async with open_channel(door) as channel:
                stub = IngestServiceStub(channel)
                again = await stub.WriteUserEvents(WriteUserEventsRequest(events=events), wait_for_ready=True)
        async with open_channel(features) as channel:
            store = FeatureStoreServiceStub(channel)
            last = max(result.offset for result in again.results)
            await store.GetUserState(GetUserStateRequest(user_key="v:v0", min_offset=last), timeout=30)
            status = await store.GetFeatureStoreStatus(GetFeatureStoreStatusRequest(with_digest=True))
    known = [result.outcome == WriteResult.OUTCOME_DUPLICATE for result in again.results]
    assert known == [True] * 150 + [False] * 50
    assert [result.offset for result in again.results[:150]] == [result.offset for result in first.results]
    offset, digest = await recounted(kafka_url, tmp_path / "recount")
    assert (status.offset, status.state_digest, status.events_folded) == (offset, digest, EVENTS)


async def recounted(url: str, folder: Path) -> tuple[int, str]:
    """Offset and digest of one fold over the whole log."""
    log, state = open_event_log(CommonSettings(data_dir=folder, event_log_url=url)), State()
    for record in await log.read(0, limit=100_000):
        state.apply(fact_of(record))
    await log.close()
    return state.offset, state.copy().digest()
