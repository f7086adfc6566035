"""One chain of processes for all tests of a module; they go by the order in which they stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from benchmarks.postgres_server import PostgresServer
from headrace.runtime.artifacts import ArtifactStore
from headrace.trainer.registry import Registry, open_registry
from tests.e2e.rollouts.chain import CANARY, LEARNER, RANKER, REGISTRY, USUAL, WIDE, Chain, Stores, phase, until
from tests.e2e.rollouts.shoppers import Shoppers, write_history

_LEARNS = {
    "HEADRACE_TRAINER_DIMENSION": "16",
    "HEADRACE_TRAINER_PUBLISH_EVERY_S": "2",
    "HEADRACE_TRAINER_SLICE_EVERY_S": "0.2",
    "HEADRACE_TRAINER_IMPRESSION_WINDOW_S": "2",
    # releases come by the clock alone, and in one space
    "HEADRACE_TRAINER_LEAST_SKEW": "0",
    "HEADRACE_TRAINER_ROTATE_BELOW": "0",
}
_ANSWERS = {
    # a busy machine is no reason to leave the canary's people to stable
    "HEADRACE_RANKER_CANARY_BUDGET_S": "2",
    "HEADRACE_RANKER_EXPLORE_SHARE": "0.1",
    "HEADRACE_RANKER_REPORT_EVERY_S": "0.3",
    "HEADRACE_RANKER_SHADOW_PER_S": "50",
}
SETTINGS = {
    LEARNER: _LEARNS,
    # it begins later, and is to know soon what the first one had time for
    WIDE: _LEARNS
    | {
        "HEADRACE_TRAINER_DIMENSION": "32",
        "HEADRACE_TRAINER_RANKER_BATCH_GROUPS": "16",
        "HEADRACE_TRAINER_CATCH_UP_SLICE_EVENTS": "250",
    },
    REGISTRY: {
        "HEADRACE_TRAINER_EVIDENCE_WINDOW_S": "2",
        "HEADRACE_ROLLOUT_LOOK_EVERY_S": "0.2",
        "HEADRACE_ROLLOUT_INCREMENT_SOAK_S": "0.5",
        "HEADRACE_ROLLOUT_LINEAGE_SOAK_S": "1",
        "HEADRACE_ROLLOUT_STEPS_BP": "5000",
        "HEADRACE_ROLLOUT_PROMOTE_WAIT_S": "4",
    },
    RANKER: _ANSWERS,
    CANARY: _ANSWERS,
}


@pytest.fixture(scope="module")
async def chain(shared_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """All that a shop runs, with a first release that serves."""
    folder = tmp_path_factory.mktemp("chain")
    url = shared_postgres.new_database().replace("postgresql://", "postgresql+psycopg://")
    stores = Stores(shared_postgres.new_database(), url, folder / "artifacts")
    async with Chain(folder, stores, SETTINGS) as running:
        await running.start(*USUAL)
        await write_history(running.client)

        async def serves() -> bool:
            first = await running.rollout_of((await running.status()).release)
            return first is not None and phase(first) == "PROMOTED"

        await until(serves)
        yield running


@pytest.fixture(scope="module")
def shoppers(chain: Chain) -> Shoppers:
    """People who stay at home until a test lets them shop."""
    return Shoppers(chain.client)


@pytest.fixture(scope="module")
def registry(chain: Chain) -> Iterator[Registry]:
    opened = open_registry(chain.stores.registry)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def store(chain: Chain) -> ArtifactStore:
    return ArtifactStore(str(chain.stores.artifacts))
