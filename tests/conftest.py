"""What tests of several parts share.

Numeric libraries use one thread in tests as in production; set before anything imports them. Orders of answers are
not drawn by chance.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headrace.runtime.threads import limit_threads

limit_threads()

# one answer in fifty would come in another order; tests of exploration switch it on
os.environ.setdefault("HEADRACE_RANKER_EXPLORE_SHARE", "0")

import numpy as np  # noqa: E402

from benchmarks.kafka_mock import KafkaMock, kafka_mock  # noqa: E402
from benchmarks.postgres_server import NoPostgresError, PostgresServer, binaries, postgres_server  # noqa: E402
from benchmarks.redis_server import NoRedisError, RedisServer, binary, redis_server  # noqa: E402
from headrace.model.text.encoder import EncoderName, TextEncoder  # noqa: E402
from headrace.model.text.errors import TextEncoderError  # noqa: E402
from headrace.model.text.pretrained import Pretrained  # noqa: E402


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    """The packaged encoder. Without it the test is skipped, or fails where TEST_REQUIRE_TEXT says so."""
    try:
        return Pretrained().encoder()
    except TextEncoderError as error:
        if os.environ.get("TEST_REQUIRE_TEXT"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def has_postgres() -> None:
    """Without a PostgreSQL the test is skipped, or fails where TEST_REQUIRE_POSTGRES says so."""
    try:
        binaries()
    except NoPostgresError as error:
        if os.environ.get("TEST_REQUIRE_POSTGRES"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_postgres(has_postgres: None) -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(shared_postgres: PostgresServer) -> str:
    """An empty database on a server that all tests share."""
    return shared_postgres.new_database()


@pytest.fixture(scope="session")
def shared_kafka() -> Iterator[KafkaMock]:
    with kafka_mock() as mock:
        yield mock


@pytest.fixture
def kafka_url(request: pytest.FixtureRequest) -> str:
    """An empty topic on a mock cluster that all tests share, or on the brokers at TEST_KAFKA_BOOTSTRAP."""
    if brokers := os.environ.get("TEST_KAFKA_BOOTSTRAP"):
        return f"kafka://{brokers}/headrace-test-{uuid.uuid4().hex}"
    mock: KafkaMock = request.getfixturevalue("shared_kafka")
    return mock.new_topic()


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def own_postgres(has_postgres: None) -> Iterator[PostgresServer]:
    """A server for one test, which may kill it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def has_redis() -> None:
    """Without a Redis the test is skipped, or fails where TEST_REQUIRE_REDIS says so."""
    try:
        binary()
    except NoRedisError as error:
        if os.environ.get("TEST_REQUIRE_REDIS"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_redis(has_redis: None) -> Iterator[RedisServer]:
    with redis_server(is_synced=False) as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster(has_redis: None) -> Iterator[RedisServer]:
    """A cluster of one node: it has all slots, and refuses what would not stay in one."""
    with redis_server(is_cluster=True, is_synced=False) as server:
        yield server


@pytest.fixture
def own_redis(has_redis: None) -> Iterator[RedisServer]:
    """A server for one test, which may kill it."""
    with redis_server() as server:
        yield server


class LengthEncoder:
    """A frozen encoder that knows no words: the first of its two numbers grows with a text's length."""

    name = EncoderName("lengths", "0" * 64)
    width = 2

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        angles = np.array([min(len(text), 90) / 60 for text in texts], np.float32)
        vectors = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        return np.where(angles[:, None] > 0, vectors, 0).astype(np.float32)


@pytest.fixture
def lengths() -> LengthEncoder:
    return LengthEncoder()
