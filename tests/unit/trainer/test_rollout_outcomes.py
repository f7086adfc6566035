"""What people did, by the log: whose token earns credit, how often and until when; and what was foretold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from headrace.model.arms import STABLE
from headrace.model.attribution import Tokens
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.privacy import UNKEYED
from headrace.trainer.analysis.observations import Observed
from headrace.trainer.analysis.policy import CanaryPolicy
from headrace.trainer.rollouts.evidence import LINEAGE
from headrace.trainer.rollouts.outcomes import LoggedOutcomes
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout
from headrace.v1 import common_pb2, log_pb2

RO, MINUTE_US = "ro-000001", 60_000_000
BEGAN_US = 1_000 * MINUTE_US
TOKENS = Tokens(UNKEYED.derived("attribution tokens"))
FORGED = Tokens(b"x" * 32)


def _rollout() -> Rollout:
    head = (1, LINEAGE, STABLE, 0, Phase.CANARY, None, 2, 1, "other", "salt")
    return Rollout(*head, 0.05, 1_000, 0, 0, (1_000,), "", (), (), {}, 0, 0, 1)


class Log:
    """Records of one rollout's step, and what is made of them."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def shown(self, person: str, arm: str, items: list[int], clicks: tuple[float, ...] = ()) -> str:
        token = TOKENS.new(release="r-000002", user_key=person, time_us=BEGAN_US, rollout=RO, arm=arm)
        impression = log_pb2.Impression(
            attribution_token=token,
            user_key=person,
            rollout=RO,
            arm=arm,
            item_ordinals=np.array(items, "<u4").tobytes(),
            click_probabilities=np.array(clicks, "<f4").tobytes(),
            time_us=BEGAN_US,
        )
        self._add("impression", person, BEGAN_US, impression)
        return token

    def looked(
        self, person: str, item: int, minute: float, token: str = "", *, refused: bool = False, device: str = ""
    ) -> None:
        at = BEGAN_US + int(minute * MINUTE_US)
        event = common_pb2.UserEvent(event_type="detail-page-view", attribution_token=token, visitor_id=device)
        logged = log_pb2.LoggedUserEvent(
            event=event, user_key=person, item_ordinals=[item], event_time_us=at, token_refused=refused
        )
        self._add("user-event", person, at, logged)

    def _add(self, kind: str, key: str, at: int, payload: object) -> None:
        name = f"{kind}-{len(self.records)}"
        self.records.append(Record(kind, key, name, at, payload.SerializeToString()))  # type: ignore[attr-defined]

    async def observed(self, folder: Path) -> Observed:
        self.looked("u:nobody", 99, 600)
        log = SqliteEventLog(folder / "log.db")
        await log.append(self.records)
        rollout = _rollout()
        outcomes = LoggedOutcomes(log, UNKEYED, CanaryPolicy(), lambda: [rollout], 1_000)
        following = asyncio.create_task(outcomes.run())
        try:
            async with asyncio.timeout(30):
                while outcomes.observed(rollout, 0) is None:  # noqa: ASYNC110  # it is asked, and tells nobody
                    await asyncio.sleep(0.01)
        finally:
            following.cancel()
            await asyncio.wait([following])
            await log.close()
        found = outcomes.observed(rollout, 0)
        assert found is not None
        return found


def _clicks(found: Observed) -> float:
    return found.metrics[0].canary.sums[0]


async def test_an_answer_earns_an_item_and_an_event_type_once(tmp_path: Path) -> None:
    log = Log()
    token = log.shown("u:eve", "canary", [1, 2])
    for minute in (1, 2, 3):
        log.looked("u:eve", 1, minute, token)
    log.looked("u:eve", 2, 4)
    log.looked("u:eve", 2, 5, token)
    assert _clicks(await log.observed(tmp_path)) == 2.0


@pytest.mark.parametrize("what", ["forged", "another's", "refused", "late", "not in the list"])
async def test_what_is_worth_nothing_earns_nothing(tmp_path: Path, what: str) -> None:
    log = Log()
    eves, bobs = log.shown("u:eve", "canary", [1]), log.shown("u:bob", "canary", [1])
    if what == "forged":
        log.looked("u:eve", 1, 1, FORGED.new(release="r-000002", user_key="u:eve", time_us=BEGAN_US))
    elif what == "another's":
        log.looked("u:eve", 1, 1, bobs)
    elif what == "refused":
        log.looked("u:eve", 1, 1, refused=True)
    elif what == "late":
        log.looked("u:eve", 1, 31, eves)
    else:
        log.looked("u:eve", 7, 1, eves)
    assert _clicks(await log.observed(tmp_path)) == 0.0


async def test_who_logs_in_brings_the_devices_token(tmp_path: Path) -> None:
    log = Log()
    token = log.shown("v:phone", "canary", [1])
    log.looked("u:eve", 1, 1, token, device="phone")
    found = await log.observed(tmp_path)
    assert (_clicks(found), found.canary.people) == (1.0, 1)


async def test_foretold_clicks_stand_beside_those_that_came(tmp_path: Path) -> None:
    log = Log()
    token = log.shown("u:eve", "canary", [1, 2], clicks=(0.5, 0.25))
    log.shown("u:bob", "stable", [1, 2], clicks=(0.125, float("nan")))
    log.looked("u:eve", 1, 1, token)
    log.looked("u:bob", 1, 1)
    found = await log.observed(tmp_path)
    assert (found.canary.predicted, found.canary.clicked) == (0.75, 1.0)
    # numbers that are none foretell nothing
    assert (found.stable.predicted, found.stable.clicked) == (0.0, 0.0)
