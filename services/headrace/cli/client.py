"""A client of a running suite: one typed stub a service, over channels that survive restarts."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from headrace.cli.suite_file import CANDIDATE_LEARNER, CANDIDATE_RANKER
from headrace.runtime.access import AUTHORIZATION
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import NotFoundError
from headrace.runtime.saying_channel import SayingChannel
from headrace.runtime.tls import TlsFiles
from headrace.v1.feature_store_pb2_grpc import FeatureStoreServiceStub
from headrace.v1.index_pb2_grpc import IndexServiceStub
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.ranker_pb2_grpc import RankerServiceStub
from headrace.v1.trainer_pb2_grpc import TrainerServiceStub

if TYPE_CHECKING:
    from headrace.v1.feature_store_pb2_grpc import FeatureStoreServiceAsyncStub
    from headrace.v1.index_pb2_grpc import IndexServiceAsyncStub
    from headrace.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from headrace.v1.ranker_pb2_grpc import RankerServiceAsyncStub
    from headrace.v1.trainer_pb2_grpc import TrainerServiceAsyncStub


class Client:
    """Stubs by service for `addresses` (service → host:port); a channel opens at first use.

    With `api_key` (a JSON Web Token will do too) every call says who makes it.
    NotFoundError when a service is asked for whose address is not known.
    """

    def __init__(self, addresses: Mapping[str, str], tls: TlsFiles | None = None, api_key: str = "") -> None:
        self.addresses = dict(addresses)
        self._tls = tls
        self._said = ((AUTHORIZATION, f"Bearer {api_key}"),) if api_key else ()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    @property
    def ingest(self) -> IngestServiceAsyncStub:
        return IngestServiceStub(self._channel("ingest"))

    @property
    def feature_store(self) -> FeatureStoreServiceAsyncStub:
        return FeatureStoreServiceStub(self._channel("feature-store"))

    @property
    def trainer(self) -> TrainerServiceAsyncStub:
        return TrainerServiceStub(self._channel("trainer"))

    @property
    def candidate(self) -> TrainerServiceAsyncStub:
        """The second learner of a suite that tries another lineage."""
        return TrainerServiceStub(self._channel(CANDIDATE_LEARNER))

    @property
    def canary(self) -> RankerServiceAsyncStub:
        """Its canary ranker."""
        return RankerServiceStub(self._channel(CANDIDATE_RANKER))

    @property
    def index(self) -> IndexServiceAsyncStub:
        return IndexServiceStub(self._channel("index"))

    @property
    def ranker(self) -> RankerServiceAsyncStub:
        return RankerServiceStub(self._channel("ranker"))

    def _channel(self, service: str) -> grpc.aio.Channel:
        if service not in self.addresses:
            raise NotFoundError(f"no address of {service} is known; known: {', '.join(self.addresses) or 'none'}")
        if service not in self._channels:
            channel = open_channel(self.addresses[service], tls=self._tls)
            self._channels[service] = SayingChannel(channel, self._said) if self._said else channel
        return self._channels[service]
